"""Fence devices without programs: what each says and does, and what it was asked, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from halo.core.model import FenceDevice
from halo.core.outcomes import FenceAction, FenceResult, PowerState

SUCCEEDED = FenceResult(succeeded=True)


@dataclass
class Outlet:
    """One outlet. `off_fails`, `off_hangs`, `lies`: faults; `says`: a state that is not true.

    `on_off` is called in the moment the power goes off.
    """

    is_on: bool = True
    off_fails: str | None = None
    off_hangs: bool = False
    off_takes_s: float = 0.0
    on_fails: int = 0  # so many times
    off_does_nothing: bool = False
    status_takes_s: float = 0.0
    status_spread: Callable[[], float] = lambda: 1.0  # of that time
    says: PowerState | None = None
    status_fails: str | None = None
    on_off: Callable[[], None] = lambda: None

    def cut(self) -> None:
        if not self.off_does_nothing:
            self.is_on = False
            self.on_off()

    def state(self) -> PowerState:
        return self.says or (PowerState.ON if self.is_on else PowerState.OFF)


@dataclass
class FakeDevices:
    """Implements :class:`halo.ports.FenceDevices`. Devices are told apart by their `agent`."""

    outlets: dict[str, Outlet]
    asked: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    overlaps: list[str] = field(default_factory=list)
    queue_s: dict[str, float] = field(default_factory=dict)  # how long something waits for its turn
    dies_in_s: dict[FenceAction, float] = field(default_factory=dict)  # once it is killed

    async def run(
        self,
        device: FenceDevice,
        action: FenceAction,
        deadline_s: float,
        expired: Callable[[], str | None] = lambda: None,
    ) -> FenceResult:
        what = f"{action.value} {device.agent}"
        await asyncio.sleep(self.queue_s.get(what, 0.0))
        if (why := expired()) is not None:
            return FenceResult(False, message=f"not sent: {why}")
        self.asked.append(what)
        self._note_overlap(what, device.agent)
        self.running.add(what)
        try:
            async with asyncio.timeout(deadline_s):
                return await self._act(self.outlets[device.agent], action)
        except asyncio.CancelledError:
            await asyncio.sleep(self.dies_in_s.get(action, 0.0))
            raise
        except TimeoutError:
            return FenceResult(succeeded=False, message=f"no answer within {deadline_s:g} s")
        finally:
            self.running.discard(what)

    def _note_overlap(self, what: str, agent: str) -> None:
        switching = {f"on {agent}", f"off {agent}"}
        if what in switching and self.running & switching:
            self.overlaps.append(what)

    async def _act(self, outlet: Outlet, action: FenceAction) -> FenceResult:
        if action is FenceAction.STATUS:
            await asyncio.sleep(outlet.status_takes_s * outlet.status_spread())
            if outlet.status_fails is not None:
                return FenceResult(succeeded=False, message=outlet.status_fails)
            return FenceResult(succeeded=True, power=outlet.state())
        if action is FenceAction.ON:
            await asyncio.sleep(outlet.off_takes_s)
            if outlet.on_fails:
                outlet.on_fails -= 1
                return FenceResult(succeeded=False, message="busy")
            outlet.is_on = True
            return SUCCEEDED
        if outlet.off_hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(outlet.off_takes_s)
        if outlet.off_fails is not None:
            return FenceResult(succeeded=False, message=outlet.off_fails)
        outlet.cut()
        return SUCCEEDED
