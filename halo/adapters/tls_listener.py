"""The agent's port where it requires TLS: who is turned away is written down, with the reason.

asyncio's own server drops a connection whose handshake fails without telling anybody; so the
handshake is waited for here.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable

import structlog

from halo.adapters.tls import speaks_no_tls

log = structlog.get_logger()

HANDSHAKE_TIMEOUT_S = 5.0
ACCEPT_PAUSE_S = 1.0
"""After an accept that failed for want of descriptors or memory."""
REPEAT_S = 600.0
"""How long the same refusal of the same peer is not told again."""
TOLD_AT_MOST = 20
"""Refusals told within REPEAT_S, whoever the peers are."""


class Refusals:
    """Tells of connections that were turned away, and of each once: whoever is refused comes back
    twice a second, and anybody may connect."""

    def __init__(self) -> None:
        self._told: deque[tuple[float, str, str]] = deque()

    def note(self, peer: str, reason: str) -> None:
        """A connection of this peer was turned away. Needs a running event loop, for the time."""
        now = asyncio.get_running_loop().time()
        while self._told and now - self._told[0][0] >= REPEAT_S:
            self._told.popleft()
        known = any((peer, reason) == told[1:] for told in self._told)
        if known or len(self._told) >= TOLD_AT_MOST:
            log.debug("turned a connection away", peer=peer, reason=reason)
            return
        self._told.append((now, peer, reason))
        log.warning("turned a connection away", peer=peer, reason=reason)


class TlsListener:
    """Listens, and hands on each connection whose handshake succeeds. Has `close` as
    :class:`asyncio.Server` has it."""

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        protocol: Callable[[], asyncio.BaseProtocol],
        refusals: Refusals,
        backlog: int,
    ) -> None:
        """Raises OSError where the bound socket cannot listen."""
        self._sock = sock
        self._context = context
        self._protocol = protocol
        self._refusals = refusals
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
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
            handshake = self._loop.create_task(self._shake_hands(accepted, str(address[0])))
            self._handshakes.add(handshake)
            handshake.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, accepted: socket.socket, peer: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._protocol,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            )
        except OSError as error:
            self._refusals.note(peer, reason_of(error))


def reason_of(error: OSError) -> str:
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
    return f"the TLS handshake failed: {error.strerror or error}"
