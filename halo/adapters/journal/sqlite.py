"""The journal on a local disk: one SQLite database, one worker thread, one lock.

The event loop never waits for the disk. All work on the database
(:mod:`halo.adapters.journal.database`) runs in the worker thread, in the order of the calls.
The file must be on a local file system.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from halo.adapters.journal.database import Database, build_database
from halo.adapters.journal.encoding import encoded
from halo.adapters.journal.files import LockedFile, lock_state_file
from halo.adapters.journal.worker import Worker
from halo.core.errors import RecordError
from halo.ports import JournalRecord

T = TypeVar("T")

_MAX_PENDING = 1000  # batches that wait for the disk before appends are refused


class SqliteMedium:
    """Keeps journal records in a SQLite database. Implements :class:`halo.ports.JournalMedium`.

    Appends are carried out in the order of their calls. A cancelled append is still written, but
    nobody gets its outcome.
    """

    def __init__(self, locked: LockedFile, worker: Worker, database: Database) -> None:
        """Use :meth:`open`."""
        self._locked = locked
        self._worker = worker
        self._database = database
        self._closed = False

    @classmethod
    def open(cls, path: Path) -> SqliteMedium:
        """Take the lock and open the database at `path`, or make it if it is missing (may block).

        A HALO text state file is imported, and is kept as `<path>.halo-text`. Raises StateError if
        another manager holds the file, or if it is damaged or cannot be used.
        """
        locked = lock_state_file(path, build_database)
        worker = Worker(f"journal {locked.path.name}")
        try:
            database = worker.submit(lambda: Database(locked)).result()
        except BaseException:
            worker.stop()
            locked.release()
            raise
        return cls(locked, worker, database)

    @property
    def path(self) -> Path:
        """The database file, with symbolic links resolved."""
        return self._locked.path

    def read(self) -> Iterable[JournalRecord]:
        """All records in order (blocks). Raises StateError with the number of a damaged record.

        A damaged *last* record is dropped with a warning, and its number is used again: it was
        never acknowledged, or cannot be distinguished from such a record.
        """
        return self._worker.submit(self._database.read).result()

    async def append(self, records: Sequence[JournalRecord]) -> None:
        """Add records in one transaction. On return they are on disk. Raises RecordError.

        Records that JSON cannot express raise TypeError or ValueError.
        """
        # Encode now, so that later changes by the caller do not matter.
        texts = [encoded(record) for record in records]
        if texts:
            await self._run(lambda: self._database.append(texts))

    async def compact(self, snapshot: Sequence[JournalRecord]) -> None:
        """Replace all records by `snapshot` in one transaction. Raises RecordError."""
        texts = [encoded(record) for record in snapshot]
        await self._run(lambda: self._database.replace(texts))

    async def close(self) -> None:
        """Write what is pending, close the database, release the lock. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        try:
            await asyncio.shield(asyncio.wrap_future(self._worker.submit(self._database.close)))
        finally:
            self._worker.stop()
            self._locked.release()

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise RecordError(f"{self.path}: the journal is closed")
        if self._worker.pending >= _MAX_PENDING:
            raise RecordError(
                f"{self.path}: {_MAX_PENDING} writes wait for the disk already; "
                "check the disk that holds the state file"
            )
        return await asyncio.shield(asyncio.wrap_future(self._worker.submit(work)))
