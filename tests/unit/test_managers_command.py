"""`halo` at any of several managers: the same answers, and plain words without a leader."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from halo.cli.errors import EXIT_REFUSED, EXIT_UNREACHABLE
from halo.cli.main import cli
from halo.cli.show.managers import table_lines
from halo.cli.show.old import MARK, old_lines
from halo.cli.show.store import store_lines
from halo.core.journal.fold import apply
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from halo.core.status.ours import snapshot
from halo.core.status.store import StoreMember, StoreSeen
from halo.manager.peers.redundancy import keep_looking
from halo.ports import Known, Lead
from tests.certificates import Authority
from tests.core.builders import World, make_group
from tests.fakes.http_operations import FakeOperations, serving, short_folder
from tests.fakes.managers import FakeManager, manager, managers_in
from tests.unit.test_cli import EXAMPLE, process


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as found:
        yield found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
async def three(folder: Path, authority: Authority) -> AsyncIterator[list[FakeManager]]:
    """The first one leads."""
    async with managers_in(folder, authority, "1", "2", "3", leader="1") as made:
        made[0].operations.current = json.loads(json.dumps(EXAMPLE))
        yield made


async def halo(at: FakeManager, *words: str) -> Result:
    def run() -> Result:
        return CliRunner().invoke(cli, [*words, "--socket", at.socket], prog_name="halo")

    return await asyncio.to_thread(run)


async def whole_process(at: FakeManager, *words: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(process, *words, HALO_SOCKET=at.socket)


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["check"], ["status", "-v"]])
async def test_every_manager_shows_the_same(three: list[FakeManager], words: list[str]) -> None:
    shown = [await halo(each, *words) for each in three]
    assert shown[0].output.strip()
    assert len({(result.output, result.exit_code) for result in shown}) == 1


async def test_a_command_works_at_every_manager(three: list[FakeManager]) -> None:
    for each in three:
        assert (await whole_process(each, "stop", "pool")).stdout == "stop is done.\n"
    assert len(three[0].operations.calls) == 3


# --- without a leader -----------------------------------------------------------------------------


def a_journal(as_of: float) -> Known:
    remembered = Remembered()
    for record in (
        Record(1000.0, Event.STOP, "pool", "disks"),
        Record(1001.0, Event.UNMANAGE, "web", "by hand"),
        Record(1002.0, Event.DEACTIVATE, "oss00"),
        Record(1003.0, Event.ACTIVATE, "oss01"),
    ):
        apply(remembered, record)
    return Known(remembered, as_of, 4)


async def deposed(three: list[FakeManager]) -> FakeManager:
    second = three[1]
    second.standing.leads = None
    second.standing.memory = a_journal(time.time() - 95)
    return second


@pytest.mark.parametrize("words", [["status"], ["status", "-x"], ["status", "-e", "3"]])
async def test_without_a_leader_the_status_is_old_news_and_says_so(
    three: list[FakeManager], words: list[str]
) -> None:
    done = await whole_process(await deposed(three), *words)
    assert done.returncode == EXIT_UNREACHABLE
    assert done.stderr.startswith("No status: No manager leads just now.")
    assert "s ago" in done.stderr
    lines = done.stdout.splitlines()
    assert all(line.startswith(f"{MARK}: ") for line in lines)
    assert f"{MARK}: group pool: should be stopped" in lines
    assert f"{MARK}: group web: should run, unmanaged" in lines
    assert f"{MARK}: host oss00: deactivated" in lines
    assert not any("host oss01" in line for line in lines)
    assert any('object=pool comment="disks"' in line for line in lines)
    assert "Running" not in done.stdout


async def test_without_a_leader_the_json_is_no_status(three: list[FakeManager]) -> None:
    done = await whole_process(await deposed(three), "status", "--json")
    assert done.returncode == EXIT_UNREACHABLE
    told = json.loads(done.stdout)
    assert set(told) == {"error", "known"}
    assert told["known"]["groups"]["pool"] == {"wanted": False, "managed": True}
    same = await halo(three[1], "status", "--json", "-e", "3")
    assert json.loads(same.stdout)["known"] == told["known"]


async def test_without_a_leader_the_check_is_critical_and_a_command_fails(
    three: list[FakeManager],
) -> None:
    second = await deposed(three)
    checked = await halo(second, "check")
    assert (checked.exit_code, checked.output.startswith("HALO CRITICAL - ")) == (2, True)
    assert "No manager leads" in checked.output
    refused = await halo(second, "stop", "pool")
    assert refused.exit_code == EXIT_REFUSED
    assert refused.stderr.startswith("Could not stop 'pool': No manager leads just now.")


@pytest.mark.parametrize(
    "known",
    [
        None,
        [],
        {},
        {"as_of": "x", "groups": [], "hosts": 3, "events": {}},
        {"as_of": 1e30, "groups": {"\x1b[2J": {"wanted": "no"}, "b": 3}, "events": [{}, 3]},
    ],
)
def test_odd_old_news_cannot_hurt(known: Any) -> None:
    for line in old_lines(known, 1000.0):
        assert line.startswith(f"{MARK}: ")
        assert line.isprintable()


# --- halo managers --------------------------------------------------------------------------------


async def test_the_managers_are_a_table(three: list[FakeManager]) -> None:
    for each in three:
        each.standing.seen = [s for s in each.standing.seen if s.id != "2"]
    done = await halo(three[2], "managers")
    assert done.exit_code == 1  # one is missing
    head, first, third, leads, *notices = done.output.splitlines()
    assert re.split("  +", head) == [
        *("ID", "HOST", "ROLE", "STARTED", "LEADS SINCE"),
        *("VERSION", "ENTRIES", "LAG", "ADDRESS"),
    ]
    assert first.startswith("1   localhost[100]  leads ")
    assert first.endswith(f" 12       0    {three[0].url}")
    assert "stands by (asked)" in third
    assert leads == "Manager 1 leads, in term 7."
    assert notices[0].startswith("NOTICE: manager 2 on mgmt2 is missing: 1 of 2 managers are there")
    assert notices[1].startswith("NOTICE: manager 3 on localhost is not in the config's list")
    told = json.loads((await halo(three[2], "managers", "--json")).output)
    assert told["own_id"] == "3"


def a_store(*lost: str) -> StoreSeen:
    """Three members, the first of which leads."""
    return StoreSeen(
        tuple(
            StoreMember(at, False, "connection refused", 1000.0, "3.5.16")
            if at in lost
            else StoreMember(at, True, None, 1000.0, "3.5.16", at.startswith("h1"))
            for at in ("h1:2379", "h2:2379", "h3:2379")
        )
    )


async def test_the_members_of_etcd_are_a_table_below(three: list[FakeManager]) -> None:
    third = three[2]
    third.managers.expected = {id: f"mgmt{id}" for id in "123"}
    third.standing.etcd = a_store()
    whole = await halo(third, "managers")
    assert whole.exit_code == 0
    head, *members = whole.output.splitlines()[-4:]
    assert head.split() == ["ETCD", "MEMBER", "STATE", "SINCE", "VERSION"]
    assert [line.split()[:2] for line in members] == [
        ["h1:2379", "leads"],
        ["h2:2379", "works"],
        ["h3:2379", "works"],
    ]
    assert all(line.endswith("  3.5.16") for line in members)

    third.standing.etcd = a_store("h2:2379")
    done = await halo(third, "managers")
    assert done.exit_code == 1
    *_, second, _third, notice = done.output.splitlines()
    assert second.startswith("h2:2379      does not answer  ")
    assert notice == (
        "NOTICE: etcd member h2:2379 does not answer (connection refused): 2 of 3 members work. "
        "One more lost, and no manager can lead; see `systemctl status etcd` on h2"
    )
    told = json.loads((await halo(third, "managers", "--json")).output)
    assert [member["answers"] for member in told["store"]["members"]] == [True, False, True]


def test_states_of_members_of_etcd_in_words() -> None:
    members = [
        {"endpoint": "a", "answers": None, "since": 0.0},
        {"endpoint": "b", "answers": True, "reason": "has no leader", "since": "x"},
        {"endpoint": "c\x1b[2J", "answers": "no", "since": 1e300},
        7,
    ]
    _, unknown, cut_off, odd = store_lines({"store": {"members": members}})
    assert unknown.split(maxsplit=1) == ["a", "not known yet"]
    assert cut_off.split(maxsplit=1) == ["b", "answers, but does not count"]
    assert "does not answer" in odd
    assert all(line.isprintable() for line in (unknown, cut_off, odd))
    others: list[Any] = [None, [], {}, {"members": 3}]
    for store in others:
        assert list(store_lines({"store": store})) == []
    assert list(store_lines({})) == []  # of an older manager


async def test_a_manager_that_waits_says_for_what(three: list[FakeManager]) -> None:
    second = three[1]
    second.managers.waits = lambda: "waiting for etcd (etcd://h1:2379/halo): no connection"
    shown = (await halo(second, "managers")).output
    assert "does nothing yet" not in shown  # another manager leads
    second.standing.leads = None
    done = await halo(second, "managers")
    assert done.exit_code == 1
    words = "Manager 2 does nothing yet: waiting for etcd (etcd://h1:2379/halo): no connection"
    assert words in done.output.splitlines()


async def test_all_managers_there_is_exit_status_0(three: list[FakeManager]) -> None:
    three[1].managers.expected = {id: f"mgmt{id}" for id in "123"}
    assert (await halo(three[1], "managers")).exit_code == 0
    three[1].standing.leads = None
    done = await halo(three[1], "managers")
    assert done.exit_code == 1
    assert "No manager leads." in done.output


async def test_a_manager_that_nobody_can_ask_is_shown_as_such() -> None:
    row = {"id": "1", "host": "h", "pid": 1, "url": None, "since": "x", "leads": False}
    (_, line, _) = table_lines({"journal": "etcd", "managers": [row]}, 1000.0)
    assert line.endswith("none: cannot be asked by others")


async def test_since_when_a_manager_leads_and_that_one_only_observes_is_shown(
    three: list[FakeManager],
) -> None:
    second = three[1]
    second.managers.expected = {}
    second.standing.lead = Lead("1", 90_000_000.0)
    second.standing.seen = [replace(seen, observes=True) for seen in second.standing.seen]
    done = await halo(second, "managers")
    _, *rows = [re.split("  +", line) for line in done.output.splitlines()[:4]]
    local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(90_000_000))
    assert [(row[2], row[4]) for row in rows] == [
        ("leads, only observes", local),
        ("stands by, only observes (asked)", "-"),
        ("stands by, only observes", "-"),
    ]
    assert done.exit_code == 1
    assert "NOTICE: manager 1 leads and only observes: nothing is started" in done.output


async def test_without_etcd_the_table_is_old_news_in_every_line(three: list[FakeManager]) -> None:
    second = three[1]
    second.managers.expected = {}
    second.standing.lead, second.standing.age_s = Lead("1", 1000.0), 95.0
    second.standing.leads, second.standing.wrong = None, "etcd does not answer"
    done = await halo(second, "managers")
    assert done.exit_code == 1
    *lines, notice = done.output.splitlines()
    assert notice == "NOTICE: the store of the managers: etcd does not answer"
    assert all(line.startswith(f"{MARK}: ") for line in lines)
    assert re.fullmatch(r"OLD: the managers as of [0-9: -]+, 9[5-9] s ago\.", lines[0])
    assert lines[1] == "OLD: Who leads now, and how far each has read, is not known."
    assert [re.split("  +", line)[2] for line in lines[3:6]] == [
        *("stood by", "stood by (asked)", "stood by"),
    ]
    assert lines[6] == "OLD: Manager 1 was the last one that was seen to lead."
    told = json.loads((await halo(second, "managers", "--json")).output)
    assert told["old"] is True
    second.standing.lead, second.standing.age_s = None, None
    lines = (await halo(second, "managers")).output.splitlines()
    assert lines[0] == "OLD: the managers, of unknown age."
    assert lines[6] == "OLD: No manager was seen to lead."


async def test_the_role_of_an_old_leader_is_in_the_past(three: list[FakeManager]) -> None:
    """For some seconds, it may lead all the same."""
    three[1].managers.expected = {}
    three[1].standing.age_s, three[1].standing.lead = 8.0, Lead("1", 1000.0)
    done = await halo(three[1], "managers")
    assert done.exit_code == 1  # nothing else is wrong
    lines = done.output.splitlines()
    assert re.split("  +", lines[3])[2] == "led"
    assert lines[6] == "OLD: Manager 1 was the last one that was seen to lead."


async def test_during_the_lease_of_a_dead_leader_it_is_told_what_is_going_on(
    three: list[FakeManager],
) -> None:
    second = three[1]
    second.managers.expected = {}
    second.standing.lead = Lead("1", 1000.0, silent_since=90_000_000.0, ends_in_s=5.2)
    local = time.strftime("%H:%M:%S", time.localtime(90_000_000))
    done = await halo(second, "managers")
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == (
        f"Manager 1 leads, in term 7, but has not renewed its lease since {local}. Its lease ends "
        "in at most 6 s, then another one leads."
    )
    second.standing.leads = None
    second.standing.lead = Lead("1", 1000.0, until=90_000_000.0)
    done = await halo(second, "managers")
    assert done.exit_code == 1
    assert done.output.splitlines()[-1] == f"No manager leads. Manager 1 led until {local}."


@pytest.mark.parametrize(
    "odd",
    [
        {"lead": "x", "old": "yes", "as_of": []},
        {"lead": {"id": 3, "since": "x", "silent_since": 1e300, "ends_in_s": None}, "leader": "3"},
        {"lead": {"id": "\x1b[2J", "until": True}, "old": True, "as_of": float("nan")},
        {"lead": {"id": "1", "silent_since": 1.0, "ends_in_s": float("nan")}, "leader": "1"},
        {},
    ],
)
def test_an_odd_answer_cannot_hurt(odd: dict[str, Any]) -> None:
    rows = [{"id": "1", "leads": True, "observes": 3}, {"id": None}, 7]
    lines = list(table_lines({"journal": "etcd", "managers": rows, **odd}, 1000.0))
    assert all(line.isprintable() for line in lines)
    assert all(line.startswith(f"{MARK}: ") for line in lines) is (odd.get("old") is True)


async def test_the_leader_is_told_to_step_down_at_any_manager(three: list[FakeManager]) -> None:
    done = await whole_process(three[2], "managers", "step-down", "--reason", "new kernel")
    assert done.returncode == 0
    assert done.stdout.startswith("Manager 1 gives the leadership back")
    assert three[0].operations.calls == [("record_step_down", "1", "new kernel")]
    assert three[0].standing.stepped_down == ["new kernel"]
    assert three[2].standing.stepped_down == []


def test_with_a_journal_in_a_file_one_manager_runs() -> None:
    with serving(FakeOperations()) as server:
        words = {"HALO_SOCKET": str(server.path)}
        done = CliRunner().invoke(cli, ["managers"], env=words)
        assert done.output == (
            "One manager runs, with its journal in a file. No other one could take over.\n"
        )
        assert done.exit_code == 0
        refused = CliRunner().invoke(cli, ["managers", "step-down"], env=words)
        assert refused.exit_code == 1
        assert "there is no leadership to give back" in refused.stderr


# --- the status of the leader ---------------------------------------------------------------------


async def test_a_missing_manager_is_a_notice_until_it_is_back(three: list[FakeManager]) -> None:
    first, world = three[0], World(make_group())
    world.state.ledger.mint("g", "desk")
    whole = first.standing.seen[:2]
    first.standing.seen = whole[:1]
    first.standing.wrong = "etcd does not answer"
    first.standing.etcd = a_store("h3:2379")
    looking = asyncio.create_task(keep_looking(world.state, first.managers, every_s=0.01))
    await asyncio.sleep(0.05)

    def notices() -> list[str]:
        told = snapshot(world.state, "1", now=world.now, wall_now=1000.0)
        return list(told["manager"]["notices"])

    assert [notice.split(":")[0] for notice in notices()] == [
        "manager 2 on mgmt2 is missing",
        "etcd member h3",
        "the store of the managers",
    ]
    first.standing.seen = [replace(whole[0], observes=True), whole[1], manager("7")]
    first.standing.wrong = None
    first.standing.etcd = a_store()
    await asyncio.sleep(0.05)
    assert [notice.partition(":")[0] for notice in notices()] == [
        "manager 7 on localhost is not in the config's list of managers (1, 2); add it to "
        "`managers`, correct its --node-id, or stop it",
        "manager 1 leads and only observes",
    ]
    first.standing.seen = whole
    await asyncio.sleep(0.05)
    assert notices() == []
    looking.cancel()
