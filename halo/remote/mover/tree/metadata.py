"""Owner, mode, times, access control lists and extended attributes: taken from a source, put on a
copy.

Root keeps the owner, and fails where it cannot. Everybody else owns what they copy, and so drops
set-user-id and set-group-id: the bits would mean another user.
"""

from __future__ import annotations

import errno
import os
import stat
import threading

_KEPT = ("user.", "system.posix_acl_access", "system.posix_acl_default", "security.capability")
"""Which extended attributes are copied. The others belong to one file system or one host: for
example, `trusted.lov` says on which disks Lustre has put a file."""

_UNSUPPORTED = {errno.ENOTSUP, errno.ENOSYS}
_GONE = {errno.ENODATA, *_UNSUPPORTED}

Attributes = list[tuple[str, bytes]]


class Keeper:
    """Puts metadata on copies, and counts what a destination cannot keep."""

    def __init__(self) -> None:
        self.attributes_lost = 0
        self._is_root = os.geteuid() == 0
        self._lock = threading.Lock()

    def dress(self, fd: int, info: os.stat_result, attributes: Attributes) -> None:
        """Put all metadata on an open file or folder. Raises OSError."""
        mode = self._own(fd, info)
        os.fchmod(fd, mode)
        for name, value in attributes:
            self._set(fd, name, value)
        os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))

    def dress_link(self, folder: int, name: bytes, info: os.stat_result) -> None:
        """Put owner and times on a symbolic link. Raises OSError."""
        if self._is_root:
            os.chown(name, info.st_uid, info.st_gid, dir_fd=folder, follow_symlinks=False)
        times = (info.st_atime_ns, info.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)

    def _own(self, fd: int, info: os.stat_result) -> int:
        """Set the owner, which clears some bits of the mode. Returns the mode to set next."""
        mode = stat.S_IMODE(info.st_mode)
        if self._is_root:
            os.fchown(fd, info.st_uid, info.st_gid)
        elif stat.S_ISREG(info.st_mode):
            mode &= ~(stat.S_ISUID | stat.S_ISGID)
        return mode

    def _set(self, fd: int, name: str, value: bytes) -> None:
        try:
            os.setxattr(fd, name, value)
        except OSError as error:
            is_forbidden = error.errno == errno.EPERM and not self._is_root
            if error.errno not in _UNSUPPORTED and not is_forbidden:
                raise
            with self._lock:
                self.attributes_lost += 1


def attributes_of(fd: int) -> Attributes:
    """The extended attributes of an open file or folder that are copied. Raises OSError."""
    try:
        names = os.listxattr(fd)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return []
        raise
    found = []
    for name in names:
        if name.startswith(_KEPT):
            try:
                found.append((name, os.getxattr(fd, name)))
            except OSError as error:
                if error.errno not in _GONE:
                    raise
    return found
