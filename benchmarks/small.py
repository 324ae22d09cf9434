"""The rows of small clusters: failover, planned move, cold start, one agent, status, journal.

Where fence programs run, their own run time (as the manager saw it) is not part of a figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks.site import ROOT, Shape, Site, cpu_s, rss_mb
from benchmarks.status_command import status_times_ms
from halo.adapters.journal.sqlite import SqliteMedium
from halo.ports import JournalMedium
from tests.unix_http import send

PAIR = Shape(hosts=2, groups_per_host=1, resources_per_group=1)
GROUP = "pool0-0"

DUMMY = """#!/bin/sh
# An OCF resource that is a file; its name holds the agent's.
state=$OCF_RESKEY_folder/$HALO_TEST_ID.$OCF_RESKEY_name
case $1 in
    start) : > "$state" ;;
    stop) rm -f "$state" ;;
    monitor) [ -e "$state" ] || exit 7 ;;
esac
"""


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """A folder for one run."""
    with tempfile.TemporaryDirectory(prefix="halo-bench-") as folder:
        yield Path(folder)


# --- failover and move: agents held in memory ------------------------------------------------


@dataclass
class Failovers:
    """Seconds, one value a run, without the fence programs."""

    detection: list[float] = field(default_factory=list)  # power cut -> declared lost
    decision: list[float] = field(default_factory=list)  # declared lost -> start command
    total: list[float] = field(default_factory=list)  # power cut -> start command


def failovers(loss_budget_s: float, runs: int) -> Failovers:
    """Cut the power of the active host of a pair, `runs` times, each time with a new cluster."""
    found = Failovers()
    for _ in range(runs):
        with temporary() as folder:
            settings = {"loss_budget": loss_budget_s, "device_check_interval": "744h"}
            with Site(PAIR, folder, settings) as site:
                _start_pair(site)
                _one_failover(site, found)
    return found


def _start_pair(site: Site) -> None:
    for host in PAIR.names:
        site.serve([host])
    site.start_manager()
    site.wait(lambda: len(site.starts()) == 2, 60, "both groups started")
    time.sleep(2.0 + random.random())  # nothing of the start is under way; any phase of heartbeats


def _one_failover(site: Site, found: Failovers) -> None:
    victim, partner = PAIR.names
    cut_at = time.time()
    os.kill(site.endpoints[victim].pid, signal.SIGSTOP)

    def restarts() -> list[float]:
        return [
            start.at for start in site.starts() if start.host == partner and start.resource == GROUP
        ]

    site.wait(lambda: bool(restarts()), 60, f"start of {GROUP} on {partner}")
    started_at = restarts()[0] + time.time() - time.monotonic()
    lost_at = wall(site.log_lines("declared lost")[0]["timestamp"])
    fences = site.log_lines("fence program ended")
    fence_s = sum(entry["seconds"] for entry in fences)
    found.detection.append(lost_at - cut_at)
    found.decision.append(started_at - lost_at - fence_s)
    found.total.append(started_at - cut_at - fence_s)


def wall(timestamp: str) -> float:
    """A time of the manager's log as seconds since the epoch."""
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def moves(runs: int) -> list[float]:
    """Seconds from the command to the end of the start on the other host; scripts take none."""
    found = []
    with temporary() as folder, Site(PAIR, folder) as site:
        _start_pair(site)
        for number in range(runs):
            target = PAIR.names[(number + 1) % 2]
            before = len(site.starts())
            began = time.monotonic()
            send(site.socket, f"/v1/groups/{GROUP}", {"command": "move", "to": target})
            site.wait(lambda before=before: len(site.starts()) > before, 30, "the move")  # type: ignore[misc]  # mypy cannot type a lambda's default
            found.append(max(start.at for start in site.starts()) - began)
            time.sleep(1.0)
    return found


# --- real agents and scripts -----------------------------------------------------------------


