"""Managers that share a journal in etcd: how long a takeover takes, and a planned hand-over.

At the moment of each death, a resource crashes, too. So the first action of the successor is a
start, which an agent notes. Three members of etcd run on loopback and flush to this disk.

`python -m benchmarks.managers --hosts 1000 --groups 10` measures one large cluster, and how long
the successor takes until it knows all hosts.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.in_etcd import members
from benchmarks.report import Row, machine
from benchmarks.scale import SETTINGS
from benchmarks.site import Shape, Site, config_text
from benchmarks.small import wall
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.medium import EtcdMedium
from halo.core.journal import fold
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from tests.unix_http import send

PAIR = Shape(hosts=2, groups_per_host=1, resources_per_group=1)
LARGE = Shape(hosts=100, groups_per_host=100, resources_per_group=1)
"""10,000 groups. The agents of all hosts are in one process."""

START_DEADLINE_S = 300.0
REST_S = 2.0


class Takeover(NamedTuple):
    """Seconds from the signal to the leader."""

    leads: float
    """Until the next one leads: the journal is read, and the manager made."""
    starts: float
    """Until its first start command."""
    knows: float
    """Until the agents of all hosts have told it everything for the first time."""


class Managers(Site):
    """A cluster with several managers. Two of them are enough for a takeover."""

    def __init__(self, shape: Shape, folder: Path, store: Store, lease_s: int) -> None:
        super().__init__(shape, folder)
        self._store = store
        self._lease_s = lease_s
        self._of: dict[str, subprocess.Popen[bytes]] = {}
        self.leader = ""

    def start_all(self, *nodes: str) -> None:
        """Start agents and managers. The first manager leads, and all groups run."""
        self.serve(self.shape.names)
        config = self.folder / "halo.conf"
        settings = {} if self.shape is PAIR else SETTINGS
        config.write_text(config_text(self.shape, self.ports, self.folder, settings))
        self._start_one(nodes[0])
        self.leader, self.manager = nodes[0], self._of[nodes[0]]
        groups = self.shape.hosts * self.shape.groups_per_host
        self.wait(lambda: len(self.starts()) >= groups, START_DEADLINE_S, "all groups started")
        for node in nodes[1:]:
            self._start_one(node)
            self._wait_until_it_stands_by(node)
        time.sleep(REST_S)

    def _start_one(self, node: str) -> None:
        """Start a manager."""
        log = (self.folder / f"manager{node}.log").open("wb")
        command = [sys.executable, "-m", "halo.manager.main", "--manage-resources"]
        command += ["--config", str(self.folder / "halo.conf"), "--socket", self.socket_of(node)]
        command += ["--statefile", str(self.folder / f"state{node}"), "--log-format", "json"]
        command += ["--store", str(self._store), "--lease", str(self._lease_s), "--node-id", node]
        self._of[node] = subprocess.Popen(command, stdout=log, stderr=log)
        self._processes.append(self._of[node])

    def socket_of(self, node: str) -> str:
        """The socket of a manager."""
        return str(self.folder / f"socket{node}")

    def _wait_until_it_stands_by(self, node: str) -> None:
        def stands_by() -> bool:
            return any(
                told["event"] == "not leading" and "standing by" in told["reason"]
                for told in self._log_of(node)
            )

        self.wait(stands_by, START_DEADLINE_S, f"manager {node} stands by")

    def _log_of(self, node: str) -> Iterator[dict[str, Any]]:
        for line in (self.folder / f"manager{node}.log").read_text().splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def take_over(self, number: signal.Signals) -> Takeover:
        """Send this signal to the leader, and wait until the other one starts what has crashed.

        Afterwards the first one stands by."""
        before, leader = len(self.starts()), self._of[self.leader]
        began, began_wall = time.monotonic(), time.time()
        leader.send_signal(number)
        os.kill(self.endpoints[self.shape.names[0]].pid, signal.SIGUSR1)
        [other] = [node for node in self._of if node != self.leader]
        self.manager = self._of[other]
        self.wait(lambda: len(self.starts()) > before, START_DEADLINE_S, f"{other} starts a group")
        leads_at = next(
            told["timestamp"]
            for told in self._log_of(other)
            if told["event"] == "managing" and "pid" in told
        )
        started_at = min(start.at for start in self.starts()[before:])
        known_at = self._knows_all(other)
        found = Takeover(
            wall(leads_at) - began_wall, started_at - began, wall(known_at) - began_wall
        )
        leader.wait(60)
        former, self.leader = self.leader, other
        self._start_one(former)
        self._wait_until_it_stands_by(former)
        time.sleep(REST_S)
        return found

    def _knows_all(self, node: str) -> str:
        """Wait until the hosts' agents have told everything. Returns when the last one did."""
        end = time.monotonic() + START_DEADLINE_S
        while time.monotonic() < end:
            told = [
                line["timestamp"]
                for line in self._log_of(node)
                if line["event"] == "watching" and "host" in line
            ]
            if len(told) >= self.shape.hosts:
                return str(max(told))
            time.sleep(1.0)  # the log is long, and to read it takes what the manager needs
        raise TimeoutError(f"{node} knows {len(told)} of {self.shape.hosts} hosts")


def takeovers(
    lease_s: int, number: signal.Signals, runs: int, shape: Shape = PAIR
) -> list[Takeover]:
    """Send this signal to the present leader, so often."""
    with members() as (at, folder):
        store = at.store()
        if shape is not PAIR:
            asyncio.run(_write_snapshot(store, shape))
        with Managers(shape, folder / "site", store, lease_s) as site:
            site.start_all("1", "2")
            return [site.take_over(number) for _ in range(runs)]


async def _write_snapshot(store: Store, shape: Shape) -> None:
    """The journal of a cluster of this shape in which every group was ordered to run."""
    remembered = Remembered()
    for number, host in enumerate(shape.names):
        fold.apply(remembered, Record(number, Event.CONNECT, host))
        for group in range(shape.groups_per_host):
            name = f"pool{number}-{group}"
            fold.apply(remembered, Record(number, Event.START, name, "after the maintenance"))
    medium = EtcdMedium.open(store)
    await medium.compact([remembered.snapshot(1.0).to_json()])
    await medium.close()


def commands(nodes: int, runs: int) -> list[float]:
    """Milliseconds of one command over the leader's socket, with so many managers."""
    with members() as (at, folder), Managers(PAIR, folder / "site", at.store(), 10) as site:
        site.start_all(*map(str, range(1, nodes + 1)))
        return list(_commands(site, runs))


def _commands(site: Managers, runs: int) -> Iterator[float]:
    for number in range(runs):
        body = {"command": "thaw" if number % 2 else "freeze"}
        began = time.perf_counter()
        send(site.socket_of(site.leader), "/v1/cluster", body)
        yield (time.perf_counter() - began) * 1000


def main() -> int:
    """Measure takeovers of one size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=10, help="per host")
    parser.add_argument("--lease", type=int, default=2, help="seconds")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(machine())
    shape = Shape(options.hosts, options.groups, resources_per_group=1)
    for number, how in ((signal.SIGKILL, "killed"), (signal.SIGTERM, "ended in order")):
        found = takeovers(options.lease, number, options.runs, shape)
        limit_s = 5.0 + (options.lease if number is signal.SIGKILL else 0)
        for what, times, bar in (
            ("the next leads", [one.leads for one in found], None),
            ("its first start", [one.starts for one in found], None),
            ("it knows all hosts", [one.knows for one in found], limit_s),
        ):
            print(Row(f"{options.hosts} hosts, {how} -> {what}", times, "s", bar), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
