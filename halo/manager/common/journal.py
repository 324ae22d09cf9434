"""The only way to the journal: write to the medium first, then fold into memory, then answer.

Records are flushed in groups: all records that came during one write go out in the next write. If
an administrator's record cannot be written, nothing changes (S7). For a record of a rescue, HALO
waits at most one second. Then it continues, and keeps the record. The record is written before
anything else as soon as the medium works again. Until then the status shows the trouble.

So memory may be ahead of the disk. A record may be folded before a command in flight, but be
written after it. Therefore `_durable` holds what a restart would read. If the two orders differ,
memory is made from it again. Otherwise, for example, a cleanup could forgive a failure in memory
that came after it on disk. The failure would then come back at the next start.
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
from halo.error_words import words_of
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
    keep: bool  # of a rescue: retried until it is written
    number: int  # its place in the order of the entries on the medium
    applied: bool = False
    given_up: bool = False  # its command was answered with an error while it was being written


class Journal:
    """Writes records and folds them. `on_trouble` is told of every change of the journal's health.
    `on_late` is told of records that take effect after their command was given up, in the step that
    folds them. `term` gives the term of the leadership, which every record carries; 0 if there is
    only one manager."""

    def __init__(
        self,
        medium: JournalMedium,
        remembered: Remembered,
        clock: WallClock,
        on_trouble: Callable[[str | None], None],
        records_read: int = 0,
        on_late: Callable[[tuple[Record, ...]], None] = lambda _records: None,
        term: Callable[[], int] = lambda: 0,
    ) -> None:
        self._medium = medium
        self._remembered = remembered
        self._clock = clock
        self._on_trouble = on_trouble
        self._on_late = on_late
        self._term = term
        self._queue: list[_Entry] = []
        self._wake = asyncio.Event()
        self._trouble: str | None = None
        self._written = records_read
        self._durable = Remembered()  # what the medium holds, folded
        self._durable.adopt(remembered)
        self._in_flight: tuple[list[_Entry], asyncio.Future[None]] | None = None
        self._entries = 0
        self._last_applied = 0
        self._disordered = False  # memory was folded in another order than that of the medium

    def make(self, event: Event, obj: str, comment: str = "", **data: object) -> Record:
        """A record with the present time and term."""
        return Record(self._clock.now(), event, obj, comment, data, self._term())

    async def command(self, *records: Record) -> None:
        """Write an administrator's records. On return they are durable and folded.

        Raises RecordError if they could not be written. Then nothing was changed."""
        entry = self._enqueue(records, keep=False)
        try:
            await asyncio.wait_for(asyncio.shield(entry.done), COMMAND_DEADLINE_S)
        except TimeoutError:
            if entry in self._queue:  # the write has not begun: take the entry back
                self._queue.remove(entry)
                raise RecordError(
                    f"the journal gave no answer within {COMMAND_DEADLINE_S:g} s; nothing was "
                    "changed. Check the disk of the state file, or etcd, then try again"
                ) from None
            entry.given_up = True
            raise RecordError(
                f"the journal gave no answer within {COMMAND_DEADLINE_S:g} s; the command takes "
                "effect if the write is completed. Check `halo status` before you try again"
            ) from None

    async def rescue(self, *records: Record) -> None:
        """Write the manager's own records. After one second, continue without the disk."""
        entry = self._enqueue(records, keep=True)
        try:
            await asyncio.wait_for(asyncio.shield(entry.done), RESCUE_DEADLINE_S)
        except TimeoutError:
            self._say_no_answer()
        self._apply(entry)

    def note(self, *records: Record) -> None:
        """Like :meth:`rescue`, but without any wait: memory first, and the disk follows."""
        self._apply(self._enqueue(records, keep=True))

    async def settled(self) -> bool:
        """Wait until all folded records are on the medium, because a status tells them (S7).

        If the journal is in trouble, do not wait, since the status says so. Returns False if one
        second was not enough: then the journal is in trouble from now on."""
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
        """The disk has failed for very long: replace the oldest half by one snapshot of memory."""
        dropped = self._queue[: BACKLOG_LIMIT // 2]
        self._queue = [e for e in dropped if not e.keep] + self._queue[BACKLOG_LIMIT // 2 :]
        snapshot = self._remembered.snapshot(self._clock.now(), self._term())
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
        """Write until cancelled. :meth:`close` writes what is queued at shutdown."""
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
        """Wait for records. Returns False if there are none while the journal is in trouble. Then
        it was tried whether the medium works again, so that the alarm ends with its reason."""
        try:
            async with asyncio.timeout(None if self._trouble is None else TROUBLE_CHECK_S):
                await self._wake.wait()
            return True
        except TimeoutError:
            if await self._compact():
                self._say(None)
            return False

    async def _compact(self) -> bool:
        """Replace the written records by one snapshot of them. Queued records follow it."""
        snapshot = self._durable.snapshot(self._clock.now(), self._term())
        self._written = 0
        try:
            await self._medium.compact([snapshot.to_json()])
        except RecordError as error:
            log.error("journal not compacted", problem=str(error))
            return False
        return True

    async def _flush(self) -> bool:
        """Write all queued records at once. Returns False if the medium failed."""
        if self._in_flight is None:  # else a write whose caller has gone comes first
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
        """Fold the records that are on stable storage now, in the order that they have there."""
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
        """Is there a command that was given up, but whose record may still reach the disk?"""
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
        """Write what is still queued, if the medium allows it, and release the medium."""
        try:
            async with asyncio.timeout(RESCUE_DEADLINE_S):
                while self._in_flight is not None or self._queue:
                    if not await self._flush():
                        break
        except (HaloError, TimeoutError) as error:
            log.error("journal not flushed at shutdown", problem=words_of(error))
        try:
            async with asyncio.timeout(RESCUE_DEADLINE_S):
                await self._medium.close()
        except TimeoutError:
            log.error("journal not closed: no answer", waited_s=RESCUE_DEADLINE_S)


def _take_note(done: asyncio.Future[None]) -> None:
    """Read the exception. If the command was given up or its client has gone, nobody else does."""
    if not done.cancelled():
        done.exception()
