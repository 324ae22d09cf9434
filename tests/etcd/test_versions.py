"""Managers of different versions share a journal, as during an upgrade: real processes.

The older version does not know freezes. It understands everything else, and all that it writes is
understood by this version.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import halo
from halo.adapters.etcd.location import Store
from tests.etcd.members import Members
from tests.etcd.old_manager import VERSION as OLD
from tests.etcd.several import NOT_LEADING, Managers
from tests.integration.site import DEADLINE_S
from tests.integration.telling import comes_to_rest, halo_ok, story

NEW = halo.__version__
ADMINISTRATOR = 64
OLDER = (sys.executable, "-m", "tests.etcd.old_manager", "--without", "freeze", "--")
HOME = {"g1": "Running on h1", "g2": "Running on h2"}

Make = Callable[..., Managers]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def make(
    request: pytest.FixtureRequest, members: Members, store: Store
) -> AsyncIterator[Make]:
    """A factory of clusters; `old` names the managers of the older version."""
    made: list[Managers] = []

    def of(old: str = "", **arguments: Any) -> Managers:
        name = request.node.name.removeprefix("test_")
        made.append(Managers(f"versions.{name}"[:80], members, store, **arguments))
        made[-1].program_of = dict.fromkeys(old, OLDER)
        made[-1].let_them_ask_each_other("123")
        return made[-1]

    yield of
    for cluster in made:
        await cluster.finish()


async def versions(cluster: Managers) -> dict[str, str]:
    """The version of each manager that is registered."""
    code, table = await cluster.api("GET", "/v1/managers")
    assert code == 200
    return {row["id"]: row["version"] for row in table["managers"]}


async def until_there(cluster: Managers, **wanted: str) -> None:
    """Wait until the manager that is looked at sees these managers: their ids and versions.

    What a process said that had the same id before does not count."""
    wanted = {id.strip("_"): version for id, version in wanted.items()}
    ends = time.monotonic() + DEADLINE_S
    while (found := await versions(cluster)) != wanted:
        assert time.monotonic() < ends, f"{found} are there, not {wanted}"
        await asyncio.sleep(0.05)


async def until_refuses_to_go_on(cluster: Managers, node: str) -> str:
    """Wait until this manager ends because an administrator must act; what it said."""
    assert await cluster.until_ended(node) == ADMINISTRATOR
    log = (cluster.folder / f"manager{node}_log").read_text()
    return [line for line in log.splitlines() if line.startswith("halo_manager: ")][-1]


def has_led(cluster: Managers, node: str) -> bool:
    """Did any process of this manager ever manage?"""
    return any(line["event"] == "managing" and "group" not in line for line in cluster.log(node))


def upgrade(cluster: Managers, node: str) -> None:
    """End a manager as systemd does, and start it in this version."""
    process = cluster.of[node]
    process.terminate()
    assert process.wait(DEADLINE_S) == 0
    cluster.program_of.pop(node)
    cluster.start_manager(node)


async def test_an_older_manager_that_stands_by_ends_when_it_reads_what_it_does_not_know(
    make: Make,
) -> None:
    cluster = make(old="2")
    await cluster.settle()
    await comes_to_rest(cluster)
    begun = story(cluster)
    await until_there(cluster, _1=NEW, _2=OLD)
    await halo_ok(cluster, "freeze", "--reason", "of a later version")
    said = await until_refuses_to_go_on(cluster, "2")
    assert "a record that this version does not understand: {'at': " in said
    assert "'event': 'freeze'" in said
    assert "install the version of HALO that wrote it on this machine" in said
    assert not has_led(cluster, "2")
    cluster.start_manager("2")  # as an administrator would try
    assert await until_refuses_to_go_on(cluster, "2") == said
    cluster.program_of.clear()
    cluster.start_manager("2")
    await until_there(cluster, _1=NEW, _2=NEW)
    await halo_ok(cluster, "managers", "step-down")
    assert await cluster.until_ended("1") == NOT_LEADING
    await cluster.until_leads("2")
    status = await cluster.until(HOME)
    assert status["manager"]["frozen_comment"] == "of a later version"
    assert story(cluster) == begun


async def test_an_older_manager_that_is_next_ends_before_it_leads(make: Make) -> None:
    """It slept while the record came and the leader died. So it reads it when its turn comes."""
    cluster = make(old="2")
    await cluster.settle()
    await comes_to_rest(cluster)
    begun = story(cluster)
    cluster.of["2"].send_signal(signal.SIGSTOP)
    await halo_ok(cluster, "freeze", "--reason", "of a later version")
    head = await cluster.journal_rests()
    cluster.of["1"].kill()
    cluster.break_resource("g1")  # a leader would start it again
    await cluster.until_true(lambda: cluster.read_key("leader") is None, "its lease is over")
    cluster.of["2"].send_signal(signal.SIGCONT)
    said = await until_refuses_to_go_on(cluster, "2")
    assert "does not understand" in said
    assert not has_led(cluster, "2")
    await cluster.until_true(lambda: cluster.read_key("leader") is None, "nobody leads")
    assert cluster.recorded_since(head) == []
    assert story(cluster) == begun
    cluster.start_manager("1")
    await cluster.until_leads("1")
    await cluster.until(g2="Running on h2")
    await halo_ok(cluster, "thaw")
    await cluster.until(HOME)


async def test_both_versions_lead_in_turn_and_remember_each_others_orders(make: Make) -> None:
    """As long as the newer one wrote nothing that the older one does not know."""
    cluster = make(old="1")
    await cluster.settle()
    await halo_ok(cluster, "stop", "g2", "--reason", "under the older one")
    await cluster.until(g2="Stopped")
    await comes_to_rest(cluster)
    begun, of_the_old = story(cluster), events_of(await cluster.status())
    await halo_ok(cluster, "managers", "step-down")
    assert await cluster.until_ended("1") == NOT_LEADING
    await cluster.until_leads("2")
    status = await cluster.until(g1="Running on h1", g2="Stopped")
    assert status["manager"]["version"] == NEW
    assert events_of(status)[: len(of_the_old)] == of_the_old
    await halo_ok(cluster, "unmanage", "g1", "--reason", "under the newer one")
    cluster.start_manager("1")
    await until_there(cluster, _1=OLD, _2=NEW)
    await halo_ok(cluster, "managers", "step-down")
    assert await cluster.until_ended("2") == NOT_LEADING
    await cluster.until_leads("1")
    status = await cluster.until(g1="Running on h1", g2="Stopped")
    assert status["manager"]["version"] == OLD
    assert [row["managed"] for row in status["groups"]] == [False, True]
    assert story(cluster) == begun


def events_of(status: Any) -> list[tuple[object, ...]]:
    return [tuple(event.values()) for event in status["events"]]


async def test_a_newer_manager_takes_over_from_a_killed_older_one_among_old_agents(
    make: Make,
) -> None:
    """One agent knows `operation` alone, one also greets, and one is of this version."""
    cluster = make(old="1", hosts=("h1", "h2", "h3"))
    cluster.boot_old("h1", greets=False)
    cluster.boot_old("h2", greets=True)
    cluster.boot("h3")
    cluster.start_manager("1")
    await cluster.until(HOME)
    cluster.start_manager("2")
    await cluster.stands_by("2")
    await comes_to_rest(cluster)
    begun = story(cluster)
    cluster.of["1"].kill()
    await cluster.until_leads("2")
    await cluster.until(HOME)
    assert story(cluster) == begun
    for group, host in (("g1", "h1"), ("g2", "h2")):  # and the new leader can act on them
        await halo_ok(cluster, "stop", group)
        await cluster.until({group: "Stopped"})
        await halo_ok(cluster, "start", group)
        await cluster.until({group: f"Running on {host}"})


async def test_three_managers_are_upgraded_one_after_the_other(make: Make) -> None:
    """Commands are taken on every machine meanwhile, and no service is touched."""
    cluster = make(old="123")
    await cluster.settle("123")
    await comes_to_rest(cluster)
    begun = story(cluster)
    for step, node in enumerate("231"):  # those that stand by, then the leader
        upgrade(cluster, node)
        there = {f"_{n}": OLD if n in cluster.program_of else NEW for n in "123"}
        for asked in "123":
            await cluster.until_answered(asked)
            await cluster.until(HOME)
            await until_there(cluster, **there)
        order = ("unmanage", "manage")[step % 2]
        await halo_ok(cluster, order, "g1", "--reason", f"in step {step}")
    assert story(cluster) == begun
    await halo_ok(cluster, "freeze", "--reason", "now all know it")
    await cluster.until_one_leads()
    status = await cluster.until(HOME)
    assert [row["managed"] for row in status["groups"]] == [False, True]
    assert status["manager"]["frozen"]
    assert [cluster.of[node].poll() for node in "123"] == [None, None, None]
