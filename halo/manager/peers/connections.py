"""Bounds what other managers may do at this one's port: connections, bytes, time of each step.

A peer has shown a manager's certificate. Yet it may be broken, or its key may be stolen. Each
connection is for one request. It has few seconds to send it, as long as the API takes to answer it,
and then few seconds to take the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web

from halo.telling import PeerLog

log = PeerLog("halo.manager")

CONNECTIONS_LIMIT = 64
REQUEST_DEADLINE_S = 10.0
SENDING_DEADLINE_S = 30.0
FAREWELL_DEADLINE_S = 1.0
RECEIVED_LIMIT_BYTES = 256 * 1024
"""Most bytes that a connection may send. The largest body that is accepted has 64 KiB."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True)
class ConnectionBounds:
    """The bounds of the port for managers."""

    connections: int = CONNECTIONS_LIMIT
    request_deadline_s: float = REQUEST_DEADLINE_S
    sending_deadline_s: float = SENDING_DEADLINE_S
    received_bytes: int = RECEIVED_LIMIT_BYTES

    @property
    def tls_shutdown_s(self) -> float:
        """How long TLS may take to send what is left: longer than the deadline, which decides."""
        return 2 * self.sending_deadline_s


class Connections:
    """The connections of other managers. Give :meth:`protocol` to the listener."""

    def __init__(
        self,
        greeting: bytes,
        turned_away: Callable[[str], bytes],
        bounds: ConnectionBounds | None = None,
    ) -> None:
        """Who is let in hears `greeting` first. `turned_away` makes the answer for the others."""
        self._greeting = greeting
        self._turned_away = turned_away
        self.bounds = bounds or ConnectionBounds()
        self._runner: web.AppRunner | None = None
        self._standing: dict[object, _Bounded] = {}

    def __len__(self) -> int:
        return len(self._standing)

    def bound(self, app: web.Application) -> None:
        """Let this application tell how far each request is. Call it before its runner's setup."""
        app.middlewares.append(self._began)
        app.on_response_prepare.append(self._answers)

    def serve(self, runner: web.AppRunner | None) -> None:
        """From now on, new connections are for this runner, which is set up; None: for nobody."""
        self._runner = runner

    def protocol(self) -> asyncio.Protocol:
        """The protocol of one connection."""
        return _Bounded(self)

    def close(self) -> None:
        """End all connections."""
        for connection in list(self._standing.values()):
            connection.abort()

    def enter(self, transport: asyncio.Transport, connection: _Bounded) -> asyncio.Protocol | None:
        """What serves a new connection. None: it gets an answer at once."""
        reason = None
        if self._runner is None or self._runner.server is None:
            reason = "this manager serves nobody just now"
        elif len(self._standing) >= self.bounds.connections:
            reason = "too many connections of managers"
            log.warning("turned a manager away", reason=reason)
        if reason is None and self._runner is not None and self._runner.server is not None:
            self._standing[transport] = connection
            transport.write(self._greeting)
            return cast("asyncio.Protocol", self._runner.server())
        transport.write(self._turned_away(reason or ""))
        transport.close()
        asyncio.get_running_loop().call_later(FAREWELL_DEADLINE_S, transport.abort)
        return None

    def leave(self, transport: object) -> None:
        self._standing.pop(transport, None)

    @web.middleware
    async def _began(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        connection = self._standing.get(request.transport)
        if connection is not None:
            connection.wait_for_nothing()  # the body and the command have deadlines of their own
        return await handler(request)

    async def _answers(self, request: web.Request, response: web.StreamResponse) -> None:
        connection = self._standing.get(request.transport)
        if connection is not None:
            response.force_close()
            connection.arm(self.bounds.sending_deadline_s)


class _Bounded(asyncio.Protocol):
    """Stands between one connection and the HTTP server."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._inner: Any = None
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._received = 0

    def arm(self, deadline_s: float) -> None:
        """End the connection after this time, unless another step begins before."""
        self.wait_for_nothing()
        self._timer = asyncio.get_running_loop().call_later(deadline_s, self.abort)

    def wait_for_nothing(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.arm(self._connections.bounds.request_deadline_s)
        self._inner = self._connections.enter(transport, self)
        if self._inner is not None:
            self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._connections.bounds.received_bytes:
            self.abort()
        elif self._inner is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return bool(self._inner.eof_received()) if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self.wait_for_nothing()
        self._connections.leave(self._transport)
        if self._inner is not None:
            self._inner.connection_lost(error)
