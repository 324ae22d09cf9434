"""The agent's port where it requires TLS: who is turned away is written down, with the reason.

asyncio's own server drops a connection whose handshake fails without telling anybody; so the
handshake is waited for here.
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

log = structlog.get_logger()

HANDSHAKE_TIMEOUT_S = 5.0
FAREWELL_TIMEOUT_S = 1.0
"""How long whoever is refused may take to end the connection; what it says is not read."""
HANDSHAKES_AT_ONCE = 64
HANDSHAKES_OF_PEER = 32
ACCEPT_PAUSE_S = 1.0
"""After an accept that failed for want of descriptors or memory."""
REPEAT_S = 600.0
"""How long the same refusal of the same peer is not told again."""
TOLD_AT_MOST = 20
"""Refusals told within REPEAT_S, whoever the peers are."""


@dataclass
class _Told:
    at: float
    again: int = 0


class Refusals:
    """Tells of connections that were turned away, and of each once, then how often: whoever is
    refused comes back twice a second, and anybody may connect."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], _Told] = {}  # the oldest first
        self._others = 0  # connections not told of because there were too many peers

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
        """Forget what was told long ago, with a line on how often it came again; that of `current`
        is left to the caller, who gets the number."""
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
    """What a TLS listener shows, and whom it lets in."""

    @property
    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        ...

    def refusal_of(self, peer: bytes | None) -> str | None:
        """Why whoever showed this certificate, in DER, is turned away; None where it is not."""
        ...


class TlsListener:
    """Listens, and hands on each connection whose handshake succeeds and whose certificate the
    door lets in. Has `close` as :class:`asyncio.Server` has it."""

    def __init__(
        self,
        sock: socket.socket,
        door: Door,
        protocol: Callable[[], asyncio.BaseProtocol],
        refusals: Refusals,
        backlog: int,
    ) -> None:
        """Raises OSError where the bound socket cannot listen."""
        self._sock = sock
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
                log.warning("cannot accept a connection", error=error.strerror)
                await asyncio.sleep(ACCEPT_PAUSE_S)
                continue
            peer = str(address[0])
            handshake = self._loop.create_task(self._shake_hands(accepted, peer))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._ended)
            if (out := self._crowd.enter(handshake, peer)) is not None:
                out.cancel()
            # Else as many as are waiting would be accepted before anything else goes on.
            await asyncio.sleep(0)

    def _ended(self, handshake: asyncio.Task[None]) -> None:
        self._handshakes.discard(handshake)
        self._crowd.leave(handshake)

    async def _shake_hands(self, accepted: socket.socket, peer: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: _Gate(self._door, self._protocol, self._refusals, peer),
                accepted,
                ssl=self._door.context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                ssl_shutdown_timeout=FAREWELL_TIMEOUT_S,
            )
        except (OSError, ValueError) as error:  # the latter of what cannot be decoded
            self._refusals.note(peer, reason_of(error))


class _Gate(asyncio.Protocol):
    """Stands at a connection until its handshake ends. Only then, and only for a certificate that
    the door lets in, is there anything that reads what the peer sends."""

    def __init__(
        self,
        door: Door,
        protocol: Callable[[], asyncio.BaseProtocol],
        refusals: Refusals,
        peer: str,
    ) -> None:
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
        transport.write(farewell(reason))
        transport.close()

    def data_received(self, data: bytes) -> None:
        """Of one that was refused: thrown away."""


def reason_of(error: OSError | ValueError) -> str:
    """Why a handshake failed, from the agent's side, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        name = error.reason or ""
        if speaks_no_tls(error):
            return "it does not speak TLS, which this agent requires; start its manager with --mtls"
        if name == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "it has no certificate, and this agent requires one"
        words = name.replace("_", " ").lower() or str(error)
        return f"the TLS handshake failed: {words}"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "it ended the connection during the TLS handshake"
    strerror = error.strerror if isinstance(error, OSError) else None
    return f"the TLS handshake failed: {strerror or error}"
