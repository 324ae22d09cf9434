"""What is here to stay is taken out of the garbage collector's sight once it is all there."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import pytest

from halo.manager.collector import spare_once_settled

from .fence_bench import Bench, virtual
from .virtual_time import loop_now, run


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    """Nothing is frozen before, and nothing stays so."""
    gc.collect()
    gc.unfreeze()
    yield
    gc.unfreeze()


async def frozen_at(told: list[object]) -> float:
    """When it freezes, with this told at each look, and the last one for ever."""
    began = loop_now().time()

    def progress() -> object:
        return told.pop(0) if len(told) > 1 else told[0]

    await spare_once_settled(progress, poll_s=5.0, latest_s=60.0)
    assert gc.get_freeze_count() > 0
    return loop_now().time() - began


@pytest.mark.parametrize(
    ("story", "told", "after_s"),
    [
        ("at rest from the beginning", [(2, 4)], 10.0),
        ("hosts connect, groups start", [None, (1, 0), (2, 3), (2, 4)], 25.0),
        ("a host falls silent meanwhile", [(2, 4), None, (1, 2)], 20.0),
        ("never at rest", [(2, n) for n in range(100)], 60.0),
        (
            "never at rest, and in trouble at the end",
            [*[(2, n) for n in range(11)], None, (1, 9)],
            65.0,
        ),
    ],
)
def test_it_freezes_once_all_is_there(story: str, told: list[object], after_s: float) -> None:
    assert run(frozen_at(told)) == pytest.approx(after_s), story


async def changes(bench: Bench) -> bool:
    """Is something under way: does it tell another thing each time?"""
    before = bench.manager.progress()
    await asyncio.sleep(0.01)
    return before is not None and bench.manager.progress() != before


@virtual
async def test_a_manager_tells_how_far_it_is_and_when_it_has_other_cares() -> None:
    bench = Bench()
    progress = bench.manager.progress
    assert await changes(bench), "no host is connected"
    await bench.up()
    assert progress() == (2, 2, 2)
    bench.agents["h1"].script_s = 3.0
    await bench.manager.operations.group_command("g", "stop", to=None, comment="why")
    await asyncio.sleep(1.0)
    assert await changes(bench), "a stop is on its way"
    await bench.manager.operations.group_command("g", "start", to=None, comment="why")
    await bench.until(lambda: progress() == (2, 2, 4))
    bench.outlet().off_hangs = True
    bench.lose()
    await bench.until(lambda: bench.h1.suspect_at is not None)
    assert bench.manager.progress() is None, "h1 has just fallen silent"
    await bench.until(lambda: bench.switched == ["off one"])
    assert bench.manager.progress() is None, "h1 is being fenced"


@virtual
async def test_what_the_manager_is_made_of_is_not_walked_any_more() -> None:
    bench = Bench()
    await bench.up()
    walked = len(gc.get_objects())
    await spare_once_settled(bench.manager.progress)
    assert len(gc.get_objects()) < walked / 10
    await asyncio.sleep(60.0)
    bench.manager.check_invariants()
