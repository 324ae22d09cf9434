"""`halo managers step-down` is on disk before the leadership is given back (S7)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from halo.core.errors import CommandFailed, SteppedDown
from halo.core.status.ours import event

from .fence_bench import Bench, virtual


def on_disk(bench: Bench) -> list[dict[str, Any]]:
    """The records of hand-overs."""
    records = map(json.loads, bench.disk.texts)
    return [record for record in records if "step_down" in record["data"]]


@virtual
async def test_it_is_an_event_with_the_manager_and_the_reason() -> None:
    bench = Bench(term=7, observe_only=True)  # which refuses other commands
    await bench.manager.operations.record_step_down("1", "new kernel")
    [record] = on_disk(bench)
    assert (record["event"], record["term"]) == ("defect", 7)  # older versions know this name
    told = event(bench.state.remembered.events[-1])
    assert (told["event"], told["obj_id"]) == ("step-down", "1")
    assert told["comment"] == "manager 1 gives the leadership back by command: new kernel"
    await bench.manager.operations.record_step_down("1", None)
    told = event(bench.state.remembered.events[-1])
    assert told["comment"] == "manager 1 gives the leadership back by command"
    assert not bench.work.done()  # whoever recorded it gives the leadership back


@virtual
async def test_what_cannot_be_recorded_is_not_done() -> None:
    bench = Bench()
    await bench.up()
    bench.disk.fail_next = 1
    with pytest.raises(CommandFailed, match="nothing was changed"):
        await bench.manager.operations.record_step_down("1", "new kernel")
    await asyncio.sleep(30)
    assert on_disk(bench) == []
    assert not bench.work.done()


@virtual
async def test_what_is_recorded_late_is_done_then() -> None:
    """As the answer said that gave it up."""
    bench = Bench()
    await bench.up()
    bench.disk.hang()
    with pytest.raises(CommandFailed, match="takes effect if the write is completed"):
        await bench.manager.operations.record_step_down("1", "new kernel")
    assert not bench.work.done()
    bench.disk.release()
    with pytest.raises(SteppedDown, match="new kernel"):
        await asyncio.wait_for(bench.work, 60)
    assert len(on_disk(bench)) == 1
