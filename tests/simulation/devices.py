"""Simulated fence devices: implements the port FenceDevices.

A `bmc` switches its host as such and reports the host's own power; a `pdu` has an outlet of its
own, and a host with several is off when all of its outlets are. Some are slow by nature (`slow_s`:
so long takes each answer, more or less, or exactly where they are `steady`, and the device may
have looked at its beginning); where a host has a
`dead_level`, the devices of its first level never answer, and nobody mends them.

The axiom without which no fencing is safe is kept here: a device that says off for a host that is
on says so only while that host's agent would answer a fresh connection at once (else it says
nothing), and no fault silences that agent for the next seconds.

A device that is wired to another host may show that host, switch it, or both. One that is erratic
answers some questions at once and some late, so that the answers come in any order; what a program
told it before it was killed may still be carried out as late.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from halo.core.model import FenceDevice
from halo.core.outcomes import FenceAction, FenceResult, PowerState
from tests.simulation.hosts import SimHost

if TYPE_CHECKING:
    from tests.simulation.loop import VirtualLoop
    from tests.simulation.world import World

AXIOM_S = 3.0

DEAD_S = 10.0
"""How long it takes to learn that a dead device does not answer."""

OFF_SHARE = 0.2
"""A slow device takes this share of its time for an off or an on."""


class Outlet:
    """One device as it stands in the world."""

    __slots__ = (
        "dead", "erratic_s", "fault", "host", "is_pdu", "miswired_to", "on", "slow_s", "steady",
        "time_s", "way",
    )  # fmt: skip

    def __init__(self, host: SimHost, is_pdu: bool, slow_s: float, dead: bool) -> None:
        self.host = host
        self.is_pdu = is_pdu
        self.on = True
        self.fault = ""  # fail, hang, late, no-effect, unplugged
        self.miswired_to: SimHost | None = None
        self.way = "both"  # miswired so: it shows the other host (status), switches it, or both
        self.erratic_s = 0.0  # some of its answers take up to so long
        self.time_s = 0.5
        self.slow_s = slow_s
        self.steady = False
        self.dead = dead

    @property
    def switches(self) -> SimHost:
        """The host that an off or on reaches."""
        return self.host if self.way == "status" else self.miswired_to or self.host

    @property
    def shows(self) -> SimHost:
        """The host whose power a status tells."""
        return self.host if self.way == "switch" else self.miswired_to or self.host


class Outlets:
    """All devices of the world, by name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.by_name: dict[str, Outlet] = {}
        self.of_host: dict[str, list[Outlet]] = {}
        for name, config in world.cluster.hosts.items():
            host = world.hosts[name]
            options = world.scenario.hosts[name]
            slow_s = iter(options.get("slow_s", ()))  # of each device in turn
            for number, level in enumerate(config.fence_levels):
                for device in level:
                    dead = number == 0 and options.get("dead_level", False)
                    outlet = Outlet(host, device.agent == "pdu", next(slow_s, 0.0), dead)
                    outlet.steady = options.get("steady", False)
                    outlet.time_s = world.random.uniform(0.1, 2.0)
                    self.by_name[device.parameters["device"]] = outlet
                    self.of_host.setdefault(name, []).append(outlet)

    def switch(self, outlet: Outlet, on: bool, why: str) -> None:
        """Turn an outlet; the host follows."""
        host = outlet.switches
        if outlet.is_pdu and host is outlet.host:
            outlet.on = on
            pdus = [o for o in self.of_host[outlet.host.id] if o.is_pdu]
            if not on and any(o.on for o in pdus):
                return
        if on:
            host.power_on(why)
        else:
            host.power_off(why)

    def state(self, outlet: Outlet) -> PowerState:
        """What the device says of its outlet."""
        own_outlet = outlet.is_pdu and outlet.shows is outlet.host
        shown = outlet.on if own_outlet else outlet.shows.powered
        return PowerState.ON if shown else PowerState.OFF

    def reconnect(self, host: str) -> None:
        """Whoever boots a host sees to its outlets."""
        for outlet in self.of_host.get(host, []):
            outlet.on = True

    def repair(self) -> None:
        """Every device works, is wired right, and every outlet shows its host's power."""
        for outlet in self.by_name.values():
            outlet.fault = ""
            outlet.miswired_to = None
            outlet.erratic_s = 0.0
            outlet.on = outlet.host.powered


