"""HALO's half of the API: what programs that were written for HALO (Rust) read and send.

They decode a status into fixed structures: a key that is missing or of another kind ends them with
"error decoding response body", and a host that a resource names and its status lacks, with a panic.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from halo.config import load_text
from halo.core.cluster.state import ClusterState
from halo.core.errors import CommandFailed, CommandRefused, RecordError, UnknownObject
from halo.core.journal.records import Event
from halo.core.journal.remembered import Remembered
from halo.core.status.root import root_parts
from tests.core.builders import ERROR, RUNNING, Step, World, make_group, then
from tests.fakes.http_operations import FakeOperations, Server, serving
from tests.halo_decoder import decodes, one_host_status
from tests.unit.raw_http import Reply, reply_of, request_bytes

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "http_api.md"


# --- the status ---------------------------------------------------------------------------------


def test_the_documented_example_decodes() -> None:
    chapter = REFERENCE.read_text().partition("\n## HALO's half\n")[2]
    found = re.search(r"```json\n(.*?)```", chapter, re.DOTALL)
    assert found is not None
    assert decodes(json.loads(found[1]))


TREE = {"g": ["x", "net"], "x": ["leaf"], "leaf": [], "net": []}


def a_world() -> World:
    world = World(
        make_group("g", ["h1", "h2", "h3"], TREE, shared=["net"]),
        make_group("f", ["h2", "h4"], {"f": ["net"], "net": []}, shared=["net"]),
    )
    world.up("h1", "h2", "h3", "h4")
    return world


def status(world: World) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for key, rows in root_parts(world.state):
        whole.setdefault(key, []).extend(rows)
    return dict(json.loads(json.dumps(whole)))


def row(world: World, name: str) -> dict[str, Any]:
    [found] = [found for found in status(world)["resources"] if found["id"] == name]
    return dict(found)


AT_HOME: Step = lambda w: w.see("g", "h1", RUNNING)  # noqa: E731  # read as a line of a table

STORIES: list[tuple[str, Step, str]] = [
    ("stopped on all candidates", lambda w: None, "Stopped"),
    ("running at home", AT_HOME, "Running"),
    ("running on its partner", lambda w: w.see("g", "h2", RUNNING), "Running (Failed Over)"),
    ("running on its last host", lambda w: w.see("g", "h3", RUNNING), "Running (Failed Over)"),
    ("its partner out of sight", lambda w: w.disconnect("h2"), "Unknown"),
    ("its home out of sight", lambda w: w.lose("h1"), "Unknown"),
    ("an error at home", lambda w: w.see("g", "h1", ERROR, reason="exit 5"), "Error"),
    ("two copies", then(AT_HOME, lambda w: w.see("g", "h3", RUNNING)), "Error"),
    ("its home fenced", lambda w: w.fenced("h1"), "Stopped"),
    ("a start that failed", lambda w: w.state.knowledge.mark_failure("g", "h1", "no"), "Error"),
]


@pytest.mark.parametrize(("story", "arrange", "shown"), STORIES)
def test_their_status_decodes_and_shows_what_is_so(story: str, arrange: Step, shown: str) -> None:
    world = a_world()
    world.journal(Event.STOP, "f")
    world.journal(Event.FENCE, "h1", "Manager service initiated fence action.")
    arrange(world)
    assert decodes(status(world))
    assert one_host_status(row(world, "g")) == shown


def test_a_status_names_every_host_and_dependent_that_it_speaks_of() -> None:
    told = status(a_world())
    hosts = {found["id"] for found in told["hosts"]}
    ids = [found["id"] for found in told["resources"]]
    for found in told["resources"]:
        assert {found["home_host"], found["failover_host"]} <= set(found["status"]) <= hosts
        assert set(found["dependents"]) <= set(ids)
    assert len(ids) == len(set(ids))


def test_a_tree_is_listed_as_it_is_walked_and_a_shared_resource_once() -> None:
    config = """
        hosts: [{hostname: h1}, {hostname: h2}]
        resources:
        - {name: f, kind: a/b, dependents: [net, y]}
        - {name: g, kind: a/b, dependents: [x, net]}
        - {name: net, kind: a/b}
        - {name: y, kind: a/b}
        - {name: x, kind: a/b, dependents: [leaf]}
        - {name: leaf, kind: a/b}
        resource_groups: [{root: g, home_host: h1}, {root: f, home_host: h2}]
        """
    cluster = load_text(config, "halo.conf")
    state = ClusterState(cluster, Remembered(), observe_only=False, started_at=0.0)
    rows = [row for key, rows in root_parts(state) if key == "resources" for row in rows]
    assert [row["id"] for row in rows] == ["g", "x", "leaf", "net", "f", "y"]
    assert rows[0]["dependents"] == ["x", "net"]


@pytest.mark.parametrize("trouble", ["out of sight", "error"])
def test_of_several_failover_hosts_the_one_with_the_trouble_is_told(trouble: str) -> None:
    """Programs that know one failover host find no state where another one is not stopped."""
    world = a_world()
    if trouble == "error":
        world.see("g", "h3", ERROR, reason="exit 5")
    else:
        world.disconnect("h3")
    told = status(world)
    assert decodes(told)
    found = row(world, "g")
    assert found["failover_host"] == "h3"
    assert one_host_status(found)


def test_a_group_without_failover_has_none() -> None:
    world = World(make_group("g", ["h1"]))
    world.up("h1")
    assert row(world, "g")["failover_host"] is None
    assert decodes(status(world))


def test_a_shared_resource_tells_all_its_hosts() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING)
    world.see("f", "h4", RUNNING)
    found = row(world, "net")
    assert not found["exclusive"]
    assert {h: s["status"] for h, s in found["status"].items()} == {
        "h1": "Running",
        "h2": "Stopped",
        "h3": "Stopped",
        "h4": "Running",
    }


def test_two_copies_are_an_error_on_both_that_names_both() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING)
    world.see("g", "h3", RUNNING)
    found = row(world, "x")["status"]
    assert [found[h]["status"] for h in ("h1", "h2", "h3")] == ["Error", "Stopped", "Error"]
    assert found["h1"]["comment"] == "running on h1 and h3 at once"


def test_what_a_group_waits_for_is_said_where_their_status_shows_a_reason() -> None:
    world = a_world()
    world.disconnect("h2")
    world.state.groups["g"].comment = "waits for h2, which is not fenced"
    comment = row(world, "g")["status"]["h2"]["comment"]
    assert "h2 is disconnected" in comment
    assert "which is not fenced" in comment


def test_whether_a_group_is_managed_is_told_of_each_of_its_resources() -> None:
    world = a_world()
    world.unmanage("g")
    told = {found["id"]: found["managed"] for found in status(world)["resources"]}
    assert told == {"g": False, "x": False, "leaf": False, "net": True, "f": True}


def test_hosts_are_told_with_what_was_commanded() -> None:
    world = a_world()
    world.fenced("h1")
    world.journal(Event.DEACTIVATE, "h2")
    assert status(world)["hosts"] == [
        {"id": "h1", "active": True, "connected": False, "fenced": True},
        {"id": "h2", "active": False, "connected": True, "fenced": False},
        {"id": "h3", "active": True, "connected": True, "fenced": False},
        {"id": "h4", "active": True, "connected": True, "fenced": False},
    ]


def test_events_read_as_their_own_and_the_clearing_is_one_of_them() -> None:
    world = a_world()
    world.journal(Event.STOP, "g", "new disks")
    world.journal(Event.CLEAR_EVENTS, "events")
    stop, clear = status(world)["events"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", stop.pop("timestamp"))
    assert stop == {"event": "stop", "obj_id": "g", "comment": "new disks"}
    assert (clear["event"], clear["obj_id"], clear["comment"]) == ("clear", "events", None)


# --- the routes ---------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(FakeOperations()) as running:
        yield running


def theirs(server: Server, method: str, path: str, body: Any = None) -> Reply:
    """A request as their `halo` sends it."""
    payload = b"" if body is None else json.dumps(body).encode()
    kind = ("Content-Type: application/json",) if payload else ()
    sent = request_bytes(method, path, payload, "Accept: */*", *kind, host="halo_manager")
    return reply_of(server.path, sent)


def test_the_status_is_that_of_the_root(server: Server) -> None:
    server.operations.current_root = {"resources": [], "hosts": [{"id": "ä"}], "events": []}
    reply = theirs(server, "GET", "/status")
    assert (reply.status, json.loads(reply.body)) == (200, server.operations.current_root)
    assert reply.content_type.startswith("application/json")


@pytest.mark.parametrize(
    ("method", "path", "body", "call"),
    [
        (
            "PATCH",
            "/resources/pool",
            {"managed": False, "comment": "disks"},
            ("set_managed", "pool", False, "disks"),
        ),
        (
            "PATCH",
            "/resources/mds%2Fmgt",
            {"managed": True, "comment": None},
            ("set_managed", "mds/mgt", True, None),
        ),
        *(
            (
                "POST",
                "/hosts/mds00",
                {"command": command, "force": None, "comment": None},
                (command, "mds00", False, None),
            )
            for command in ("failback", "fence", "activate", "deactivate", "reset")
        ),
        (
            "POST",
            "/hosts/mds00",
            {"command": "fence", "force": True, "comment": "smokes"},
            ("fence", "mds00", True, "smokes"),
        ),
        ("POST", "/clear_events", None, ("clear_events", None)),
        # What their manager ignores, ours does:
        ("POST", "/hosts/h", {"command": "reset", "since": 3}, ("reset", "h", False, None)),
        ("POST", "/clear_events", {"all": True}, ("clear_events", None)),
    ],
)
def test_their_commands_are_carried_out_without_a_word(
    server: Server, method: str, path: str, body: Any, call: tuple[Any, ...]
) -> None:
    reply = theirs(server, method, path, body)
    assert (reply.status, reply.body) == (200, b"")
    assert server.operations.calls == [call]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UnknownObject('There is no host "h".'), 404),
        (CommandRefused("Host has already been fenced."), 409),
        (CommandFailed("The fence device does not answer."), 500),
        (RecordError("No space left on device"), 500),
    ],
)
def test_errors_are_bare_sentences(server: Server, error: Exception, status: int) -> None:
    server.operations.errors["fence"] = error
    reply = theirs(server, "POST", "/hosts/h", {"command": "fence", "force": None, "comment": None})
    assert reply.status == status
    assert reply.content_type.startswith("text/plain")
    assert reply.body.decode().endswith(str(error))


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/hosts/h", {"command": "start", "force": None, "comment": None}, "one of activate"),
        ("/hosts/h", {"command": "confirm-off"}, "one of activate"),
        ("/hosts/h", {"force": True}, '"command"'),
        ("/hosts/h", {"command": "fence", "force": "yes"}, "true or false"),
        ("/resources/g", {"managed": "no"}, "true or false"),
        ("/resources/g", {"comment": "x"}, '"managed"'),
    ],
)
def test_what_is_malformed_is_refused_and_says_why(
    server: Server, path: str, body: Any, words: str
) -> None:
    reply = theirs(server, "PATCH" if "resources" in path else "POST", path, body)
    assert reply.status == 400
    assert words in reply.body.decode()
    assert not reply.body.startswith(b"{")
    assert server.operations.calls == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/version"),
        ("GET", "/debug"),
        ("GET", "/openapi.json"),
        ("POST", "/groups/g"),
        ("POST", "/cluster"),
        ("POST", "/validate/h"),
        ("GET", "/v1"),
    ],
)
def test_what_halo_does_not_know_is_not_at_the_root(server: Server, method: str, path: str) -> None:
    reply = theirs(server, method, path)
    assert reply.status == 404
    assert "GET /v1/status" in reply.body.decode()
    assert server.operations.calls == []


def test_a_wrong_method_says_which_is_right(server: Server) -> None:
    reply = theirs(server, "POST", "/status")
    assert reply.status == 405
    assert b"GET" in reply.body
