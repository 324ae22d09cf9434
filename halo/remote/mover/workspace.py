"""The working folder of a copy: hidden, beside the destination, so on the same file system.

    .halo-mover-ID-NUMBER/   closed to all but the mover's user
        lock                 held by the mover that works here
        log                  what is complete
        progress             the last line of progress, for whoever finds the lock held
        tree/                the copy, until it is complete

The folder stays after the copy is at its destination, with a short log: it tells a mover that gets
the same order again that all is done. The action `remove` removes it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat

from halo.remote.mover.kernel import open_beneath
from halo.remote.mover.log import Log
from halo.remote.mover.outcomes import End, Failure, State, failure_of, shown
from halo.remote.mover.tree.walk import PREFIX, join

TREE = b"tree"
_LOCK = b"lock"
_PROGRESS = b"progress"
_TRIES = 10
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_ACL = {errno.ENODATA, errno.ENOTSUP, errno.EINVAL}


class Workspace:
    """A working folder whose lock is held. `close` gives the lock back."""

    def __init__(self, parent: int, name: bytes, fd: int, lock: int) -> None:
        self.fd = fd
        self._parent = parent
        self._name = name
        self._lock = lock
        try:
            self.log = Log(fd)
        except OSError as error:
            raise failure_of(error, End.DESTINATION, name) from error

    def has_tree(self) -> bool:
        """Is there a copy that is not at its destination yet?"""
        return lstat(self.fd, TREE) is not None

    def open_tree(self) -> int:
        """The folder for the copy. Made if it is missing."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(TREE, 0o700, dir_fd=self.fd)
        fd = os.open(TREE, _FOLDER, dir_fd=self.fd)
        os.fchmod(fd, 0o700)
        return fd

    def tell(self, line: bytes) -> None:
        """Keep the last line of progress. It is no harm if that fails."""
        with contextlib.suppress(OSError):
            fd = os.open(_PROGRESS, _FILE | os.O_TRUNC, 0o600, dir_fd=self.fd)
            try:
                os.write(fd, line)
            finally:
                os.close(fd)

    def clear_tree(self) -> None:
        """Remove the copy. Raises OSError."""
        remove(self.fd, TREE)

    def remove(self) -> None:
        """Remove the folder with all that is in it. What is at the destination stays."""
        for name in os.listdir(self.fd):
            if os.fsencode(name) != _LOCK:
                remove(self.fd, os.fsencode(name))
        os.unlink(_LOCK, dir_fd=self.fd)  # last: until then nobody else works here
        os.rmdir(self._name, dir_fd=self._parent)
        os.fsync(self._parent)

    def close(self) -> None:
        """Give the lock back. The folder stays."""
        self.log.close()
        os.close(self.fd)
        os.close(self._lock)


def folder_name(order_id: str, number: int) -> bytes:
    """The name of the working folder of the copy `number` of an order."""
    return PREFIX + f"{order_id}-{number}".encode()


def open_workspace(parent: int, name: bytes, *, create: bool) -> Workspace | None:
    """Take the working folder `name`. None if it does not exist, and is not to be created.

    Raises Failure: busy if another mover works there.
    """
    for _ in range(_TRIES):
        try:
            found = _try_to_open(parent, name, create)
        except FileNotFoundError:
            if not create:
                return None
            continue  # removed meanwhile
        except OSError as error:
            raise failure_of(error, End.DESTINATION, name) from error
        if found is not None:
            return found
    raise Failure(State.BUSY, f"the working folder is made and removed again: {shown(name)}")


def _try_to_open(parent: int, name: bytes, create: bool) -> Workspace | None:
    """None if the folder was removed while it was opened."""
    if create:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
    with contextlib.ExitStack() as opened:
        fd = os.open(name, _FOLDER, dir_fd=parent)
        opened.callback(os.close, fd)
        _close_to_others(fd, name)
        lock = os.open(_LOCK, _FILE, 0o600, dir_fd=fd)
        opened.callback(os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _busy(fd, name) from None
        if not (_is_still(parent, name, fd) and _is_still(fd, _LOCK, lock)):
            return None
        space = Workspace(parent, name, fd, lock)
        opened.pop_all()
        return space


def _close_to_others(fd: int, name: bytes) -> None:
    """Nobody else may look into the folder, and what is made in it inherits nothing."""
    info = os.fstat(fd)
    if info.st_uid != os.geteuid():
        message = f"the working folder {shown(name)} belongs to user {info.st_uid}"
        raise Failure(State.PERMISSION_DENIED, message)
    os.fchmod(fd, 0o700)
    for acl in ("system.posix_acl_default", "system.posix_acl_access"):
        try:
            os.removexattr(fd, acl)
        except OSError as error:
            if error.errno not in _NO_ACL:
                raise


def _busy(fd: int, name: bytes) -> Failure:
    progress: object = None
    with contextlib.suppress(OSError, ValueError):
        file = os.open(_PROGRESS, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            progress = json.loads(os.read(file, 4096))
        finally:
            os.close(file)
    message = f"another mover works on this order: {shown(name)}"
    return Failure(State.BUSY, message, progress=progress)


def lstat(folder: int, name: bytes) -> os.stat_result | None:
    """What stands there, links not followed; None if nothing does."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_still(folder: int, name: bytes, fd: int) -> bool:
    found = lstat(folder, name)
    return found is not None and os.path.samestat(found, os.fstat(fd))


def remove(folder: int, name: bytes) -> None:
    """Remove a file or a whole tree, links not followed, however deep it is. Raises OSError."""
    found = lstat(folder, name)
    if found is None:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=folder)
        return
    inner = [name]
    for path in inner:  # grows while it is walked through
        fd = open_beneath(folder, path, _FOLDER)
        try:
            os.fchmod(fd, 0o700)
            with os.scandir(fd) as entries:
                for entry in entries:
                    within = os.fsencode(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        inner.append(join(path, within))
                    else:
                        os.unlink(within, dir_fd=fd)
        finally:
            os.close(fd)
    for path in reversed(inner):
        above, _, last = path.rpartition(b"/")
        _remove_empty(folder, above, last)


def _remove_empty(folder: int, above: bytes, name: bytes) -> None:
    if not above:
        os.rmdir(name, dir_fd=folder)
        return
    fd = open_beneath(folder, above, _FOLDER)
    try:
        os.rmdir(name, dir_fd=fd)
    finally:
        os.close(fd)
