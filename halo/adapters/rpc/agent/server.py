"""Listens for managers, and makes a session of each connection.

Must run inside `async with rpc_loop():`. The sessions decide how to answer calls, see
:class:`~halo.adapters.rpc.agent.session.AgentSession`. Nothing here knows scripts or managers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import capnp

from halo.adapters.listener import PlainListener
from halo.adapters.rpc.agent.methods import Servant
from halo.adapters.rpc.agent.session import AgentSession, Link
from halo.adapters.rpc.agent.under_way import UnderWay
from halo.adapters.rpc.frame_layout import NO_RPC
from halo.adapters.rpc.frames import OF_MANAGERS, TRAVERSAL_LIMIT_WORDS
from halo.adapters.rpc.losses import loss_of
from halo.adapters.rpc.wire import ProtocolError, Wire, set_socket_options
from halo.adapters.tls.listener import Door, Refusals, TlsListener
from halo.core.errors import LossKind

BACKLOG = 512
"""Connections that may wait to be accepted. A flood must not fill this, or a manager's is lost."""


class CapnpAgentServer:
    """Listens for managers. `open_session` is called for each connection that stands."""

    def __init__(
        self, open_session: Callable[[Link], AgentSession], tls: Door | None = None
    ) -> None:
        self._open_session = open_session
        self._tls = tls
        self._refusals = Refusals()
        self._server: PlainListener | TlsListener | None = None

    async def serve(self, sock: socket.socket) -> None:
        """Listen on a bound socket and return. Raises OSError."""
        if self._tls is not None:
            self._server = TlsListener(sock, self._tls, self._protocol, self._refusals, BACKLOG)
        else:
            self._server = PlainListener(sock, self._protocol, BACKLOG)

    def _protocol(self) -> Wire:
        return _Connection(self._open_session, self._refusals).wire

    def close(self) -> None:
        """Stop listening. The sessions close the standing connections."""
        if self._server is not None:
            self._server.close()


class _Connection:
    """One accepted connection; a :class:`Link`."""

    def __init__(self, open_session: Callable[[Link], AgentSession], refusals: Refusals) -> None:
        self.wire = Wire(OF_MANAGERS, self._connected, self._lost)
        self._refusals = refusals
        self.peer = ""
        self._open_session = open_session
        self._session: AgentSession | None = None
        self._rpc: Any = None
        self._under_way: UnderWay | None = None

    def _connected(self, wire: Wire) -> None:
        peer = wire.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else "unknown"
        set_socket_options(wire.get_extra_info("socket"))
        self._under_way = UnderWay(self.peer)
        self._session = self._open_session(self)
        if not wire.lost:
            self._rpc = capnp.TwoPartyServer(
                wire.stream,
                bootstrap=Servant(self._under_way, self._session),
                traversal_limit_in_words=TRAVERSAL_LIMIT_WORDS,
            )

    def _lost(self, error: BaseException | None) -> None:
        loss = loss_of(error)
        if loss.kind is LossKind.TLS:
            self._refusals.note(self.peer, f"TLS failed: {loss.detail}")
        elif isinstance(error, ProtocolError):
            hint = "; is its manager started with --mtls?" if str(error) == NO_RPC else ""
            self._refusals.note(self.peer, f"{error}{hint}")
        self._cancel_calls()
        if self._session is not None:
            self._session.ended()

    def close(self) -> None:
        self._cancel_calls()
        self.wire.abort()

    def _cancel_calls(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
        if self._rpc is not None:  # the collector would free its parts in any order: SIGSEGV
            self._rpc.close()
        self._rpc = None
