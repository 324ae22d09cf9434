"""The status as text: the same as made in one step, and never long at a time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from halo.manager.common.status_text import LONGEST_STEP_S, STEP_S, Part, StatusText


class Source:
    """A status of two lists and a value; `work_s` is what each of its parts takes."""

    def __init__(self, rows: int = 3, work_s: float = 0.0) -> None:
        self.rows = rows
        self.work_s = work_s
        self.begun = 0
        self.value = 0

    def parts(self) -> Iterator[Part]:
        self.begun += 1
        yield "resources", []
        for row in range(self.rows):
            time.sleep(self.work_s)
            yield "resources", [{"id": f"r{row} é", "comment": None}]
        yield "events", []
        yield "manager", {"value": self.value}


def spend(seconds: float) -> None:
    """Hold the loop up."""
    time.sleep(seconds)


async def test_it_is_the_status_as_json() -> None:
    assert json.loads(await StatusText(Source().parts).read()) == {
        "resources": [{"id": f"r{row} é", "comment": None} for row in range(3)],
        "events": [],
        "manager": {"value": 0},
    }


async def test_other_tasks_run_while_a_long_one_is_made() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await StatusText(Source(rows=10, work_s=LONGEST_STEP_S).parts).read()
    counting.cancel()
    assert turns >= 10


async def test_in_a_busy_loop_it_gets_a_fair_share_of_the_time() -> None:
    turns = 0

    async def work() -> None:
        nonlocal turns
        while True:
            turns += 1
            spend(2 * LONGEST_STEP_S)
            await asyncio.sleep(0)

    working = asyncio.create_task(work())
    await StatusText(Source(rows=100, work_s=STEP_S).parts).read()
    working.cancel()
    assert turns < 50  # a hundred, if each step were as short as in an idle loop


async def test_whoever_asks_meanwhile_gets_a_later_one_and_shares_it() -> None:
    source = Source(rows=5, work_s=STEP_S)
    text = StatusText(source.parts)
    first = asyncio.create_task(text.read())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(text.read()) for _ in range(10)]
    await first
    source.value = 1  # between the end of the first and the begin of the next
    answers = await asyncio.gather(*others)
    assert source.begun == 2
    assert {json.loads(answer)["manager"]["value"] for answer in answers} == {1}
    await text.read()
    assert source.begun == 3


async def test_one_that_goes_away_leaves_the_others_their_answer() -> None:
    text = StatusText(Source(rows=5, work_s=STEP_S).parts)
    gone, stays = (asyncio.create_task(text.read()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert json.loads(await stays)["manager"] == {"value": 0}


async def test_a_defect_reaches_whoever_asked_and_the_next_begins_afresh() -> None:
    broken = True

    def parts() -> Iterator[Part]:
        if broken:
            raise RuntimeError("a defect")
        yield "manager", {}

    text = StatusText(parts)
    with pytest.raises(RuntimeError, match="a defect"):
        await text.read()
    broken = False
    assert await text.read() == b'{"manager":{}}'


async def test_nothing_is_told_before_it_is_on_disk() -> None:
    on_disk = asyncio.Event()

    async def settled() -> bool:
        return await on_disk.wait()

    asked = asyncio.create_task(StatusText(Source().parts, settled).read())
    done, _ = await asyncio.wait({asked}, timeout=0.05)
    assert not done
    on_disk.set()
    assert json.loads(await asked)["manager"] == {"value": 0}


async def test_when_the_disk_gives_no_answer_the_status_that_says_so_is_given() -> None:
    source = Source()

    async def settled() -> bool:
        source.value = 1  # the trouble, as it would be shown
        return False

    assert json.loads(await StatusText(source.parts, settled).read())["manager"] == {"value": 1}
