"""Bytes from one file to another, their checksum, and reading back what was written.

A file is looked at in blocks. Its checksum is one of all blocks that hold anything but zeros, and
of where they are. So holes need not be read, and zeros that are written out make no difference.

Rejected: copy_file_range and sendfile. The bytes never come to this process, so there would be
nothing to compare what was written with.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import lru_cache

from xxhash import xxh3_128, xxh3_128_digest

from halo.remote.mover.kernel import begin_writing, wait_written
from halo.remote.mover.outcomes import End, changed, failure_of
from halo.remote.mover.pace import Pace
from halo.remote.mover.progress import Tally

BLOCK = 1 << 20
"""Bytes that are read, written and checked at once."""

WINDOW = 8 << 20
"""The disk begins to write after so many bytes..."""

WINDOWS_OPEN = 4
"""... and a copy waits for it when it is so many windows ahead. So the memory of the host is not
filled with bytes that nobody will read soon."""

_UNIT = 512  # of st_blocks, on every file system


def is_sparse(info: os.stat_result) -> bool:
    """May the file have holes? Others are read as a whole, whatever their file system says of
    holes."""
    return info.st_blocks * _UNIT < info.st_size


def is_quick(info: os.stat_result) -> bool:
    """Is the file read and written in one step?"""
    return info.st_size <= BLOCK and not is_sparse(info)


class Desk:
    """What one thread needs to move bytes: a buffer, the limits of speed, and the counters."""

    def __init__(self, pace: Pace, pace_back: Pace, tally: Tally) -> None:
        self._view = memoryview(bytearray(BLOCK))
        self._pace = pace
        self._pace_back = pace_back
        self._tally = tally

    # --- files of one block ------------------------------------------------------------------

    def read_quick(self, fd: int, size: int, path: bytes) -> bytes:
        """All of a small source file. Raises Failure if it has another size by now."""
        self._pace.take(size)
        data = os.read(fd, size + 1)
        while len(data) < size and (more := os.read(fd, size + 1 - len(data))):
            data += more
        if len(data) != size:
            raise changed(path)
        self._tally.copied(size)
        return data

    def checksum_quick(self, fd: int, size: int) -> bytes:
        """The checksum of a small file as it is now on the disk."""
        self._pace_back.take(size)
        view = self._view[: min(size + 1, BLOCK)]
        got = _read(fd, view, 0)
        if got != size or (size == BLOCK and os.fstat(fd).st_size != size):
            return b""
        return xxh3_128_digest(view[:got])

    # --- ranges of any file ------------------------------------------------------------------

    def copy(self, source: int, target: int, span: range, sparse: bool, path: bytes) -> bytes:
        """Copy the bytes of `span`, which begins at a block. Returns their checksum. Raises
        Failure."""
        checksum = xxh3_128()
        windows = _Windows(source, target, span.start)
        for start, skipped in _blocks(source, span, sparse):
            self._tally.copied(skipped)
            size = min(BLOCK, span.stop - start)
            if not size:
                continue
            self._pace.take(size)
            view = self._view[:size]
            try:
                got = _read(source, view, start)
                block = range(start, start + size)
                pieces = list(_data(source, block)) if sparse else [block]
            except OSError as error:
                raise failure_of(error, End.SOURCE, path) from error
            if got != size:
                raise changed(path)
            _include(checksum, view, start)
            try:
                for piece in pieces:
                    _write(target, view[piece.start - start : piece.stop - start], piece.start)
                windows.written(start + size)
            except OSError as error:
                raise failure_of(error, End.DESTINATION, path) from error
            self._tally.copied(size)
        return checksum.digest()

    def checksum(self, fd: int, span: range, sparse: bool) -> bytes:
        """The checksum of a range of a copy, as it is now on the disk. Raises OSError."""
        checksum = xxh3_128()
        for start, _ in _blocks(fd, span, sparse):
            size = min(BLOCK, span.stop - start)
            if not size:
                continue
            self._pace_back.take(size)
            view = self._view[:size]
            if _read(fd, view, start) != size:
                return b""
            _include(checksum, view, start)
        return checksum.digest()


class _Windows:
    """Lets the disk write early, and forgets what both files have in memory behind that."""

    def __init__(self, source: int, target: int, start: int) -> None:
        self._source, self._target = source, target
        self._begun = self._waited = start

    def written(self, end: int) -> None:
        """Everything up to `end` was written."""
        if end - self._begun < WINDOW:
            return
        begin_writing(self._target, self._begun, end - self._begun)
        self._begun = end
        length = self._begun - self._waited - (WINDOWS_OPEN - 1) * WINDOW
        if length > 0:
            wait_written(self._target, self._waited, length)
            forget(self._source, self._waited, length)
            forget(self._target, self._waited, length)
            self._waited += length


def forget(fd: int, offset: int = 0, length: int = 0) -> None:
    """Let the kernel forget what it has of a file in memory. Without a length: to its end."""
    os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


def _include(checksum: xxh3_128, view: memoryview, start: int) -> None:
    digest = xxh3_128_digest(view)
    if digest != _of_zeros(len(view)):
        checksum.update(b"%d " % start + digest)


@lru_cache(maxsize=64)
def _of_zeros(size: int) -> bytes:
    return xxh3_128_digest(bytes(size))


def _read(fd: int, view: memoryview, offset: int) -> int:
    """Fill the view. Returns how many bytes there were before the end of the file."""
    got = 0
    while got < len(view):
        count = os.preadv(fd, [view[got:]], offset + got)
        if not count:
            break
        got += count
    return got


def _write(fd: int, view: memoryview, offset: int) -> None:
    while view:
        count = os.pwrite(fd, view, offset)
        view, offset = view[count:], offset + count


def _blocks(fd: int, span: range, sparse: bool) -> Iterator[tuple[int, int]]:
    """Where each block begins that holds data, and how many bytes of holes are before it. At the
    end of a sparse file a block of no bytes may come, for the hole there."""
    position = span.start
    while position < span.stop:
        found = _next_data(fd, position) if sparse else position
        start = span.stop if found is None else min(found, span.stop)
        if start < span.stop:
            start -= (start - span.start) % BLOCK
        yield start, start - position
        position = start + BLOCK


def _data(fd: int, span: range) -> Iterator[range]:
    """The parts of a span that are not holes."""
    position = span.start
    while position < span.stop:
        start = _next_data(fd, position)
        if start is None or start >= span.stop:
            return
        try:
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # it became shorter
                return
            raise
        yield range(start, min(end, span.stop))
        position = end


def _next_data(fd: int, position: int) -> int | None:
    """Where data begins at or after a position; None if there is no more."""
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return None
        if error.errno == errno.EINVAL:  # a file system that does not know holes
            return position
        raise
