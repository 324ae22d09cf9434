"""How a manager answers over its life: on its Unix socket, and on its port for other managers.

While it stands by, the socket sends on, and the port says that this manager does not lead. Once it
leads, both give the same answers. The port stays open from the start to the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from halo.adapters.peers.exchange import PeerCalls, mistake_in_url
from halo.adapters.peers.identity import PeerIdentity
from halo.adapters.peers.port import (
    BACKLOG,
    GREETING,
    PeerPortError,
    bind,
    certificate_refused,
    turned_away,
    why_not,
)
from halo.adapters.tls.files import TlsFiles
from halo.adapters.tls.listener import Refusals, TlsListener
from halo.adapters.unix_socket import UnixSite
from halo.core.cluster.state import ClusterState
from halo.core.model import Cluster
from halo.manager.api.app import make_runner
from halo.manager.api.managers import Managers
from halo.manager.peers.connections import Connections
from halo.manager.peers.forwarding import Forwarder
from halo.manager.peers.redundancy import keep_looking
from halo.manager.peers.standby import make_not_leading_app, make_standby_app
from halo.ports import Standing


@dataclass(frozen=True)
class PeerPort:
    """What this manager has towards others: its certificate, its port, and its address for them.
    `lacks` says why it cannot ask others, or is None."""

    identity: PeerIdentity | None
    listening: socket.socket | None
    url: str | None
    lacks: str | None


def open_peer_port(listen: str | None, url: str | None, cluster: Cluster) -> PeerPort:
    """Read the files and bind the port. Call it before the event loop runs.

    Without `listen` the files may be missing: then this manager asks nobody. Raises
    AdministratorError."""
    if url is not None:
        if listen is None:
            raise PeerPortError("--peer-url needs --peer-listen")
        if (mistake := mistake_in_url(url)) is not None:
            raise PeerPortError(f"--peer-url: {mistake}; write it like https://mgmt1:8443")
    files = TlsFiles.of_peer()
    if listen is None and not files.certificate.exists():
        lacks = (
            f"this manager has no certificate {files.certificate}; make one with `halo tls peer "
            f"{socket.gethostname()}`"
        )
        return PeerPort(None, None, None, lacks)
    hosts = cluster.hosts.values()
    identity = PeerIdentity(files, frozenset(host.address for host in hosts))
    if listen is None:
        return PeerPort(identity, None, None, None)
    sock = bind(listen)
    port = sock.getsockname()[1]
    return PeerPort(identity, sock, url or f"https://{socket.gethostname()}:{port}", None)


class Answering:
    """This manager among others: enter :meth:`opened` first."""

    def __init__(
        self,
        standing: Standing,
        cluster: Cluster,
        port: PeerPort,
        site: UnixSite,
    ) -> None:
        self.managers = Managers(standing, {}, port.lacks)
        self.expect(cluster)
        self.connections = Connections(GREETING, turned_away)
        self._standing = standing
        self._port = port
        self._site = site
        if port.identity is not None:
            port.identity.managers = self._names

    def expect(self, cluster: Cluster) -> None:
        """From now on, these are the managers that the config names."""
        self.managers.expected = {manager.id: manager.host for manager in cluster.managers}

    def _names(self) -> frozenset[str]:
        """The machines of managers: those that the config names, or else the registered ones."""
        named = frozenset(self.managers.expected.values())
        return named or frozenset(seen.host for seen in self._standing.managers())

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The port is open, and renewed files are used."""
        identity, sock = self._port.identity, self._port.listening
        if identity is None:
            yield
            return
        listener = None
        if sock is not None:
            protocol, refusals = self.connections.protocol, Refusals()
            listener = TlsListener(
                sock,
                identity,
                protocol,
                refusals,
                BACKLOG,
                certificate_refused,
                why_not,
                self.connections.bounds.tls_shutdown_s,
            )
        watching = asyncio.create_task(identity.watch())
        try:
            yield
        finally:
            watching.cancel()
            if listener is not None:
                listener.close()
            self.connections.close()

    @asynccontextmanager
    async def standing_by(self, reason: Callable[[], str]) -> AsyncIterator[None]:
        """Meanwhile, the leader's answers are given. `reason`: what this manager waits for."""
        identity = self._port.identity
        forwarder = Forwarder(
            self._standing,
            PeerCalls(identity) if identity is not None else None,
            self._port.lacks or "",
            reason=lambda: f"this one does nothing yet: {reason()}",
        )
        refusing = make_not_leading_app(self._standing)
        self.connections.bound(refusing)
        async with (
            _running(refusing) as for_managers,
            _running(make_standby_app(self.managers, forwarder)) as for_clients,
        ):
            self.connections.serve(for_managers)
            self.managers.waits = reason
            try:
                await self._site.serve(for_clients)
                yield
            finally:
                self.managers.waits = None
                self.connections.serve(None)
                await self._site.pause()

    @contextlib.contextmanager
    def leading(self, runner: web.AppRunner, state: ClusterState) -> Iterator[None]:
        """Meanwhile, this manager leads, and `runner` (set up) also answers other managers. Give
        its application to `connections.bound` before its setup."""
        self.connections.serve(runner)
        looking = asyncio.create_task(keep_looking(state, self.managers))
        try:
            yield
        finally:
            looking.cancel()
            self.connections.serve(None)


@asynccontextmanager
async def _running(app: web.Application) -> AsyncIterator[web.AppRunner]:
    runner = make_runner(app)
    await runner.setup()
    try:
        yield runner
    finally:
        await runner.cleanup()
