"""The agent's port where it speaks no TLS.

asyncio's own server accepts all waiting connections in one step. A flood of them would stop the
loop, and with it the accepted connections. Here only a few are accepted at a time.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from halo.error_words import words_of
from halo.telling import PeerLog

log = PeerLog()

ACCEPT_PAUSE_S = 1.0
"""The pause after an accept that failed for lack of descriptors or memory."""

ACCEPTS_AT_ONCE = 8

OF_ONE_CONNECTION = frozenset(
    (
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENONET,
        errno.ETIMEDOUT,
    )
)
"""Errors of `accept` for a connection that failed before it was accepted: Linux passes them on. The
next connection may be good, so there is no pause. Source: accept(2)."""


class PlainListener:
    """Listens, and hands on each connection. `close` is like that of :class:`asyncio.Server`."""

    def __init__(
        self, sock: socket.socket, protocol: Callable[[], asyncio.BaseProtocol], backlog: int
    ) -> None:
        """Raises OSError if the bound socket cannot listen."""
        self._sock = sock
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(backlog)
        self._loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Stop listening. Standing connections are not touched."""
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            try:
                accepted, _address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in OF_ONE_CONNECTION:
                    continue
                log.warning("cannot accept a connection", error=words_of(error))
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(ACCEPT_PAUSE_S, self._go_on)
                return
            accepted.setblocking(False)
            task: asyncio.Task[object] = self._loop.create_task(
                self._loop.connect_accepted_socket(self._protocol, accepted)
            )
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)
