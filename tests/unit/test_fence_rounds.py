"""Several hosts of one group are off, their devices are slow: the answers come together (S1b)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from halo.core.errors import LossKind
from halo.core.model import Cluster, Host, Settings
from halo.manager.manager import Manager
from tests.core.builders import make_group
from tests.fakes.memory_medium import MemoryDisk, MemoryMedium

from .fake_agents import FakeAgent, FakeConnector
from .fake_devices import FakeDevices, Outlet
from .fence_bench import Clock, device
from .virtual_time import loop_now, run

WITHIN_S = 3600.0


class SeveralOff:
    """Group g may run on h1, h2, ... and on `last`; all but the last die, and are fenced."""

    def __init__(self, takes_s: tuple[float, ...], *, closed_port: bool = False) -> None:
        self.dead = [f"h{number}" for number in range(1, len(takes_s) + 1)]
        self.closed_port = closed_port  # from when all are fenced
        self.takes_s = dict(zip(self.dead, takes_s, strict=True))
        names = [*self.dead, "last"]
        self.agents = {name: FakeAgent() for name in names}
        self.devices = FakeDevices({f"of {name}": Outlet() for name in names})
        for name in self.dead:
            self.outlet(name).on_off = self.agents[name].die
        hosts = {
            name: Host(name, f"192.0.2.{number}", 8000, ((device(f"of {name}"),),))
            for number, name in enumerate(names, start=1)
        }
        groups = {"g": make_group("g", names)}
        settings = Settings(fence_timeout_s=61.0, storm_hosts=50, fence_limit=100)
        self.manager = Manager(
            Cluster("test", hosts, groups, settings),
            FakeConnector(self.agents),
            self.devices,
            MemoryMedium.open(MemoryDisk()),
            Clock(),
            observe_only=False,
        )
        self.work = asyncio.create_task(self.manager.run())

    def outlet(self, host: str) -> Outlet:
        return self.devices.outlets[f"of {host}"]

    async def until_on(self, host: str, *, up: bool = True) -> None:
        await self.until(lambda: ("g" in self.agents[host].up) == up)

    async def until(self, what: Callable[[], bool]) -> None:
        deadline = loop_now().time() + WITHIN_S
        while not what():
            assert loop_now().time() < deadline, self.manager.state.groups["g"].comment
            assert not self.work.done(), self.work
            await asyncio.sleep(0.01)

    async def command(self, name: str) -> None:
        await self.manager.operations.group_command("g", name, to=None, comment="x")

    async def start_minutes_later(self) -> None:
        """All are fenced by quick devices; these become slow; g is stopped, and then started."""
        await self.until_on("h1")
        for name in self.dead:
            self.agents[name].fall_silent()
        await self.until_on("last")
        for name, seconds in self.takes_s.items():
            self.outlet(name).status_takes_s = seconds
            self.agents[name].refuses = LossKind.REFUSED if self.closed_port else None
        await self.command("stop")
        await self.until_on("last", up=False)
        await asyncio.sleep(60)
        await self.command("start")


@pytest.mark.parametrize("closed_port", [False, True])
@pytest.mark.parametrize(
    ("takes_s", "spread"),
    [
        ((2, 2), 0.2),
        ((20, 20), 0.05),
        ((20, 20), 0.2),
        ((1.3, 20), 0.0),
        ((50, 7), 0.2),
        ((50, 45, 40), 0.2),
        ((50, 5, 30, 20), 0.2),
    ],
)
def test_the_answers_of_slow_devices_come_together(
    takes_s: tuple[float, ...], spread: float, closed_port: bool
) -> None:
    """A port that is closed is tried twice a second, and would be a new doubt each time."""
    random = Random(1)

    async def body() -> None:
        bench = SeveralOff(takes_s, closed_port=closed_port)
        for name in bench.dead:
            bench.outlet(name).status_spread = lambda: random.uniform(1 - spread, 1 + spread)
        await bench.until_on("h1")
        await bench.start_minutes_later()
        await bench.until_on("last")

    run(body())


@pytest.mark.parametrize(("takes_s", "fails_after_s"), [(20, 5), (30, 8), (50, 15), (50, 3)])
def test_one_failure_does_not_set_two_equal_devices_apart_for_ever(
    takes_s: float, fails_after_s: float
) -> None:
    async def body() -> None:
        bench = SeveralOff((takes_s, takes_s))
        await bench.start_minutes_later()
        second = bench.outlet("h2")
        second.status_takes_s, second.status_fails = fails_after_s, "session limit"
        await bench.until(lambda: bool(bench.manager.state.hosts["h2"].verify_error))
        second.status_takes_s, second.status_fails = takes_s, None
        await bench.until_on("last")

    run(body())


@pytest.mark.parametrize("apart_s", [0.0, 15.0])
def test_hosts_that_die_one_after_the_other(apart_s: float) -> None:
    async def body() -> None:
        bench = SeveralOff((30.0, 30.0))
        await bench.until_on("h1")
        for name in bench.dead:
            bench.outlet(name).status_takes_s = 30.0
        bench.agents["h2"].fall_silent()
        await asyncio.sleep(apart_s)
        bench.agents["h1"].fall_silent()
        await bench.until_on("last")

    run(body())
