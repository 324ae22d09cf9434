"""The one way to the journal: written to the medium first, then folded into memory, then answered.

Records are flushed in groups: whatever has gathered while the last write was under way goes out in
the next. An administrator's record that cannot be written changes nothing (S7). A rescue's record
is waited for a second at most, then taken as said; it is kept, and written before anything else as
soon as the medium works again, and the status says so all the while.

So memory may run ahead of the disk, and what is then written behind a command in flight was folded
before it. What a restart would read is kept beside (`_durable`), and memory is made from it again
wherever the two orders differ: otherwise a cleanup, say, would forgive a failure in memory that
came after it on disk, and comes back at the next start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from halo.core.errors import HaloError, RecordError
from halo.core.journal import fold
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from halo.ports import JournalMedium, WallClock

COMMAND_DEADLINE_S = 10.0
RESCUE_DEADLINE_S = 1.0
RETRY_S = 1.0
TROUBLE_CHECK_S = 10.0
BACKLOG_LIMIT = 10_000
COMPACT_AFTER_RECORDS = 20_000

log = structlog.get_logger("halo.journal")


@dataclass(slots=True)
class _Entry:
    records: tuple[Record, ...]
    done: asyncio.Future[None]
    keep: bool  # a rescue's: retried until it is written
    number: int  # its place in the order in which entries stand on the medium
    applied: bool = False
    given_up: bool = False  # its command was answered with an error while it was being written


class Journal:
    """Writes records and folds them. `on_trouble` is told of every change of its health, `on_late`
    of records that take effect after their command was given up, in the step that folds them."""

    def __init__(
        self,
        medium: JournalMedium,
        remembered: Remembered,
        clock: WallClock,
        on_trouble: Callable[[str | None], None],
        records_read: int = 0,
        on_late: Callable[[tuple[Record, ...]], None] = lambda _records: None,
    ) -> None:
        self._medium = medium
        self._remembered = remembered
        self._clock = clock
        self._on_trouble = on_trouble
        self._on_late = on_late
        self._queue: list[_Entry] = []
        self._wake = asyncio.Event()
        self._trouble: str | None = None
        self._written = records_read
        self._durable = Remembered()  # what the medium holds, folded
        self._durable.adopt(remembered)
        self._in_flight: tuple[list[_Entry], asyncio.Future[None]] | None = None
        self._entries = 0
        self._last_applied = 0
        self._disordered = False  # memory was folded in another order than the medium's

    def make(self, event: Event, obj: str, comment: str = "", **data: object) -> Record:
        """A record of now."""
        return Record(self._clock.now(), event, obj, comment, data)

    async def command(self, *records: Record) -> None:
        """Write an administrator's records; on return they are durable and folded.

        Raises RecordError when they could not be written: then nothing was changed."""
        entry = self._enqueue(records, keep=False)
        try:
            await asyncio.wait_for(asyncio.shield(entry.done), COMMAND_DEADLINE_S)
        except TimeoutError:
            if entry in self._queue:  # not begun: take it back, nothing happened
                self._queue.remove(entry)
                raise RecordError(
                    f"the journal gave no answer within {COMMAND_DEADLINE_S:g} s; nothing was "
                    "changed. Check the disk that holds the state file, then try again"
                ) from None
            entry.given_up = True
            raise RecordError(
                f"the journal gave no answer within {COMMAND_DEADLINE_S:g} s; the command takes "
                "effect if the disk completes the write. Check `halo status` before you try again"
            ) from None

    async def rescue(self, *records: Record) -> None:
        """Write the manager's own records; after a second it goes on without the disk."""
        entry = self._enqueue(records, keep=True)
        try:
            await asyncio.wait_for(asyncio.shield(entry.done), RESCUE_DEADLINE_S)
        except TimeoutError:
            self._say_no_answer()
        self._apply(entry)

    def note(self, *records: Record) -> None:
        """Like :meth:`rescue`, without waiting at all: memory first, the disk follows."""
        self._apply(self._enqueue(records, keep=True))

    async def settled(self) -> bool:
        """Wait until all that is folded by now is on the medium: what a status shows is told (S7).

        In trouble not at all, since the status says so. False when a second was not enough: then
        it is in trouble from now on."""
        entries = [*(self._in_flight[0] if self._in_flight else ()), *self._queue]
        waiting = [entry.done for entry in entries if entry.applied and not entry.done.done()]
        if waiting and self._trouble is None:
            _, late = await asyncio.wait(waiting, timeout=RESCUE_DEADLINE_S)
            if late:
                self._say_no_answer()
                return False
        return True

    def _enqueue(self, records: tuple[Record, ...], *, keep: bool) -> _Entry:
        self._entries += 1
        done = asyncio.get_running_loop().create_future()
        done.add_done_callback(_take_note)
        entry = _Entry(records, done, keep, self._entries)
        self._queue.append(entry)
        if keep and len(self._queue) > BACKLOG_LIMIT:
            self._shorten_backlog()
        self._wake.set()
        return entry

    def _shorten_backlog(self) -> None:
        """The disk has been gone for very long: fold the oldest half into one snapshot-less gap."""
        dropped = self._queue[: BACKLOG_LIMIT // 2]
        self._queue = [e for e in dropped if not e.keep] + self._queue[BACKLOG_LIMIT // 2 :]
        snapshot = self._remembered.snapshot(self._clock.now())
        done = asyncio.get_running_loop().create_future()
        entry = _Entry((snapshot,), done, keep=True, number=0, applied=True)
        self._queue.insert(0, entry)

    def _apply(self, entry: _Entry) -> None:
        if not entry.applied:
            entry.applied = True
            fold.apply_all(self._remembered, entry.records)
            self._disordered = self._disordered or entry.number < self._last_applied
            self._last_applied = max(self._last_applied, entry.number)

    async def run(self) -> None:
        """Write until cancelled; what is queued at shutdown is written by :meth:`close`."""
        while True:
            if self._written > COMPACT_AFTER_RECORDS:
                await self._compact()
            if not await self._something_to_write():
                continue
            self._wake.clear()
            while self._queue:
                if not await self._flush():
                    await asyncio.sleep(RETRY_S)

    async def _something_to_write(self) -> bool:
        """Wait for records. In trouble with nothing to write, look now and then whether the
        medium works again, so that the alarm ends when its reason does; False then."""
        try:
            async with asyncio.timeout(None if self._trouble is None else TROUBLE_CHECK_S):
                await self._wake.wait()
            return True
        except TimeoutError:
            if await self._compact():
                self._say(None)
            return False

    async def _compact(self) -> bool:
        """Replace what was written by what it comes to; what is queued follows it."""
        snapshot = self._durable.snapshot(self._clock.now())
        self._written = 0
        try:
            await self._medium.compact([snapshot.to_json()])
        except RecordError as error:
            log.error("journal not compacted", problem=str(error))
            return False
        return True

    async def _flush(self) -> bool:
        """Write all that is queued in one go; False when the medium failed."""
        if self._in_flight is None:  # else a write that outlived its caller comes first
            batch, self._queue = self._queue, []
            records = [r.to_json() for entry in batch for r in entry.records]
            self._in_flight = batch, asyncio.ensure_future(self._medium.append(records))
        batch, write = self._in_flight
        try:
            await asyncio.shield(write)
        except RecordError as error:
            self._in_flight = None
            self._failed(batch, error)
            return False
        self._in_flight = None
        self._take_in(batch)
        self._say(None)
        return True

    def _take_in(self, batch: list[_Entry]) -> None:
        """Fold what is on stable storage now, in the order in which it stands there."""
        for entry in batch:
            fold.apply_all(self._durable, entry.records)
            self._apply(entry)
            self._written += len(entry.records)
            if not entry.done.done():
                entry.done.set_result(None)
        if self._disordered:
            self._disordered = False
            self._remembered.adopt(self._durable)
            for entry in self._queue:
                if entry.applied:
                    fold.apply_all(self._remembered, entry.records)
        for entry in batch:
            if entry.given_up:
                self._on_late(entry.records)

    def _failed(self, batch: list[_Entry], error: RecordError) -> None:
        self._say(str(error))
        kept = [entry for entry in batch if entry.keep]
        self._queue = kept + self._queue
        for entry in batch:
            if entry.keep:
                self._apply(entry)
                if not entry.done.done():
                    entry.done.set_result(None)
            elif not entry.done.done():
                entry.done.set_exception(
                    RecordError(f"the journal cannot be written, so nothing was changed: {error}")
                )

    def _say_no_answer(self) -> None:
        self._say(f"the journal gave no answer within {RESCUE_DEADLINE_S:g} s")

    @property
    def may_yet_write_commands(self) -> bool:
        """Is there a command without an answer whose record may still come to be on the disk?"""
        entries = [*(self._in_flight[0] if self._in_flight else ()), *self._queue]
        return any(entry.given_up for entry in entries)

    def _say(self, trouble: str | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            if trouble is None:
                log.info("journal works again")
            else:
                log.error("journal trouble", problem=trouble)
            self._on_trouble(trouble)

    async def close(self) -> None:
        """Write what is still queued, as far as the medium lets us, and release it."""
        try:
            async with asyncio.timeout(RESCUE_DEADLINE_S):
                while self._in_flight is not None or self._queue:
                    if not await self._flush():
                        break
        except (HaloError, TimeoutError) as error:
            log.error("journal not flushed at shutdown", problem=str(error))
        try:
            async with asyncio.timeout(RESCUE_DEADLINE_S):
                await self._medium.close()
        except TimeoutError:
            log.error("journal not closed: its disk gives no answer")


def _take_note(done: asyncio.Future[None]) -> None:
    """Its command may have been given up, or its client gone: then nobody else asks."""
    if not done.cancelled():
        done.exception()
