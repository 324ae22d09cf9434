"""System calls that Python does not offer. Each raises OSError, as those of `os` do."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from functools import cache

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

_OPENAT2 = 437  # the same on every architecture
_NO_MAGIC_LINKS, _NO_SYMBOLIC_LINKS, _BENEATH = 0x02, 0x04, 0x08
_RESOLVE = _NO_MAGIC_LINKS | _NO_SYMBOLIC_LINKS | _BENEATH
_RETRIES = 8  # the kernel asks for a retry if something was renamed meanwhile

_NOREPLACE = 1
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4
_FUSE = 0x65735546

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30, "ppc64le": 273, "s390x": 282}
_OF_THIS_THREAD = 1
_BEST_EFFORT_LOWEST = 2 << 13 | 7


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


# --- opening without following links ---------------------------------------------------------


def open_beneath(folder: int, path: bytes, flags: int) -> int:
    """Open `path`, which is relative, below `folder`. A link in it raises OSError with ELOOP."""
    flags |= os.O_CLOEXEC
    if path in (b"", b"."):
        return os.open(b".", flags, dir_fd=folder)
    if has_openat2():
        return _openat2(folder, path, flags)
    return open_by_steps(folder, path, flags)


@cache
def has_openat2() -> bool:
    """Does the kernel (5.6 or newer) have the call, and does no filter of a container forbid it?"""
    try:
        os.close(_openat2(-100, b".", os.O_PATH | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _openat2(folder: int, path: bytes, flags: int) -> int:
    how = struct.pack("=QQQ", flags, 0, _RESOLVE)
    size = ctypes.c_size_t(len(how))
    for retry in range(_RETRIES):
        try:
            return _checked(_libc.syscall(_OPENAT2, folder, ctypes.c_char_p(path), how, size))
        except OSError as error:
            if error.errno != errno.EAGAIN or retry == _RETRIES - 1:
                raise
    raise AssertionError("unreachable")


def open_by_steps(folder: int, path: bytes, flags: int) -> int:
    """The same for kernels without openat2: each component is opened by itself."""
    *steps, last = path.split(b"/")
    if any(part in (b"", b".", b"..") for part in (*steps, last)):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    at = folder
    try:
        for step in steps:
            inner = _open_no_link(at, step, os.O_PATH | os.O_DIRECTORY)
            if at != folder:
                os.close(at)
            at = inner
        return _open_no_link(at, last, flags)
    finally:
        if at != folder:
            os.close(at)


def _open_no_link(folder: int, name: bytes, flags: int) -> int:
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except NotADirectoryError:
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise
    # With O_PATH a link itself is opened.
    if flags & os.O_PATH and stat.S_ISLNK(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return fd


# --- renaming, flushing, priority ------------------------------------------------------------


def rename_no_replace(from_folder: int, name: bytes, to_folder: int, new_name: bytes) -> None:
    """Rename. FileExistsError if the new name is taken; ENOSYS or EINVAL if the system or the file
    system does not have the call."""
    try:
        call = _libc.renameat2
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    _checked(call(from_folder, name, to_folder, new_name, _NOREPLACE))


def flush_file_system(fd: int) -> None:
    """Flush the whole file system of `fd`. Errors of the past are raised since Linux 5.8."""
    _checked(_libc.syncfs(fd))


def flushes_as_a_whole(fd: int) -> bool:
    """Does :func:`flush_file_system` reach the disk? Most file systems in user space never hear
    of it."""
    found = ctypes.create_string_buffer(512)
    _checked(_libc.fstatfs(fd, found))
    return int.from_bytes(found.raw[: ctypes.sizeof(ctypes.c_long)], "little") != _FUSE


def begin_writing(fd: int, offset: int, length: int) -> None:
    """Let the kernel begin to write a range to the disk. It is no promise."""
    _write_range(fd, offset, length, _WRITE)


def wait_written(fd: int, offset: int, length: int) -> None:
    """Wait until the range is written. Without metadata, so it is no promise either."""
    _write_range(fd, offset, length, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)


def _write_range(fd: int, offset: int, length: int, flags: int) -> None:
    start, size = ctypes.c_int64(offset), ctypes.c_int64(length)
    try:
        _checked(_libc.sync_file_range(fd, start, size, ctypes.c_uint(flags)))
    except (AttributeError, OSError) as error:
        # Pipes and some file systems refuse. What counts is the flush at the end.
        if isinstance(error, OSError) and error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise


def lower_disk_priority() -> bool:
    """Let the disk serve others first: this thread, and all that it starts later.

    Rejected: the class `idle`. On a disk that is never idle the copy would never end, and the group
    that waits for it would never start.
    """
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is None:
        return False
    return bool(_libc.syscall(number, _OF_THIS_THREAD, 0, _BEST_EFFORT_LOWEST) == 0)
