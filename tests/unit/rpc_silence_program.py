"""Run in a network namespace of its own: what a manager sees when an agent's host falls silent.

Prints one line a finding: what, kind of loss, seconds after the silence began.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time

from halo.adapters.rpc.agent.server import CapnpAgentServer
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.core.errors import LinkError
from halo.core.model import Host
from tests.unit.test_rpc_link import Agent

DROP = """
table inet silence {
 chain input {
  type filter hook input priority 0;
  tcp dport PORT drop
  tcp sport PORT drop
}
}
"""


async def main() -> None:
    agent = Agent()
    async with rpc_loop():
        sock = socket.create_server(("127.0.0.1", 0))
        server = CapnpAgentServer(agent.open_session)
        await server.serve(sock)
        host = Host("h", "127.0.0.1", sock.getsockname()[1])
        made = CapnpConnector("m", "c")
        idle, busy = await made.connect(host, 5), await made.connect(host, 5)
        rules = DROP.replace("PORT", str(host.port))
        await asyncio.to_thread(
            subprocess.run, ["nft", "-f", "-"], input=rules, text=True, check=True
        )
        began = time.monotonic()

        def say(what: str, kind: str) -> None:
            print(what, kind, round(time.monotonic() - began, 1), flush=True)

        try:
            await made.connect(host, 0.5)
        except LinkError as error:
            say("connect", error.loss.kind.name)

        async def beat() -> None:
            try:
                await busy.heartbeat()
            except LinkError as error:
                say("heartbeat", error.loss.kind.name)

        beating = asyncio.create_task(beat())
        for what, connection in (("idle", idle), ("busy", busy)):
            say(what, (await connection.wait_closed()).kind.name)
        await beating


asyncio.run(main())
