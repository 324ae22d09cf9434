"""Walking through a source tree: in pieces, so that a large folder needs little memory.

Whoever may write to the source may change it at any moment. So a folder is opened by its path
below the root without following links, and must be the one that was listed.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from xxhash import xxh3_128_digest

from halo.remote.mover.kernel import open_beneath
from halo.remote.mover.orders import PATH_LIMIT
from halo.remote.mover.outcomes import End, Failure, State, changed, failure_of, shown
from halo.remote.mover.pace import Stop

PIECE = 256
"""Entries of a folder that are handed on at once."""

PREFIX = b".halo-mover-"
"""The name of the mover's own folders begins like this. They are not copied."""


_64_BITS = (1 << 64) - 1


class Entry(NamedTuple):
    """One name in a folder, as it was when the folder was listed."""

    name: bytes
    info: os.stat_result


class Piece(NamedTuple):
    """Some entries of the folder `path`, which is relative to the root and empty for the root."""

    path: bytes
    info: os.stat_result
    entries: list[Entry]
    is_first: bool
    is_last: bool


def join(folder: bytes, name: bytes) -> bytes:
    """The path of an entry."""
    return folder + b"/" + name if folder else name


def name_of(path: bytes) -> bytes:
    """A name of fixed size for a path of any size."""
    return xxh3_128_digest(path)


def identity(info: os.stat_result) -> bytes:
    """What changes if anybody writes to a file or folder, replaces it, or changes its metadata.

    Not the device: its number may be another one after a reboot.
    """
    parts = (info.st_mode, info.st_uid, info.st_gid, info.st_ino, info.st_size)
    # A time may be as far away as the file system likes.
    times = (info.st_mtime_ns & _64_BITS, info.st_ctime_ns & _64_BITS)
    return xxh3_128_digest(struct.pack("=IIIQqQQ", *parts, *times))


def same(one: os.stat_result, other: os.stat_result) -> bool:
    """Is it the same file, unchanged?"""
    return (
        one.st_ino == other.st_ino
        and one.st_mtime_ns == other.st_mtime_ns
        and one.st_ctime_ns == other.st_ctime_ns
        and one.st_size == other.st_size
        and one.st_mode == other.st_mode
        and one.st_uid == other.st_uid
        and one.st_gid == other.st_gid
    )


def walk(root: int, only: bytes | None, stop: Stop) -> Iterator[Piece]:
    """All of the tree, each folder before those in it; or only one file of the folder `root`.

    Raises Failure if something changes meanwhile or cannot be read, and Stopped.
    """
    path = only or b""
    try:
        seen = os.fstat(root)
        if only is not None:
            info = os.stat(only, dir_fd=root, follow_symlinks=False)
            yield Piece(b"", seen, [Entry(only, info)], True, True)
            return
        waiting = [(b"", seen)]
        while waiting:
            path, seen = waiting.pop()
            fd = open_listed(root, path, seen)
            try:
                yield from _pieces(fd, path, waiting, stop)
            finally:
                os.close(fd)
    except OSError as error:
        raise failure_of(error, End.SOURCE, path) from error


def open_listed(root: int, path: bytes, seen: os.stat_result) -> int:
    """Open a folder of the source, which must still be the one that was seen."""
    if len(path) > PATH_LIMIT:
        message = f"a path within the source is longer than {PATH_LIMIT} bytes: {shown(path)}"
        raise Failure(State.PATH_TOO_LONG, message, path=shown(path))
    fd = open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)
    info = os.fstat(fd)
    if (info.st_ino, info.st_dev) != (seen.st_ino, seen.st_dev):
        os.close(fd)
        raise changed(path)
    return fd


def _pieces(
    fd: int, path: bytes, waiting: list[tuple[bytes, os.stat_result]], stop: Stop
) -> Iterator[Piece]:
    info = os.fstat(fd)
    entries: list[Entry] = []
    is_first = True
    with os.scandir(fd) as found:
        for item in found:
            stop.check()
            entry = Entry(os.fsencode(item.name), item.stat(follow_symlinks=False))
            if stat.S_ISDIR(entry.info.st_mode):
                if _is_ours(entry):
                    continue
                waiting.append((join(path, entry.name), entry.info))
            entries.append(entry)
            if len(entries) == PIECE:
                yield Piece(path, info, entries, is_first, False)
                entries, is_first = [], False
    yield Piece(path, info, entries, is_first, True)


def _is_ours(entry: Entry) -> bool:
    """A folder of a mover: of its name, its owner, and closed to everybody else."""
    info = entry.info
    is_closed = stat.S_IMODE(info.st_mode) == 0o700 and info.st_uid == os.geteuid()
    return is_closed and entry.name.startswith(PREFIX)


def check_supported(path: bytes, info: os.stat_result) -> None:
    """Raises Failure for devices, pipes and sockets."""
    if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode) or stat.S_ISLNK(info.st_mode)):
        kind = stat.filemode(info.st_mode)[0]
        names = {"p": "a pipe", "s": "a socket", "c": "a device", "b": "a device"}
        message = f"the source holds {names.get(kind, 'something unknown')}: {shown(path)}"
        raise Failure(State.SOURCE_UNSUPPORTED, message, path=shown(path))
