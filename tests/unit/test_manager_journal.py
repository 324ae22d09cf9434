"""The manager's way to its journal, on a medium in memory with faults and a clock that jumps."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halo.core.errors import RecordError
from halo.core.journal import fold
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from halo.manager.common import journal as module
from halo.manager.common.journal import Journal
from tests.fakes.memory_medium import MemoryDisk, MemoryMedium

from .virtual_time import loop_now, run, settle


class Clock:
    def now(self) -> float:
        return 5.0


class Bench:
    """A journal on a disk, and what it said of its health."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.remembered = Remembered()
        self.health: list[str | None] = []
        self.medium = MemoryMedium.open(self.disk)
        self.journal = Journal(self.medium, self.remembered, Clock(), self.health.append)
        self.work = asyncio.create_task(self.journal.run())

    def make(self, event: Event, name: str, comment: str = "", **data: object) -> Record:
        return self.journal.make(event, name, comment, **data)

    def stop(self, group: str) -> Record:
        return self.make(Event.STOP, group)

    def is_stopped(self, group: str) -> bool:
        return not self.remembered.group(group).wanted

    @property
    def on_disk(self) -> list[str]:
        return [json.loads(text)["object"] for text in self.disk.texts]

    async def close(self) -> None:
        self.work.cancel()
        await asyncio.wait({self.work})
        await self.journal.close()

    def folded_from_disk(self) -> Remembered:
        found = Remembered()
        for text in self.disk.texts:
            fold.apply(found, Record.from_json(json.loads(text)))
        return found


def on_a_bench(test: Callable[[Bench], Awaitable[None]]) -> Callable[[], None]:
    """Run a test on a bench of its own, without any real waiting."""

    async def body() -> None:
        await test(Bench())

    def wrapper() -> None:
        run(body())

    wrapper.__name__ = getattr(test, "__name__", "test")
    return wrapper


def same(one: Remembered, other: Remembered) -> bool:
    """Do both remember the same? What was never touched equals what is new."""
    names = {*one.hosts, *other.hosts}
    groups = {*one.groups, *other.groups}
    return (
        all(one.host(name) == other.host(name) for name in names)
        and all(one.group(name) == other.group(name) for name in groups)
        and one.frozen == other.frozen
        and list(one.events) == list(other.events)
    )


# --- commands -----------------------------------------------------------------------------------


@on_a_bench
async def test_a_command_is_on_disk_and_in_memory_when_it_returns(bench: Bench) -> None:
    await bench.journal.command(bench.stop("a"), bench.stop("b"))
    assert bench.on_disk == ["a", "b"]
    assert bench.is_stopped("a")


@on_a_bench
async def test_a_command_is_not_in_memory_before_it_is_on_disk(bench: Bench) -> None:
    bench.disk.hang()
    command = asyncio.create_task(bench.journal.command(bench.stop("a")))
    await settle()
    assert not bench.is_stopped("a")
    bench.disk.release()
    await command
    assert bench.is_stopped("a")


@on_a_bench
async def test_what_gathers_during_a_write_goes_out_in_the_next(bench: Bench) -> None:
    bench.disk.delay_s = 0.1
    commands = [asyncio.create_task(bench.journal.command(bench.stop(f"g{n}"))) for n in range(50)]
    await asyncio.wait(commands)
    assert bench.disk.writes <= 2
    assert bench.on_disk == [f"g{n}" for n in range(50)]


@on_a_bench
async def test_a_command_that_cannot_be_written_changes_nothing(bench: Bench) -> None:
    bench.disk.fail_next = 1
    with pytest.raises(RecordError, match="nothing was changed"):
        await bench.journal.command(bench.stop("a"))
    assert not bench.is_stopped("a")
    assert bench.on_disk == []
    await bench.journal.command(bench.stop("b"))
    assert bench.on_disk == ["b"]
    assert not bench.is_stopped("a")


@on_a_bench
async def test_a_command_gives_up_after_ten_seconds_and_says_that_it_may_still_come(
    bench: Bench,
) -> None:
    bench.disk.hang()
    began = loop_now().time()
    with pytest.raises(RecordError, match="takes effect if the write is completed"):
        await bench.journal.command(bench.stop("a"))
    assert loop_now().time() - began == pytest.approx(module.COMMAND_DEADLINE_S)
    assert not bench.is_stopped("a")
    bench.disk.release()
    await settle()
    assert bench.is_stopped("a")  # memory follows the disk, as the answer said it may


