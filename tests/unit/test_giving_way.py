"""Groups that give way to another one, on the whole manager."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from halo.core.journal.records import Event
from halo.core.model import Operation
from tests.core.builders import GENERIC_ERROR, amounts, make_group

from .fence_bench import Bench, virtual

ONE = amounts({"room": 1})
LOW = make_group("low", ("h1", "h2"), {"low": ["x"], "x": []}, needs=ONE, priority=10)


def high(name: str = "high", priority: int = 20) -> Any:
    return make_group(name, ("h2", "h1"), needs=ONE, priority=priority, preempt=True)


async def full(*groups: Any, room: int = 1, **settings: Any) -> Bench:
    """low runs on h1, which has no more room. high is stopped, and h2 takes nothing."""
    bench = Bench(groups=[LOW, high(), *groups], capacity={"room": room}, **settings)
    await bench.until(lambda: bench.agents["h1"].up == {"low", "x", *(g.id for g in groups)})
    await bench.until(lambda: "high" in bench.agents["h2"].up)
    await of(bench, "high", "stop")
    await bench.until(lambda: not bench.agents["h2"].up)
    operations = bench.manager.operations
    await operations.host_command("h2", "deactivate", force=True, comment="x")
    bench.agents["h1"].script_s = 0.5
    return bench


async def of(bench: Bench, group: str, command: str) -> str:
    return await bench.manager.operations.group_command(group, command, to=None, comment="x")


def told(bench: Bench, group: str) -> str:
    rows = bench.manager.operations.status()["groups"]
    return str(next(row["comment"] for row in rows if row["id"] == group))


async def never_beside(bench: Bench, what: Callable[[], bool]) -> None:
    """Until then, h1 has never both groups."""

    def checked() -> bool:
        up = bench.agents["h1"].up
        assert not ("high" in up and up & {"low", "x"})
        return what()

    await bench.until(checked)


@virtual
async def test_a_group_gives_way_and_says_to_which() -> None:
    bench = await full()
    await of(bench, "high", "start")
    await never_beside(bench, lambda: "gives way" in told(bench, "low"))
    assert "gives way to high, which has priority 20" in told(bench, "low")
    assert "; low gives way to it on h1" in told(bench, "high")
    row = next(g for g in bench.manager.operations.status()["groups"] if g["id"] == "low")
    assert row["gives_way_to"] == "high"
    await bench.until(lambda: bench.state.groups["low"].stop_begun, 0.1)
    await never_beside(bench, lambda: bench.agents["h1"].up == {"high"})
    await bench.until(lambda: "it gave way to high" in told(bench, "low"), 5.0)
    assert "h1 has 0 of 1 room free, and low needs 1" in told(bench, "low")
    assert bench.state.groups["low"].gives_way_to is None

    await of(bench, "high", "stop")
    await never_beside(bench, lambda: bench.agents["h1"].up == {"low", "x"})


@virtual
async def test_it_is_completed_in_place_if_the_other_one_is_not_to_run_any_more() -> None:
    bench = await full()
    since = bench.state.groups["low"].managed_since
    await of(bench, "high", "start")
    await bench.until(lambda: bench.agents["h1"].up == {"low"})
    await of(bench, "high", "stop")
    await bench.until(lambda: bench.agents["h1"].up == {"low", "x"})
    assert bench.state.groups["low"].managed_since == since
    assert bench.state.groups["low"].gives_way_to is None


@virtual
async def test_no_group_gives_way_before_the_other_one_was_looked_at_once_more() -> None:
    """high waits for long. Then somebody starts it by hand, and low may give way."""
    bench = await full(survey_interval_s=3600.0)
    operations = bench.manager.operations
    await operations.set_managed("low", managed=False, comment="x")
    await of(bench, "high", "start")
    await asyncio.sleep(60.0)
    assert "no group of a lower priority gives way to it now" in told(bench, "high")
    bench.agents["h2"].up.add("high")
    await operations.set_managed("low", managed=True, comment="x")
    for _ in range(300):
        await asyncio.sleep(0.1)
        assert bench.agents["h1"].up == {"low", "x"}
    assert bench.state.groups["high"].managed_on == "h2"


@virtual
async def test_a_stop_that_fails_ends_it_and_no_further_group_is_stopped() -> None:
    low2 = make_group("low2", ("h1",), needs=ONE, priority=11)
    bench = await full(low2, room=2)
    bench.agents["h1"].fails[Operation.STOP] = GENERIC_ERROR
    await of(bench, "high", "start")
    await bench.until(lambda: "low could not be stopped for it" in told(bench, "high"), 10.0)
    await asyncio.sleep(600.0)
    failed = [e.object for e in bench.state.remembered.events if e.event is Event.ERROR]
    assert failed == ["low"]
    assert bench.agents["h1"].up == {"low", "x", "low2"}
    assert "before somebody runs `halo cleanup low`" in told(bench, "high")

    bench.agents["h1"].fails.clear()
    await of(bench, "low", "cleanup")
    await never_beside(bench, lambda: bench.agents["h1"].up == {"high", "low2"})


@virtual
async def test_a_new_manager_decides_afresh() -> None:
    bench = await full()
    await of(bench, "high", "start")
    await bench.until(lambda: bench.agents["h1"].up == {"low"})
    bench.work.cancel()
    await asyncio.wait({bench.work})
    again = Bench(groups=[LOW, high()], capacity={"room": 1}, disk=bench.disk)
    again.agents["h1"].up.add("low")
    assert again.state.groups["low"].gives_way_to is None
    await never_beside(again, lambda: again.agents["h1"].up == {"high"})
    await of(again, "high", "stop")
    await never_beside(again, lambda: again.agents["h1"].up == {"low", "x"})


@virtual
async def test_only_the_lowest_gives_way_and_nothing_goes_round_in_circles() -> None:
    bench = Bench(groups=[LOW, high(), high("higher", 30)], capacity={"room": 1})
    up = {name: agent.up for name, agent in bench.agents.items()}
    await bench.until(lambda: up == {"h1": {"high"}, "h2": {"higher"}})
    await of(bench, "higher", "stop")
    await bench.until(lambda: up == {"h1": {"high"}, "h2": {"low", "x"}})
    since = bench.state.groups["high"].managed_since
    await of(bench, "higher", "start")
    await bench.until(lambda: up == {"h1": {"high"}, "h2": {"higher"}})
    await asyncio.sleep(300.0)
    assert up == {"h1": {"high"}, "h2": {"higher"}}
    assert bench.state.groups["high"].managed_since == since
    assert "it gave way to higher" in told(bench, "low")


@virtual
async def test_whoever_waits_for_the_room_is_told_when_it_is_not_kept_any_more() -> None:
    bench = await full()
    told_of: list[str] = []
    original = bench.manager.placer.room_changed

    def room_changed(group: str) -> None:
        told_of.append(group)
        original(group)

    bench.manager.placer.room_changed = room_changed  # type: ignore[method-assign]
    await of(bench, "high", "start")
    await bench.until(lambda: "gives way" in told(bench, "low"))
    assert "high" not in told_of
    await of(bench, "high", "stop")
    await bench.until(lambda: bench.state.groups["high"].makes_room is None)
    assert "high" in told_of
