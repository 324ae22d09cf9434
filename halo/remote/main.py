"""The program `halo_remote`: the agent on a cluster host."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import structlog

from halo import __version__
from halo.adapters import logs
from halo.adapters.rpc.agent.server import CapnpAgentServer
from halo.adapters.rpc.event_loop import rpc_loop
from halo.adapters.systemd import NOTIFY_VARIABLES, Notifier
from halo.adapters.tls.files import TlsFiles, manager_names
from halo.adapters.tls.identity import ManagerGate
from halo.adapters.usage import DaemonCommand
from halo.core.errors import EXIT_ADMINISTRATOR, AdministratorError
from halo.core.model import DEFAULT_AGENT_PORT
from halo.core.peers.certificates import ROLES
from halo.core.secrets import for_a_program
from halo.error_words import words_of
from halo.remote import listen
from halo.remote.descriptors import keep_descriptors, raise_descriptor_limit
from halo.remote.protection import Protection
from halo.remote.scripts.operations import Operations
from halo.remote.scripts.process import ScriptRunner
from halo.remote.scripts.records import RunDirectory
from halo.remote.service import AgentService
from halo.remote.terms import TermFile, Terms, forget, open_terms

log = structlog.get_logger()

DEFAULT_RUN_DIRECTORY = Path("/run/halo")
DEFAULT_STATE_DIRECTORY = Path("/var/lib/halo")


@dataclass(frozen=True)
class Options:
    """The options of the command line and the environment."""

    network: str
    port: int
    ocf_root: Path
    test_id: str | None
    mtls: bool
    managers: frozenset[str] = frozenset()
    state_directory: Path | None = None

    @property
    def test_directory(self) -> Path | None:
        """The folder of the test that this agent belongs to, if any."""
        folder = os.environ.get("HALO_TEST_DIRECTORY")
        return Path(folder) if folder and self.test_id else None

    def name(self, address: str, port: int) -> str:
        """A name for files of this agent. No other agent of this machine has it."""
        return self.test_id or f"{address}-{port}"

    @property
    def terms_directory(self) -> Path:
        """The folder for the terms of leaders. It survives a restart of the host."""
        if self.state_directory is not None:
            return self.state_directory
        if self.test_directory is not None:
            return self.test_directory / "terms"
        return DEFAULT_STATE_DIRECTORY

    def run_directory(self, address: str, port: int) -> Path:
        """The folder for records of running scripts. No other agent of this machine uses it."""
        name = self.name(address, port)
        if folder := os.environ.get("HALO_RUN_DIR"):
            return Path(folder) / name
        if self.test_directory is not None:
            return self.test_directory / f"{name}.run"
        return DEFAULT_RUN_DIRECTORY / name


@click.command(cls=DaemonCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--network",
    envvar="HALO_NET",
    default="192.168.1.0/24",
    show_default=True,
    metavar="CIDR",
    help="Listen only on an address of this machine in this network.",
    show_envvar=True,
)
@click.option(
    "--port",
    envvar="HALO_PORT",
    type=click.IntRange(0, 65535),
    default=DEFAULT_AGENT_PORT,
    show_default=True,
    show_envvar=True,
    help="Port to listen on.",
)
@click.option(
    "--ocf-root",
    envvar="OCF_ROOT",
    type=click.Path(path_type=Path),
    default="/usr/lib/ocf",
    show_default=True,
    show_envvar=True,
    help="Folder whose resource.d holds the resource agent scripts.",
)
@click.option("--test-id", default=None, help="Name of this agent in a test environment.")
@click.option("--mtls", is_flag=True, help="Require mutual TLS.")
@click.option(
    "--manager-name",
    envvar="HALO_MANAGER_NAME",
    default=None,
    metavar="NAME,...",
    show_envvar=True,
    help="With --mtls: serve only a manager whose certificate holds this name, or one of these "
    "(subjectAltName, DNS or IP). Set it.",
)
@click.option(
    "--state-directory",
    envvar=["HALO_STATE_DIRECTORY", "STATE_DIRECTORY"],
    type=click.Path(path_type=Path),
    default=None,
    show_envvar=True,
    help=f"Folder for the highest term of each cluster's leader. [default: "
    f"{DEFAULT_STATE_DIRECTORY}]",
)
@click.option(
    "--forget-term",
    default=None,
    metavar="CLUSTER",
    help="Forget the highest term of this cluster's leader, and exit. Stop the agent before.",
)
@click.option("-v", "--verbose", is_flag=True, help="Log at level debug, unless HALO_LOG is set.")
@click.option(
    "--log-format",
    type=click.Choice(logs.LOG_FORMATS),
    default="auto",
    show_default=True,
    help="For people, or one JSON object a line.",
)
@click.version_option(__version__, prog_name="halo_remote")
def main(
    network: str,
    port: int,
    ocf_root: Path,
    test_id: str | None,
    mtls: bool,
    manager_name: str | None,
    state_directory: Path | None,
    forget_term: str | None,
    verbose: bool,
    log_format: str,
) -> None:
    """Run OCF resource agent scripts on this host when the HALO manager asks for it."""
    logs.configure(verbose, log_format)
    try:
        managers = manager_names(manager_name)
        state = state_directory and state_directory.absolute()
        # Absolute, so that scripts may change their folder.
        options = Options(network, port, ocf_root.absolute(), test_id, mtls, managers, state)
        if forget_term is None:
            run(options)
        else:
            for line in forget(options.terms_directory, forget_term):
                click.echo(line)
    except AdministratorError as error:
        print(f"halo_remote: {error}", file=sys.stderr)  # noqa: T201  # read by a person at once
        sys.exit(EXIT_ADMINISTRATOR)


def run(options: Options) -> None:
    """Serve until SIGTERM. Raises AdministratorError if something must be corrected first."""
    keep_descriptors()
    raise_descriptor_limit()
    gate = _gate(options)
    given = options.network
    sock = listen.bind(listen.parse_network(given), options.port, given)
    _write_pid_file(options)
    scripts = options.ocf_root / "resource.d"
    if not scripts.is_dir():
        log.warning("no resource agents", folder=str(scripts), advice="see --ocf-root")
    address, port = sock.getsockname()[:2]
    records = RunDirectory(options.run_directory(address, port))
    _open_records(records)
    term_file, terms = open_terms(options.terms_directory, options.name(address, port))
    protection = Protection()
    protection.raise_up()
    asyncio.run(_serve(options, sock, gate, records, protection, term_file, terms))


def _gate(options: Options) -> ManagerGate | None:
    """With mutual TLS, the gate that decides whom this agent serves. Raises TlsFileError."""
    if not options.mtls:
        if options.managers:
            log.warning("HALO_MANAGER_NAME has no effect without --mtls: anybody is served")
        return None
    gate = ManagerGate(TlsFiles.of_agent(), options.managers)
    if options.managers:
        log.info("roles are set: serving only these managers", names=sorted(options.managers))
    else:
        log.warning(
            "roles are not set: any client certificate of the CA can command this agent",
            advice="set HALO_MANAGER_NAME to the name in the manager's certificate",
        )
    return gate


def _open_records(records: RunDirectory) -> None:
    try:
        records.open()
    except OSError as error:
        raise AdministratorError(
            f"cannot create the folder {error.filename} for records of running scripts: "
            f"{words_of(error)}; create it, or name another folder with HALO_RUN_DIR"
        ) from error


def _write_pid_file(options: Options) -> None:
    """Tell the test environment's fence agent which process to kill. Done before listening, so that
    an agent that can be reached can also be fenced."""
    if options.test_directory is None:
        return
    target = options.test_directory / f"{options.test_id}.pid"
    draft = target.with_suffix(f".pid.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(f"{os.getpid()}\n")
        os.replace(draft, target)
    except OSError as error:
        raise AdministratorError(
            f"cannot write the PID file {target}: {words_of(error)}; "
            "HALO_TEST_DIRECTORY must name a writable folder"
        ) from error


async def _serve(
    options: Options,
    sock: socket.socket,
    gate: ManagerGate | None,
    records: RunDirectory,
    protection: Protection,
    term_file: TermFile | None,
    terms: Terms,
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with rpc_loop():
        runner = ScriptRunner(protection, records)
        test_id = options.test_id or str(os.getpid())
        own = {*NOTIFY_VARIABLES, "STATE_DIRECTORY"}  # of this unit, and not of what scripts start
        inherited = for_a_program(os.environ, own)
        operations = Operations(runner, records, options.ocf_root, test_id, inherited)
        await operations.resume()
        features = [ROLES] if gate is not None and options.managers else []
        service = AgentService(operations, options.test_id, features, term_file, terms)
        server = CapnpAgentServer(service.open_session, gate)
        address, port = sock.getsockname()[:2]
        try:
            await server.serve(sock)
        except OSError as error:
            raise listen.ListenError(listen.why_not(address, port, error)) from error
        renewal = loop.create_task(gate.identity.watch()) if gate is not None else None
        notifier = Notifier()
        notifier.ready(f"listening on {address} port {port}")
        log.info("listening", address=address, port=port, mtls=options.mtls, version=__version__)
        await stop.wait()
        notifier.stopping()
        if renewal is not None:
            renewal.cancel()
        server.close()
        service.close()
        log.info("stopping; running scripts continue")
        # Let the connections end in order. Then leave without waiting for worker threads, because
        # one may hang in an `exec` on a dead file system. Running scripts are recorded.
        await asyncio.sleep(0)
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
