"""Large files: copied in segments, by several threads at once, each segment kept when it is done.

A file of many gigabytes takes minutes. A successor goes on at the segment that was interrupted.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from xxhash import xxh3_128_digest

from halo.remote.mover.kernel import open_beneath
from halo.remote.mover.log import Log
from halo.remote.mover.outcomes import End, Failure, State, changed, failure_of, shown
from halo.remote.mover.tree.content import Desk, forget, is_sparse
from halo.remote.mover.tree.metadata import Keeper, attributes_of
from halo.remote.mover.tree.walk import identity, name_of, same

LARGE = 16 << 20
"""Files of more bytes are flushed and checked by themselves, segment by segment."""

SEGMENT = 256 << 20

_READ = os.O_RDONLY | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Ends:
    """The tree that is read, and the one that is made."""

    source: int
    copy: int


class LargeFile:
    """A file on its way. `missing` are the segments that nobody has copied yet."""

    def __init__(self, path: bytes, info: os.stat_result, log: Log) -> None:
        self.path = path
        self.info = info
        self.key = name_of(path)
        self.identity = identity(info)
        count = -(-info.st_size // SEGMENT)
        part = log.parts.pop(self.key, None)
        self._checksums: dict[int, bytes] = {}
        if part is not None and part.identity == self.identity:
            self._checksums = {n: c for n, c in part.segments.items() if 0 <= n < count}
        self.missing = [n for n in range(count) if n not in self._checksums]
        self._left = len(self.missing)
        self._lock = threading.Lock()

    def forget_segments(self) -> None:
        """The copy that segments were in is not there: all have to be copied."""
        self._checksums.clear()
        self.missing = list(range(-(-self.info.st_size // SEGMENT)))
        self._left = len(self.missing)

    @property
    def kept_bytes(self) -> int:
        """Bytes that a predecessor has copied."""
        return sum(len(self.span(n)) for n in self._checksums)

    def span(self, segment: int) -> range:
        """The bytes of a segment."""
        start = segment * SEGMENT
        return range(start, min(start + SEGMENT, self.info.st_size))

    def completed(self, segment: int, checksum: bytes) -> bool:
        """A segment is complete. True if it was the last one."""
        with self._lock:
            self._checksums[segment] = checksum
            self._left -= 1
            return self._left == 0

    def checksum(self) -> bytes:
        """Of all segments."""
        return xxh3_128_digest(b"".join(c for _, c in sorted(self._checksums.items())))


def make(ends: Ends, path: bytes, folder: int, name: bytes, info: os.stat_result) -> None:
    """Make the file, of its full size and all hole. Raises FileExistsError, or Failure."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=folder)
        try:
            os.ftruncate(fd, info.st_size)
        finally:
            os.close(fd)
    except FileExistsError:
        raise
    except OSError as error:
        raise failure_of(error, End.DESTINATION, path) from error


def copy_segment(ends: Ends, large: LargeFile, segment: int, desk: Desk, log: Log) -> bool:
    """Copy, flush and check one segment. True if it was the last one. Raises Failure."""
    span, sparse, path = large.span(segment), is_sparse(large.info), large.path
    source = open_source(ends, large)
    try:
        copy = _open_copy(ends, path)
        try:
            os.posix_fadvise(source, span.start, len(span), os.POSIX_FADV_SEQUENTIAL)
            checksum = desk.copy(source, copy, span, sparse, path)
            try:
                os.fdatasync(copy)
                forget(copy, span.start, len(span))
                found = desk.checksum(copy, span, sparse)
                forget(copy, span.start, len(span))
            except OSError as error:
                raise failure_of(error, End.DESTINATION, path) from error
            forget(source, span.start, len(span))
        finally:
            os.close(copy)
        if found != checksum:
            raise not_verified(path)
        check_unchanged(source, large.info, path)
    finally:
        os.close(source)
    log.add_segment(large.key, large.identity, segment, checksum)
    return large.completed(segment, checksum)


def complete(ends: Ends, large: LargeFile, keeper: Keeper, log: Log) -> None:
    """All segments are copied: put the metadata on. Raises Failure."""
    path = large.path
    source = open_source(ends, large)
    try:
        try:
            attributes = attributes_of(source)
        except OSError as error:
            raise failure_of(error, End.SOURCE, path) from error
        copy = _open_copy(ends, path)
        try:
            keeper.dress(copy, large.info, attributes)
            os.fsync(copy)
            size = os.fstat(copy).st_size
        except OSError as error:
            raise failure_of(error, End.DESTINATION, path) from error
        finally:
            os.close(copy)
        if size != large.info.st_size:
            raise not_verified(path)
        check_unchanged(source, large.info, path)
    finally:
        os.close(source)
    log.add_files([(large.key, large.identity, large.checksum())])


def open_source(ends: Ends, large: LargeFile) -> int:
    """Open the source again. Raises Failure if it is another one, or was changed."""
    try:
        fd = open_reading(ends.source, large.path)
    except OSError as error:
        raise failure_of(error, End.SOURCE, large.path) from error
    try:
        check_unchanged(fd, large.info, large.path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_reading(folder: int, path: bytes) -> int:
    """Open for reading; never a link, and without waiting for the writer of a pipe. The time of
    the last access stays as it is where this user may ask for that."""
    if os.geteuid() == 0:
        try:
            return open_beneath(folder, path, _READ | os.O_NOATIME)
        except PermissionError:  # root of this host is nobody on the server
            pass
    return open_beneath(folder, path, _READ)


def check_unchanged(fd: int, seen: os.stat_result, path: bytes) -> None:
    """Raises Failure if the file is not the one that was seen, or was written to since."""
    if not same(os.fstat(fd), seen):
        raise changed(path)


def not_verified(path: bytes) -> Failure:
    """What was read back is not what was written."""
    message = f"what was read back is not what was written: {shown(path)}"
    return Failure(State.NOT_VERIFIED, message, path=shown(path))


def _open_copy(ends: Ends, path: bytes) -> int:
    try:
        return open_beneath(ends.copy, path, os.O_RDWR | os.O_NONBLOCK | os.O_NOATIME)
    except OSError as error:
        raise failure_of(error, End.DESTINATION, path) from error
