"""What comes late: answers to old questions, samples from before a command was called off, records
of a slow disk, and changes on another host than the one that manages a group.

The real manager on a clock that jumps, with agents that do what they are told.
"""

from __future__ import annotations

import asyncio

import pytest

from halo.core.errors import CommandFailed, LossKind
from halo.core.journal.records import Event
from halo.core.model import SecondCopyPolicy
from halo.core.outcomes import AgentIdentity
from tests.core.builders import make_group

from .test_watcher import MONITOR, STOP, Agent, Bench, virtual


def take_away(bench: Bench, host: str) -> Agent:
    """The agent of this host ends: its host lives."""
    agent = bench.agents.pop(host)
    agent.sink = None
    agent.connections[-1].end(LossKind.REFUSED)
    return agent


def polled(bench: Bench) -> Bench:
    """None of its agents watches."""
    for agent in bench.agents.values():
        agent.identity = AgentIdentity("1", "boot-1", features=frozenset({"heartbeat", "run"}))
    return bench


def copies(bench: Bench, resource: str) -> int:
    return sum(resource in agent.up for agent in bench.agents.values())


async def command(bench: Bench, group: str, name: str, to: str | None = None) -> str:
    return await bench.manager.operations.group_command(group, name, to=to, comment=None)


async def pass_time(bench: Bench, seconds: float) -> None:
    """Every watching agent says that nothing changed, as often as it has to."""
    for _ in range(max(1, round(seconds))):
        for agent in bench.watching:
            assert agent.tell()
        await asyncio.sleep(1.0)


@virtual
async def test_a_group_leaves_a_deactivated_host_as_soon_as_another_can_take_it() -> None:
    bench = await Bench().start()
    h2 = take_away(bench, "h2")
    await asyncio.sleep(1.0)
    await bench.manager.operations.host_command("h1", "deactivate", force=True, comment=None)
    await pass_time(bench, 2.0)
    assert "g" in bench.agents["h1"].up
    bench.agents["h2"] = h2
    await bench.until(lambda: h2.sink is not None)
    assert h2.tell_all()
    await bench.until(lambda: "g" in h2.up)
    assert copies(bench, "g") == 1


@virtual
async def test_after_a_second_copy_was_stopped_the_group_is_completed_in_place_again() -> None:
    group = make_group("g", tree={"g": ("leaf",)}, second_copy=SecondCopyPolicy.STOP)
    bench = await Bench(group, monitor_interval_s=5.0).start()
    h1, h2 = bench.agents["h1"], bench.agents["h2"]
    h2.up.add("g")
    h2.tell("g")
    await bench.until(lambda: "g" not in h2.up)
    await asyncio.sleep(0.1)
    h2.tell("g", "leaf")
    await pass_time(bench, 6.0)
    take_away(bench, "h2")
    await asyncio.sleep(0.5)
    h1.up.discard("leaf")
    h1.tell("leaf")
    await bench.until(lambda: h1.up == {"g", "leaf"})
    assert h1.count(STOP, "g") == 0
    assert not bench.events(Event.ERROR)


@virtual
async def test_a_sample_from_before_a_command_that_was_called_off_is_no_proof() -> None:
    bench = polled(Bench(make_group("g", ("h1", "h2", "h3")), monitor_interval_s=1.0))
    await bench.start()
    h1, h3 = bench.agents["h1"], bench.agents["h3"]
    stopping = h1.holds[STOP, "g"] = asyncio.Event()
    await command(bench, "g", "stop")
    await asyncio.sleep(0.1)
    await command(bench, "g", "start")
    stopping.set()
    await bench.until(lambda: "g" in h1.up)
    await asyncio.sleep(100.0)
    looked = h3.count(MONITOR)
    await bench.until(lambda: h3.count(MONITOR) > looked, within_s=100.0)
    await asyncio.sleep(1.0)
    h3.up.add("g")  # by hand, and not looked at since
    await command(bench, "g", "move", to="h2")
    for _ in range(2000):
        await asyncio.sleep(0.001)
        assert copies(bench, "g") < 2 or "g" in h1.up
    assert copies(bench, "g") == 1


@virtual
async def test_an_answer_from_before_it_was_managed_gives_no_right_to_start_it() -> None:
    bench = polled(Bench(monitor_interval_s=1.0))
    await bench.start()
    h1, h2 = bench.agents["h1"], take_away(bench, "h2")
    await bench.manager.operations.set_managed("g", False, "moved by hand")
    old = h1.holds[MONITOR, "g"] = asyncio.Event()
    bench.forget()
    await bench.until(lambda: h1.count(MONITOR, "g") > 0)
    await asyncio.sleep(0.1)  # it was sampled, and its answer is on its way
    h1.up.discard("g")
    h2.up.add("g")
    young = h1.holds[MONITOR, "g"] = asyncio.Event()
    await bench.manager.operations.set_managed("g", True, "done")
    old.set()
    await asyncio.sleep(0.2)
    young.set()
    await asyncio.sleep(10.0)
    assert "g" not in h1.up


@pytest.mark.parametrize("event", ["start", "thaw", "cleanup"])
def test_a_command_that_the_disk_wrote_too_late_is_carried_out(event: str) -> None:
    async def story() -> None:
        bench = await Bench().start()
        operations, h1 = bench.manager.operations, bench.agents["h1"]
        if event == "start":
            await command(bench, "g", "stop")
            await bench.until(lambda: not h1.up)
            bench.tell_operations()
            work = command(bench, "g", "start")
        elif event == "thaw":
            await operations.cluster_command("freeze", comment=None)
            h1.up.discard("g")
            h1.tell("g")
            work = operations.cluster_command("thaw", comment=None)
        else:
            h2 = bench.agents["h2"]
            h2.up.add("g")
            h2.tell("g")
            await bench.until(lambda: bool(bench.events(Event.ERROR)))
            h1.up.discard("g")
            h1.tell("g")
            h2.up.discard("g")
            h2.tell("g")
            work = command(bench, "g", "cleanup")
        await pass_time(bench, 2.0)
        bench.disk.hang()
        asked = asyncio.create_task(work)
        await pass_time(bench, 11.0)
        with pytest.raises(CommandFailed, match="takes effect if the write is completed"):
            await asked
        assert not bench.runs("g")
        await pass_time(bench, 2.0)
        bench.disk.release()
        await bench.until(lambda: bench.runs("g"), within_s=1.0)

    virtual(story)()
