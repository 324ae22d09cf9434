"""The few system calls behind the test hosts: namespaces, mounts, links, lost disks.

Standard library alone: this runs in processes that must start in milliseconds.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_REC, MS_BIND, MS_PRIVATE = 0x4000, 0x1000, 0x40000

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_EXT4_IOC_SHUTDOWN = 0x8004587D
_EXT4_GOING_NOLOGFLUSH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(_libc.unshare(flags), "unshare")


def fork_into_own_pid_namespace() -> None:
    """Undo an `unshare(CLONE_NEWPID)`: children are born into our own PID namespace again."""
    fd = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.setns(fd, CLONE_NEWPID), "setns")
    finally:
        os.close(fd)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    done = _libc.mount(
        source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode()
    )
    _check(done, f"mount {source} on {target}")


def private_mounts() -> None:
    """What is mounted from here on is seen in this mount namespace alone."""
    mount("none", "/", flags=MS_REC | MS_PRIVATE)


def link_down(name: str) -> None:
    """Take a network interface down at once, without starting a program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
        flags = struct.unpack("16sH22x", request)[1] & ~_IFF_UP
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags))


def lose_unwritten(directory: int) -> None:
    """What an ext4 file system has not written yet is lost, as when its host loses power.

    Without it the kernel, which goes on living, would write it all when the host is gone.
    """
    fcntl.ioctl(directory, _EXT4_IOC_SHUTDOWN, struct.pack("I", _EXT4_GOING_NOLOGFLUSH))


def loop_mounts(pid: int) -> list[tuple[str, str]]:
    """(loop device, mount point) of the ext4 file systems that a process sees on loop devices."""
    found = []
    with open(f"/proc/{pid}/mountinfo") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            kind, source = after.split()[:2]
            if kind == "ext4" and source.startswith("/dev/loop"):
                found.append((source, before.split()[4]))
    return found