class Agents:
    """Real `halo_remote` processes with a trivial OCF script, and a manager of them."""

    def __init__(self, folder: Path, hosts: int, resources: int) -> None:
        self.folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self._hosts = [f"h{number}" for number in range(hosts)]
        self._resources = [f"r{number}" for number in range(resources)]
        self._ports = {host: _free_port() for host in self._hosts}
        script = folder / "ocf" / "resource.d" / "bench" / "Dummy"
        script.parent.mkdir(parents=True)
        script.write_text(DUMMY)
        script.chmod(0o755)
        (folder / "halo.conf").write_text(self._config())

    def _config(self) -> str:
        lines = ["hosts:"]
        for host in self._hosts:
            lines.append(f"- hostname: 127.0.0.1:{self._ports[host]}")
            lines.append("  fence_agent: fence_test")
            lines.append(f"  fence_parameters: {{target: {host}, test_id: {self.folder}}}")
        lines.append("resources:")
        for name in self._resources:
            lines.append(f"- name: {name}")
            lines.append("  kind: bench/Dummy")
            lines.append(f"  parameters: {{name: {name}, folder: {self.folder}}}")
            lines.append("  monitor_interval: 5s")
            lines += [f"  {key}_timeout: 20s" for key in ("monitor", "start", "stop")]
        lines.append("resource_groups:")
        for name in self._resources:
            lines.append(f"- {{root: {name}, home_host: h0, failover_hosts: {self._hosts[1:]}}}")
        return "\n".join(lines).replace("'", "") + "\n"

    def __enter__(self) -> Agents:
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()

    def start(self) -> float:
        """Start everything at once; returns the time of day before the first."""
        began = time.time()
        for host in self._hosts:
            self._spawn(
                *("halo.remote.main", "--network", "127.0.0.1/32", "--test-id", host),
                *("--port", str(self._ports[host]), "--ocf-root", str(self.folder / "ocf")),
                log=host,
            )
        self._spawn(
            *(
                "halo.manager.main",
                "--manage-resources",
                "--config",
                str(self.folder / "halo.conf"),
            ),
            *("--socket", str(self.folder / "s"), "--statefile", str(self.folder / "state")),
            log="manager",
        )
        return began

    def _spawn(self, module: str, *arguments: str, log: str) -> None:
        output = (self.folder / f"{log}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, "HALO_TEST_DIRECTORY": str(self.folder)},
        )
        self._processes.append(process)

    @property
    def first_agent(self) -> int:
        """The process of the agent on which everything runs."""
        return self._processes[0].pid

    def started_at(self) -> list[float]:
        """When each resource that runs on the first host was started."""
        found = []
        for name in self._resources:
            with contextlib.suppress(FileNotFoundError):
                found.append((self.folder / f"h0.{name}").stat().st_mtime)
        return found

    def wait_started(self, deadline_s: float = 60.0) -> None:
        """Return when every resource runs at home."""
        end = time.monotonic() + deadline_s
        while len(self.started_at()) < len(self._resources):
            if time.monotonic() > end:
                log = (self.folder / "manager.log").read_text()[-2000:]
                raise TimeoutError(f"not started within {deadline_s:g} s: {log}")
            time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cold_starts(runs: int) -> list[float]:
    """Seconds from the start of two agents and a manager until the start script ran."""
    found = []
    for _ in range(runs):
        with temporary() as folder, Agents(folder, hosts=2, resources=1) as agents:
            began = agents.start()
            agents.wait_started()
            found.append(max(agents.started_at()) - began)
    return found


def one_agent(rest_s: float) -> tuple[float, float]:
    """CPU seconds a minute, without the scripts, and megabytes, with 10 resources at 5 s."""
    with temporary() as folder, Agents(folder, hosts=1, resources=10) as agents:
        agents.start()
        agents.wait_started()
        time.sleep(3.0)
        began, cpu = time.monotonic(), cpu_s(agents.first_agent)
        time.sleep(rest_s)
        spent, took = cpu_s(agents.first_agent) - cpu, time.monotonic() - began
        return spent / took * 60, rss_mb(agents.first_agent)


# --- single figures --------------------------------------------------------------------------


def status_commands(runs: int, *options: str) -> list[float]:
    """Milliseconds of `halo status` on 100 resources, whole process."""
    return status_times_ms(runs, *options)


def journal_writes(runs: int) -> list[float]:
    """Milliseconds of one durable record, on the disk of the temporary folder."""

    async def write(path: Path) -> list[float]:
        return await append_times_ms(SqliteMedium.open(path), runs)

    with temporary() as folder:
        return asyncio.run(write(folder / "state"))


async def append_times_ms(medium: JournalMedium, runs: int) -> list[float]:
    """Milliseconds of each of some records in a row. Closes the medium."""
    record = {"at": 0.0, "event": "fence-intent", "object": "h", "comment": "why"}
    found = []
    try:
        for _ in range(runs):
            began = time.perf_counter()
            await medium.append([record])
            found.append((time.perf_counter() - began) * 1000)
    finally:
        await medium.close()
    return found
