"""Calls to the system that fail, in a child process: a filter of the kernel answers for them.

Nothing of the mover is replaced. The numbers of the calls are those of x86-64.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable

from halo.remote.mover import kernel
from tests.debian import give_up

CALLS = {
    "write": 1,
    "preadv": 327,  # preadv2, which Python calls
    "pwrite": 18,
    "read": 0,
    "fdatasync": 75,
    "fsync": 74,
    "syncfs": 306,
    "fchown": 93,
    "fsetxattr": 190,
    "renameat2": 316,
    "openat2": 437,
    "sync_file_range": 277,
}

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def require_filters() -> None:
    if os.uname().machine != "x86_64":
        give_up("needs x86-64, whose calls have these numbers")


def failing(call: str, number: int) -> Callable[[], None]:
    """A preparation: from now on the call fails with this errno."""

    def prepare() -> None:
        program = [
            struct.pack("=HBBI", _LOAD, 0, 0, 0),  # the number of the call
            struct.pack("=HBBI", _JUMP_IF_EQUAL, 0, 1, CALLS[call]),
            struct.pack("=HBBI", _RETURN, 0, 0, _ERRNO | number),
            struct.pack("=HBBI", _RETURN, 0, 0, _ALLOW),
        ]
        code = ctypes.create_string_buffer(b"".join(program))
        head = struct.pack("@HP", len(program), ctypes.addressof(code))
        libc = ctypes.CDLL(None, use_errno=True)
        zero = ctypes.c_ulong(0)
        if libc.prctl(_NO_NEW_PRIVILEGES, ctypes.c_ulong(1), zero, zero, zero):
            raise OSError(ctypes.get_errno(), "prctl")
        if libc.prctl(_SECCOMP, ctypes.c_ulong(_FILTER), head, zero, zero):
            raise OSError(ctypes.get_errno(), "seccomp")
        kernel.has_openat2.cache_clear()

    return prepare
