"""Serves a cluster: takes the journal, runs the manager with its HTTP API, and ends in order.

Here the adapters are put into the manager. Flags and exit statuses: see `main`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from halo import __version__
from halo.adapters.fence.programs import FencePrograms
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.adapters.systemd import Notifier
from halo.adapters.tls.identity import TlsIdentity
from halo.adapters.unix_socket import UnixSite
from halo.core.model import Cluster
from halo.manager import collector
from halo.manager.answering import Answering, PeerPort
from halo.manager.api.app import make_app, make_runner
from halo.manager.common.status_text import StatusText
from halo.manager.hosts.certificate_look import look_again
from halo.manager.leadership.config_file import ConfigFile
from halo.manager.leadership.opening import (
    EXIT_NOT_LEADING,
    Alone,
    Leading,
    Node,
    open_store,
    signals_end_this,
    stand_by,
)
from halo.manager.leadership.standing import StoreStanding
from halo.manager.loop_lag import CollectorPauses, LoopLag
from halo.manager.manager import Manager
from halo.ports import JournalMedium

if TYPE_CHECKING:
    from halo.adapters.etcd.location import Store
    from halo.adapters.etcd.medium import EtcdMedium

log = structlog.get_logger("halo.manager")


class SystemClock:
    """The machine's time of day."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()


@dataclass(frozen=True)
class Options:
    """The options of the command line and the environment."""

    config: Path
    socket: str
    socket_group: str | None
    statefile: Path
    store: Store | None
    node_id: str | None
    lease_s: int
    peer_listen: str | None
    peer_url: str | None
    manage_resources: bool
    mtls: bool
    fence_on_connection_close: bool
    sleep_time_ms: int | None
    port: int


def _identity(options: Options, cluster: Cluster) -> str:
    """The name of this manager towards agents. It is the same after every restart."""
    journal = options.store or options.statefile.resolve()
    return f"{cluster.name}@{socket.gethostname()}:{journal}"


@dataclass(frozen=True)
class Among:
    """What a manager among others has besides: its standing, and how it answers."""

    standing: StoreStanding
    answering: Answering


class Service:
    """One manager process, from the start to the end."""

    def __init__(
        self, options: Options, identity: TlsIdentity | None, server_name: str | None
    ) -> None:
        self._options = options
        self._identity = identity
        self._server_name = server_name
        self._notifier = Notifier()
        self._site = UnixSite(options.socket, options.socket_group)

    async def alone(self, cluster: Cluster, medium: JournalMedium) -> None:
        """Manage with a journal that no other manager uses, until a signal comes."""
        try:
            await self._work(cluster, medium, Alone(), None)
        finally:
            await self._site.close()
            await medium.close()

    async def among_others(
        self, cluster: Cluster, store: Store, node: Node, port: PeerPort, config: ConfigFile
    ) -> None:
        """Stand by until this manager leads, and manage then, until a signal comes."""
        journal, standing = open_store(store, node, SystemClock())
        among = Among(standing, Answering(standing, cluster, port, self._site))
        try:
            with signals_end_this():
                async with among.answering.opened():
                    await self._stand_by_and_work(cluster, store, journal, among, config)
        except asyncio.CancelledError:
            log.info("ending", reason="signal")
        finally:
            await self._site.close()

    async def _stand_by_and_work(
        self,
        cluster: Cluster,
        store: Store,
        journal: EtcdMedium,
        among: Among,
        config: ConfigFile,
    ) -> None:
        statefile, answering = self._options.statefile, among.answering.standing_by
        await stand_by(store, journal, among.standing, statefile, self._notifier, answering)
        try:
            cluster = await config.renewed(cluster)
            among.answering.expect(cluster)
            await self._work(cluster, journal, journal, among)
        finally:
            await journal.close()  # the other managers need not wait until the lease expires

    async def _work(
        self, cluster: Cluster, medium: JournalMedium, leading: Leading, among: Among | None
    ) -> None:
        options, identity = self._options, self._identity
        fence_programs = FencePrograms(may_act=leading.require_leading)
        connector = CapnpConnector(
            _identity(options, cluster),
            cluster.name,
            tls=identity,
            server_name=self._server_name,
            term=lambda: leading.term,
            may_act=leading.require_leading,
        )
        async with rpc_loop():
            manager = Manager(
                cluster,
                connector,
                fence_programs,
                medium,
                SystemClock(),
                observe_only=not options.manage_resources,
                term=lambda: leading.term,
            )
            leading.when_lost(manager.fatal, lambda: os._exit(EXIT_NOT_LEADING))
            if among is not None:
                among.standing.lead(manager.state.remembered, manager.fatal)
            looks = _watch_certificates(identity, manager, connector)
            collector.spare()
            lag = LoopLag()
            lag.start()
            pauses = CollectorPauses()
            pauses.start()
            runner = _api(manager, lag, pauses, among, leading)
            await runner.setup()
            leads = among.answering.leading(runner, manager.state) if among else nullcontext()
            try:
                await self._site.serve(runner)
                with leads:
                    await _manage(manager, options, cluster, self._notifier)
            finally:
                for look in looks:
                    look.cancel()
                lag.stop()
                pauses.stop()
                await self._site.pause()
                await runner.cleanup()
                connector.close()
                await fence_programs.close()


def _api(
    manager: Manager,
    lag: LoopLag,
    pauses: CollectorPauses,
    among: Among | None,
    leading: Leading,
) -> web.AppRunner:
    """The HTTP API over this manager."""
    app = make_app(
        manager.operations,
        on_defect=manager.fatal,
        status_text=StatusText(manager.operations.status_parts, manager.settled).read,
        root_status_text=StatusText(manager.operations.root_parts, manager.settled).read,
        debug=lambda: {
            "loop_lag": lag.figures(),
            "loop_lag_5s": lag.figures(5.0),
            "collector": pauses.figures(),
            "tasks": len(asyncio.all_tasks()),
        },
        managers=among.answering.managers if among else None,
        require_leading=leading.require_leading,
    )
    if among is not None:
        among.answering.connections.bound(app)
    return make_runner(app)


def _watch_certificates(
    identity: TlsIdentity | None, manager: Manager, connector: CapnpConnector
) -> list[asyncio.Task[None]]:
    """Use renewed files of our own, and notice agents' renewals. Cancel the tasks at the end."""
    if identity is None:
        return []
    manager.state.own_certificates = identity.known
    look = look_again(manager.state, SystemClock(), connector.certificate_ends_at)
    return [asyncio.create_task(identity.watch()), asyncio.create_task(look)]


async def _manage(manager: Manager, options: Options, cluster: Cluster, notifier: Notifier) -> None:
    """Run the manager until a signal comes."""
    loop = asyncio.get_running_loop()
    work = loop.create_task(manager.run())
    sparing = loop.create_task(collector.spare_once_settled(manager.progress))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    mode = "managing" if options.manage_resources else "observing"
    log.info(
        f"{mode}",
        version=__version__,
        pid=os.getpid(),
        cluster=cluster.name,
        hosts=len(cluster.hosts),
        groups=len(cluster.groups),
        socket=options.socket,
        journal=str(options.store or options.statefile),
    )
    notifier.ready(f"{mode} {len(cluster.hosts)} hosts, {len(cluster.groups)} groups")
    try:
        await work
    except asyncio.CancelledError:
        log.info("ending", reason="signal")
    finally:
        sparing.cancel()
        notifier.stopping()
        notifier.close()
