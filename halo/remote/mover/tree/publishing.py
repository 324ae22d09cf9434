"""The last step of a copy: it appears at its destination, complete, in one rename."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from halo.remote.mover.kernel import rename_no_replace
from halo.remote.mover.outcomes import End, Failure, State, failure_of, shown
from halo.remote.mover.workspace import TREE, Workspace, lstat

_NOT_OFFERED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}


def publish(space: Workspace, tree: int, only: bytes | None, parent: int, name: bytes) -> int:
    """Move a copy that was flushed to `name` in the folder `parent`. Returns its inode.

    Raises Failure if something stands there. Nothing is ever overwritten.
    """
    folder, old = (space.fd, TREE) if only is None else (tree, only)
    try:
        info = os.stat(old, dir_fd=folder, follow_symlinks=False)
        space.log.publishing(info.st_ino)
        with _writable(tree if only is None else None):
            _move(folder, old, parent, name)
        os.fsync(parent)
        os.fsync(folder)
    except FileExistsError:
        raise present(name) from None
    except OSError as error:
        raise failure_of(error, End.DESTINATION, name) from error
    return info.st_ino


def present(name: bytes) -> Failure:
    """Something stands at the destination that this order has not put there."""
    message = f"the destination exists, and nothing is overwritten: {shown(name)}"
    return Failure(State.DESTINATION_PRESENT, message, path=shown(name))


@contextlib.contextmanager
def _writable(folder: int | None) -> Iterator[None]:
    """A folder that moves into another one must be writable by its owner, but for root."""
    if folder is None or os.geteuid() == 0:
        yield
        return
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    os.fchmod(folder, mode | stat.S_IRWXU)
    yield
    os.fchmod(folder, mode)


def _move(folder: int, old: bytes, parent: int, name: bytes) -> None:
    try:
        rename_no_replace(folder, old, parent, name)
    except OSError as error:
        if error.errno not in _NOT_OFFERED:
            raise
        move_by_steps(folder, old, parent, name)


def move_by_steps(folder: int, old: bytes, parent: int, name: bytes) -> None:
    """The same for file systems that cannot refuse to replace. A file gets a second name first,
    which fails if the name is taken. A folder can replace an empty folder at most, and only one
    that was made this instant. Raises FileExistsError."""
    if lstat(parent, name) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
    info = os.stat(old, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISDIR(info.st_mode):
        os.link(old, name, src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
        os.unlink(old, dir_fd=folder)
        return
    try:
        os.rename(old, name, src_dir_fd=folder, dst_dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.ENOTDIR):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        raise
