"""A journal medium in memory, with faults on order: the fake beside SqliteMedium.

A :class:`MemoryDisk` outlives the media opened on it, as a disk outlives a process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from halo.core.errors import RecordError, StateError
from halo.ports import JournalRecord


@dataclass
class MemoryDisk:
    """What survives a crash, and the faults that the next operations meet.

    `fail_next`: that many writes raise RecordError and change nothing. `delay_s`: every write
    takes this long. `hang`: writes never end while it is set (clear it to let them go on).
    `torn_tail`: the last record was half written when the power went.
    """

    texts: list[str] = field(default_factory=list)
    holder: MemoryMedium | None = None
    fail_next: int = 0
    delay_s: float = 0.0
    torn_tail: bool = False
    writes: int = 0
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._released.set()

    def hang(self) -> None:
        """Let no write end until :meth:`release`."""
        self._released.clear()

    def release(self) -> None:
        """Let hanging writes go on."""
        self._released.set()

    def crash(self) -> None:
        """The process that held the medium is gone; writes in flight are lost."""
        if self.holder is not None:
            self.holder.dead = True
            self.holder = None

    def tear_last_record(self) -> None:
        """Garble the last record, as a crash in the middle of a write does."""
        self.texts[-1] = self.texts[-1][:-2]
        self.torn_tail = True

    async def wait_writable(self) -> None:
        """Take as long as a write takes, and fail when one is to fail."""
        await self._released.wait()
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        self.writes += 1
        if self.fail_next:
            self.fail_next -= 1
            raise RecordError("memory: the write failed, as ordered")


class MemoryMedium:
    """Implements :class:`halo.ports.JournalMedium` on a :class:`MemoryDisk`."""

    def __init__(self, disk: MemoryDisk) -> None:
        """Use :meth:`open`."""
        self._disk = disk
        self._order = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.dead = False

    @classmethod
    def open(cls, disk: MemoryDisk) -> MemoryMedium:
        """Take the lock. Raises StateError while another medium holds it."""
        if disk.holder is not None:
            raise StateError("memory: in use by another manager; stop that one first")
        if disk.torn_tail:
            disk.texts.pop()
            disk.torn_tail = False
        disk.holder = cls(disk)
        return disk.holder

    def read(self) -> Iterable[JournalRecord]:
        """All records in order. Raises StateError for damage."""
        records: list[JournalRecord] = []
        for sequence, text in enumerate(self._disk.texts, start=1):
            try:
                records.append(json.loads(text))
            except ValueError as error:
                raise StateError(f"memory: record {sequence} is damaged; restore a copy") from error
        return records

    async def append(self, records: Sequence[JournalRecord]) -> None:
        """Add records, all or none. Raises RecordError."""
        texts = [json.dumps(record, allow_nan=False) for record in records]
        if texts:
            await self._write(lambda: self._disk.texts.extend(texts))

    async def compact(self, snapshot: Sequence[JournalRecord]) -> None:
        """Replace all records. Raises RecordError."""
        texts = [json.dumps(record, allow_nan=False) for record in snapshot]
        await self._write(lambda: self._disk.texts.__setitem__(slice(None), texts))

    async def close(self) -> None:
        """Finish what is pending and release the lock. Safe to repeat."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.dead = True
        if self._disk.holder is self:
            self._disk.holder = None

    async def _write(self, change: Callable[[], None]) -> None:
        if self.dead:
            raise RecordError("memory: the journal is closed")

        async def work() -> None:
            async with self._order:
                await self._disk.wait_writable()
                if self.dead:
                    raise RecordError("memory: the machine went down")
                change()

        # As with a real disk, a caller who is cancelled does not take a write back.
        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)