class SimFenceDevices:
    """The devices as one incarnation of the manager reaches them."""

    def __init__(self, world: World, loop: VirtualLoop) -> None:
        self._world = world
        self._loop = loop
        self._further = world.further
        self.dead = False

    async def run(
        self,
        device: FenceDevice,
        action: FenceAction,
        deadline_s: float,
        expired: Callable[[], str | None] = lambda: None,
    ) -> FenceResult:
        world = self._world
        if world.runs_short("programs"):  # it fails, or waits for its turn to begin
            await asyncio.sleep(self._further.choice([0.001, 0.3, 2.0]))
            if self._further.random() < 0.5:
                return FenceResult(False, message="simulated: too many open files")
        if (why := expired()) is not None:
            return FenceResult(False, message=f"not sent: {why}")
        outlet = world.outlets.by_name[device.parameters["device"]]
        world.fence_begins(device, action)
        began = world.clock.now
        fault = outlet.fault
        duration = outlet.time_s * world.random.uniform(0.5, 1.5)
        looked: PowerState | None = None
        if outlet.slow_s:
            share = 1.0 if action is FenceAction.STATUS else OFF_SHARE
            spread = 1.0 if outlet.steady else world.random.uniform(0.8, 1.2)
            duration = outlet.slow_s * share * spread
            if action is FenceAction.STATUS and world.random.random() < 0.5:
                looked = self._look(outlet)
        if outlet.erratic_s:
            duration, looked = self._erratic(outlet, action)
        if outlet.dead:
            fault, duration = "dead", DEAD_S
        if fault in ("hang", "late") or duration > deadline_s:
            fault, duration = fault or "hang", deadline_s
        lies = action is FenceAction.STATUS and outlet.host.powered
        if lies and world.outlets.state(outlet) is PowerState.OFF:
            if not outlet.host.answers_promptly:
                fault = fault or "no word (the axiom)"
            outlet.host.calm_until = began + duration + AXIOM_S
        waiter = self._loop.create_future()
        world.clock.after(duration, self._ends, outlet, action, fault, looked, waiter)
        try:
            result: FenceResult = await waiter
        except asyncio.CancelledError:
            # The program is killed: what it told the device may have its effect all the same.
            reaches = action is not FenceAction.STATUS and not outlet.dead
            if not self.dead and reaches and world.random.random() < 0.5:
                late_s = self._further.uniform(0.1, outlet.erratic_s) if outlet.erratic_s else 0.1
                world.clock.after(late_s, self._acts, outlet, action)
            world.fence_ends(device, action, None, began)
            raise
        world.fence_ends(device, action, result, began)
        return result

    def _look(self, outlet: Outlet) -> PowerState | None:
        """The state that a device tells later. A wrong wire is judged at the answer (the axiom)."""
        return self._world.outlets.state(outlet) if outlet.miswired_to is None else None

    def _erratic(self, outlet: Outlet, action: FenceAction) -> tuple[float, PowerState | None]:
        """How long this run takes, and what it has seen already."""
        is_late = self._further.random() < 0.5
        duration = self._further.uniform(0.3, outlet.erratic_s) if is_late else 0.1
        looked = self._look(outlet) if is_late and action is FenceAction.STATUS else None
        return duration, looked

    def _acts(self, outlet: Outlet, action: FenceAction) -> None:
        name = "off" if action is FenceAction.OFF else "on"
        self._world.outlets.switch(outlet, action is FenceAction.ON, f"fence device: {name}")

    def _ends(
        self,
        outlet: Outlet,
        action: FenceAction,
        fault: str,
        looked: PowerState | None,
        waiter: asyncio.Future[FenceResult],
    ) -> None:
        if waiter.done():
            return
        if self.dead:  # its program died with the manager; it may have reached the device
            if action is not FenceAction.STATUS and not fault and self._world.random.random() < 0.3:
                self._acts(outlet, action)
            return
        waiter.set_result(self._result(outlet, action, fault, looked))

    def _result(
        self, outlet: Outlet, action: FenceAction, fault: str, looked: PowerState | None
    ) -> FenceResult:
        world = self._world
        if fault == "late" and action is not FenceAction.STATUS:
            world.clock.after(world.random.uniform(0.0, 8.0), self._acts, outlet, action)
        if fault not in ("", "no-effect") or outlet.fault == "unplugged":
            return FenceResult(False, message=f"simulated: {fault or outlet.fault}")
        if action is FenceAction.STATUS:
            if looked is not None and outlet.miswired_to is None:
                return FenceResult(True, looked, "simulated: as it was when asked")
            state = world.outlets.state(outlet)
            host = outlet.host
            if state is PowerState.OFF and host.powered:
                if not host.answers_promptly:
                    return FenceResult(False, message="simulated: no word (the axiom)")
                host.calm_until = world.clock.now + AXIOM_S
            return FenceResult(True, state, "simulated")
        if fault != "no-effect":
            self._acts(outlet, action)
        return FenceResult(True, message="simulated: done")
