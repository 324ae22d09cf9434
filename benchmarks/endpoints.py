"""Agent endpoints of many hosts in one process: the real RPC server, resources held in memory.

A start makes a resource run and a stop ends it, at once and without any script, so that what a
benchmark sees is the manager's cost and not that of forks. Run as a program it takes the ids of its
hosts as JSON on standard input, prints `{"HOST": PORT, ...}`, and serves until it is killed. An id
is the address to listen on. Every start and stop goes to the file named in argv[1], a line each:
CLOCK_MONOTONIC, host, operation, resource.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import capnp

from halo.adapters import logs
from halo.adapters.rpc_server import CapnpAgentServer
from halo.core.agent import Request
from halo.core.model import Operation
from halo.core.ocf import OcfCode
from halo.core.outcomes import OperationResult, Outcome
from halo.remote.operations import Giver, Monitor
from halo.remote.service import AgentService

_SUCCESS = OperationResult(Outcome.COMPLETED, int(OcfCode.SUCCESS))
_NOT_RUNNING = OperationResult(Outcome.COMPLETED, int(OcfCode.NOT_RUNNING))


class Memory:
    """What runs on one host: an agent's :class:`halo.remote.service.Performer` without scripts."""

    def __init__(self, host: str, journal: TextIO) -> None:
        self._host = host
        self._journal = journal
        self._running: set[str] = set()

    busy = 0

    async def perform(
        self, request: Request, ended: Callable[[], None] = lambda: None
    ) -> OperationResult:
        """Run one operation, at once."""
        result = self._perform(request)
        ended()
        return result

    async def monitor(self, monitor: Monitor, begin: Callable[[], bool], found: Giver) -> None:
        """Look at a watched resource, at once."""
        if begin():
            found(self._perform(monitor.request))

    def _perform(self, request: Request) -> OperationResult:
        name = request.parameters["name"]
        if request.operation is Operation.MONITOR:
            return _SUCCESS if name in self._running else _NOT_RUNNING
        now = time.monotonic()
        self._journal.write(f"{now:.6f} {self._host} {request.operation.value} {name}\n")
        if request.operation is Operation.START:
            self._running.add(name)
        else:
            self._running.discard(name)
        return _SUCCESS


async def serve(hosts: list[str], journal: TextIO) -> None:
    """Listen for every host, say where, and serve until cancelled."""
    ports: dict[str, int] = {}
    async with capnp.kj_loop():
        for host in hosts:
            sock = socket.create_server((host, 0), backlog=16)
            service = AgentService(Memory(host, journal))
            await CapnpAgentServer(service.open_session).serve(sock)
            ports[host] = sock.getsockname()[1]
        print(json.dumps(ports), flush=True)
        while os.getppid() != 1:
            await asyncio.sleep(0.2)
            journal.flush()


def main() -> None:
    """See the module's docstring."""
    logs.configure(environment={"HALO_LOG": "off"})
    hosts = json.loads(sys.stdin.readline())
    with Path(sys.argv[1]).open("a") as journal:
        asyncio.run(serve(hosts, journal))


if __name__ == "__main__":
    main()
