"""The write-ahead log of the state file, which is checked before SQLite opens it.

SQLite replays a log up to the first frame that is not whole, and drops the rest. If there is no
log, or if its first bytes are damaged, SQLite uses only the database. After a crash, this is right.
But if a log was damaged, lost or exchanged, the memory would be wrong, without any message. So the
manager *seals* the state file while it uses it:

- The database's `user_version` names the log that belongs to it. It does so by the first of the
  log's two salts, which is increased whenever the log begins again. It also says whether a manager
  has the file open.
- While the file is open, the log must exist and belong to it. It may be broken off only within its
  last transaction, which then was never acknowledged.

After a kill, the check takes an eighth of a second for a log of 4 MB, the longest possible one.

This check cannot find a log whose end is missing as if it had never been written. Only a disk that
loses flushed data does that.

Source of the format: https://www.sqlite.org/fileformat2.html, "The Write-Ahead Log".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import structlog

from halo.core.errors import StateError

log = structlog.get_logger(__name__)

_MAGIC = {0x377F0682: "<", 0x377F0683: ">"}  # the byte order for the checksum
_HEADER_BYTES = 32
_FRAME_BYTES = 24
_VERSION_AT = 60
_MASK = 0xFFFFFFFF
_OPEN = 1  # the lowest bit of a seal; the other bits are those of the salt
_BEGINNINGS = 1 << 20
"""How often a log may begin again while one manager runs: about every thousand pages."""

# SQLite's counters in the first page, which a change of `user_version` changes, too.
_COUNTERS = ((24, 28), (_VERSION_AT, _VERSION_AT + 4), (92, 100))


@dataclass(frozen=True)
class _Frame:
    """One page in the log. `size` is 0, or at the end of a transaction the database's pages."""

    page: int
    size: int
    salts: bytes
    sums: tuple[int, int]
    at: int  # its first byte in the log


class Log:
    """A log as bytes. `is_whole` is false where it is too short or its header is damaged."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.is_whole = False
        self.salt = 0
        if len(data) < _HEADER_BYTES:
            return
        magic, _, self._page_bytes, _, self.salt, _, *sums = struct.unpack(">8I", data[:32])
        self._order = _MAGIC.get(magic, "")
        self._salts = data[16:24]
        plausible = bool(self._order) and 512 <= self._page_bytes <= 65536
        self.is_whole = plausible and self._sum((0, 0), data[:24]) == tuple(sums)

    def frames(self) -> Iterator[_Frame]:
        """Every complete frame, whatever its content."""
        step = _FRAME_BYTES + self._page_bytes
        for at in range(_HEADER_BYTES, len(self._data) - step + 1, step):
            page, size = struct.unpack_from(">2I", self._data, at)
            sums = struct.unpack_from(">2I", self._data, at + 16)
            yield _Frame(page, size, self._data[at + 8 : at + 16], (sums[0], sums[1]), at)

    @cached_property
    def whole_frames(self) -> list[_Frame]:
        """The valid frames from the beginning. SQLite replays their complete transactions."""
        found = []
        sums = struct.unpack_from(">2I", self._data, 24)
        running = (sums[0], sums[1])
        for frame in self.frames():
            begin = frame.at
            running = self._sum(running, self._data[begin : begin + 8])
            running = self._sum(running, self.page_of(frame))
            if frame.salts != self._salts or frame.sums != running or frame.page == 0:
                break
            found.append(frame)
        return found

    def page_of(self, frame: _Frame) -> bytes:
        """The page that a frame holds."""
        begin = frame.at + _FRAME_BYTES
        return self._data[begin : begin + self._page_bytes]

    def damaged_at(self) -> int | None:
        """Where a broken transaction begins that other transactions follow. They were written after
        it had been flushed to the disk, so a crash cannot be the cause."""
        whole = len(self.whole_frames)
        ended = False
        broken_at = 0
        for number, frame in enumerate(self.frames()):
            if number < whole:
                continue
            is_of_now = frame.salts == self._salts
            if ended and is_of_now:
                return broken_at
            if number == whole:
                broken_at = frame.at
            if number == whole or is_of_now:
                ended = ended or frame.size != 0
        return None

    @property
    def is_broken_off(self) -> bool:
        """Does a frame of this log follow after those that SQLite would replay?"""
        whole = self.whole_frames
        kept = max((n for n, frame in enumerate(whole, 1) if frame.size), default=0)
        rest = list(self.frames())[kept:]
        return any(frame.salts == self._salts for frame in rest)

    def _sum(self, sums: tuple[int, int], data: bytes) -> tuple[int, int]:
        """The log's checksum, continued over `data`."""
        first, second = sums
        words = iter(struct.unpack(f"{self._order}{len(data) // 4}I", data))
        for one, other in zip(words, words, strict=True):
            first = (first + one + second) & _MASK
            second = (second + other + first) & _MASK
        return first, second


