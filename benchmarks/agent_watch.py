"""What watching costs an agent: `python -m benchmarks.agent_watch [--resources 200] [--period 1]`.

The real `halo_remote`, with a trivial script for every resource (`--shell`: a shell script that is
empty; else a program that is as cheap as they come). The processor time is the agent's own; what
its scripts take is counted apart. The other end is this program.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks.report import Row, machine
from benchmarks.site import cpu_s, rss_mb
from halo.core.outcomes import ReportBatch, WatchItem
from tests.unit.remote_helpers import PATIENCE_S, AgentProcess, agent_process, connected, resource

CPU_BAR_PERCENT = 25.0
RSS_BAR_MB = 60.0


class Counting:
    """A sink that counts."""

    def __init__(self) -> None:
        self.batches = 0
        self.results = 0
        self.complete = asyncio.Event()

    def wants_reports(self) -> bool:
        return True

    def report(self, batch: ReportBatch) -> bool:
        """Take anything."""
        self.batches += 1
        self.results += len(batch.results)
        if batch.complete:
            self.complete.set()
        return True


async def measure(agent: AgentProcess, options: argparse.Namespace) -> None:
    """Watch for a while and print what it cost."""
    agent.script("exit 7", interpreter="/bin/sh" if options.shell else "/bin/true")
    await agent.start()
    idle_mb = rss_mb(agent.pid)
    items = [
        WatchItem(resource(parameters={"n": str(n)}, id=f"r{n}"), options.period, 10.0)
        for n in range(options.resources)
    ]
    async with connected(agent) as connection:
        sink = Counting()
        began = time.monotonic()
        await connection.watch(items, sink, 1.0)
        await asyncio.wait_for(sink.complete.wait(), PATIENCE_S + options.period)
        full_s = time.monotonic() - began
        percents, children = [], []
        for _ in range(options.rounds):
            before, before_children, since = cpu_s(agent.pid), children_s(agent.pid), time.time()
            until = time.monotonic() + options.seconds
            while (left := until - time.monotonic()) > 0:
                await connection.heartbeat()
                await asyncio.sleep(min(left, 1.0))
            elapsed = time.time() - since
            percents.append(100 * (cpu_s(agent.pid) - before) / elapsed)
            children.append(100 * (children_s(agent.pid) - before_children) / elapsed)
        print(machine())
        print(
            f"{options.resources} resources, each every {options.period:g} s, "
            f"{options.rounds} times {options.seconds:g} s; lowest, median, highest"
        )
        print(Row("processor time of the agent itself", percents, "%", CPU_BAR_PERCENT))
        print(Row("processor time of its scripts", children, "%"))
        print(Row("resident memory of the agent", [rss_mb(agent.pid)], "MB", RSS_BAR_MB))
        print(Row("the same before the watch", [idle_mb], "MB"))
        print(Row("from the call to the whole full report", [full_s], "s"))
        print(f"{sink.batches} batches held {sink.results} results")


def children_s(pid: int) -> float:
    """Processor time of the children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / 100


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description="What watching costs an agent.")
    parser.add_argument("--resources", type=int, default=200)
    parser.add_argument("--period", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shell", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, agent_process(Path(folder)) as agent:
        asyncio.run(measure(agent, options))


if __name__ == "__main__":
    main()