@pytest.mark.parametrize("how", ["given up", "its client is gone"])
def test_a_write_that_nobody_waits_for_may_fail_without_a_traceback_in_the_log(how: str) -> None:
    async def body() -> None:
        bench = Bench()
        bench.disk.hang()
        bench.disk.fail_next = 1
        command = asyncio.create_task(bench.journal.command(bench.stop("a")))
        await settle()
        if how == "given up":
            await asyncio.sleep(module.COMMAND_DEADLINE_S + 1)
        else:
            command.cancel()
        await asyncio.wait({command})
        if not command.cancelled():
            assert "takes effect if" in str(command.exception())
        bench.disk.release()
        await settle()
        assert bench.health[-1] is not None, "the write failed"
        assert not bench.is_stopped("a")
        await bench.close()
        gc.collect()  # asyncio tells of a result that nobody looked at when it is thrown away

    run(body())


@on_a_bench
async def test_what_is_folded_is_settled_when_it_is_on_disk(bench: Bench) -> None:
    assert await bench.journal.settled()
    bench.disk.delay_s = 0.5
    bench.journal.note(bench.stop("a"))
    assert bench.is_stopped("a")
    assert bench.on_disk == []
    assert await bench.journal.settled()
    assert bench.on_disk == ["a"]


@on_a_bench
async def test_what_is_in_flight_is_waited_for_too(bench: Bench) -> None:
    bench.disk.delay_s = 0.5
    bench.journal.note(bench.stop("a"))
    await settle()  # its write has begun
    assert await bench.journal.settled()
    assert bench.on_disk == ["a"]


@on_a_bench
async def test_a_disk_that_gives_no_answer_is_said_once_and_not_waited_for_again(
    bench: Bench,
) -> None:
    bench.disk.hang()
    bench.journal.note(bench.stop("a"))
    began = loop_now().time()
    assert not await bench.journal.settled()
    assert loop_now().time() - began == pytest.approx(module.RESCUE_DEADLINE_S)
    assert bench.health[-1] is not None
    assert await bench.journal.settled()
    assert loop_now().time() - began == pytest.approx(module.RESCUE_DEADLINE_S)
    bench.disk.release()


@on_a_bench
async def test_a_command_that_was_not_begun_is_taken_back(bench: Bench) -> None:
    bench.disk.hang()
    bench.journal.note(bench.stop("first"))
    await settle()
    with pytest.raises(RecordError, match="nothing was changed"):
        await bench.journal.command(bench.stop("second"))
    bench.disk.release()
    await settle()
    assert bench.on_disk == ["first"]
    assert not bench.is_stopped("second")


@on_a_bench
async def test_a_command_whose_caller_went_away_is_carried_through(bench: Bench) -> None:
    bench.disk.hang()
    command = asyncio.create_task(bench.journal.command(bench.stop("a")))
    await settle()
    command.cancel()
    await settle()
    bench.disk.release()
    await settle()
    assert bench.on_disk == ["a"]
    assert bench.is_stopped("a")


# --- rescues and notes --------------------------------------------------------------------------


@on_a_bench
async def test_a_rescue_waits_for_the_disk(bench: Bench) -> None:
    bench.disk.delay_s = 0.4
    await bench.journal.rescue(bench.stop("a"))
    assert bench.on_disk == ["a"]
    assert bench.health == []


@on_a_bench
async def test_a_rescue_goes_on_after_a_second_and_says_so(bench: Bench) -> None:
    bench.disk.hang()
    began = loop_now().time()
    await bench.journal.rescue(bench.stop("a"))
    assert loop_now().time() - began == pytest.approx(1.0)
    assert bench.is_stopped("a")
    [trouble] = bench.health
    assert "no answer within 1 s" in str(trouble)
    bench.disk.release()
    await settle()
    assert bench.on_disk == ["a"]
    assert bench.health[-1] is None


