"""Any manager answers: managers with real sockets and TLS files, and a leader that a test names."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from halo.core.errors import CommandFailed, CommandRefused, PeerSilent, PeerUnreachable
from halo.core.journal.fold import apply
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from halo.core.status.store import StoreAlarm, StoreMember, StoreSeen
from halo.manager.api.headers import LEADER
from halo.manager.peers import forwarding
from halo.manager.peers.forwarding import Forwarder, NoLeaderError, UnclearError
from halo.ports import Known, Lead, PeerAnswer, PeerRequest
from tests.certificates import Authority
from tests.fakes.http_operations import short_folder
from tests.fakes.managers import FakeManager, FakeStanding, manager, managers_in
from tests.openapi_contract import answer_faults

A_STATUS = {"resources": [], "hosts": [{"id": "oss00"}], "events": []}


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as found:
        yield found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def pair(folder: Path, authority: Authority) -> AsyncIterator[list[FakeManager]]:
    """The first one leads."""
    async with managers_in(folder, authority, "1", "2", leader="1") as made:
        made[0].operations.current = A_STATUS
        made[0].operations.current_root = A_STATUS
        yield made


def headers_of(socket_path: str, path: str) -> dict[str, str]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(socket_path)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return dict(answer.getheaders())


@pytest.mark.parametrize("path", ["/v1/status", "/status", "/v1/version", "/v1/openapi.json"])
async def test_every_manager_gives_the_leaders_answer(pair: list[FakeManager], path: str) -> None:
    first, second = pair
    answer = await second.ask("GET", path)
    assert answer.status == 200
    assert answer == await first.ask("GET", path)


async def test_a_leader_that_was_deposed_answers_nothing_from_its_memory(
    pair: list[FakeManager],
) -> None:
    """Not even a refusal: its memory may be that of the time before a standstill."""
    first = pair[0]
    first.deposed = "this manager does not lead any more: its lease has expired"
    first.operations.errors["stop"] = CommandRefused("g is unmanaged.")
    assert LEADER not in await asyncio.to_thread(headers_of, first.socket, "/v1/status")
    for each in pair:
        for path in ("/v1/status", "/status", "/v1/version"):
            answer = await each.ask("GET", path)
            assert (answer.status, answer.sentence) == (
                503,
                f"No answer: {first.deposed}. Try again.",
            )
        for command in ("stop", "start"):
            answer = await each.ask("POST", "/v1/groups/g", {"command": command})
            assert answer.status == 503
            assert "may have taken effect: look at `halo status`" in answer.sentence


async def test_a_leader_that_is_deposed_while_it_answers_does_not_answer(
    pair: list[FakeManager],
) -> None:
    first, second = pair
    first.operations.gate.clear()
    asking = asyncio.ensure_future(second.ask("POST", "/v1/groups/g", {"command": "stop"}))
    await until(lambda: first.operations.calls)
    first.deposed = "this manager does not lead any more: its lease has expired"
    first.operations.gate.set()
    assert (await asking).status == 503


@pytest.mark.parametrize(
    "path", ["/v1/status", "/status", "/v1/nowhere", "/nowhere", "/v1/cluster"]
)
async def test_every_answer_names_the_leader(pair: list[FakeManager], path: str) -> None:
    first, second = [await asyncio.to_thread(headers_of, each.socket, path) for each in pair]
    assert first[LEADER] == second[LEADER] == "1"
    same = ("Content-Type", "Content-Length", "Allow")
    assert [first.get(name) for name in same] == [second.get(name) for name in same]


async def test_what_a_manager_answers_itself_names_the_leader_too(
    pair: list[FakeManager],
) -> None:
    first, second = pair
    table = await asyncio.to_thread(headers_of, second.socket, "/v1/managers")
    await first.end()
    refusal = await asyncio.to_thread(headers_of, second.socket, "/v1/status")
    assert table[LEADER] == refusal[LEADER] == "1"


async def test_a_command_is_carried_out_by_the_leader_once(pair: list[FakeManager]) -> None:
    first, second = pair
    body = {"command": "fence", "force": True, "comment": "ü"}
    assert (await second.ask("POST", "/v1/hosts/a%2Fb", body)).sentence == "fence is done."
    assert first.operations.calls == [("fence", "a/b", True, "ü")]
    assert second.operations.calls == []
    assert (await second.ask("POST", "/hosts/h", {"command": "reset"})).status == 200
    assert (await second.ask("PATCH", "/resources/g", {"managed": False})).status == 200
    assert [call[0] for call in first.operations.calls] == ["fence", "reset", "set_managed"]


async def test_a_refusal_is_that_of_the_leader(pair: list[FakeManager]) -> None:
    first, second = pair
    first.operations.errors["fence"] = CommandRefused("It has been fenced already.")
    for path, body in (
        ("/v1/hosts/h", {"command": "fence"}),
        ("/hosts/h", {"command": "fence"}),
        ("/v1/hosts/h", {"command": "dance"}),
        ("/v1/groups/g", {"command": "start", "comment": "x" * 70_000}),
    ):
        told = await second.ask("POST", path, dict(body))
        assert told.status in (400, 409, 413)
        assert told == await first.ask("POST", path, dict(body))


async def test_the_leader_logs_who_asked_the_other_manager(pair: list[FakeManager]) -> None:
    with capture_logs() as logged:
        await pair[1].ask("POST", "/v1/cluster", {"command": "freeze"})
    (line,) = [entry for entry in logged if entry["event"] == "command"]
    assert (line["uid"], line["pid"], line["via"]) == (os.getuid(), os.getpid(), "2")


async def test_nobody_on_the_unix_socket_can_say_that_another_asked(
    pair: list[FakeManager],
) -> None:
    def ask() -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(pair[0].socket)
            body = b'{"command": "freeze"}'
            client.sendall(
                b"POST /v1/cluster HTTP/1.0\r\nX-Halo-Forwarded: 9\r\n"
                b"X-Halo-Asker: uid=4242 pid=4242\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            client.recv(1000)

    with capture_logs() as logged:
        await asyncio.to_thread(ask)
    (line,) = [entry for entry in logged if entry["event"] == "command"]
    assert line["uid"] != 4242
    assert "via" not in line


# --- loops ----------------------------------------------------------------------------------------


async def test_a_request_never_goes_in_a_circle(folder: Path, authority: Authority) -> None:
    """Each believes that the other leads."""
    async with managers_in(folder, authority, "1", "2", leader="none") as (first, second):
        first.standing.leads, second.standing.leads = "2", "1"
        for each in (first, second):
            for method, path, body in (
                ("GET", "/v1/status", None),
                ("POST", "/v1/cluster", {"command": "freeze"}),
            ):
                begun = time.monotonic()
                answer = await each.ask(method, path, body)
                assert time.monotonic() - begun < 5.0
                assert answer.status == 503
                assert "does not lead" in answer.sentence
                assert answer_faults(method, path, 503, answer.content) == []
            bare = await each.ask("GET", "/status")
            assert bare.status == 503
            assert bare.content.startswith("Manager ")


async def test_a_marked_request_on_the_unix_socket_is_not_sent_on(pair: list[FakeManager]) -> None:
    def ask() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(pair[1].socket)
            client.sendall(b"GET /v1/status HTTP/1.0\r\nX-Halo-Forwarded: 9\r\n\r\n")
            return client.recv(1000)

    assert b" 503 " in (await asyncio.to_thread(ask)).split(b"\r\n")[0]


# --- without a leader -----------------------------------------------------------------------------


def a_journal() -> Remembered:
    remembered = Remembered()
    for number in range(30):
        apply(remembered, Record(1000.0 + number, Event.STOP, "g", f"order {number}"))
    apply(remembered, Record(1100.0, Event.UNMANAGE, "f", "by hand"))
    apply(remembered, Record(1200.0, Event.DEACTIVATE, "oss00", "disks"))
    return remembered


async def test_without_a_leader_the_answer_says_what_is_known_and_how_old_it_is(
    pair: list[FakeManager],
) -> None:
    second = pair[1]
    second.standing.leads = None
    second.standing.wrong = "etcd does not answer"
    second.standing.memory = Known(a_journal(), as_of=time.time() - 95, entries=32)
    answer = await second.ask("GET", "/v1/status")
    assert answer.status == 503
    assert answer_faults("GET", "/v1/status", 503, answer.content) == []
    assert answer.sentence.startswith(
        "This manager does not know who leads: etcd does not answer. "
    )
    assert "95 s ago" in answer.sentence
    known = answer.content["known"]
    assert known["groups"] == {
        "g": {"wanted": False, "managed": True},
        "f": {"wanted": True, "managed": False},
    }
    assert known["hosts"] == {"oss00": {"active": False, "fenced": False}}
    assert known["entries"] == 32
    assert [event["comment"] for event in known["events"]][-3:] == ["order 29", "by hand", "disks"]
    assert len(known["events"]) == 10
    bare = await second.ask("GET", "/status")
    assert (bare.status, bare.content) == (503, answer.sentence)
    refused = await second.ask("POST", "/v1/cluster", {"command": "freeze"})
    assert (refused.status, refused.sentence) == (503, answer.sentence)


async def test_a_journal_that_was_never_read_is_not_shown_as_empty_orders(
    pair: list[FakeManager],
) -> None:
    pair[1].standing.leads = None
    answer = await pair[1].ask("GET", "/v1/status")
    assert answer.content == {
        "error": "This manager does not know who leads. This manager has not read the journal yet."
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_leader_that_is_gone_is_named_and_nothing_was_done(
    pair: list[FakeManager], method: str
) -> None:
    first, second = pair
    await first.end()
    body = {"command": "freeze"} if method == "POST" else None
    answer = await second.ask(method, "/v1/cluster", body)
    assert answer.status == 503
    assert (
        "Manager 1 on localhost, which leads, cannot be asked: connection refused."
        in answer.sentence
    )
    assert "may have taken effect" not in answer.sentence


async def test_how_long_a_leader_that_is_gone_is_still_waited_for_is_said(
    pair: list[FakeManager],
) -> None:
    first, second = pair
    await first.end()
    second.standing.lead = Lead("1", 1000.0)
    assert "lease" not in (await second.ask("GET", "/v1/status")).sentence
    second.standing.lead = Lead("1", 1000.0, silent_since=1005.0, ends_in_s=5.2)
    assert (
        "cannot be asked: connection refused. It has not renewed its lease for too long: the lease "
        "ends in at most 6 s, then another manager leads."
    ) in (await second.ask("GET", "/v1/status")).sentence


async def test_a_leader_without_a_port_is_said_to_have_none(pair: list[FakeManager]) -> None:
    pair[1].standing.seen = [manager("1"), manager("2")]
    assert "--peer-listen" in (await pair[1].ask("GET", "/v1/status")).sentence


async def test_a_manager_without_a_certificate_says_so(pair: list[FakeManager]) -> None:
    pair[1].forwarder.peers = None
    pair[1].forwarder.why_not = "this manager has no certificate /etc/halo/peer.crt"
    assert "no certificate /etc" in (await pair[1].ask("GET", "/v1/status")).sentence


# --- the leader dies, or changes ------------------------------------------------------------------


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # of another thread, too
            await asyncio.sleep(0.01)


async def test_a_leader_that_dies_in_the_middle_of_a_command_leaves_it_open(
    pair: list[FakeManager],
) -> None:
    first, second = pair
    first.operations.gate.clear()
    asking = asyncio.create_task(second.ask("POST", "/v1/hosts/h", {"command": "fence"}))
    await until(first.operations.entered.is_set)
    first.connections.close()
    answer = await asking
    assert answer.status == 503
    assert "may have taken effect: look at `halo status`" in answer.sentence
    assert len(first.operations.calls) == 1
    first.operations.gate.set()


async def test_a_command_is_not_waited_for_when_another_manager_leads(
    pair: list[FakeManager],
) -> None:
    """The old leader may have lost its power: no packet will ever end the connection."""
    first, second = pair
    first.operations.gate.clear()
    asking = asyncio.create_task(second.ask("POST", "/v1/hosts/h", {"command": "fence"}))
    await until(first.operations.entered.is_set)
    second.standing.leads = None  # that nobody is known to lead proves nothing
    await asyncio.sleep(forwarding.WATCH_S * 3)
    assert not asking.done()
    second.standing.leads, second.standing.term = "2", 8
    answer = await asking
    assert answer.status == 503
    assert "another manager leads meanwhile. The command may have taken effect" in answer.sentence
    first.operations.gate.set()


class Script:
    """Other managers that do what a test says: a list of what each request meets."""

    def __init__(self, *meets: Exception | PeerAnswer, then: Callable[[], None] | None = None):
        self.meets = list(meets)
        self.asked: list[str] = []
        self.then = then

    async def ask(
        self, url: str, request: PeerRequest, deadline_s: float, sending: Callable[[], None]
    ) -> PeerAnswer:
        self.asked.append(url)
        met = self.meets.pop(0)
        if self.then is not None:
            self.then()
        if isinstance(met, PeerAnswer):
            sending()
            return met
        raise met


DONE = PeerAnswer(200, b"{}", "application/json")
UNSENT, LOST = PeerUnreachable("refused"), PeerSilent("broken off")


def forwarder(script: Script, *, changes: bool) -> Forwarder:
    """Of manager 3. Manager 1 leads, and after the first request manager 2 if `changes`."""
    standing = FakeStanding("3")
    standing.seen = [manager("1", "one"), manager("2", "two"), manager("3", "three")]
    standing.leads = "1"
    if changes:
        script.then = lambda: setattr(standing, "leads", "2")
    return Forwarder(standing, script)


@pytest.mark.parametrize(
    ("method", "meets", "changes", "outcome", "asked"),
    [
        ("POST", [DONE], False, None, ["one"]),
        ("POST", [UNSENT, DONE], True, None, ["one", "two"]),
        ("POST", [UNSENT, UNSENT, DONE], True, NoLeaderError, ["one", "two"]),
        ("POST", [UNSENT, DONE], False, NoLeaderError, ["one"]),
        ("POST", [LOST, DONE], True, UnclearError, ["one"]),
        ("PATCH", [LOST, DONE], True, UnclearError, ["one"]),
        ("POST", [UNSENT, LOST], True, UnclearError, ["one", "two"]),
        ("GET", [LOST, DONE], True, None, ["one", "two"]),
        ("GET", [LOST, LOST, DONE], True, NoLeaderError, ["one", "two"]),
    ],
)
async def test_only_what_was_certainly_not_taken_is_sent_to_the_next_leader(
    method: str, meets: list[Any], changes: bool, outcome: type[Exception] | None, asked: list[str]
) -> None:
    script = Script(*meets)
    tried = forwarder(script, changes=changes).send_on(PeerRequest(method, "/v1/x", b"", {}))
    if outcome is None:
        assert (await tried)[1] is DONE
    else:
        with pytest.raises(outcome):
            await tried
    assert script.asked == asked


async def test_too_many_requests_are_refused_at_once() -> None:
    waits = asyncio.Event()

    class Slow(Script):
        async def ask(self, *_arguments: Any) -> PeerAnswer:
            await waits.wait()
            return DONE

    busy = forwarder(Slow(), changes=False)
    busy.requests_limit = 2
    question = PeerRequest("GET", "/v1/status", b"", {})
    two = [asyncio.create_task(busy.send_on(question)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(NoLeaderError, match="Too many"):
        await busy.send_on(question)
    waits.set()
    assert [(await each)[0] for each in two] == ["1", "1"]
    assert (await busy.send_on(question))[0] == "1"


@pytest.mark.parametrize(
    ("method", "target", "body", "deadline_s"),
    [
        ("GET", "/v1/status", b"", 25.0),
        ("POST", "/v1/hosts/h", b'{"command": "fence"}', 910.0),
        ("POST", "/hosts/h", b'{"command": "fence"}', 910.0),
        ("POST", "/hosts/h", b'{"command": "reset"}', 70.0),
        ("POST", "/hosts/h", b"[" * 60_000, 70.0),
        ("POST", "/v1/groups/g", b'{"command": "fence"}', 70.0),
        ("POST", "/v1/validate/h", b"", 410.0),
    ],
)
async def test_the_answer_is_waited_for_as_long_as_the_leader_takes(
    method: str, target: str, body: bytes, deadline_s: float
) -> None:
    told: list[float] = []

    class Noting(Script):
        async def ask(self, _url: str, _request: Any, left_s: float, _sending: Any) -> PeerAnswer:
            told.append(left_s)
            return DONE

    await forwarder(Noting(), changes=False).send_on(PeerRequest(method, target, body, {}))
    assert told == [pytest.approx(deadline_s, abs=0.5)]


# --- which managers there are ---------------------------------------------------------------------


async def test_every_manager_says_which_managers_there_are(pair: list[FakeManager]) -> None:
    first, second = [(await each.ask("GET", "/v1/managers")).content for each in pair]
    assert answer_faults("GET", "/v1/managers", 200, first) == []
    assert answer_faults("GET", "/v1/managers", 200, second) == []
    assert (first.pop("own_id"), second.pop("own_id")) == ("1", "2")
    assert first.pop("as_of") == pytest.approx(second.pop("as_of"), abs=5)
    assert first == second
    assert (first["leader"], first["term"], first["notices"]) == ("1", 7, [])
    assert [(row["id"], row["lag"], row["leads"]) for row in first["managers"]] == [
        ("1", 0, True),
        ("2", 2, False),
    ]


async def test_without_a_leader_the_managers_are_shown_all_the_same(
    pair: list[FakeManager],
) -> None:
    pair[1].standing.leads = None
    pair[1].standing.wrong = "no member answers"
    del pair[1].standing.seen[0]
    told = (await pair[1].ask("GET", "/v1/managers")).content
    assert answer_faults("GET", "/v1/managers", 200, told) == []
    assert (told["leader"], told["missing"]) == (None, [{"id": "1", "host": "mgmt1"}])
    assert "manager 1 on mgmt1 is missing: 1 of 2 managers are there" in told["notices"][0]
    assert "no member answers" in told["notices"][1]


async def test_the_members_of_the_store_are_told_as_each_manager_sees_them(
    pair: list[FakeManager],
) -> None:
    """A manager may fail to reach a member that the leader reaches."""
    first, second = pair
    second.standing.etcd = StoreSeen(
        (
            StoreMember("h1:2379", True, None, 1000.5, "3.5.16", leads=True),
            StoreMember("h2:2379", False, "connection refused", 1001.5, None),
            StoreMember("h3:2379"),
        ),
        (StoreAlarm("h1:2379", "NOSPACE"),),
    )
    second.managers.waits = lambda: "standing by; 1 on mgmt1 leads"
    told = (await second.ask("GET", "/v1/managers")).content
    assert answer_faults("GET", "/v1/managers", 200, told) == []
    assert told["waiting"] == "standing by; 1 on mgmt1 leads"
    assert told["store"]["alarms"] == [{"member": "h1:2379", "kind": "NOSPACE"}]
    assert told["store"]["members"][1] == {
        "endpoint": "h2:2379",
        "answers": False,
        "reason": "connection refused",
        "since": 1001.5,
        "version": None,
        "leads": False,
    }
    assert [notice.partition(" has ")[0].partition(" does ")[0] for notice in told["notices"]] == [
        "etcd member h2:2379",
        "etcd",
    ]
    led = (await first.ask("GET", "/v1/managers")).content
    assert (led["store"], led["notices"]) == ({"members": [], "alarms": []}, [])


async def test_how_old_the_answer_is_and_what_is_known_of_the_leadership_is_told(
    pair: list[FakeManager],
) -> None:
    second = pair[1]
    second.standing.lead = Lead("1", 1000.0, silent_since=1005.0, ends_in_s=5.5)
    for age_s, is_old in ((4.0, False), (95.0, True)):
        second.standing.age_s = age_s
        told = (await second.ask("GET", "/v1/managers")).content
        assert answer_faults("GET", "/v1/managers", 200, told) == []
        assert told["as_of"] == pytest.approx(time.time() - age_s, abs=2)
        assert told["old"] is is_old
    assert told["lead"] == {
        "id": "1",
        "since": 1000.0,
        "silent_since": 1005.0,
        "ends_in_s": 5.5,
        "until": None,
    }
    second.standing.lead, second.standing.age_s = None, None  # etcd has not answered yet
    told = (await second.ask("GET", "/v1/managers")).content
    assert answer_faults("GET", "/v1/managers", 200, told) == []
    assert (told["lead"], told["as_of"], told["old"]) == (None, None, True)


def observing(made: FakeManager, *ids: str) -> None:
    """These managers only observe, as this one sees them."""
    made.standing.seen = [replace(s, observes=s.id in ids) for s in made.standing.seen]


async def notices(made: FakeManager) -> list[str]:
    told = (await made.ask("GET", "/v1/managers")).content
    assert answer_faults("GET", "/v1/managers", 200, told) == []
    return list(told["notices"])


async def test_a_manager_that_only_observes_is_a_notice(pair: list[FakeManager]) -> None:
    first = pair[0]
    observing(first, "2")
    assert await notices(first) == [
        "manager 2 on localhost only observes: if it leads, nothing is started, fenced or moved; "
        "start it with --manage-resources"
    ]
    assert [row["observes"] for row in first.managers.table()["managers"]] == [False, True]
    observing(first, "1")
    assert await notices(first) == [
        "manager 1 leads and only observes: nothing is started, fenced or moved; start it with "
        "--manage-resources or run `halo managers step-down`"
    ]
    observing(first, "1", "2")
    assert await notices(first) == [
        "manager 1 leads and only observes: nothing is started, fenced or moved; no other one "
        "acts; start them with --manage-resources"
    ]


async def test_a_manager_that_the_config_does_not_name_is_a_notice(
    pair: list[FakeManager],
) -> None:
    first = pair[0]
    first.standing.seen.append(manager("7", host="mgmt7"))
    assert await notices(first) == [
        "manager 7 on mgmt7 is not in the config's list of managers (1, 2); add it to `managers`, "
        "correct its --node-id, or stop it"
    ]
    first.managers.expected = {}  # the config has no such list
    assert await notices(first) == []


async def test_the_leader_steps_down_whichever_manager_is_told(pair: list[FakeManager]) -> None:
    """It is on disk before it happens, and before anybody is told so."""
    first, second = pair
    for each in pair:
        body = {"command": "step-down", "comment": "new kernel"}
        answer = await each.ask("POST", "/v1/managers", body)
        assert answer.sentence == (
            "Manager 1 gives the leadership back; the next leader is one of: 2."
        )
    assert first.operations.calls == [("record_step_down", "1", "new kernel")] * 2
    assert first.standing.stepped_down == ["new kernel", "new kernel"]
    assert second.standing.stepped_down == []


async def test_a_leader_that_cannot_record_it_goes_on_leading(pair: list[FakeManager]) -> None:
    first = pair[0]
    words = "the journal cannot be written, so nothing was changed: no space"
    first.operations.errors["record_step_down"] = CommandFailed(words)
    answer = await pair[1].ask("POST", "/v1/managers", {"command": "step-down"})
    assert (answer.status, answer.sentence) == (500, words)
    assert first.standing.stepped_down == []


async def test_the_only_manager_that_acts_does_not_step_down(pair: list[FakeManager]) -> None:
    first = pair[0]
    observing(first, "2")
    answer = await first.ask("POST", "/v1/managers", {"command": "step-down"})
    assert answer.status == 409
    assert "all others (2) only observe, and nothing would be started" in answer.sentence
    assert (first.operations.calls, first.standing.stepped_down) == ([], [])
    first.standing.seen.append(manager("3"))
    answer = await first.ask("POST", "/v1/managers", {"command": "step-down"})
    assert answer.sentence.endswith("the next leader is one of: 3.")
    observing(first, "1", "2", "3")  # then it makes no difference who leads
    answer = await first.ask("POST", "/v1/managers", {"command": "step-down"})
    assert answer.sentence.endswith("the next leader is one of: 2, 3.")


async def test_the_only_manager_does_not_step_down(pair: list[FakeManager]) -> None:
    first = pair[0]
    del first.standing.seen[1]
    answer = await first.ask("POST", "/v1/managers", {"command": "step-down"})
    assert answer.status == 409
    assert "is the only one" in answer.sentence
    assert first.standing.stepped_down == []


async def test_a_path_that_holds_no_path_is_not_sent_on(pair: list[FakeManager]) -> None:
    def ask(line: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(pair[1].socket)
            client.sendall(line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return client.recv(1000).split(b"\r\n")[0]

    assert b" 400 " in await asyncio.to_thread(ask, b"TRACE /v1/status")
    assert b" 404 " in await asyncio.to_thread(ask, b"GET /v1/%0d%0aX-Halo-Asker:%20uid=0")
    assert b" 400 " in await asyncio.to_thread(ask, b"GET /v1/" + b"x" * 8100)
