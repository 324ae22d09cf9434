"""A generated cluster on loopback: a config, endpoint processes, and the real `halo_manager`."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.unix_http import get

FENCE_PROGRAM = Path(__file__).with_name("fence_instant")
ROOT = Path(__file__).parents[1]
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Shape:
    """How large a cluster is. Hosts stand in failover pairs."""

    hosts: int
    groups_per_host: int = 10
    resources_per_group: int = 3
    depth: int = 1  # so many groups are started one after another

    @property
    def names(self) -> list[str]:
        """The ids of the hosts: each is an address of the loopback interface."""
        return [f"127.77.{n // 200}.{n % 200 + 1}" for n in range(self.hosts)]

    @property
    def resources(self) -> int:
        """How many resources there are in all."""
        return self.hosts * self.groups_per_host * self.resources_per_group

    def partner(self, number: int) -> int:
        """The other host of a pair."""
        return number ^ 1

    def before(self, number: int, group: int) -> str | None:
        """The group that a group of host `number` is started after. It is at home on the next host
        that is no partner of this one."""
        if group % self.depth == 0:
            return None
        return f"pool{(number + 2) % self.hosts}-{group - 1}"


def config_text(shape: Shape, ports: dict[str, int], folder: Path, settings: dict[str, Any]) -> str:
    """The config of a cluster of this shape, as YAML."""
    lines = ["hosts:"]
    for host in shape.names:
        lines.append(f"- hostname: {host}:{ports[host]}")
        lines.append(f"  fence_agent: {FENCE_PROGRAM}")
        lines.append(f"  fence_parameters: {{plug: {host}, folder: {folder}}}")
    lines.append("resources:")
    for number, _ in enumerate(shape.names):
        for group in range(shape.groups_per_host):
            lines += _tree(f"pool{number}-{group}", shape.resources_per_group - 1)
    lines.append("resource_groups:")
    for number, host in enumerate(shape.names):
        other = shape.names[shape.partner(number)]
        for group in range(shape.groups_per_host):
            lines.append(f"- root: pool{number}-{group}")
            lines.append(f"  home_host: {host}")
            lines.append(f"  failover_hosts: [{other}]")
            before = shape.before(number, group)
            if before is not None:
                lines.append(f"  after: [{before}]")
    lines.append("settings:")
    lines += [f"  {key}: {value}" for key, value in settings.items()]
    return "\n".join(lines) + "\n"


def _tree(root: str, leaves: int) -> Iterator[str]:
    names = [f"{root}/ost{leaf}" for leaf in range(leaves)]
    yield f"- name: {root}"
    yield "  kind: heartbeat/ZFS"
    yield f"  parameters: {{pool: {root}, name: {root}}}"
    yield f"  dependents: [{', '.join(names)}]"
    for name in names:
        yield f"- name: {name}"
        yield "  kind: lustre/Lustre"
        yield f"  parameters: {{target: {name}, mountpoint: /mnt/{name}, name: {name}}}"


@dataclass
class Started:
    """One start that an endpoint carried out."""

    at: float  # CLOCK_MONOTONIC
    host: str
    resource: str


class Site:
    """One running cluster. Use as a context manager: every process it started ends with it."""

    def __init__(
        self,
        shape: Shape,
        folder: Path,
        settings: dict[str, Any] | None = None,
        *,
        mode: str = "watched",
        program: str = "halo.manager.main",
        start_s: float = 0.0,
    ) -> None:
        self.shape = shape
        self.folder = folder
        self._settings = settings or {}
        self._mode = mode
        self._program = program
        self._start_s = start_s
        self._processes: list[subprocess.Popen[bytes]] = []
        self._journals: list[Path] = []
        self.endpoints: dict[str, subprocess.Popen[bytes]] = {}
        self.ports: dict[str, int] = {}
        self.manager: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        raise_descriptor_limit()
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()

    # --- processes ---------------------------------------------------------------------------

    def serve(self, hosts: list[str]) -> None:
        """Start one process with the endpoints of `hosts`."""
        journal = self.folder / f"operations.{len(self._journals)}"
        self._journals.append(journal)
        journal.touch()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.endpoints"),
                *(str(journal), self._mode, str(self._start_s)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self.folder / f"{journal.name}.err").open("wb"),
            cwd=ROOT,
        )
        self._processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(hosts).encode() + b"\n")
        process.stdin.flush()
        self.ports |= json.loads(process.stdout.readline())
        for host in hosts:
            self.endpoints[host] = process

    def start_manager(self, *arguments: str) -> None:
        """Write the config and start the manager on it."""
        config = self.folder / "halo.conf"
        config.write_text(config_text(self.shape, self.ports, self.folder, self._settings))
        log = (self.folder / "manager.log").open("ab")
        self.started_at = time.monotonic()
        self.manager = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    self._program,
                    "--manage-resources",
                    "--log-format",
                    "json",
                ),
                *("--config", str(config), "--socket", self.socket),
                *("--statefile", str(self.folder / "halo.state"), *arguments),
            ],
            stdout=log,
            stderr=log,
        )
        self._processes.append(self.manager)

    @property
    def socket(self) -> str:
        """The manager's Unix socket."""
        return str(self.folder / "socket")

    @property
    def pid(self) -> int:
        """The manager's process."""
        assert self.manager is not None
        return self.manager.pid

    # --- what is seen ------------------------------------------------------------------------

    def starts(self) -> list[Started]:
        """Every start so far, in no particular order."""
        found = []
        for journal in self._journals:
            for line in journal.read_text().splitlines():
                fields = line.split()
                if len(fields) == 4 and fields[2] == "start":
                    found.append(Started(float(fields[0]), fields[1], fields[3]))
        return found

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """The lines of the manager's log that tell of `event`."""
        found = []
        for line in (self.folder / "manager.log").read_text().splitlines():
            if f'"{event}"' in line and line.startswith("{"):
                entry = json.loads(line)
                if entry["event"] == event:
                    found.append(entry)
        return found

    def wait(self, condition: Callable[[], bool], deadline_s: float, what: str) -> None:
        """Return when `condition` holds. Raises TimeoutError; RuntimeError if the manager ended."""
        end = time.monotonic() + deadline_s
        while not condition():
            assert self.manager is not None
            if self.manager.poll() is not None:
                tail = (self.folder / "manager.log").read_text()[-2000:]
                raise RuntimeError(f"the manager ended with {self.manager.returncode}: {tail}")
            if time.monotonic() > end:
                raise TimeoutError(f"not within {deadline_s:g} s: {what}")
            time.sleep(0.1)

    def debug(self) -> dict[str, Any]:
        """What the manager says of itself."""
        return dict(json.loads(get(self.socket, "/v1/debug")))


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"no VmRSS of process {pid}")


def raise_descriptor_limit() -> None:
    """As many descriptors as we may have: an endpoint takes two, a connection one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
