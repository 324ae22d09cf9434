"""The agent's port with TLS: connections that are turned away are logged with the reason.

If a handshake fails, asyncio's own server drops the connection without a message. So this module
waits for the handshake itself.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from halo.adapters.tls.farewell import farewell
from halo.adapters.tls.files import speaks_no_tls
from halo.core.peers.crowd import Crowd
from halo.error_words import words_of

log = structlog.get_logger()

HANDSHAKE_TIMEOUT_S = 5.0
FAREWELL_TIMEOUT_S = 1.0
"""How long a refused peer may take to end the connection. Its messages are not read."""
HANDSHAKES_AT_ONCE = 64
HANDSHAKES_OF_PEER = 32
ACCEPT_PAUSE_S = 1.0
"""The pause after an accept that failed for lack of descriptors or memory."""
REPEAT_S = 600.0
"""How long the same refusal of the same peer is not logged again."""
TOLD_AT_MOST = 20
"""Refusals that are logged within REPEAT_S, for all peers together."""


@dataclass
class _Told:
    at: float
    again: int = 0


class Refusals:
    """Logs connections that were turned away: each once, and then how often. A refused peer comes
    back twice a second, and anybody may connect."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], _Told] = {}  # the oldest first
        self._others = 0  # connections that were not logged, because there were too many peers

    def note(self, peer: str, reason: str) -> None:
        """A connection of this peer was turned away. Needs a running event loop, for the time."""
        now = asyncio.get_running_loop().time()
        earlier = self._settle((peer, reason), now)
        known = self._told.get((peer, reason))
        if known is not None:
            known.again += 1
        elif len(self._told) >= TOLD_AT_MOST:
            self._others += 1
        else:
            self._told[peer, reason] = _Told(now)
            times = {"times": earlier + 1} if earlier else {}
            log.warning("turned a connection away", peer=peer, reason=reason, **times)
            return
        log.debug("turned a connection away", peer=peer, reason=reason)

    def _settle(self, current: tuple[str, str], now: float) -> int:
        """Forget old refusals, and log how often each came again. For `current`, return that number
        instead, since the caller logs it."""
        earlier = 0
        while self._told:
            (peer, reason), told = next(iter(self._told.items()))
            if now - told.at < REPEAT_S:
                break
            del self._told[peer, reason]
            if (peer, reason) == current:
                earlier = told.again
            elif told.again:
                log.warning("turned connections away", peer=peer, reason=reason, times=told.again)
            if self._others:
                log.warning("turned connections of more peers away", times=self._others)
                self._others = 0
        return earlier


class Door(Protocol):
    """The certificate that a TLS listener shows, and its decision whom to let in."""

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next handshake."""
        ...

    def refusal_of(self, peer: bytes | None) -> str | None:
        """Why the peer with this certificate, in DER, is turned away; None if it may enter."""
        ...


class TlsListener:
    """Listens, and hands on each connection whose handshake succeeds and whose certificate the
    door accepts. `close` is like that of :class:`asyncio.Server`."""

    def __init__(
        self,
        sock: socket.socket,
        door: Door,
        protocol: Callable[[], asyncio.BaseProtocol],
        refusals: Refusals,
        backlog: int,
        last_words: Callable[[str], bytes] = farewell,
        explain: Callable[[OSError | ValueError], str] | None = None,
        shutdown_timeout_s: float = FAREWELL_TIMEOUT_S,
    ) -> None:
        """`last_words` makes the message for a peer that the door turns away, from the reason.
        `explain` says in words why a handshake failed (otherwise :func:`reason_of` does). A closed
        connection is cut off after `shutdown_timeout_s`, together with what the peer has not taken
        until then: asyncio's TLS keeps all of it. Raises OSError if the bound socket cannot listen.
        """
        self._sock = sock
        self._shutdown_timeout_s = shutdown_timeout_s
        self._last_words = last_words
        self._explain = explain or reason_of
        self._door = door
        self._protocol = protocol
        self._refusals = refusals
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._crowd: Crowd[asyncio.Task[None]] = Crowd(HANDSHAKES_AT_ONCE, HANDSHAKES_OF_PEER)
        sock.setblocking(False)
        sock.listen(backlog)
        self._accepting = self._loop.create_task(self._accept())

    def close(self) -> None:
        """Stop listening. Standing connections are not touched."""
        self._accepting.cancel()
        for handshake in self._handshakes:
            handshake.cancel()
        self._sock.close()

    async def _accept(self) -> None:
        while True:
            try:
                accepted, address = await self._loop.sock_accept(self._sock)
            except OSError as error:
                log.warning("cannot accept a connection", error=words_of(error))
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            peer = str(address[0])
            handshake = self._loop.create_task(self._shake_hands(accepted, peer))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._ended)
            if (out := self._crowd.enter(handshake, peer)) is not None:
                out.cancel()
            # Else all waiting connections would be accepted before anything else happens.
            await asyncio.sleep(0)

    def _ended(self, handshake: asyncio.Task[None]) -> None:
        self._handshakes.discard(handshake)
        self._crowd.leave(handshake)

    async def _shake_hands(self, accepted: socket.socket, peer: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: _Gate(self._door, self._protocol, self._refusals, peer, self._last_words),
                accepted,
                ssl=self._door.context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=self._shutdown_timeout_s,
            )
        except (OSError, ValueError) as error:  # ValueError: data that cannot be decoded
            self._refusals.note(peer, self._explain(error))


class _Gate(asyncio.Protocol):
    """Holds a connection until its handshake ends. Only after that, and only if the door accepts
    the certificate, does something read the peer's messages."""

    def __init__(
        self,
        door: Door,
        protocol: Callable[[], asyncio.BaseProtocol],
        refusals: Refusals,
        peer: str,
        last_words: Callable[[str], bytes],
    ) -> None:
        self._last_words = last_words
        self._door = door
        self._protocol = protocol
        self._refusals = refusals
        self._peer = peer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        shown = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        reason = self._door.refusal_of(shown)
        if reason is None:
            inner = self._protocol()
            transport.set_protocol(inner)
            inner.connection_made(transport)
            return
        self._refusals.note(self._peer, f"its certificate is refused: {reason}")
        transport.write(self._last_words(reason))
        transport.close()
        asyncio.get_running_loop().call_later(FAREWELL_TIMEOUT_S, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Data of a refused peer are dropped."""


def reason_of(error: OSError | ValueError) -> str:
    """Why a handshake failed, from the agent's side, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if speaks_no_tls(error):
            return "it does not speak TLS, which this agent requires; start its manager with --mtls"
        if error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "it has no certificate, and this agent requires one"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "it ended the connection during the TLS handshake"
    return f"the TLS handshake failed: {words_of(error)}"
