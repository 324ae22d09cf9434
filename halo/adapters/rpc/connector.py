"""How the manager connects to agents: names, sockets, TLS, greetings, each within the deadline."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from halo.adapters.rpc.connection import CapnpConnection
from halo.adapters.rpc.losses import loss_of
from halo.adapters.rpc.wire import set_socket_options
from halo.adapters.tls.certificates import normal_name, read_certificate
from halo.adapters.tls.files import speaks_no_tls
from halo.adapters.tls.identity import TlsIdentity
from halo.core.errors import LinkError, Loss, LossKind
from halo.core.model import Host
from halo.error_words import words_of
from halo.ports import GreetingTurn

_NO_TLS_THERE = (
    "the agent there does not speak TLS, which this manager requires; start it with --mtls"
)

_HANDSHAKE_ENDED = (
    "the agent's host ended the handshake; perhaps the agent does not speak TLS: start it with "
    "--mtls, and see its log"
)
_OWN_CERTIFICATE_THERE = (
    "the agent there shows this manager's own certificate; each host needs its own certificate"
)

_RESOLVER_THREADS = 16


class CapnpConnector:
    """Connects to agents. Implements :class:`halo.ports.AgentConnector`.

    `manager` is the name of this manager towards agents. It stays the same after a restart, so that
    a newer connection replaces the older one. `tls` switches mutual TLS on, with this manager's
    certificate. Then `server_name` is the name that every agent's certificate must hold
    (HALO_SERVER_DOMAIN_NAME). Without it, the host's own address is expected. `term` gives the
    leader's term for each call, or 0 if there is only one manager. `may_act` is called in the step
    that sends a start or a stop. If it raises, nothing is sent.
    """

    def __init__(
        self,
        manager: str,
        cluster: str,
        *,
        tls: TlsIdentity | None = None,
        server_name: str | None = None,
        term: Callable[[], int] = lambda: 0,
        may_act: Callable[[], None] = lambda: None,
    ) -> None:
        self._manager = manager
        self._cluster = cluster
        self._tls = tls
        self._server_name = server_name
        self._term = term
        self._may_act = may_act
        # Hosts whose agent said that it knows only `operation`. Such an agent may be busy with a
        # script, and answer nothing for a minute. Its silence is then not that of the host.
        self._legacy: set[str] = set()
        # A resolver that hangs must not occupy the loop's own worker threads.
        self._resolvers = ThreadPoolExecutor(_RESOLVER_THREADS, "halo-resolver")

    def close(self) -> None:
        """Release the resolver threads. Standing connections are not touched."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def connect(
        self, host: Host, deadline_s: float, turn: GreetingTurn | None = None
    ) -> CapnpConnection:
        """Connect and exchange greetings within `deadline_s`. Raises LinkError.

        The deadline includes the resolving of the name. If that takes all the time, the loss is
        DNS. The deadline does not include the wait for `turn`.
        """
        deadline = asyncio.get_running_loop().time() + deadline_s
        addresses = await self._resolve(host, deadline)
        sock = await self._open(addresses, deadline)
        async with AsyncExitStack() as stack:
            try:
                waited_s = 0.0 if turn is None else await stack.enter_async_context(turn())
            except BaseException:
                sock.close()
                raise
            return await self._introduce(sock, host, deadline + waited_s)

    async def _introduce(self, sock: socket.socket, host: Host, deadline: float) -> CapnpConnection:
        connection = CapnpConnection(
            host.id, self._term, self._may_act, uses_tls=self._tls is not None
        )
        try:
            ends_at = await self._stand_up(connection, sock, host, deadline)
            await self._greet(connection, host, deadline)
            connection.identity = replace(connection.identity, certificate_expires_at=ends_at)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _resolve(self, host: Host, deadline: float) -> list[tuple[int, Any]]:
        try:
            version = ipaddress.ip_address(host.address).version
        except ValueError:
            pass
        else:
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            return [(family, (host.address, host.port))]
        look_up = asyncio.get_running_loop().run_in_executor(
            self._resolvers, _look_up, host.address, host.port
        )
        try:
            async with asyncio.timeout_at(deadline):
                return await look_up
        except TimeoutError:
            raise LinkError(Loss(LossKind.DNS, f"{host.address}: no answer in time")) from None
        except (OSError, UnicodeError) as error:
            raise LinkError(Loss(LossKind.DNS, f"{host.address}: {words_of(error)}")) from error
        except RuntimeError as error:  # no thread could be started
            raise LinkError(Loss(LossKind.LOCAL, f"resolver: {error}")) from error

    async def _open(self, addresses: list[tuple[int, Any]], deadline: float) -> socket.socket:
        loss = Loss(LossKind.DNS, "no address")
        for family, address in addresses:
            try:
                return await _open_one(family, address, deadline)
            except LinkError as error:
                loss = error.loss
                if loss.kind is LossKind.SILENT:
                    break
        raise LinkError(loss)

    async def certificate_ends_at(self, host: Host, deadline_s: float) -> float | None:
        """The expiry time of the certificate that the agent shows now; None without TLS.

        A standing connection may have begun with an earlier certificate. This look is made beside
        it. It sends nothing to the agent, and raises LinkError."""
        if self._tls is None:
            return None
        deadline = asyncio.get_running_loop().time() + deadline_s
        sock = await self._open(await self._resolve(host, deadline), deadline)
        transport = await self._secure(asyncio.Protocol(), sock, host, deadline)
        try:
            return self._look_at(self._tls, transport.get_extra_info("ssl_object"), host)
        finally:
            transport.abort()

    async def _stand_up(
        self, connection: CapnpConnection, sock: socket.socket, host: Host, deadline: float
    ) -> float | None:
        """With TLS, returns the expiry time of the agent's certificate."""
        await self._secure(connection.wire, sock, host, deadline)
        if self._tls is None:
            return None
        return self._look_at(self._tls, connection.wire.get_extra_info("ssl_object"), host)

    async def _secure(
        self, protocol: asyncio.BaseProtocol, sock: socket.socket, host: Host, deadline: float
    ) -> asyncio.Transport:
        # From here on, asyncio closes the socket. If we closed it, too, we could hit a descriptor
        # that belongs to another connection by then.
        loop = asyncio.get_running_loop()
        # Without the final dot of a name: no certificate has it (RFC 6066, section 3).
        name = normal_name(self._server_name or host.address) if self._tls is not None else None
        context = self._tls.context if self._tls is not None else None
        try:
            async with asyncio.timeout_at(deadline):
                transport, _ = await loop.create_connection(
                    lambda: protocol, sock=sock, ssl=context, server_hostname=name
                )
                return transport
        except TimeoutError:
            raise LinkError(Loss(LossKind.SILENT, "no TLS handshake in time")) from None
        except (OSError, ValueError) as error:
            # A ValueError means bytes or names that cannot be decoded: TLS has failed.
            is_tls = not isinstance(error, OSError) and self._tls is not None
            loss = Loss(LossKind.TLS, words_of(error)) if is_tls else loss_of(error)
            if speaks_no_tls(error):
                loss = Loss(LossKind.TLS, _NO_TLS_THERE)
            elif self._tls is not None and loss.kind is LossKind.RESET:
                loss = Loss(LossKind.TLS, _HANDSHAKE_ENDED)
            raise LinkError(loss) from error

    def _look_at(self, tls: TlsIdentity, secured: ssl.SSLObject, host: Host) -> float:
        """The expiry time of the agent's certificate. A manager's certificate is refused."""
        shown = secured.getpeercert(binary_form=True) or b""  # verified, so it exists
        if tls.is_own(shown):
            raise LinkError(Loss(LossKind.TLS, _OWN_CERTIFICATE_THERE))
        try:
            reason = tls.refusal_of_agent(shown, self._server_name or host.address)
            if reason is None:
                return read_certificate(shown).expires_at
        except ValueError as error:
            reason = str(error)
        raise LinkError(Loss(LossKind.TLS, f"certificate refused: {reason}"))

    async def _greet(self, connection: CapnpConnection, host: Host, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await connection.greet(self._manager, self._cluster)
        except TimeoutError:
            if host.id not in self._legacy:
                raise LinkError(Loss(LossKind.SILENT, "no answer to the greeting")) from None
            connection.take_for_legacy()
        if connection.identity.legacy:
            self._legacy.add(host.id)
        else:
            self._legacy.discard(host.id)


def _look_up(name: str, port: int) -> list[tuple[int, Any]]:
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


async def _open_one(family: int, address: Any, deadline: float) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise LinkError(Loss(LossKind.LOCAL, words_of(error))) from error
    try:
        set_socket_options(sock)
        async with asyncio.timeout_at(deadline):
            await asyncio.get_running_loop().sock_connect(sock, address)
    except TimeoutError as error:
        sock.close()
        # Our own timeout has no errno. The kernel's ETIMEDOUT is the same kind of silence.
        detail = words_of(error) if error.errno else "no connection in time"
        raise LinkError(Loss(LossKind.SILENT, detail)) from None
    except OSError as error:
        sock.close()
        loss = loss_of(error)
        if loss.kind is not LossKind.LOCAL:  # asyncio's words name the address as a tuple
            loss = Loss(loss.kind, f"{address[0]} port {address[1]}")
        raise LinkError(loss) from error
    except BaseException:
        sock.close()
        raise
    return sock
