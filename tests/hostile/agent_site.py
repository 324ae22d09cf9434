"""One real agent that a rogue manager may have, and what must hold of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from halo.adapters.rpc.connection import CapnpConnection
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.core.errors import LinkError
from halo.core.model import Operation
from tests.hostile.manager_behaviours import BEHAVIOURS
from tests.hostile.measure import (
    LogReader,
    descriptors,
    forget_peak,
    judge_log,
    memory_mib,
    peak_mib,
)
from tests.hostile.rogue_manager import misbehave
from tests.unit.remote_helpers import AgentProcess, agent_process, resource

MEMORY_LIMIT_MIB = 64
"""How much larger than before the agent may be for a moment."""

LINES_LIMIT = 100
"""In the agent's log, for one behaviour: some make twenty connections, and each may be logged."""

DESCRIPTORS_LIMIT = 40
"""How many more than before it may have when its peers have gone."""

HONEST_DEADLINE_S = 20.0
"""Until an honest manager has started, seen and stopped something: the processor is shared, and
the scripts that the rogue began have their turn."""

# Remembers in a file for each instance whether it runs; knows nothing of other parameters.
SCRIPT = """
    state=$OUT/state.honest
    [ "$OCF_RESKEY_honest" = yes ] || exit 0
    case $1 in
    start) : > $state ;;
    stop) rm -f $state ;;
    monitor) [ -e $state ] || exit 7 ;;
    esac
"""


class AgentSite:
    """The agent, its log, and the honest manager who looks after it."""

    def __init__(self, agent: AgentProcess, term: int = 0) -> None:
        """`term` is that of the honest manager."""
        self.agent = agent
        self._term = term
        self._log = LogReader(agent.log)
        self._descriptors = 0

    async def start(self) -> None:
        """Start the agent, and see that it serves."""
        self.agent.script(SCRIPT)
        await self.agent.start(HALO_LOG="info")
        problems = await self.honest()
        assert not problems, problems
        self._descriptors = descriptors(self.agent.pid)
        self._log.new_bytes()

    async def endure(self, name: str, seed: str) -> list[str]:
        """Let a rogue manager have it, and return what should not be."""
        pid = self.agent.pid
        forget_peak(pid)
        before = memory_mib(pid)
        await misbehave(self.agent.port, BEHAVIOURS[name](), f"{seed} {name}")
        problems = await self.honest()
        if problems or (problems := self.ended()):
            return problems
        if (grown := peak_mib(pid) - before) > MEMORY_LIMIT_MIB:
            problems.append(f"the agent grew by {grown:.0f} MiB")
        if (more := descriptors(pid) - self._descriptors) > DESCRIPTORS_LIMIT:
            problems.append(f"the agent has {more} descriptors more than before")
        return [*problems, *judge_log(list(self._log.new_lines()), LINES_LIMIT)]

    async def honest(self) -> list[str]:
        """Do an honest manager's work; returns what keeps an honest manager from its work."""
        try:
            async with asyncio.timeout(HONEST_DEADLINE_S), rpc_loop():
                made = CapnpConnector("honest", "cluster", term=lambda: self._term)
                connection = await self._connect(made)
                honest = resource(parameters={"honest": "yes"}, id="honest")
                for operation, wanted in (
                    (Operation.MONITOR, 7),
                    (Operation.START, 0),
                    (Operation.MONITOR, 0),
                    (Operation.STOP, 0),
                ):
                    result = await connection.operation(honest, operation, 10.0)
                    if result.code != wanted:
                        return [f"{operation} for an honest manager: {result}"]
                connection.close()
                made.close()
        except (LinkError, TimeoutError) as error:
            return self.ended() or [f"no service for an honest manager: {error!r}"]
        return []

    async def _connect(self, made: CapnpConnector) -> CapnpConnection:
        """The rogue's end may be noticed a moment later."""
        end = time.monotonic() + HONEST_DEADLINE_S / 2
        while True:
            try:
                return await made.connect(self.agent.host, HONEST_DEADLINE_S)
            except LinkError:
                if time.monotonic() > end or self.ended():
                    raise
                await asyncio.sleep(0.05)

    def ended(self) -> list[str]:
        """The end of the agent, if it ended."""
        process = self.agent.process
        assert process is not None
        code = process.poll()
        return [] if code is None else [f"the agent ended with exit status {code}"]

    def log_end(self) -> str:
        """The end of the agent's log."""
        return self.agent.log.read_text(errors="replace")[-3000:]


@contextlib.contextmanager
def agent_site(folder: Path, term: int = 0) -> Iterator[AgentSite]:
    """An agent that is not started yet."""
    with agent_process(folder) as agent:
        yield AgentSite(agent, term)
