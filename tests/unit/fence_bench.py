"""The whole manager on a clock that jumps, with agents and fence devices that behave as told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from halo.core.errors import CommandError
from halo.core.journal.records import Event
from halo.core.model import (
    Cluster,
    FenceDevice,
    Host,
    LossPolicy,
    ResourceGroup,
    Settings,
)
from halo.manager.manager import Manager
from tests.core.builders import amounts, make_group
from tests.fakes.memory_medium import MemoryDisk, MemoryMedium

from .fake_agents import FakeAgent, FakeConnector
from .fake_devices import FakeDevices, Outlet
from .virtual_time import loop_now, run

Levels = tuple[tuple[str, ...], ...]


class Clock:
    def now(self) -> float:
        return loop_now().time()


def device(agent: str) -> FenceDevice:
    return FenceDevice(agent, f"/{agent}", {})


class Bench:
    """Hosts h1 and h2 with a group each that is at home there, or with these `groups`, and the same
    `capacity`; h1 has the fence `levels`, and may start `max_starts` groups at a time."""

    def __init__(
        self,
        levels: Levels = (("one",),),
        *,
        disk: MemoryDisk | None = None,
        on_loss: LossPolicy = LossPolicy.FENCE,
        observe_only: bool = False,
        term: int = 0,
        groups: Sequence[ResourceGroup] = (),
        capacity: Mapping[str, int] | None = None,
        max_starts: int | None = None,
        **settings: Any,
    ) -> None:
        self.disk = disk or MemoryDisk()
        self.agents = {"h1": FakeAgent(), "h2": FakeAgent()}
        names = [name for level in levels for name in level]
        self.devices = FakeDevices({name: Outlet() for name in [*names, "two-of-h2"]})
        for name in names:
            self.outlet(name).on_off = self.agents["h1"].die
        groups = groups or [make_group("g", ("h1", "h2")), make_group("k", ("h2", "h1"))]
        room = amounts(capacity or {})
        h2_levels = ((device("two-of-h2"),),)
        cluster = Cluster(
            "test",
            {
                "h1": Host(
                    "h1", "192.0.2.1", 8000, self._levels(levels), on_loss, room, max_starts
                ),
                "h2": Host("h2", "192.0.2.2", 8000, h2_levels, capacity=room),
            },
            {group.id: group for group in groups},
            Settings(**settings),
        )
        self.manager = Manager(
            cluster,
            FakeConnector(self.agents),
            self.devices,
            MemoryMedium.open(self.disk),
            Clock(),
            observe_only=observe_only,
            term=lambda: term,
        )
        self.state = self.manager.state
        self.loop = loop_now()
        self.work = asyncio.create_task(self.manager.run())

    @staticmethod
    def _levels(levels: Levels) -> tuple[tuple[FenceDevice, ...], ...]:
        return tuple(tuple(device(name) for name in level) for level in levels)

    def outlet(self, name: str = "one") -> Outlet:
        return self.devices.outlets[name]

    async def until(self, what: Callable[[], bool], within_s: float = 120.0) -> None:
        deadline = self.loop.time() + within_s
        while not what():
            assert self.loop.time() < deadline, f"it never came: {self.events}"
            assert not self.work.done(), self.work
            await asyncio.sleep(0.01)
        self.manager.check_invariants()

    async def up(self) -> None:
        """Both hosts are up, both groups run at home, and every device was asked."""
        await self.until(lambda: self.agents["h1"].up == {"g"} and self.agents["h2"].up == {"k"})
        await asyncio.sleep(0.1)
        self.devices.asked.clear()

    def lose(self) -> None:
        """h1 falls silent: it may be dead, or it may not."""
        self.agents["h1"].fall_silent()

    async def command(self, command: str, force: bool = False, comment: str = "why") -> str:
        return await self.manager.operations.host_command(
            "h1", command, force=force, comment=comment
        )

    @property
    def events(self) -> list[str]:
        return [f"{e.event.value} {e.object}" for e in self.state.remembered.events]

    def comments(self, event: Event) -> list[str]:
        return [e.comment for e in self.state.remembered.events if e.event is event]

    @property
    def switched(self) -> list[str]:
        """What the devices of h1 were told to do, without questions."""
        return [what for what in self.devices.asked if not what.startswith("status")]

    @property
    def h1(self) -> Any:
        return self.state.hosts["h1"]

    def never_confirmed(self) -> None:
        assert "fence h1" not in self.events
        assert self.h1.power_proof is None
        assert self.agents["h2"].up <= {"k"}
        assert not self.state.memory_of_host("h1").fenced


def virtual(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    async def body() -> None:
        await test()

    def wrapper() -> None:
        run(body())

    wrapper.__name__ = getattr(test, "__name__", "test")
    return wrapper


async def refusal_of(command: Awaitable[str]) -> CommandError:
    try:
        answer = await command
    except CommandError as error:
        return error
    raise AssertionError(f"it was not refused: {answer}")
