"""The power of a whole host, over all its fence devices and levels.

This is for the command line, which talks to the devices without the manager. The manager decides
level by level in its own state machine, because it must check the host's connection in between.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from halo.core.model import FenceDevice, Host
from halo.core.outcomes import FenceAction, FenceResult, PowerState
from halo.ports import FenceDevices


@dataclass(frozen=True, slots=True)
class HostPower:
    """The result of one action on one host. `message` says what failed, or how it was done."""

    host: str
    succeeded: bool
    power: PowerState
    message: str


class HostPowers:
    """Acts on hosts through their fence devices.

    `deadline_s` is the deadline of each run of a fence program.
    """

    def __init__(self, devices: FenceDevices, deadline_s: float) -> None:
        self._devices = devices
        self._deadline_s = deadline_s

    async def status(self, host: Host) -> HostPower:
        """Off if all devices of one level say off. Otherwise the answer of the first level."""
        problems: list[str] = []
        is_on = False
        for level in host.fence_levels:
            results = await self._run_level(level, FenceAction.STATUS)
            if all(result.power is PowerState.OFF for result in results):
                return HostPower(host.id, True, PowerState.OFF, "")
            is_on = is_on or any(result.power is PowerState.ON for result in results)
            problems += [result.message for result in results if not result.succeeded]
            if is_on:
                return HostPower(host.id, True, PowerState.ON, "; ".join(problems))
        return self._failure(host, problems)

    async def off(self, host: Host) -> HostPower:
        """Try one level after the other, until all devices of one switched off and then say off."""
        problems: list[str] = []
        for level in host.fence_levels:
            results = await self._run_level(level, FenceAction.OFF)
            failed = [result.message for result in results if not result.succeeded]
            if not failed:
                seen = await self._run_level(level, FenceAction.STATUS)
                if all(result.power is PowerState.OFF for result in seen):
                    return HostPower(host.id, True, PowerState.OFF, "; ".join(problems))
                failed = [
                    f"said that it was done, but then: {result.message}"
                    for result in seen
                    if result.power is not PowerState.OFF
                ]
            problems += failed
        return self._failure(host, problems)

    async def on(self, host: Host) -> HostPower:
        """Switch all levels on, the last one first: its power strip feeds the first controller."""
        problems: list[str] = []
        for level in reversed(host.fence_levels):
            results = await self._run_level(level, FenceAction.ON)
            problems += [result.message for result in results if not result.succeeded]
        if problems or not host.fence_levels:
            return self._failure(host, problems)
        return HostPower(host.id, True, PowerState.ON, "")

    async def cycle(self, host: Host) -> HostPower:
        """Switch off, check that it is off, and switch on again."""
        off = await self.off(host)
        return await self.on(host) if off.succeeded else off

    async def _run_level(
        self, level: tuple[FenceDevice, ...], action: FenceAction
    ) -> list[FenceResult]:
        runs = (self._devices.run(device, action, self._deadline_s) for device in level)
        return list(await asyncio.gather(*runs))

    def _failure(self, host: Host, problems: list[str]) -> HostPower:
        message = "; ".join(problems) or "it has no fence_agent in the config"
        return HostPower(host.id, False, PowerState.UNKNOWN, message)
