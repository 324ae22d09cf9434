"""The judge of chaos finds each thing that may go wrong, and nothing where all was well."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from halo.adapters.journal.sqlite import SqliteMedium
from halo.core.journal.records import Event, Record
from tests.hosts.chaos import judge, story
from tests.hosts.chaos.faults import Span
from tests.hosts.chaos.schedule import Pair, plan

HOMES = {"db": "h1", "web": "h2"}
HOLDERS = {"db": ["h1"], "web": ["h2"]}


def status(**changes: Any) -> dict[str, Any]:
    """All is well, but for the changes: `db_status`, `h1_fenced`, ..."""
    hosts = [
        {"id": host, "connected": True, "fenced": False, "active": True, "fence_trusted": True,
         "state": "connected", "comment": None}
        for host in ("h1", "h2")
    ]  # fmt: skip
    groups = [
        {"id": group, "status": "Running", "host": home, "comment": None, "managed": True,
         "wanted": "started", "move_target": None, "token": home}
        for group, home in HOMES.items()
    ]  # fmt: skip
    for key, value in changes.items():
        name, _, of = key.partition("_")
        for item in [*hosts, *groups]:
            if item["id"] == name:
                item[of] = value
    return {"hosts": hosts, "groups": groups}


def test_where_all_is_well_nothing_is_found() -> None:
    world = [
        {"what": "came", "name": "db", "host": "h1", "at": 1.0},
        {"what": "ended", "name": "manager", "status": -9, "at": 2.0},
        {"what": "ended", "name": "manager", "status": 0, "at": 9.0},
        {"what": "died", "name": "h1", "at": 5.0},
    ]
    assert not judge.lost_rows([1, 2, 3], {1, 2, 3, 4})  # an unknown fate may be a row
    assert not judge.doubles(world)
    assert not judge.managers(world)
    assert not judge.needless_fences(world, [Span("h1", "crash", 5.0, 6.0)])
    assert not judge.misplaced(status(), HOLDERS, HOMES)
    assert not judge.troubles(status(), HOLDERS)
    assert not judge.tokens(status(), HOMES)


def test_a_lost_row_is_found() -> None:
    assert judge.lost_rows([1, 2, 3], {1, 3}) == [
        "1 acknowledged rows are lost, the first 2, the last 2"
    ]


@pytest.mark.parametrize("what", ["double mount", "double copy"])
def test_what_is_on_two_hosts_is_found(what: str) -> None:
    (found,) = judge.doubles([{"what": what, "name": "db", "hosts": ["h1", "h2"], "at": 1.0}])
    assert "h1 and h2" in found


def test_a_manager_that_ends_by_itself_is_found() -> None:
    (found,) = judge.managers([{"what": "ended", "name": "manager", "status": 70, "at": 1.0}])
    assert "status 70" in found


@pytest.mark.parametrize(
    "span",
    [Span("h2", "crash", 99.0, 101.0), Span("h1", "crash", 10.0, 20.0),
     Span("h1", "crash", 102.0, 110.0)],
)  # fmt: skip
def test_a_fence_of_a_host_without_a_fault_is_found(span: Span) -> None:
    died = {"what": "died", "name": "h1", "at": 100.0}
    assert judge.needless_fences([died], [span])


def test_a_host_that_has_just_booted_may_be_fenced() -> None:
    died = {"what": "died", "name": "h1", "at": 100.0}
    booted = {"what": "boot", "name": "h1", "at": 95.0}
    assert not judge.needless_fences([booted, died], [Span("h1", "crash", 10.0, 20.0)])
    assert judge.needless_fences([{**booted, "name": "h2"}, died], [])
    assert judge.needless_fences([{**booted, "at": 60.0}, died], [])


def test_a_group_in_the_wrong_place_is_found() -> None:
    moved = status(db_status="Running (Failed Over)", db_host="h2")
    assert len(judge.misplaced(moved, {**HOLDERS, "db": ["h2"]}, HOMES)) == 2


@pytest.mark.parametrize("on", [[], ["h2"], ["h1", "h2"]])
def test_a_group_that_is_not_where_the_manager_says_is_found(on: list[str]) -> None:
    assert judge.misplaced(status(), {**HOLDERS, "db": on}, HOMES)
    assert judge.troubles(status(), {**HOLDERS, "db": on})


@pytest.mark.parametrize(
    "wrong",
    [
        {"db_status": "Unknown"},
        {"db_status": "Error"},
        {"db_managed": False},
        {"db_wanted": "stopped"},
        {"db_move_target": "h2"},
        {"h1_connected": False},
        {"h1_fenced": True},
        {"h1_active": False},
        {"h1_fence_trusted": False},
        {"h1_state": "suspect"},
    ],
)
def test_what_is_not_mended_is_found(wrong: dict[str, Any]) -> None:
    assert len(judge.troubles(status(**wrong), HOLDERS)) == 1


def test_a_manager_without_an_answer_is_found() -> None:
    assert judge.troubles({}, HOLDERS)
    assert judge.misplaced({}, HOLDERS, HOMES)


@pytest.mark.parametrize("wrong", [{"db_token": None}, {"db_id": "other"}])
def test_a_lost_token_is_found(wrong: dict[str, Any]) -> None:
    assert judge.tokens(status(**wrong), HOMES) == ["nobody holds the token of db"]


def write_journal(path: Path, *records: Record) -> None:
    async def write() -> None:
        medium = SqliteMedium.open(path)
        await medium.append([record.to_json() for record in records])
        await medium.close()

    asyncio.run(write())


CONNECTED = [Record(1.0, Event.CONNECT, "h1"), Record(2.0, Event.UNMANAGE, "db")]


def test_a_whole_journal_is_found_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_journal(path, *CONNECTED, Record(3.0, Event.MANAGE, "db"))
    assert not judge.journal(path)


def test_what_the_journal_remembers_wrongly_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_journal(path, *CONNECTED, Record(3.0, Event.DEACTIVATE, "h2"))
    assert len(judge.journal(path)) == 2


def test_an_empty_journal_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_journal(path)
    assert judge.journal(path) == ["the journal is empty"]


def test_a_record_that_was_changed_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_journal(path, *CONNECTED)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE journal SET record = '{}' WHERE sequence = 1")
    connection.close()
    (found,) = judge.journal(path)
    assert "record 1 does not match its checksum" in found


def test_a_database_that_was_cut_short_is_found(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_journal(path, *CONNECTED)
    path.write_bytes(path.read_bytes()[:-2000])
    assert judge.journal(path)


PAIRS = (Pair(("h1", "h2"), {"db": ("db", "ip")}), Pair(("h3", "h4"), {"web": ("web",)}))


def test_a_seed_gives_one_plan_that_is_over_in_time() -> None:
    acts = plan(7, 300, PAIRS)
    assert acts == plan(7, 300, PAIRS)
    assert acts != plan(8, 300, PAIRS)
    assert acts == sorted(acts)
    assert all(act.at_s > 0 and act.ends_s <= 300 for act in acts)
    assert len({act.kind for act in acts}) > 8


def test_one_manager_dies_at_a_time() -> None:
    for seed in range(50):
        kills = [act for act in plan(seed, 300, PAIRS) if act.target == "manager"]
        assert all(b.at_s > a.ends_s for a, b in itertools.pairwise(kills))


def test_the_longest_time_without_an_answer_is_told() -> None:
    assert story.longest_gap([1.0, 2.0, 7.0, 8.0], 0.0, 9.0) == (5.0, 2.0)
    assert story.longest_gap([], 1.0, 4.0) == (3.0, 1.0)


def test_failovers_and_moves_are_told_apart() -> None:
    courses = {"db": story.Course()}
    for line in (
        {"what": "came", "name": "db", "host": "h1", "at": 1.0},
        {"what": "died", "name": "h1", "at": 5.0},
        {"what": "went", "name": "db", "host": "h1", "at": 5.0},
        {"what": "came", "name": "db", "host": "h2", "at": 9.0},
        {"what": "went", "name": "db", "host": "h2", "at": 20.0},
        {"what": "came", "name": "db", "host": "h1", "at": 21.0},
    ):
        story.follow(courses, line)
    course = courses["db"]
    assert (course.failovers, course.moves) == (1, 1)
    assert (course.longest_s, course.longest_at) == (4.0, 5.0)
