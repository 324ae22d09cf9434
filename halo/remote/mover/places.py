"""The two ends of a copy, opened below the roots that are allowed, without following a link.

A root comes from the config and may itself lead over links. What stands below it may be anybody's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from halo.remote.mover.kernel import open_beneath
from halo.remote.mover.orders import is_within
from halo.remote.mover.outcomes import End, Failure, State, shown

_PATH_ONLY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Source:
    """A folder to read, and in it one file, or None if the folder itself is to be copied. The
    descriptor is the caller's to close."""

    folder: int
    only: bytes | None


@dataclass(frozen=True, slots=True)
class Destination:
    """The folder in which something is to appear, and its name there."""

    folder: int
    name: bytes


def open_source(path: bytes, roots: Iterable[bytes]) -> Source:
    """Raises Failure if the source is missing, outside of the roots, or no file and no folder."""
    root, below = _split(path, roots, End.SOURCE)
    try:
        folder = _open(root, below, os.O_PATH, End.SOURCE, path)
        try:
            mode = os.fstat(folder).st_mode
            if stat.S_ISDIR(mode):
                return Source(os.open(b".", _FOLDER | os.O_CLOEXEC, dir_fd=folder), None)
            if not stat.S_ISREG(mode):
                message = f"the source is no file and no folder: {shown(path)}"
                raise Failure(State.SOURCE_UNSUPPORTED, message, path=shown(path))
        finally:
            os.close(folder)
        parent, _, name = below.rpartition(b"/")
        return Source(_open(root, parent, _FOLDER, End.SOURCE, path), name)
    except OSError as error:
        raise _why_not(error, End.SOURCE, path) from error
    finally:
        os.close(root)


def open_destination(path: bytes, roots: Iterable[bytes]) -> Destination:
    """Raises Failure if the folder above is missing, or the path is outside of the roots."""
    root, below = _split(path, roots, End.DESTINATION)
    try:
        parent, _, name = below.rpartition(b"/")
        if not name:
            message = f"the destination must lie below a root, and is one: {shown(path)}"
            raise Failure(State.OUTSIDE_ROOTS, message, path=shown(path))
        return Destination(_open(root, parent, _FOLDER, End.DESTINATION, path), name)
    finally:
        os.close(root)


def _split(path: bytes, roots: Iterable[bytes], end: End) -> tuple[int, bytes]:
    """The innermost root around a path, opened, and the rest of the path."""
    around = [root for root in roots if is_within(path, root)]
    if not around:
        message = f"the {end} lies below none of the allowed roots: {shown(path)}"
        raise Failure(State.OUTSIDE_ROOTS, message, path=shown(path))
    root = max(around, key=len)
    try:
        return os.open(root, _PATH_ONLY), path[len(root) :].lstrip(b"/")
    except OSError as error:
        raise _why_not(error, end, root) from error


def _open(root: int, below: bytes, flags: int, end: End, path: bytes) -> int:
    try:
        return open_beneath(root, below, flags)
    except OSError as error:
        raise _why_not(error, end, path) from error


def _why_not(error: OSError, end: End, path: bytes) -> Failure:
    text = shown(path)
    if error.errno in (errno.ELOOP, errno.EXDEV):
        message = f"a symbolic link stands in the path of the {end}: {text}"
        return Failure(State.OUTSIDE_ROOTS, message, path=text)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        if end is End.SOURCE:
            return Failure(State.SOURCE_MISSING, f"the source does not exist: {text}", path=text)
        message = f"the folder of the destination does not exist: {text}"
        return Failure(State.DESTINATION_MISSING, message, path=text)
    reason = os.strerror(error.errno or errno.EIO)
    state = State.PERMISSION_DENIED
    if error.errno == errno.ENAMETOOLONG:
        state = State.PATH_TOO_LONG
    elif error.errno not in (errno.EACCES, errno.EPERM):
        state = State.IO_ERROR
    return Failure(state, f"the {end} cannot be opened: {text}: {reason}", path=text)
