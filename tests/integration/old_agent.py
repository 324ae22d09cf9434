"""Agents of other versions, as programs: what an existing HALO site runs, and one without watching.

    python -m tests.integration.old_agent --test-id h2 --port 8000 [--greets]

Without `--greets` it knows `operation` alone. One script at a time, as the Rust agent does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

import capnp

from halo.adapters.rpc.event_loop import rpc_loop
from halo.adapters.rpc.schema import HaloAgent, OcfResourceAgent

OCF_ROOT = Path(__file__).resolve().parents[1] / "ocf_resources"
ACTIONS = ("monitor", "start", "stop")


class Scripts:
    """Runs scripts of the test environment, one after the other."""

    def __init__(self, test_id: str) -> None:
        self._test_id = test_id
        self._turn = asyncio.Lock()

    async def run(self, params: Any) -> tuple[int, str]:
        parameters = {f"OCF_RESKEY_{a.key}": a.value for a in params.args}
        environment = {
            **os.environ,
            **parameters,
            "OCF_ROOT": str(OCF_ROOT),
            "HALO_TEST_ID": self._test_id,
        }
        script = OCF_ROOT / "resource.d" / params.resource
        async with self._turn:
            process = await asyncio.create_subprocess_exec(
                *(script, ACTIONS[params.op.raw]), env=environment, stderr=subprocess.PIPE
            )
            _, errors = await process.communicate()
        assert process.returncode is not None
        return process.returncode, errors.decode()


class OldAgent(OcfResourceAgent.Server):  # type: ignore[misc]  # made at run time from the schema
    """Knows `operation` alone."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    async def operation_context(self, context: Any) -> None:
        code, message = await self._scripts.run(context.params)
        answer = context.results.init("result").init("ok")
        if code == 0:
            answer.innerOk = None
        else:
            error = answer.init("innerErr")
            error.code, error.message = code, message


class GreetingAgent(HaloAgent.Server):  # type: ignore[misc]  # made at run time from the schema
    """Greets and answers heartbeats, and watches nothing."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._start_id = uuid.uuid4().hex

    async def hello_context(self, context: Any) -> None:
        welcome = context.results.init("greeting").init("welcome")
        welcome.version = "0.0.1"
        welcome.bootId = welcome.startId = self._start_id
        welcome.features = ["heartbeat", "run"]

    async def heartbeat_context(self, context: Any) -> None:
        pass

    async def run_context(self, context: Any) -> None:
        code, message = await self._scripts.run(context.params)
        completed = context.results.init("outcome").init("completed")
        completed.code, completed.message = code, message


async def serve(test_id: str, port: int, greets: bool) -> None:
    scripts = Scripts(test_id)

    async def accept(stream: Any) -> None:
        servant = GreetingAgent(scripts) if greets else OldAgent(scripts)
        await capnp.TwoPartyServer(stream, bootstrap=servant).on_disconnect()

    async with rpc_loop():
        server = await capnp.AsyncIoStream.create_server(accept, "127.0.0.1", port)
        pid_file = Path(os.environ["HALO_TEST_DIRECTORY"]) / f"{test_id}.pid"
        pid_file.write_text(str(os.getpid()))
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--test-id", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--greets", action="store_true")
    given = parser.parse_args()
    asyncio.run(serve(given.test_id, given.port, given.greets))