def check(path: Path) -> None:
    """Raise StateError if the log beside the state file does not belong to it.

    Reads both files. Call it under the lock, before SQLite opens them.
    """
    log_path = Path(f"{path}-wal")
    seal, first_page, size = _of_database(path)
    data = log_path.read_bytes() if log_path.exists() else b""
    wal = Log(data)
    if seal & _OPEN:
        _require_its_own(path, log_path, wal, seal)
    elif seal and wal.is_whole and not _belongs(wal, seal):
        _require_nothing_but_a_seal(path, log_path, wal, first_page, size)
    if not wal.is_whole:
        if data and not seal & _OPEN:
            log.warning("ignored a log without content", file=str(log_path), bytes=len(data))
        return
    if (at := wal.damaged_at()) is not None:
        what = f"the log of the state file is damaged at byte {at}, in the middle"
        raise StateError(f"{log_path}: {what}; {_REMEDY}")
    if wal.is_broken_off:
        log.warning("dropped the damaged last record", file=str(log_path), what="a transaction")


def _of_database(path: Path) -> tuple[int, bytes, int]:
    """The seal, the first page and the size in pages of a database. The seal is 0 if missing."""
    with path.open("rb") as file:
        head = file.read(100)
        if len(head) < 100:
            return 0, b"", 0
        page_bytes = int.from_bytes(head[16:18], "big")
        page_bytes = 65536 if page_bytes == 1 else page_bytes
        size = int.from_bytes(head[28:32], "big")
        return _seal_in(head), head + file.read(page_bytes - 100), size


def _seal_in(page: bytes) -> int:
    return int.from_bytes(page[_VERSION_AT : _VERSION_AT + 4], "big")


def _require_its_own(path: Path, log_path: Path, wal: Log, seal: int) -> None:
    if not wal.is_whole or not any(True for _ in wal.frames()):
        raise StateError(
            f"{path}: a manager had it open and did not end in order, but its log {log_path} is "
            f"missing, cut short or damaged; {_REMEDY}. If another program has opened the file "
            "since (such as sqlite3), it merged the log, and nothing is missing: tell the manager "
            f"so with `sqlite3 {path} 'PRAGMA user_version=0'`"
        )
    if not _belongs(wal, seal):
        raise _foreign(path, log_path)


def _belongs(wal: Log, seal: int) -> bool:
    """Is the log the sealed one, or the same log after it began again a few times?"""
    return (wal.salt - (seal & ~_OPEN)) & _MASK < _BEGINNINGS


def _require_nothing_but_a_seal(
    path: Path, log_path: Path, wal: Log, first_page: bytes, size: int
) -> None:
    """Check a new log beside a state file that no manager had open. A manager may have ended while
    it was opening the file. Then the log holds only the seal."""

    def without_counters(page: bytes) -> bytes:
        kept = bytearray(page)
        for begin, end in _COUNTERS:
            kept[begin:end] = bytes(end - begin)
        return bytes(kept)

    for frame in wal.whole_frames:
        page = wal.page_of(frame)
        if frame.page != 1 or without_counters(page) != without_counters(first_page):
            raise _foreign(path, log_path)


def _foreign(path: Path, log_path: Path) -> StateError:
    return StateError(
        f"{path}: the log beside it, {log_path}, belongs to another state file or another time; "
        f"{_REMEDY}"
    )


_REMEDY = (
    "the two files belong together: put the right ones back, or move both aside to start with an "
    "empty journal (this forgets what was unmanaged, deactivated or fenced)"
)


def seal_for(log_path: Path, *, is_open: bool) -> int:
    """The seal that names this log, as `user_version` takes it. Raises OSError, StateError."""
    with log_path.open("rb") as file:
        wal = Log(file.read(_HEADER_BYTES))
    if not wal.is_whole:
        raise StateError(f"{log_path}: the log of the state file cannot be read; {_REMEDY}")
    # Never 0, for any salt, because 0 means that there is no seal.
    value = (wal.salt & ~_OPEN & _MASK) or 2
    return _signed(value | (_OPEN if is_open else 0))


def closed(seal: int) -> int:
    """The same seal, for a state file that no manager has open."""
    return _signed(seal & ~_OPEN & _MASK)


def _signed(value: int) -> int:
    return value - (1 << 32) if value >= 1 << 31 else value
