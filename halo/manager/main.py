"""The program `halo_manager`: decides where resource groups run, and fences lost hosts."""

from __future__ import annotations

import asyncio
import pickle
import socket
import sys
from pathlib import Path

import click
import structlog

from halo import __version__
from halo.adapters import logs
from halo.adapters.journal.sqlite import SqliteMedium
from halo.adapters.tls.files import TlsFiles, expected_name
from halo.adapters.tls.identity import manager_identity
from halo.adapters.usage import DaemonCommand, store_files, store_options
from halo.config import check_warnings, load
from halo.core.errors import (
    EXIT_ADMINISTRATOR,
    AdministratorError,
    InvariantError,
    LeadershipError,
    SteppedDown,
)
from halo.core.model import DEFAULT_AGENT_PORT, Cluster
from halo.manager.answering import PeerPort, open_peer_port
from halo.manager.leadership import identity as ids
from halo.manager.leadership.config_file import ConfigFile
from halo.manager.leadership.opening import EXIT_NOT_LEADING, Node, store_of
from halo.manager.serving import Options, Service

EXIT_FATAL = 70
"""Exit status for a defect of the manager itself (EX_SOFTWARE). systemd restarts it."""

log = structlog.get_logger("halo.manager")


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
    "--node-id",
    envvar="HALO_NODE_ID",
    default=None,
    show_envvar=True,
    metavar="ID",
    help="Id of this manager among those that share --store. [default: from the config, else the "
    "number at the end of the host's name]",
)
@click.option(
    "--lease",
    envvar="HALO_LEASE",
    type=click.IntRange(2, 3600),
    default=10,
    show_default=True,
    show_envvar=True,
    metavar="SECONDS",
    help="With --store: if a manager dies, another one leads after this time.",
)
@click.option(
    "--peer-listen",
    envvar="HALO_PEER_LISTEN",
    default=None,
    show_envvar=True,
    metavar="ADDRESS:PORT",
    help="With --store: answer the other managers there, with the certificate HALO_PEER_CERT.",
)
@click.option(
    "--peer-url",
    envvar="HALO_PEER_URL",
    default=None,
    show_envvar=True,
    metavar="URL",
    help="Where the other managers reach that. [default: https://HOSTNAME:PORT]",
)
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
    node_id: str | None,
    lease: int,
    peer_listen: str | None,
    peer_url: str | None,
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
        node_id=node_id,
        lease_s=lease,
        peer_listen=peer_listen,
        peer_url=peer_url,
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
        config = ConfigFile(options.config, lambda: _read_config(options))
        cluster = config.first()
        identity = manager_identity(TlsFiles.of_manager()) if options.mtls else None
        server_name = expected_name() if options.mtls else None
        service = Service(options, identity, server_name)
        if options.store is None:
            if options.peer_listen is not None:
                raise AdministratorError(
                    "--peer-listen needs --store: with a file, one manager runs"
                )
            asyncio.run(service.alone(cluster, SqliteMedium.open(options.statefile)))
        else:
            port = open_peer_port(options.peer_listen, options.peer_url, cluster)
            node = _node(options, cluster, port)
            asyncio.run(service.among_others(cluster, options.store, node, port, config))
    except AdministratorError as error:
        return _told(error)
    except SteppedDown as error:
        log.info("gave the leadership back by command: ending, to stand by", reason=str(error))
        return EXIT_NOT_LEADING
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


def _node(options: Options, cluster: Cluster, port: PeerPort) -> Node:
    """This manager among those that share the store. Raises AdministratorError."""
    own = ids.node_id(options.node_id, cluster.managers, socket.gethostname())
    ids.remember_id(options.statefile, own)
    named = [manager.id for manager in cluster.managers]
    if named and own not in named:
        log.warning("this manager is not in the config's list of managers", id=own, named=named)
    return Node(own, options.lease_s, port.url, observes=not options.manage_resources)


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


if __name__ == "__main__":
    main()
