"""The manager's Unix socket. It is never taken from a living manager, and never open to all users.

Rejected: binding to another name and renaming, since the kernel would show clients and `ss` the
wrong name. A lock file beside the socket, since it cannot be removed without a race. Changing the
umask, since it belongs to the whole process, and another thread may be creating files.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass

from aiohttp import web

from halo.core.errors import SocketError
from halo.error_words import words_of

PATH_LIMIT_BYTES = 107
"""Longest path of a Unix socket on Linux (unix(7)): 108 bytes with the closing zero."""
PROBE_DEADLINE_S = 2.0
LOCK_DEADLINE_S = 5.0
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class _Bound:
    """A listening socket with the identity of its file, to recognize the file at exit."""

    listener: socket.socket
    device: int
    inode: int


class UnixSite:
    """A Unix socket at `path` that one runner after the other serves.

    The socket's mode is 0600, or 0660 for members of `group`. A socket on which nobody listens is
    replaced. Call :meth:`pause` before the `cleanup()` of a runner, and :meth:`close` at the end.
    """

    def __init__(
        self, path: str, group: str | None = None, *, lock_deadline_s: float = LOCK_DEADLINE_S
    ) -> None:
        self.path = path
        self._group = group
        self._lock_deadline_s = lock_deadline_s
        self._bound: _Bound | None = None
        self._site: web.SockSite | None = None

    async def serve(self, runner: web.BaseRunner) -> None:
        """From now on, `runner`, which is set up, answers new connections.

        The first call makes the socket. It raises SocketError if the path is in use, is not a
        socket, or cannot be used."""
        await self.pause()
        if self._bound is None:
            await self._bind()
        assert self._bound is not None
        self._site = web.SockSite(runner, self._bound.listener.dup())
        await self._site.start()

    async def _bind(self) -> None:
        """Make the socket. A cancellation waits for the thread: else nobody knew of its socket."""
        work = asyncio.to_thread(_bind, self.path, self._group, self._lock_deadline_s)
        binding = asyncio.ensure_future(work)
        try:
            await asyncio.wait([binding])
        except asyncio.CancelledError:
            await asyncio.wait([binding])
            if binding.exception() is None:
                self._bound = binding.result()
            raise
        self._bound = binding.result()

    async def pause(self) -> None:
        """Accept nothing for now. New connections wait for the next runner."""
        site, self._site = self._site, None
        if site is not None:
            with contextlib.suppress(RuntimeError):  # it was stopped already, with its runner
                await site.stop()

    async def close(self) -> None:
        """Stop listening, and remove the socket if it is still ours. Safe to repeat."""
        await self.pause()
        if self._bound is not None:
            self._bound.listener.close()
            await asyncio.to_thread(_remove_if_ours, self.path, self._bound)


def _bind(path: str, group: str | None, lock_deadline_s: float = LOCK_DEADLINE_S) -> _Bound:
    if len(os.fsencode(path)) > PATH_LIMIT_BYTES:
        raise SocketError(
            f"The socket path {path} is longer than {PATH_LIMIT_BYTES} bytes, the most that"
            " Linux allows: choose a shorter one with --socket."
        )
    gid = _group_id(group)
    try:
        with _folder_locked(path, lock_deadline_s):
            _make_room(path)
            return _listen(path, gid)
    except OSError as error:
        raise SocketError(f"Cannot make the socket {path}: {words_of(error)}.") from error


def _group_id(group: str | None) -> int | None:
    if group is None:
        return None
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise SocketError(
            f'There is no group "{group}" on this machine to give the socket to:'
            " create it, or name another with --socket-group."
        ) from None


@contextlib.contextmanager
def _folder_locked(path: str, deadline_s: float = LOCK_DEADLINE_S) -> Iterator[None]:
    """Keep other managers out between the check of an old socket and its replacement."""
    folder = os.path.dirname(path) or "."
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SocketError(
            f"Cannot make the socket {path}: its folder {folder} cannot be opened"
            f" ({words_of(error)}). Create it, or choose another path with --socket."
        ) from error
    try:
        _lock(descriptor, path, deadline_s)
        yield
    finally:
        os.close(descriptor)  # releases the lock


def _lock(descriptor: int, path: str, deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise SocketError(
                    f"Another program holds a lock on the folder of the socket {path}:"
                    " see with `fuser -v` which, end it, or choose another path with --socket."
                ) from None
            time.sleep(0.02)


def _make_room(path: str) -> None:
    """Remove a socket on which nobody listens. Raises SocketError for anything else there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketError(
            f"{path} is not a socket and is left alone: remove it if it is not needed,"
            " or choose another path with --socket."
        )
    user = _listening_process(path)
    if user is not None:
        raise SocketError(
            f"The socket {path} is in use{user}: stop that manager first, or choose another"
            " path with --socket."
        )
    os.unlink(path)


def _listening_process(path: str) -> str | None:
    """Which process listens at `path`, in words that may be empty; None if no process does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_DEADLINE_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        except (TimeoutError, BlockingIOError):  # the queue is full: it lives, but is busy or hung
            return " by a process that accepts no connection"
        except OSError as error:
            if error.errno == errno.EPROTOTYPE:  # a datagram socket of some other program
                return " by another program"
            raise
        return _process_behind(probe)


def _process_behind(connected: socket.socket) -> str:
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid: int = struct.unpack("3i", credentials)[0]
    try:
        with open(f"/proc/{pid}/comm") as file:
            return f" by process {pid} ({file.read().strip()})"
    except OSError:
        return f" by process {pid}" if pid else ""


def _listen(path: str, gid: int | None) -> _Bound:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Linux makes the file with the mode of the unbound socket, so it is private at once.
        os.fchmod(listener.fileno(), 0o600)
        listener.bind(path)
        try:
            os.chmod(path, 0o600)  # whatever the umask has removed
            if gid is not None:
                os.chown(path, -1, gid)
                os.chmod(path, 0o660)
            # Listen before the lock is released: the next manager's check must find us.
            listener.listen(BACKLOG)
            found = os.lstat(path)
        except BaseException:
            os.unlink(path)
            raise
    except BaseException:
        listener.close()
        raise
    listener.setblocking(False)
    return _Bound(listener, found.st_dev, found.st_ino)


def _remove_if_ours(path: str, bound: _Bound) -> None:
    """Remove the socket at an orderly exit, unless another manager has put its own there."""
    with contextlib.suppress(OSError, SocketError), _folder_locked(path):
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == (bound.device, bound.inode):
            os.unlink(path)