@on_a_bench
async def test_a_rescue_is_kept_until_the_disk_takes_it_in_its_order(bench: Bench) -> None:
    bench.disk.fail_next = 3
    for name in ("a", "b"):
        await bench.journal.rescue(bench.stop(name))
        assert bench.is_stopped(name)
    bench.journal.note(bench.stop("c"))
    assert bench.on_disk == []
    with pytest.raises(RecordError):
        await bench.journal.command(bench.stop("refused"))
    await asyncio.sleep(5.0)
    await bench.journal.command(bench.stop("d"))
    assert bench.on_disk == ["a", "b", "c", "d"]


@on_a_bench
async def test_the_trouble_is_told_once_and_its_end_too(bench: Bench) -> None:
    bench.disk.fail_next = 5
    bench.journal.note(bench.stop("a"))
    await asyncio.sleep(20.0)
    assert len(bench.health) == 2
    assert "the write failed" in str(bench.health[0])
    assert bench.health[1] is None


@on_a_bench
async def test_a_note_is_in_memory_at_once_and_on_disk_soon(bench: Bench) -> None:
    bench.journal.note(bench.stop("a"))
    assert bench.is_stopped("a")
    assert bench.on_disk == []
    await settle()
    assert bench.on_disk == ["a"]


@on_a_bench
async def test_a_cancelled_rescue_is_still_written_and_remembered(bench: Bench) -> None:
    bench.disk.hang()
    rescue = asyncio.create_task(bench.journal.rescue(bench.stop("a")))
    await settle()
    rescue.cancel()
    await settle()
    bench.disk.release()
    await settle()
    assert bench.on_disk == ["a"]
    assert bench.is_stopped("a")


@on_a_bench
async def test_a_disk_that_is_gone_for_very_long_bounds_the_backlog(bench: Bench) -> None:
    bench.disk.hang()
    for number in range(module.BACKLOG_LIMIT + 100):
        bench.journal.note(bench.make(Event.START_FAILED, "g", str(number), host=f"h{number % 7}"))
    await settle()
    bench.disk.release()
    await settle()
    assert len(bench.disk.texts) < module.BACKLOG_LIMIT
    assert bench.folded_from_disk().group("g") == bench.remembered.group("g")


# --- memory and disk tell the same story --------------------------------------------------------


@on_a_bench
async def test_what_happens_during_a_commands_write_is_not_undone_by_it_in_memory_alone(
    bench: Bench,
) -> None:
    bench.disk.hang()
    cleanup = asyncio.create_task(bench.journal.command(bench.make(Event.CLEANUP, "g")))
    await settle()
    bench.journal.note(bench.make(Event.START_FAILED, "g", "exit 1", host="h1"))
    assert bench.remembered.group("g").start_failures == {"h1": "exit 1"}
    bench.disk.release()
    await cleanup
    await settle()
    assert same(bench.folded_from_disk(), bench.remembered)


RECORDS: list[tuple[Event, str, dict[str, Any]]] = [
    (Event.CLEANUP, "g", {}),
    (Event.START_FAILED, "g", {"host": "h1"}),
    (Event.MOVE, "g", {"to": "h2"}),
    (Event.MOVE_FAILED, "g", {}),
    (Event.RESET, "h1", {}),
    (Event.FENCE, "h1", {}),
    (Event.CONNECT, "h1", {}),
    (Event.DISCONNECT, "h1", {}),
    (Event.CLEAR_EVENTS, "", {}),
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.sampled_from(["command", "rescue", "note"]), st.sampled_from(range(len(RECORDS)))
            ),
            st.tuples(st.sampled_from(["hang", "release", "fail", "wait", "settle"]), st.just(0)),
        ),
        max_size=25,
    )
)
def test_memory_is_what_a_restart_would_read(plan: list[tuple[str, int]]) -> None:
    async def body() -> None:
        bench = Bench()
        waiting: list[asyncio.Task[None]] = []
        for number, (what, which) in enumerate(plan):
            event, name, data = RECORDS[which]
            record = bench.make(event, name, f"#{number}", **data)
            match what:
                case "command":
                    waiting.append(asyncio.create_task(bench.journal.command(record)))
                    await asyncio.sleep(0)
                case "rescue":
                    waiting.append(asyncio.create_task(bench.journal.rescue(record)))
                    await asyncio.sleep(0)
                case "note":
                    bench.journal.note(record)
                case "hang":
                    bench.disk.hang()
                case "release":
                    bench.disk.release()
                case "fail":
                    bench.disk.fail_next += 1
                case "wait":
                    await asyncio.sleep(3.0)
                case _:
                    await settle()
        bench.disk.release()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.sleep(60.0)
        assert same(bench.folded_from_disk(), bench.remembered)
        await bench.close()

    run(body())


