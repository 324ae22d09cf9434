"""The processes and the resources of a test cluster, and the faults that befall them.

Everything here happens at once and says nothing of the manager's view; for that see
:mod:`tests.integration.cluster`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from tests.certificates import Authority
from tests.integration import forkserver, processes
from tests.integration.certificates import write_certificates
from tests.integration.evidence import Action, read_actions
from tests.integration.layout import (
    SHORT_SETTINGS,
    GroupSpec,
    config_text,
    group,
    resources_of,
)

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "tests" / "test_output"
DEADLINE_S = 60.0
DEFAULT_FLAGS = ("--manage-resources", "--fence-on-connection-close", "--sleep-time", "500")

Running: TypeAlias = forkserver.Program | subprocess.Popen[bytes]

_SOCKET_PATH_LIMIT = 100
_LOCK = ".lock"
_SURVIVES_POWER_OFF = (".cmd", ".fence-fault")


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Site:
    """One manager, its agents, and the faults that befall them.

    Every verb has taken effect when it returns, but for the start of a process, which is not
    waited for.
    """

    def __init__(
        self,
        name: str,
        hosts: Sequence[str] = ("h1", "h2"),
        groups: Sequence[GroupSpec] | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        host_options: Mapping[str, Mapping[str, Any]] | None = None,
        flags: Sequence[str] = DEFAULT_FLAGS,
        mtls: bool = False,
    ) -> None:
        """`settings` add to SHORT_SETTINGS; `host_options` are keys of a host's config entry."""
        self.folder, self._folder_lock = _claim_folder(name)
        if groups is None:
            groups = [group("g1", "h1", ["h2"]), group("g2", "h2", ["h1"])]
        self.groups = {spec.id: spec for spec in groups}
        self.resources = resources_of(groups)
        self.ports = {host: processes.free_port() for host in hosts}
        self.settings = {**SHORT_SETTINGS, **(settings or {})}
        self.host_options = host_options or {}
        self.flags = list(flags)
        self.mtls = mtls
        self.authority = Authority(self.folder) if mtls else None
        self.allowed_defects: list[str] = []
        """Words that may stand in a log line that would otherwise fail the test."""
        self.config = self.folder / "config.yaml"
        self.statefile = self.folder / "halo.state"
        self.socket_folder: tempfile.TemporaryDirectory[str] | None = None
        self.socket = self._place_socket()
        self.run_folder = tempfile.TemporaryDirectory(prefix="halo-test-", dir=_memory())
        self.manager: Running | None = None
        self.agents: list[Running] = []
        self.environment = self._make_environment()
        self.write_config()

    def _place_socket(self) -> Path:
        path = self.folder / "test.socket"
        if len(str(path)) > _SOCKET_PATH_LIMIT:
            self.socket_folder = tempfile.TemporaryDirectory(prefix="halo-test-")
            path = Path(self.socket_folder.name) / "socket"
        return path

    def _make_environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HALO_", "OCF_"))}
        programs = Path(sys.executable).parent
        return {
            **kept,
            processes.MARK: str(self.folder),
            "PATH": f"{programs}:{kept.get('PATH', os.defpath)}",
            "HALO_TEST_DIRECTORY": str(self.folder),
            "HALO_TEST_LOG": str(self.folder / "test_log"),
            "HALO_LOG": "debug",
            # In memory, as /run is: on a busy disk, a rename may take half a minute.
            "HALO_RUN_DIR": self.run_folder.name,
            # No test here asks an authority of this machine, and aiohttp reads them all at its
            # import, a fifth of the start of a manager.
            "SSL_CERT_FILE": os.devnull,
            "PYTHONASYNCIODEBUG": "",  # asyncio takes any word for yes, "0" too
            **(write_certificates(self.authority) if self.authority else {}),
        }

    def close(self) -> None:
        """Give up the folder, which stays for whoever wants to look at it."""
        self.run_folder.cleanup()
        if self.socket_folder is not None:
            self.socket_folder.cleanup()
        if self._folder_lock >= 0:
            os.close(self._folder_lock)
            self._folder_lock = -1

    def write_config(self) -> None:
        """Write config.yaml anew, after a change of `settings`, `groups` or `host_options`."""
        self.config.write_text(
            config_text(
                self.ports,
                list(self.groups.values()),
                self.folder,
                self.settings,
                self.host_options,
            )
        )

    def boot(self, host: str) -> None:
        """Start the agent of a host that is off."""
        argv = [
            *("halo_remote", "--network", "127.0.0.1/32", "--port", str(self.ports[host])),
            *("--test-id", host, "--ocf-root", str(ROOT / "tests" / "ocf_resources"), "--verbose"),
            *(["--mtls"] if self.mtls else []),
        ]
        # This is how `fence_test` with action=on starts it.
        command = {"argv": argv, "env": self.environment, "cwd": str(ROOT)}
        (self.folder / f"{host}.cmd").write_text(json.dumps(command))
        self.agents.append(self._start(argv, f"agent_{host}_log"))

    def boot_old(self, host: str, *, greets: bool) -> None:
        """Start an agent of another version; see :mod:`tests.integration.old_agent`."""
        argv = [
            *(sys.executable, "-m", "tests.integration.old_agent", "--test-id", host),
            *("--port", str(self.ports[host]), *(["--greets"] if greets else [])),
        ]
        self.agents.append(self._spawn(argv, f"agent_{host}_log"))

    def start_manager(self) -> None:
        """Start the manager; :meth:`until` waits for it."""
        if self.manager is not None and self.manager.poll() is None:
            raise RuntimeError("the manager runs already")
        argv = [
            *("halo_manager", "--config", str(self.config), "--socket", str(self.socket)),
            *("--statefile", str(self.statefile), "--verbose", *self.flags),
            *(["--mtls"] if self.mtls else []),
        ]
        self.manager = self._start(argv, "manager_log")

    def _start(self, argv: list[str], log: str) -> Running:
        """Start one of HALO's programs."""
        return forkserver.SERVER.start(
            argv,
            cwd=ROOT,
            environment=self.environment,
            log=self.folder / log,
        )

    def _spawn(self, argv: list[str], log: str) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as output:
            return subprocess.Popen(
                argv,
                cwd=ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def kill(self, host: str) -> None:
        """Cut the power: agent and scripts are gone at once, and so is what ran there."""
        processes.kill_all(lambda: processes.marked(self.folder, host))
        for path in self.folder.glob(f"{host}.*"):
            if path.is_dir():
                shutil.rmtree(path)  # its part of /run
            elif path.suffix not in _SURVIVES_POWER_OFF:
                path.unlink(missing_ok=True)

    def crash_agent(self, host: str) -> None:
        """Kill the agent alone: its resources and running scripts stay."""
        os.kill(self.agent_pid(host), signal.SIGKILL)
        self._await_end(host)

    def stop_agent(self, host: str) -> None:
        """End the agent in order, as a restart of its service does."""
        os.kill(self.agent_pid(host), signal.SIGTERM)
        self._await_end(host)

    def _await_end(self, host: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while self.is_on(host):
            if time.monotonic() > end:
                raise AssertionError(f"the agent of {host} does not end")
            time.sleep(0.005)

    def freeze(self, host: str) -> None:
        """Stop agent and scripts (SIGSTOP): connections stand, and nothing answers."""
        processes.signal_all(processes.marked(self.folder, host), signal.SIGSTOP)

    def thaw_process(self, host: str) -> None:
        """Let a frozen host go on."""
        processes.signal_all(processes.marked(self.folder, host), signal.SIGCONT)

    def is_on(self, host: str) -> bool:
        """Whether the agent of a host lives."""
        with contextlib.suppress(OSError, ValueError):
            return processes.is_alive(self.agent_pid(host))
        return False

    def agent_pid(self, host: str) -> int:
        """The PID of a host's agent, from its PID file."""
        return int((self.folder / f"{host}.pid").read_text())

    def kill_manager(self) -> None:
        """Kill the manager without a warning."""
        assert self.manager is not None
        self.manager.kill()
        self.manager.wait(DEADLINE_S)

    def stop_manager(self) -> int:
        """End the manager in order; its exit status."""
        assert self.manager is not None
        self.manager.terminate()
        return self.manager.wait(DEADLINE_S)

    def freeze_manager(self) -> None:
        """Stop the manager (SIGSTOP); :meth:`thaw_manager` lets it go on."""
        assert self.manager is not None
        self.manager.send_signal(signal.SIGSTOP)

    def thaw_manager(self) -> None:
        """Let a frozen manager go on."""
        assert self.manager is not None
        self.manager.send_signal(signal.SIGCONT)

    def restart_manager(self) -> None:
        """Start it again; ends it in order first where it still runs."""
        if self.manager is not None and self.manager.poll() is None:
            self.stop_manager()
        self.start_manager()

    # Resources -----------------------------------------------------------------------------

    def state_file(self, resource: str, host: str) -> Path:
        """The file that exists while a resource runs on a host."""
        return self.folder / f"{host}.{self.resources[resource].state_suffix}"

    def running_on(self, resource: str) -> set[str]:
        """The hosts where a resource really runs at this moment."""
        return {host for host in self.ports if self.state_file(resource, host).exists()}

    def break_resource(self, resource: str, host: str | None = None) -> None:
        """Let a resource (a group: its root) crash, on `host` or wherever it runs."""
        for where in [host] if host else self.running_on(resource):
            self.state_file(resource, where).unlink()

    def start_by_hand(self, group_or_resource: str, host: str) -> None:
        """Start a group, or one resource, behind the manager's back."""
        spec = self.groups.get(group_or_resource)
        names = [r.name for r in spec.resources] if spec else [group_or_resource]
        for name in names:
            self.state_file(name, host).touch()

    def stop_by_hand(self, group_or_resource: str, host: str) -> None:
        """Stop a group, or one resource, behind the manager's back."""
        spec = self.groups.get(group_or_resource)
        names = [r.name for r in spec.resources] if spec else [group_or_resource]
        for name in names:
            self.state_file(name, host).unlink(missing_ok=True)

    def fault(self, resource: str, faults: str = "", host: str | None = None) -> None:
        """Order faults of a resource, on one host or all: `start-fail`, `once stop-fail`,
        `monitor-error 5`, `stop-hang`, `start-slow 2`, `validate-hang`; several by newlines; ""
        ends them.

        See tests/ocf_resources/lib/emulated.sh.
        """
        where = f"{host}." if host else ""
        path = self.folder / f"fault.{where}{self.resources[resource].state_suffix}"
        self._order(path, faults)

    def fence_fault(self, host: str, faults: str = "") -> None:
        """Order faults of a host's fence device: `fail`, `off hang`, `status lie`...; "" ends them.

        See the fence agent `fence_test` in docs/fencing.md.
        """
        self._order(self.folder / f"{host}.fence-fault", faults)

    @staticmethod
    def _order(path: Path, faults: str) -> None:
        if not faults:
            path.unlink(missing_ok=True)
            return
        new = path.with_name(f".new-{path.name}")
        new.write_text(f"{faults}\n")
        new.rename(path)

    def actions(self) -> list[Action]:
        """What the scripts did so far."""
        return read_actions(self.folder / "test_log")

    def count(self, resource: str, operation: str, host: str | None = None) -> int:
        """How often an operation of a resource ended so far."""
        name = self.resources[resource].state_suffix
        return sum(
            (a.resource, a.operation, a.phase) == (name, operation, "END")
            and host in (None, a.host)
            for a in self.actions()
        )


def _claim_folder(name: str) -> tuple[Path, int]:
    """An empty folder and its lock: another run of the same test may be in progress elsewhere."""
    for number in range(1, 100):
        folder = OUTPUT / (name if number == 1 else f"{name}.{number}")
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != _LOCK:
                path.unlink()
        return folder, lock
    raise RuntimeError(f"99 runs of {name} are in progress")
