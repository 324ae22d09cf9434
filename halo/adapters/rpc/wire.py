"""Between asyncio's transports and pycapnp: one receive and one send for many RPC messages.

pycapnp's own stream pauses and resumes the socket around every read. It reads and writes a message
in two or three pieces, and forgets why a connection was lost. :class:`Wire` is between the two: for
asyncio it is the protocol, and for pycapnp's protocol the transport. It reads everything that has
arrived at once, hands it on as requested, gathers the writes of one turn of the event loop, and
keeps the reason of the loss. This makes a heartbeat a quarter cheaper. It also has every frame
checked (:mod:`halo.adapters.rpc.frames`) before pycapnp sees it.

Rejected: pycapnp's public `AsyncIoStream.create_connection` and `create_server`. They show neither
the peer's address nor the reason of a loss. The one private name used here is
`AsyncIoStream._connect`, the factory behind `create_server`; the tests would notice its change.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import capnp

from halo.adapters.rpc.frame_layout import NO_RPC, FrameError, abort
from halo.adapters.rpc.frames import Inspector, Limits

_RECEIVE_BYTES = 256 * 1024
_PENDING_LIMIT_BYTES = 1024 * 1024
_FAREWELL_S = 1.0

KEEPALIVE_IDLE_S = 5
KEEPALIVE_INTERVAL_S = 2
KEEPALIVE_PROBES = 3
USER_TIMEOUT_MS = 1000 * (KEEPALIVE_IDLE_S + KEEPALIVE_INTERVAL_S * KEEPALIVE_PROBES)

# asyncio fills the buffer and reports it in one step, so all connections of a loop share it.
_receive_view = memoryview(bytearray(_RECEIVE_BYTES))


def set_socket_options(sock: socket.socket) -> None:
    """No delay for small messages. The kernel notices a dead peer within 11 seconds."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


class ProtocolError(Exception):
    """The received data do not follow the expected protocol."""


class Wire(asyncio.BufferedProtocol):
    """One connection. When it is connected, pycapnp's client or server takes `stream`.

    `peer` says what the other end may do. `on_connected` is called with the wire when the
    connection stands (with TLS: after the handshake). `on_lost` is called once with the reason.
    None means an orderly end by the peer.
    """

    def __init__(
        self,
        peer: Limits,
        on_connected: Callable[[Wire], None] | None = None,
        on_lost: Callable[[BaseException | None], None] | None = None,
    ) -> None:
        self.stream: Any = None
        self.lost = False
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._inspector = Inspector(peer)
        self._inner: Any = capnp.AsyncIoStream._connect(self._keep_stream)
        self._wanted = False
        self._paused = False
        self._pending = bytearray()
        self._outgoing: list[bytes] = []

    def _keep_stream(self, stream: Any) -> None:
        self.stream = stream

    def get_extra_info(self, name: str) -> Any:
        """Like asyncio's transport: `peername`, `socket`, `peercert`."""
        return self._transport.get_extra_info(name) if self._transport else None

    def abort(self) -> None:
        """Drop the connection at once, without calling `on_lost`. Safe to repeat."""
        self._on_lost = None
        if self._transport is not None:
            self._transport.abort()
        self._lose(None)

    # The side of the protocol, towards asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._inner.connection_made(self)
        if self._on_connected is not None:
            self._on_connected(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _receive_view

    def buffer_updated(self, nbytes: int) -> None:
        if self.lost:
            return
        frames = self._inspector.feed(_receive_view[:nbytes], self._loop.time())
        given = 0
        if self._wanted and not self._pending:
            given = self._give(frames)
        self._pending += memoryview(frames)[given:]
        is_ending = self._inspector.ending is not None
        if is_ending and not frames and not self._pending:
            self._finish()
        elif is_ending or len(self._pending) > _PENDING_LIMIT_BYTES:
            self._pause()
            if is_ending:  # end when pycapnp has read the frames before, which may hold an answer
                self._loop.call_later(_FAREWELL_S, self._finish)

    def _pause(self) -> None:
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _finish(self) -> None:
        """End the connection for the inspector's reason. Safe to repeat."""
        ending = self._inspector.ending
        if self.lost:
            return
        if isinstance(ending, FrameError):
            self._refuse(str(ending))
        else:
            self._drop(None)

    def _refuse(self, why: str) -> None:
        """Tell the peer why, in a way that every peer understands, and end the connection."""
        self._flush()
        if self._transport is not None:
            self._transport.write(abort(f"refused: {why}"))
        self._drop(ProtocolError(why))

    def eof_received(self) -> None:
        """The peer's orderly end: asyncio closes the transport, because nothing is returned."""

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lose(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        if not self.lost:
            self._inner.resume_writing()

    def _lose(self, exc: BaseException | None) -> None:
        if self.lost:
            return
        self.lost = True
        self._outgoing.clear()
        on_lost, self._on_lost, self._on_connected = self._on_lost, None, None
        if on_lost is not None:
            on_lost(exc)
        self._inner.connection_lost(exc)

    def _give(self, data: memoryview | bytearray) -> int:
        """Hand on as much of `data` as pycapnp wants now. Returns how much."""
        given = 0
        while self._wanted and given < len(data):
            buffer = self._inner.get_buffer(-1)
            count = min(len(buffer), len(data) - given)
            buffer[:count] = data[given : given + count]
            given += count
            self._inner.buffer_updated(count)
        return given

    # The side of the transport, towards pycapnp's protocol.

    def pause_reading(self) -> None:
        self._wanted = False

    def resume_reading(self) -> None:
        self._wanted = True
        if self._pending:
            pending = self._pending
            with memoryview(pending) as view:
                given = self._give(view)
            del pending[:given]
        if self._inspector.ending is not None:
            if self._wanted and not self._pending:  # it asks for more than there is
                self._loop.call_soon(self._finish)
        elif self._paused and not self._pending and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        if self.lost:
            return
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)

    def _flush(self) -> None:
        if self._outgoing and self._transport is not None:
            data = b"".join(self._outgoing)
            self._outgoing.clear()
            self._transport.write(data)

    def is_closing(self) -> bool:
        return self.lost or self._transport is None or self._transport.is_closing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """The RPC system ended the connection, because of data that are not Cap'n Proto.

        It is in the middle of its work here, so the connection is dropped in a later turn.
        """
        self._flush()
        self._loop.call_soon(self._drop, ProtocolError(NO_RPC))

    def _drop(self, reason: ProtocolError | None) -> None:
        """End the connection. Data under way still arrive, unless the peer does not read."""
        if self._transport is not None:
            self._transport.close()
            self._loop.call_later(_FAREWELL_S, self._transport.abort)
        self._lose(reason)

    def close(self) -> None:
        if self._transport is not None and not self.lost:
            self._flush()
            self._transport.close()
