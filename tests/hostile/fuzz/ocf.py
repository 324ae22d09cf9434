"""OCF scripts that write anything, run by a real agent: the code counts, the text is bounded."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

from halo.adapters.rpc.connection import CapnpConnection
from halo.core.model import Operation
from halo.core.outcomes import OperationResult, Outcome
from tests.hostile.fuzz.fuzzer import Finding
from tests.hostile.fuzz.mutate import mutated
from tests.hostile.fuzz.outputs import Said, check_message, order, said, write_program
from tests.hostile.measure import memory_mib
from tests.unit.remote_helpers import AgentProcess, agent_process, connected, resource

DEADLINE_S = 20.0
SCRIPT_TIMEOUT_S = 10.0
ENDLESS_TIMEOUT_S = 0.3
MESSAGE_LIMIT = 20 * 1024
MEMORY_LIMIT_MIB = 64
KIND = "test/Script"

_METADATA = b"""<?xml version="1.0"?>
<resource-agent name="Script" version="1.0"><version>1.0</version>
<parameters><parameter name="a"><content type="string" default=""/></parameter></parameters>
<actions><action name="start" timeout="20s"/><action name="stop" timeout="1m"/>
<action name="monitor" timeout="500ms" interval="10s" depth="0"/>
<action name="meta-data" timeout="5"/></actions></resource-agent>
"""

_DURATIONS = (b"9" * 400, b"0", b"-1", b"1e9", b"0.0000001ms", "\u0661\u0662s".encode(), b"99999h")


class OcfFuzzer:
    """Scripts of random output, through `halo_remote` and the manager's end of the connection."""

    def __init__(self) -> None:
        self._exit = contextlib.AsyncExitStack()
        self._folder = Path()
        self._agent: AgentProcess | None = None
        self._connection: CapnpConnection | None = None
        self._memory_mib = 0.0

    async def open(self, folder: Path) -> None:
        self._folder = folder
        self._agent = self._exit.enter_context(agent_process(folder))
        write_program(self._agent.ocf_root / "resource.d" / KIND, folder / "script")
        await self._agent.start(HALO_LOG="info")
        self._connection = await self._exit.enter_async_context(connected(self._agent))
        self._memory_mib = memory_mib(self._agent.pid)

    async def case(self, chance: random.Random) -> None:
        if chance.random() < 0.2:
            await self._metadata_case(chance)
        else:
            what = said(chance, endless=0.02, leftover=0.02)
            order(self._folder / "script", what)
            timeout_s = ENDLESS_TIMEOUT_S if what.endless else SCRIPT_TIMEOUT_S
            await self._run(KIND, chance, what, timeout_s)
        self._check_agent()

    async def _metadata_case(self, chance: random.Random) -> None:
        """The timeouts that a script advertises are asked for where the config names none."""
        assert self._agent is not None
        metadata = mutated(_metadata(chance), chance)
        kind = f"test/Meta{chance.getrandbits(40):x}"
        folder = self._folder / "metadata"
        script = self._agent.ocf_root / "resource.d" / kind
        write_program(script, folder)
        order(folder, Said(metadata, b"", 0))
        try:
            await self._run(kind, chance, Said(metadata, b"", 0), None)
        finally:
            script.unlink()

    async def _run(
        self, kind: str, chance: random.Random, what: Said, timeout_s: float | None
    ) -> None:
        assert self._connection is not None
        operation = chance.choice((Operation.MONITOR, Operation.START, Operation.STOP))
        which = resource(kind, id=f"r{chance.randrange(5)}", timeout_s=timeout_s)
        result = await self._connection.operation(which, operation, DEADLINE_S)
        if problem := _judged(what, result) or check_message(result.message, MESSAGE_LIMIT):
            short = f"{what.out[:60]!r}, {what.err[:60]!r} ({len(what.err)} bytes)"
            raise Finding(
                f"{operation} of {short}, status {what.status}: {problem}: {result!r:.600}"
            )

    def _check_agent(self) -> None:
        assert self._agent is not None
        assert self._agent.process is not None
        if (code := self._agent.process.poll()) is not None:
            raise Finding(f"the agent ended with {code}: {self._agent.log.read_text()[-2000:]}")
        if (grown := memory_mib(self._agent.pid) - self._memory_mib) > MEMORY_LIMIT_MIB:
            raise Finding(f"the agent grew by {grown:.0f} MiB")

    async def close(self) -> None:
        assert self._agent is not None
        await self._exit.aclose()
        if "Traceback" in (text := self._agent.log.read_text(errors="replace")):
            raise Finding(f"a traceback in the agent's log: {text[-3000:]}")


def _metadata(chance: random.Random) -> bytes:
    kind = chance.random()
    if kind < 0.5:
        return _METADATA.replace(b"20s", chance.choice(_DURATIONS))
    if kind < 0.6:
        return _METADATA.decode().encode("utf-16")
    if kind < 0.7:
        bomb = b"".join(b'<!ENTITY a%d "%s">' % (n, b"&a%d;" % (n - 1) * 9) for n in range(1, 9))
        doctype = b'<!DOCTYPE x [<!ENTITY a0 "lol">' + bomb + b"]>\n<resource-agent>&a8;"
        text = _METADATA.replace(b"<resource-agent", doctype + b"<resource-agent", 1)
        return text.decode().encode(chance.choice(("utf-8", "utf-16")))
    if kind < 0.8:
        return b"<a>" * chance.choice((100, 20_000, 60_000))
    return _METADATA


def _judged(what: Said, result: OperationResult) -> str | None:
    """What ended with a code has it; what did not, has none."""
    if what.endless:
        is_right = result.outcome is Outcome.TIMED_OUT
    elif what.status < 0:
        is_right = (result.outcome, result.code) != (Outcome.COMPLETED, 0)
    else:
        is_right = (result.outcome, result.code) == (Outcome.COMPLETED, what.status)
    return None if is_right else "another outcome"
