"""The program `halo_manager`: decides where resource groups run, and fences lost hosts."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import capnp
import click
import structlog
from aiohttp import web

from halo import __version__
from halo.adapters import logs
from halo.adapters.fence.programs import FencePrograms
from halo.adapters.journal.sqlite import SqliteMedium
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.systemd import Notifier
from halo.adapters.tls.files import TlsFiles, expected_name
from halo.adapters.tls.identity import TlsIdentity, manager_identity
from halo.adapters.unix_socket import UnixSite, open_unix_site
from halo.adapters.usage import DaemonCommand, store_files, store_options
from halo.config import check_warnings, load
from halo.core.errors import (
    EXIT_ADMINISTRATOR,
    AdministratorError,
    InvariantError,
    LeadershipError,
)
from halo.core.model import DEFAULT_AGENT_PORT, Cluster
from halo.manager import collector
from halo.manager.api.app import make_app, make_runner
from halo.manager.api.waiting import make_waiting_app
from halo.manager.common.status_text import StatusText
from halo.manager.hosts.certificate_look import look_again
from halo.manager.loop_lag import CollectorPauses, LoopLag
from halo.manager.manager import Manager
from halo.manager.opening import EXIT_NOT_LEADING, Alone, Leading, store_of, wait_for_store
from halo.ports import JournalMedium

if TYPE_CHECKING:
    from halo.adapters.etcd.location import Store

EXIT_FATAL = 70
"""Exit status for a defect of the manager itself (EX_SOFTWARE). systemd restarts it."""

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
    manage_resources: bool
    mtls: bool
    fence_on_connection_close: bool
    sleep_time_ms: int | None
    port: int


@click.command(cls=DaemonCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    envvar="HALO_CONFIG",
    default="/etc/halo/halo.conf",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Config file of the cluster.",
)
@click.option(
    "--socket",
    "socket_path",
    envvar="HALO_SOCKET",
    default="/var/run/halo.socket",
    show_default=True,
    show_envvar=True,
    help="Unix socket of the HTTP API.",
)
@click.option("--socket-group", default=None, help="Let members of this group use the socket.")
@click.option(
    "--statefile",
    envvar="HALO_STATEFILE",
    default="/etc/halo/halo.state",
    show_default=True,
    show_envvar=True,
    type=click.Path(path_type=Path),
    help="Journal of what must survive a restart.",
)
@click.option(
    "--store",
    envvar="HALO_STORE",
    default=None,
    show_envvar=True,
    metavar="URL",
    help="Keep the journal in etcd instead: etcd://HOST:PORT,HOST:PORT,.../PREFIX",
)
@store_options
@click.option(
    "--manage-resources",
    is_flag=True,
    help="Start, stop, move and fence. Without it: only observe, no action is ever taken.",
)
@click.option("--mtls", is_flag=True, help="Use mutual TLS with the agents.")
@click.option("-v", "--verbose", is_flag=True, help="Log at level debug, unless HALO_LOG is set.")
@click.option(
    "--log-format",
    type=click.Choice(logs.LOG_FORMATS),
    default="auto",
    show_default=True,
    help="For people, or one JSON object a line.",
)
@click.option(
    "--fence-on-connection-close",
    is_flag=True,
    help="For test environments: a refused or reset connection counts as a dead host.",
)
@click.option(
    "--sleep-time",
    type=click.IntRange(min=10),
    default=None,
    metavar="MS",
    help="Time between two monitors of a resource, in milliseconds. [default: 5000]",
)
@click.option(
    "--port",
    envvar="HALO_PORT",
    type=click.IntRange(1, 65535),
    default=DEFAULT_AGENT_PORT,
    show_default=True,
    show_envvar=True,
    help="Port of agents for which the config names none.",
)
@click.version_option(__version__, prog_name="halo_manager")
def main(
    config: Path,
    socket_path: str,
    socket_group: str | None,
    statefile: Path,
    store: str | None,
    manage_resources: bool,
    mtls: bool,
    verbose: bool,
    log_format: str,
    fence_on_connection_close: bool,
    sleep_time: int | None,
    port: int,
) -> None:
    """Keep every resource group of a cluster running on exactly one host."""
    logs.configure(verbose, log_format)
    try:
        found = store_of(store, store_files())
    except AdministratorError as error:
        sys.exit(_told(error))
    options = Options(
        config=config,
        socket=socket_path,
        socket_group=socket_group,
        statefile=statefile,
        store=found,
        manage_resources=manage_resources,
        mtls=mtls,
        fence_on_connection_close=fence_on_connection_close,
        sleep_time_ms=sleep_time,
        port=port,
    )
    sys.exit(run(options))


def run(options: Options) -> int:
    """Manage until SIGTERM or SIGINT; returns the exit status."""
    try:
        cluster: Cluster = pickle.loads(_read_config(options))
        identity = manager_identity(TlsFiles.of_manager()) if options.mtls else None
        server_name = expected_name() if options.mtls else None
        medium = None if options.store else SqliteMedium.open(options.statefile)
        asyncio.run(_serve(options, cluster, identity, server_name, medium))
    except AdministratorError as error:
        return _told(error)
    except LeadershipError as error:
        log.critical("not leading any more: ending, a restart is safe", problem=str(error))
        return EXIT_NOT_LEADING
    except InvariantError as error:
        log.critical("invariant broken: ending, a restart is safe", problem=str(error))
        return EXIT_FATAL
    except Exception:
        log.critical("unexpected error: ending, a restart is safe", exc_info=True)
        return EXIT_FATAL
    return 0


def _told(error: AdministratorError) -> int:
    print(f"halo_manager: {error}", file=sys.stderr)  # noqa: T201  # read by a person at once
    return EXIT_ADMINISTRATOR


def _read_config(options: Options) -> bytes:
    """The cluster, pickled. Raises ConfigError.

    After reading the file, the cluster lies scattered in memory among temporary data. Pickled,
    freed and read back, it lies together. This saves 100 MB with thirty thousand resources."""
    cluster = load(
        options.config,
        monitor_interval_s=options.sleep_time_ms / 1000 if options.sleep_time_ms else None,
        fence_on_connection_close=options.fence_on_connection_close,
        default_port=options.port,
    )
    for warning in check_warnings(cluster, options.config):
        log.warning("config", problem=warning)
    return pickle.dumps(cluster, pickle.HIGHEST_PROTOCOL)


def _identity(options: Options, cluster: Cluster) -> str:
    """The name of this manager towards agents. It is the same after every restart."""
    journal = options.store or options.statefile.resolve()
    return f"{cluster.name}@{socket.gethostname()}:{journal}"


async def _serve(
    options: Options,
    cluster: Cluster,
    identity: TlsIdentity | None,
    server_name: str | None,
    medium: JournalMedium | None,
) -> None:
    notifier = Notifier()
    leading: Leading = Alone()
    if options.store is not None:
        try:
            medium = leading = await wait_for_store(
                options.store, options.statefile, notifier, partial(_answering, options)
            )
        except asyncio.CancelledError:
            log.info("ending", reason="signal")
            return
    assert medium is not None
    try:
        await _work(options, cluster, identity, server_name, medium, notifier, leading)
    finally:
        await medium.close()


@asynccontextmanager
async def _answering(options: Options, reason: Callable[[], str]) -> AsyncIterator[None]:
    """Meanwhile, whoever asks anything on the socket is told this reason."""
    runner, site = make_runner(make_waiting_app(reason)), None
    await runner.setup()
    try:
        site = await open_unix_site(runner, options.socket, options.socket_group)
        yield
    finally:
        await _close(site, runner)


async def _work(
    options: Options,
    cluster: Cluster,
    identity: TlsIdentity | None,
    server_name: str | None,
    medium: JournalMedium,
    notifier: Notifier,
    leading: Leading,
) -> None:
    fence_programs = FencePrograms(may_act=leading.require_leading)
    connector = CapnpConnector(
        _identity(options, cluster),
        cluster.name,
        tls=identity,
        server_name=server_name,
        term=lambda: leading.term,
        may_act=leading.require_leading,
    )
    async with capnp.kj_loop():
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
        looks = _watch_certificates(identity, manager, connector)
        collector.spare()
        lag = LoopLag()
        lag.start()
        pauses = CollectorPauses()
        pauses.start()
        runner = _api(manager, lag, pauses)
        await runner.setup()
        site = None
        try:
            site = await open_unix_site(runner, options.socket, options.socket_group)
            await _manage(manager, options, cluster, notifier)
        finally:
            for look in looks:
                look.cancel()
            lag.stop()
            pauses.stop()
            await _close(site, runner)
            connector.close()
            await fence_programs.close()


def _api(manager: Manager, lag: LoopLag, pauses: CollectorPauses) -> web.AppRunner:
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
    )
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


async def _close(site: UnixSite | None, runner: web.AppRunner) -> None:
    if site is not None:
        await site.close()
    await runner.cleanup()


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


if __name__ == "__main__":
    main()