# --- the end ------------------------------------------------------------------------------------


@on_a_bench
async def test_what_is_queued_at_the_end_is_written(bench: Bench) -> None:
    bench.journal.note(bench.stop("a"))
    bench.journal.note(bench.stop("b"))
    await bench.close()
    assert bench.on_disk == ["a", "b"]
    assert bench.disk.holder is None


@on_a_bench
async def test_a_write_under_way_at_the_end_is_written_once(bench: Bench) -> None:
    bench.disk.delay_s = 0.2
    bench.journal.note(bench.stop("a"))
    await settle()
    bench.journal.note(bench.stop("b"))
    await bench.close()
    assert bench.on_disk == ["a", "b"]


@on_a_bench
async def test_a_disk_that_hangs_does_not_hold_the_end_up(bench: Bench) -> None:
    bench.disk.hang()
    bench.journal.note(bench.stop("a"))
    await settle()
    bench.work.cancel()
    await asyncio.wait({bench.work})
    closing = asyncio.create_task(bench.journal.close())
    await asyncio.sleep(1.5)
    # The medium itself ends what it began: that is its contract, and its own deadline.
    bench.disk.release()
    await closing
    assert bench.on_disk == ["a"]


# --- it is compacted at run time ----------------------------------------------------------------


async def write_many(bench: Bench, count: int) -> None:
    """So many records, in portions that no backlog limit cuts."""
    for number in range(count):
        bench.journal.note(bench.make(Event.CONNECT, f"h{number % 3}"))
        if number % 5000 == 4999:
            await settle()


@on_a_bench
async def test_many_records_are_replaced_by_what_they_come_to(bench: Bench) -> None:
    await write_many(bench, module.COMPACT_AFTER_RECORDS + 1)
    await settle()
    bench.journal.note(bench.stop("later"))
    await settle()
    assert len(bench.disk.texts) == 2
    assert same(bench.folded_from_disk(), bench.remembered)


@on_a_bench
async def test_a_compaction_that_fails_loses_nothing(bench: Bench) -> None:
    await write_many(bench, module.COMPACT_AFTER_RECORDS)
    bench.disk.delay_s = 0.1
    bench.journal.note(bench.stop("one more"))
    await asyncio.sleep(0.15)  # of virtual time: that one is written, and the compaction under way
    bench.disk.fail_next = 1
    await asyncio.sleep(5.0)
    assert bench.disk.fail_next == 0
    await bench.journal.command(bench.stop("later"))
    assert len(bench.disk.texts) == module.COMPACT_AFTER_RECORDS + 2
    assert same(bench.folded_from_disk(), bench.remembered)


@on_a_bench
async def test_what_happens_during_a_compaction_is_written_after_it(bench: Bench) -> None:
    await write_many(bench, module.COMPACT_AFTER_RECORDS)
    bench.disk.delay_s = 0.1
    bench.journal.note(bench.stop("one more"))
    await asyncio.sleep(0.15)
    bench.journal.note(bench.stop("meanwhile"))
    await bench.journal.command(bench.stop("later"))
    assert bench.on_disk == ["", "meanwhile", "later"]
    assert same(bench.folded_from_disk(), bench.remembered)


def test_a_long_journal_is_compacted_at_the_start_and_a_full_disk_does_not_stop_the_start() -> None:
    async def body() -> None:
        bench = Bench()
        bench.work.cancel()
        bench.disk.fail_next = 1
        started = Journal(
            bench.medium, bench.remembered, Clock(), bench.health.append, records_read=10**6
        )
        bench.work = asyncio.create_task(started.run())
        await settle()
        assert bench.disk.fail_next == 0
        await started.command(bench.stop("a"))
        assert bench.is_stopped("a")
        await started.close()

    run(body())
