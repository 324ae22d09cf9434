"""A cluster in which some hosts are honest and the others are not, and what must hold in it.

The manager, the agents of `h1` and `h2` and their groups g1 and g2 are real. The other hosts, `r00`
and so on, each with a group of its own, are played by :mod:`tests.hostile.rogue_agent`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.hostile.measure import MIB, LogReader, forget_peak, judge_log, memory_mib, peak_mib
from tests.integration.cluster import ClusterHarness
from tests.integration.layout import group, service
from tests.integration.site import ROOT
from tests.integration.telling import changes

SEED = os.environ.get("HALO_FUZZ_SEED", "1")
"""Of all that is random in these tests."""

HONEST = {"g1": "h1", "g2": "h2"}
FLAGS = ("--manage-resources", "--sleep-time", "500", "--log-format", "json")
SETTINGS = {"connect_timeout": 2, "reconnect_interval": 0.2, "digest_interval": 1}

API_DEADLINE_S = 2.0
"""A status takes milliseconds; the rest is for two cores that six others use."""

STATUS_LIMIT = 512 * 1024
MEMORY_LIMIT_MIB = 64
"""How much larger than before the manager may be for a moment, whatever a dozen rogues do."""

LINES_LIMIT = 25
"""In the manager's log, for each rogue of a wave."""

JOURNAL_LIMIT = 6 * MIB
"""The write-ahead log alone takes 4 before it begins anew."""


_ORDER_DEADLINE_S = 60.0
_THROW_DEADLINE_S = 45.0
_END_DEADLINE_S = 5.0
"""For a manager that gives no status: it may be about to end."""


@dataclass
class Wave:
    """What one wave of rogues came to."""

    behaviours: Mapping[str, str]
    problems: list[str] = field(default_factory=list)
    lines: int = 0
    slowest_s: float = 0.0
    largest_status: int = 0
    memory_mib: float = 0.0

    def __str__(self) -> str:
        names = ", ".join(self.behaviours.values())
        return (
            f"{self.lines} log lines, status within {self.slowest_s:.2f} s and "
            f"{self.largest_status} bytes, +{self.memory_mib:.0f} MiB: {names}"
        )


class Company:
    """The cluster and its rogues. Must be closed."""

    def __init__(self, cluster: ClusterHarness, rogues: Sequence[str], seed: str) -> None:
        self.cluster = cluster
        self.rogues = rogues
        self._seed = seed
        self._process: asyncio.subprocess.Process | None = None
        self._log = LogReader(cluster.folder / "manager_log")

    async def start(self) -> None:
        """Start everybody but the rogues; the honest groups are up when this returns."""
        with (self.cluster.folder / "rogue_errors").open("ab") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.hostile.rogue_agent", self._seed),
                cwd=ROOT,
                env={**self.cluster.environment, "PYTHONUNBUFFERED": "1"},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        for host in HONEST.values():
            self.cluster.boot(host)
        self.cluster.start_manager()
        await self.cluster.until({g: f"Running on {h}" for g, h in HONEST.items()})

    async def close(self) -> None:
        """End the rogues."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), _ORDER_DEADLINE_S)
            except TimeoutError:
                self._process.kill()

    async def _order(self, **order: Any) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), _ORDER_DEADLINE_S)
        except TimeoutError:
            raise AssertionError("the rogues do not answer") from None
        assert line, "the rogues have ended; see rogue_errors"
        return json.loads(line)

    async def endure(self, names: Sequence[str], *, seconds: float) -> Wave:
        """Have these behaviours misbehave side by side, each at least once and for at least so
        long, and look whether all that must hold does."""
        wave = Wave(dict(zip(self.rogues, names, strict=False)))
        manager = self.cluster.manager
        assert manager is not None
        before = changes(self.cluster, *HONEST)
        list(self._log.new_lines())
        forget_peak(manager.pid)
        memory, journal = memory_mib(manager.pid), self._journal_bytes()
        ports = self.cluster.ports
        await self._order(open={r: [ports[r], b] for r, b in wave.behaviours.items()})
        await self._look_on(wave, seconds)
        await self._order(close=True)
        if manager.poll() is not None:
            return wave
        wave.memory_mib = peak_mib(manager.pid) - memory
        if wave.memory_mib > MEMORY_LIMIT_MIB:
            wave.problems.append(f"the manager grew by {wave.memory_mib:.0f} MiB")
        if (grown := self._journal_bytes() - journal) > JOURNAL_LIMIT:
            wave.problems.append(f"the journal grew by {grown} bytes")
        if (after := changes(self.cluster, *HONEST)) != before:
            wave.problems.append(f"the honest groups were touched: {after[len(before) :]}")
        lines = list(self._log.new_lines())
        wave.lines = len(lines)
        wave.problems += judge_log(lines, LINES_LIMIT * len(wave.behaviours))
        return wave

    async def _look_on(self, wave: Wave, seconds: float) -> None:
        """Ask for the status all the while."""
        began = time.monotonic()
        unthrown = list(wave.behaviours)
        while unthrown or time.monotonic() < began + seconds:
            if not await self._status_is_right(wave):
                return
            if unthrown:
                thrown = (await self._order(count=True))["thrown"]
                unthrown = [r for r in wave.behaviours if not thrown[r]]
            if unthrown and time.monotonic() > began + _THROW_DEADLINE_S:
                names = [wave.behaviours[r] for r in unthrown]
                wave.problems.append(f"never asked for what they do: {names}")
                return
            await asyncio.sleep(0.05)

    async def _status_is_right(self, wave: Wave) -> bool:
        """One look; False when there is no sense in another."""
        manager = self.cluster.manager
        assert manager is not None
        if (code := manager.poll()) is not None:
            wave.problems.append(f"the manager ended with exit status {code}")
            return False
        asked = time.monotonic()
        try:
            code, status = await asyncio.wait_for(self.cluster.api("GET", "/v1/status"), 15)
        except (OSError, TimeoutError) as error:
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = manager.wait(_END_DEADLINE_S)
                wave.problems.append(f"the manager ended with exit status {code}")
                return False
            wave.problems.append(f"no status: {error!r}")
            return True
        took_s = time.monotonic() - asked
        wave.slowest_s = max(wave.slowest_s, took_s)
        if took_s > API_DEADLINE_S:
            wave.problems.append(f"a status took {took_s:.1f} s")
        size = len(json.dumps(status))
        wave.largest_status = max(wave.largest_status, size)
        if size > STATUS_LIMIT:
            wave.problems.append(f"a status of {size} bytes")
        for g in status["groups"] if code == 200 else []:
            home = HONEST.get(g["id"])
            if home is not None and (g["status"], g["host"]) != ("Running", home):
                wave.problems.append(f"{g['id']} is {g['status']} on {g['host']}: {g['comment']}")
        return len(wave.problems) < 10

    def _journal_bytes(self) -> int:
        paths = self.cluster.folder.glob(f"{self.cluster.statefile.name}*")
        return sum(path.stat().st_size for path in paths)


def company_arguments(rogues: Sequence[str]) -> dict[str, Any]:
    """The arguments of the cluster that :class:`Company` wants."""
    return {
        "hosts": [*HONEST.values(), *rogues],
        "groups": [
            group("g1", "h1", ["h2"]),
            group("g2", "h2", ["h1"]),
            *(
                group(f"x{r}", r, [], resources=[service(f"x{r}", [f"y{r}"]), service(f"y{r}")])
                for r in rogues
            ),
        ],
        "settings": SETTINGS,
        "host_options": {r: {"on_loss": "wait"} for r in rogues},
        "flags": FLAGS,
    }
