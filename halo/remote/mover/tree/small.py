"""Small files and links: copied many at a time, then flushed together, then read back.

A flush of its own for each file would cost more than the copy. So the file system is flushed as a
whole, once for many files. Only then they are read back, and count as complete.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from itertools import groupby
from typing import NamedTuple, TypeVar

from xxhash import xxh3_128_digest

from halo.remote.mover.kernel import flush_file_system, flushes_as_a_whole, open_beneath
from halo.remote.mover.log import Log
from halo.remote.mover.outcomes import End, changed, failure_of
from halo.remote.mover.pace import Stop
from halo.remote.mover.progress import Tally
from halo.remote.mover.tree.content import Desk, forget, is_quick, is_sparse
from halo.remote.mover.tree.large import Ends, not_verified, open_reading
from halo.remote.mover.tree.metadata import Keeper, attributes_of
from halo.remote.mover.tree.walk import Entry, join, same
from halo.remote.mover.workspace import lstat, remove

FILES_AT_ONCE = 2000
BYTES_AT_ONCE = 64 << 20
SECONDS_AT_ONCE = 2.0
"""A thread flushes after so many files, bytes or seconds. A predecessor's work since its last flush
is done again."""

_T = TypeVar("_T")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_AGAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME  # the time is the source's
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Todo(NamedTuple):
    """A file or link to copy, the name of its path for the log, and its identity."""

    entry: Entry
    key: bytes
    identity: bytes


class Copied(NamedTuple):
    """It was copied, and is not complete yet."""

    folder: bytes
    todo: Todo
    checksum: bytes


class Batch(NamedTuple):
    """What to copy of one folder."""

    folder: bytes
    todos: list[Todo]


class SmallFiles:
    """Copies batches in one thread. `flush` completes what was copied; call it at the end."""

    def __init__(
        self, ends: Ends, log: Log, desk: Desk, keeper: Keeper, tally: Tally, stop: Stop
    ) -> None:
        self._ends = ends
        self._log = log
        self.desk = desk
        self._keeper = keeper
        self._tally = tally
        self._stop = stop
        self._waiting: list[Copied] = []
        self._bytes = 0
        self._since = time.monotonic()
        self._as_a_whole = flushes_as_a_whole(ends.copy)

    def copy(self, batch: Batch) -> None:
        """Copy what is not complete yet. Raises Failure and Stopped."""
        with (
            _opened(self._ends.source, batch.folder, End.SOURCE) as source,
            _opened(self._ends.copy, batch.folder, End.DESTINATION) as target,
        ):
            for todo in batch.todos:
                self._stop.check()
                self._copy_one(source, target, batch.folder, todo)
                if self._is_due():
                    self.flush()

    def _is_due(self) -> bool:
        return (
            len(self._waiting) >= FILES_AT_ONCE
            or self._bytes >= BYTES_AT_ONCE
            or time.monotonic() - self._since > SECONDS_AT_ONCE
        )

    def _copy_one(self, source: int, target: int, folder: bytes, todo: Todo) -> None:
        entry = todo.entry
        path, info = join(folder, entry.name), entry.info
        if self._is_complete(target, todo):
            self._tally.kept(1, info.st_size if stat.S_ISREG(info.st_mode) else 0)
            return
        copy = self._copy_link if stat.S_ISLNK(info.st_mode) else self._copy_file
        checksum = copy(source, target, path, entry)
        self._waiting.append(Copied(folder, todo, checksum))
        self._bytes += info.st_size

    def _is_complete(self, target: int, todo: Todo) -> bool:
        """Has a predecessor completed it, and is it still there?"""
        if self._log.files.get(todo.key) != todo.identity:
            return False
        found, seen = lstat(target, todo.entry.name), todo.entry.info
        return (
            found is not None
            and stat.S_IFMT(found.st_mode) == stat.S_IFMT(seen.st_mode)
            and found.st_size == seen.st_size
        )

    def _copy_link(self, source: int, target: int, path: bytes, entry: Entry) -> bytes:
        name = entry.name
        try:
            text = os.readlink(name, dir_fd=source)
            if not same(os.stat(name, dir_fd=source, follow_symlinks=False), entry.info):
                raise changed(path)
        except OSError as error:
            if error.errno == errno.EINVAL:  # it is no link any more
                raise changed(path) from error
            raise failure_of(error, End.SOURCE, path) from error
        try:
            _anew(lambda: os.symlink(text, name, dir_fd=target), target, name)
            self._keeper.dress_link(target, name, entry.info)
        except OSError as error:
            raise failure_of(error, End.DESTINATION, path) from error
        return xxh3_128_digest(text)

    def _copy_file(self, source: int, target: int, path: bytes, entry: Entry) -> bytes:
        try:
            fd = open_reading(source, entry.name)
        except OSError as error:
            raise failure_of(error, End.SOURCE, path) from error
        try:
            return self._copy_open_file(fd, target, path, entry)
        finally:
            os.close(fd)

    def _copy_open_file(self, fd: int, target: int, path: bytes, entry: Entry) -> bytes:
        info, data = entry.info, None
        try:
            if is_quick(info):
                data = self.desk.read_quick(fd, info.st_size, path)
            attributes = attributes_of(fd)
        except OSError as error:
            raise failure_of(error, End.SOURCE, path) from error
        try:
            copy = _anew(
                lambda: os.open(entry.name, _NEW, 0o600, dir_fd=target), target, entry.name
            )
            try:
                if data is not None:
                    checksum = xxh3_128_digest(data)
                    while data:
                        data = data[os.write(copy, data) :]
                else:
                    os.ftruncate(copy, info.st_size)
                    span, sparse = range(info.st_size), is_sparse(info)
                    checksum = self.desk.copy(fd, copy, span, sparse, path)
                self._keeper.dress(copy, info, attributes)
            finally:
                os.close(copy)
        except OSError as error:
            raise failure_of(error, End.DESTINATION, path) from error
        forget(fd)
        if not same(os.fstat(fd), info):
            raise changed(path)
        return checksum

    # --- completing --------------------------------------------------------------------------

    def flush(self) -> None:
        """Flush what was copied, read it back, and write down that it is complete."""
        waiting, self._waiting = self._waiting, []
        self._bytes, self._since = 0, time.monotonic()
        if not waiting:
            return
        try:
            if self._as_a_whole:
                flush_file_system(self._ends.copy)
        except OSError as error:
            raise failure_of(error, End.DESTINATION, waiting[0].folder) from error
        for folder, files in groupby(waiting, key=lambda file: file.folder):
            with _opened(self._ends.copy, folder, End.DESTINATION) as target:
                for file in files:
                    self._stop.check()
                    self._verify(target, file)
        self._log.add_files((file.todo.key, file.todo.identity, file.checksum) for file in waiting)
        self._tally.completed(len(waiting))

    def _verify(self, target: int, file: Copied) -> None:
        """Raises Failure unless the copy is as it was written."""
        entry = file.todo.entry
        path = join(file.folder, entry.name)
        try:
            if stat.S_ISLNK(entry.info.st_mode):
                found = xxh3_128_digest(os.readlink(entry.name, dir_fd=target))
            else:
                found = self._read_back(target, entry)
        except OSError as error:
            raise failure_of(error, End.DESTINATION, path) from error
        if found != file.checksum:
            raise not_verified(path)

    def _read_back(self, target: int, entry: Entry) -> bytes:
        fd = os.open(entry.name, _AGAIN, dir_fd=target)
        try:
            if not self._as_a_whole:
                os.fsync(fd)
            forget(fd)
            size = entry.info.st_size
            if is_quick(entry.info):
                found = self.desk.checksum_quick(fd, size)
            elif os.fstat(fd).st_size != size:
                return b""
            else:
                found = self.desk.checksum(fd, range(size), is_sparse(entry.info))
            forget(fd)
            return found
        finally:
            os.close(fd)


class _opened:
    """A folder of a tree, open while the block runs."""

    def __init__(self, root: int, path: bytes, end: End) -> None:
        try:
            self._fd = open_beneath(root, path, _FOLDER)
        except OSError as error:
            raise failure_of(error, end, path) from error

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _anew(make: Callable[[], _T], folder: int, name: bytes) -> _T:
    """Make something. What a predecessor has left there goes first."""
    try:
        return make()
    except FileExistsError:
        remove(folder, name)
        return make()
