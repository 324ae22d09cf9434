"""Agent endpoints of many hosts in one process: the real RPC server, resources held in memory.

A start makes a resource run after a set time, a stop ends it at once, and no script runs. So a
benchmark sees the manager's cost and not that of forks. A watch is answered by the real rules of
what is reported when, without monitors: nothing changes here but by an operation.

Run as a program it takes the ids of its hosts as JSON on standard input, prints
`{"HOST": PORT, ...}`, and serves until its parent is gone. An id is the address to listen on. Every
start and stop goes to the file named in argv[1], a line each: CLOCK_MONOTONIC, host, operation,
resource. argv[2] says how the agents are to be looked at: `watched`, `polled` (no watch offered),
or `single` (a call for each monitor). argv[3] is how long a start takes, in seconds. SIGUSR1 lets
a resource of the first host crash.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from halo import __version__
from halo.adapters import logs
from halo.adapters.rpc.agent.server import CapnpAgentServer
from halo.adapters.rpc.event_loop import rpc_loop
from halo.core.model import Operation
from halo.core.outcomes import OperationResult, Outcome, ReportedResult
from halo.core.peers.calls import Request, WatchRequest, Welcome
from halo.core.peers.ocf import OcfCode
from halo.remote.reports import Reports
from halo.remote.watch import GATHER_S, Observer

_SUCCESS = OperationResult(Outcome.COMPLETED, int(OcfCode.SUCCESS))
_NOT_RUNNING = OperationResult(Outcome.COMPLETED, int(OcfCode.NOT_RUNNING))

FEATURES = {
    "watched": ("heartbeat", "run", "watch", "monitorMany"),
    "polled": ("heartbeat", "run", "monitorMany"),
    "single": ("heartbeat", "run"),
}


class Endpoint:
    """One host: what runs there, and its connections' :class:`AgentSession` all in one."""

    def __init__(
        self, host: str, journal: TextIO, features: tuple[str, ...], start_s: float
    ) -> None:
        self._host = host
        self._start_s = start_s
        self._journal = journal
        self._welcome = Welcome(__version__, "boot", "start", features)
        self._running: set[str] = set()
        self._counts: dict[str, int] = {}
        self._items: list[str] = []
        self._reports = Reports(())
        self._pressing = asyncio.Event()
        self._reporter: asyncio.Task[None] | None = None

    def open_session(self, _link: object) -> Endpoint:
        """One manager, one connection at a time."""
        return self

    async def hello(self, manager: str, cluster: str, term: int) -> Welcome:
        """A new connection counts its operations from nothing."""
        self.ended()
        self._counts = {}
        return self._welcome

    def heartbeat(self) -> None:
        """After a refused report, everything is told again."""
        if self._reports.refused:
            self._reports.begin_afresh()
            self._note(self._items)

    async def run(self, request: Request, term: int) -> OperationResult:
        """Run one operation."""
        name = request.instance
        if request.operation is Operation.MONITOR:
            return self._monitor(name)
        now = time.monotonic()
        self._journal.write(f"{now:.6f} {self._host} {request.operation.value} {name}\n")
        if request.operation is Operation.START and self._start_s:
            await asyncio.sleep(self._start_s)
        change = (
            self._running.add if request.operation is Operation.START else self._running.discard
        )
        change(name)
        self._counts[name] = self._counts.get(name, 0) + 1
        if self._reporter is not None:
            self._note([name])
        return _SUCCESS

    def crash(self) -> None:
        """One resource ends by itself."""
        for name in sorted(self._running)[:1]:
            self._running.discard(name)
            if self._reporter is not None:
                self._note([name])

    async def operation(self, request: Request) -> OperationResult:
        """Nobody asks so of an agent that knows more."""
        raise AssertionError(f"the manager asked by the old method for {request.operation.value}")

    def watch(
        self,
        items: Sequence[WatchRequest],
        observer: Observer,
        digest_interval_s: float,
        term: int,
    ) -> str:
        """Tell everything, then what changes."""
        self.ended()
        self._items = [item.request.instance for item in items]
        self._reports = Reports(self._items)
        self._note(self._items)
        self._reporter = asyncio.create_task(self._report(observer, digest_interval_s))
        return ""

    def ended(self) -> None:
        """The connection is gone."""
        if self._reporter is not None:
            self._reporter.cancel()
            self._reporter = None

    def _monitor(self, name: str) -> OperationResult:
        return _SUCCESS if name in self._running else _NOT_RUNNING

    def _note(self, names: Sequence[str]) -> None:
        for name in names:
            reported = ReportedResult(name, self._counts.get(name, 0), self._monitor(name))
            self._reports.note(reported, self._reports.generation)
        self._pressing.set()

    async def _report(self, observer: Observer, digest_interval_s: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(digest_interval_s):
                    await self._pressing.wait()
            self._pressing.clear()
            if not self._reports.refused and not await observer.report(self._reports.next_batch()):
                self._reports.refuse()
            if self._reports.pressing:
                self._pressing.set()
            await asyncio.sleep(GATHER_S)


async def serve(
    hosts: list[str], journal: TextIO, features: tuple[str, ...], start_s: float
) -> None:
    """Listen for every host, say where, and serve until the parent is gone."""
    ports: dict[str, int] = {}
    async with rpc_loop():
        for host in reversed(hosts):
            sock = socket.create_server((host, 0), backlog=16)
            endpoint: Any = Endpoint(host, journal, features, start_s)
            await CapnpAgentServer(endpoint.open_session).serve(sock)
            ports[host] = sock.getsockname()[1]
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, endpoint.crash)
        print(json.dumps(ports), flush=True)
        parent = os.getppid()
        while os.getppid() == parent:
            await asyncio.sleep(0.2)
            journal.flush()


def main() -> None:
    """See the module's docstring."""
    logs.configure(environment={"HALO_LOG": "off"})
    hosts = json.loads(sys.stdin.readline())
    features = FEATURES[sys.argv[2]]
    with Path(sys.argv[1]).open("a") as journal:
        asyncio.run(serve(hosts, journal, features, float(sys.argv[3])))


if __name__ == "__main__":
    main()
