"""The SQLite database that holds the journal: its schema, its checks, its seal.

Choices, and what was rejected:

- Write-ahead log with `synchronous=FULL`: one flush for a batch. A rollback journal needs three,
  and the failover of a dead host needs two appends.
- `locking_mode=EXCLUSIVE`: there is no shared-memory file, so a manager starts even on a full disk.
  No other SQLite program can run a checkpoint meanwhile. The price: `sqlite3` cannot read the file
  while the manager runs.
- The manager's own lock is `flock` on the database file itself. A lock file beside it would not
  protect a second name of the same file, and would remain after a process died.
- A seal on the database and its log, see
  :mod:`halo.adapters.journal.write_ahead_log`. Without it, SQLite would accept damaged files, and a
  wrong memory could start groups that have to stay down.

Everything here blocks.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import structlog

from halo.adapters.journal import write_ahead_log
from halo.adapters.journal.encoding import encoded
from halo.adapters.journal.files import LockedFile
from halo.core.errors import RecordError, StateError
from halo.error_words import words_of
from halo.ports import JournalRecord

log = structlog.get_logger(__name__)

APPLICATION_ID = 0x48414C4F  # "HALO", so that file(1) and later versions recognize the file
_BUSY_TIMEOUT_MS = 1000
_READ_CHUNK = 2000  # rows
_WAL_LIMIT_BYTES = 16 * 1024 * 1024

_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    sequence INTEGER PRIMARY KEY,
    record TEXT NOT NULL,
    checksum INTEGER NOT NULL
)
"""


def build_database(path: Path, records: Sequence[JournalRecord]) -> None:
    """Make a complete database at `path`, in one file without a log beside it.

    The caller flushes it to disk. Raises sqlite3.Error.
    """
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=OFF")
        connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        connection.execute("BEGIN")
        connection.execute(_SCHEMA)
        connection.executemany(_INSERT, _rows(1, [encoded(record) for record in records]))
        connection.execute("COMMIT")
    finally:
        connection.close()


# A damaged last record is dropped, but stays in the file, since a full disk must not prevent the
# start. The next record replaces it.
_INSERT = "INSERT OR REPLACE INTO journal (sequence, record, checksum) VALUES (?, ?, ?)"


def _checksum(sequence: int, text: str) -> int:
    return zlib.crc32(text.encode(), sequence & 0xFFFFFFFF)


def _rows(first: int, texts: Sequence[str]) -> Iterator[tuple[int, str, int]]:
    return ((n, text, _checksum(n, text)) for n, text in enumerate(texts, start=first))


_SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""Exceptions for a damaged database. A message may quote it, and so may not be valid text."""


class Database:
    """The open database. Every method runs in one thread, which sqlite3 itself checks.

    It writes the texts that :func:`halo.adapters.journal.encoding.encoded` makes.
    """

    def __init__(self, locked: LockedFile) -> None:
        """Open the file, or make it if it is missing. Raises StateError if it cannot be used."""
        self._locked = locked
        self._path = locked.path
        self._seal = 0
        self._last_sequence = 0  # of the last record on the disk, whole or damaged
        self._check_log()
        self._connection = self._connect()
        try:
            self._next_sequence = self._find_end()
            self._require_the_sealed_end()
        except BaseException:
            self._connection.close()
            raise
        # A manager starts even on a full disk. Then this is done before the first record.
        with contextlib.suppress(*_SQLITE_ERRORS, OSError):
            self._put_seal()

    def _check_log(self) -> None:
        try:
            write_ahead_log.check(self._path)
        except OSError as error:
            raise StateError(
                f"{self._path}: the state file cannot be read: {words_of(error)}"
            ) from error

    def _require_the_sealed_end(self) -> None:
        """Check the end: records may be missing there without a gap in their numbers."""
        try:
            if not self._connection.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'seal'"
            ).fetchall():
                return  # never closed in order
            rows = self._connection.execute("SELECT sequence FROM seal").fetchall()
        except _SQLITE_ERRORS as error:
            raise self._unusable(error) from error
        if len(rows) != 1 or type(rows[0][0]) is not int:
            raise self._damaged("the note of its last record is missing")
        # A damaged last record is dropped, because it was never acknowledged.
        if self._last_sequence < (end := rows[0][0]):
            raise self._damaged(f"record {end} is missing")

    def _version(self) -> int:
        """The seal, as SQLite reads it after it has replayed the log."""
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        return int(version)

    def _put_seal(self) -> None:
        """Tie the log to the database, see :mod:`halo.adapters.journal.write_ahead_log`.

        Raises sqlite3.Error, OSError.

        This changes only the first page. By that, a later manager recognizes a log that was begun
        by a manager that died before the database named the log."""
        version = self._version()
        self._in_transaction(lambda: self._set_version(version))  # there is a log now
        seal = write_ahead_log.seal_for(Path(f"{self._path}-wal"), is_open=True)
        self._in_transaction(lambda: self._set_version(seal))
        busy, pages, moved = self._connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()
        if not busy and pages == moved:
            self._seal = seal

    def _set_version(self, version: int) -> None:
        self._connection.execute(f"PRAGMA user_version={version}")

    def _note_end(self, end: int) -> None:
        """Note the number of the last record in a separate table."""
        self._connection.execute("CREATE TABLE IF NOT EXISTS seal (sequence INTEGER NOT NULL)")
        self._connection.execute("DELETE FROM seal")
        self._connection.execute("INSERT INTO seal VALUES (?)", (end,))

    def _connect(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(
                self._path, isolation_level=None, timeout=_BUSY_TIMEOUT_MS / 1000
            )
            # Records are checked as bytes, because a damaged one need not be valid UTF-8.
            connection.text_factory = bytes
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            (application_id,) = connection.execute("PRAGMA application_id").fetchone()
            tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
            if tables and application_id != APPLICATION_ID:
                raise StateError(
                    f"{self._path}: is a database of another program; "
                    "give another path with --statefile, or move the file aside"
                )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT_BYTES}")
            if not tables:
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(_SCHEMA)
        except _SQLITE_ERRORS as error:
            if connection is not None:
                connection.close()
            raise self._unusable(error) from error
        except StateError:
            if connection is not None:
                connection.close()
            raise
        return connection

    def _unusable(self, error: Exception) -> StateError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        what, remedy = {
            sqlite3.SQLITE_BUSY: ("is in use by another program", "close it there"),
            sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "make its folder writable"),
            sqlite3.SQLITE_READONLY: ("cannot be written", "make it and its folder writable"),
            sqlite3.SQLITE_FULL: ("no space left on the disk", "free some space"),
            sqlite3.SQLITE_PERM: ("permission denied", "make it and its folder writable"),
        }.get(code, ("the database is damaged", _RESTORE))
        return StateError(f"{self._path}: {what} ({error}); {remedy}")

    def _find_end(self) -> int:
        """The next sequence number. A damaged last record is counted."""
        try:
            last = self._connection.execute(
                "SELECT sequence, record, checksum FROM journal ORDER BY sequence DESC LIMIT 1"
            ).fetchone()
        except _SQLITE_ERRORS as error:
            raise self._unusable(error) from error
        self._last_sequence = 0 if last is None else int(last[0])
        if last is None:
            return 1
        return int(last[0]) + 1 if _is_whole(*last) else int(last[0])

    def read(self) -> list[JournalRecord]:
        """All records, in order. Raises StateError with the number of a damaged record."""
        records: list[JournalRecord] = []
        try:
            cursor = self._connection.execute(
                "SELECT sequence, record, checksum FROM journal ORDER BY sequence"
            )
            while rows := cursor.fetchmany(_READ_CHUNK):
                records += self._decode(len(records) + 1, rows)
        except _SQLITE_ERRORS as error:
            raise StateError(
                f"{self._path}: the database is damaged after record {len(records)} "
                f"({error}); {_RESTORE}"
            ) from error
        return records

    def _decode(self, first: int, rows: list[tuple[int, bytes, int]]) -> list[JournalRecord]:
        for expected, (sequence, text, checksum) in enumerate(rows, start=first):
            if sequence != expected:
                raise self._damaged(f"record {expected} is missing")
            if _is_whole(sequence, text, checksum):
                continue
            if sequence != self._next_sequence:
                raise self._damaged(f"record {sequence} does not match its checksum")
            log.warning("dropped the damaged last record", file=str(self._path), sequence=sequence)
            rows = rows[:-1]
        try:
            # One decoder call for the whole chunk is twice as fast as one for each record.
            decoded = json.loads(b"[" + b",".join([row[1] for row in rows]) + b"]")
        except ValueError as error:
            raise self._damaged(f"a record from {first} on is not JSON") from error
        if len(decoded) != len(rows) or not all(type(record) is dict for record in decoded):
            raise self._damaged(f"a record from {first} on is not a JSON object")
        return list(decoded)

    def _damaged(self, what: str) -> StateError:
        return StateError(f"{self._path}: the journal is damaged: {what}; {_RESTORE}")

    def append(self, texts: Sequence[str]) -> None:
        """Add records in one transaction. On return they are flushed. Raises RecordError."""
        self._transact(lambda: self._insert(self._next_sequence, texts))
        self._next_sequence += len(texts)

    def replace(self, texts: Sequence[str]) -> None:
        """Replace all records by these, in one transaction. Raises RecordError."""

        def work() -> None:
            self._connection.execute("DELETE FROM journal")
            self._insert(1, texts)
            self._note_end(len(texts))

        self._transact(work)
        self._next_sequence = len(texts) + 1

    def _insert(self, first: int, texts: Sequence[str]) -> None:
        self._connection.executemany(_INSERT, _rows(first, texts))

    def _transact(self, work: Callable[[], None]) -> None:
        if problem := self._locked.problem():
            raise RecordError(
                f"{problem}; anything written now would be lost: put the file back, then restart "
                "the manager"
            )
        try:
            if not self._seal:
                self._put_seal()
            self._in_transaction(work)
        except _SQLITE_ERRORS as error:
            raise RecordError(f"{self._path}: could not be written: {error}{_hint(error)}") from (
                error
            )
        except OSError as error:
            raise RecordError(f"{self._path}: could not be written: {words_of(error)}") from error

    def _in_transaction(self, work: Callable[[], None]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            work()
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        # After some errors (a full disk), SQLite has rolled back already.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close in order. If that cannot be written, end as if this process had been killed."""
        if self._seal:
            try:
                self._in_transaction(self._note_closed)
            except sqlite3.Error as error:
                log.warning("the state file was not closed in order", problem=str(error))
                # SQLite would remove the log when it closes the connection. The next start would
                # miss the log. So the connection is never closed.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
                return
        self._connection.close()

    def _note_closed(self) -> None:
        self._set_version(write_ahead_log.closed(self._seal))
        self._note_end(self._next_sequence - 1)


_RESTORE = (
    "move the file and its -wal file aside, then restore a copy, or start with an empty journal "
    "(which forgets what was unmanaged, deactivated or fenced)"
)


def _is_whole(sequence: int, text: bytes, checksum: int) -> bool:
    return isinstance(text, bytes) and zlib.crc32(text, sequence & 0xFFFFFFFF) == checksum


def _hint(error: Exception) -> str:
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_FULL:
        return "; free some space on its disk"
    if code == sqlite3.SQLITE_READONLY:
        return "; make it and its folder writable"
    return ""
