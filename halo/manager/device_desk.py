"""Asking fence devices: is a fenced host still off, and does the device of a living one tell the
truth? (S1b, S3). Powering off is :mod:`halo.manager.fence_desk`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from halo.core import fencing
from halo.core.journal import Event
from halo.core.model import FenceDevice, HostId
from halo.core.outcomes import FenceAction, FenceResult, PowerState
from halo.manager.context import Context
from halo.manager.host_task import HostTask

DEVICE_CHECKS_AT_ONCE = 8
VERIFY_PAUSE_S = 5.0
ANSWER_POLL_S = 0.05

log = structlog.get_logger("halo.fence")


class DeviceDesk:
    """Runs the devices of hosts, and puts questions to them."""

    def __init__(self, context: Context, hosts: dict[HostId, HostTask]) -> None:
        self._context = context
        self._state = context.state
        self._hosts = hosts
        self._loop = asyncio.get_running_loop()
        self._problems: dict[HostId, str] = {}
        """Why a fenced host was not proven off when last asked; told in the log once."""
        self._checks = asyncio.Semaphore(DEVICE_CHECKS_AT_ONCE)

    async def run_all(
        self,
        host: HostId,
        devices: tuple[FenceDevice, ...],
        action: FenceAction,
        expired: Callable[[], str | None] = lambda: None,
    ) -> list[FenceResult]:
        """One action on devices side by side, each within the fence timeout. `expired` may call
        each off in the step that sends it."""
        deadline_s, run = self._state.settings.fence_timeout_s, self._context.fence_devices.run
        results = await asyncio.gather(
            *(run(device, action, deadline_s, expired) for device in devices)
        )
        is_routine = action is FenceAction.STATUS and self._state.hosts[host].ready
        tell = log.debug if is_routine else log.info
        for device, result in zip(devices, results, strict=True):
            # How long a device takes is the first question after a slow failover.
            tell(
                "fence program ended",
                host=host,
                agent=device.agent,
                action=action.value,
                succeeded=result.succeeded,
                power=result.power.value,
                seconds=round(result.duration_s, 3),
            )
        return results

    # --- a fenced host: is it still off? ---------------------------------------------------------

    def verify(self, host: HostId) -> None:
        """Ask the device of a fenced host whether it is still off; the desk learns of it."""
        at = self._state.hosts[host]
        if not at.verifying:
            at.verifying = True
            self._context.spawn(self._verify(host))

    async def _verify(self, host: HostId) -> None:
        at = self._state.hosts[host]
        proof = at.power_proof
        try:
            asked_at = self._loop.time()
            problem = await self.status_problem(host)
            if at.power_proof is not proof or proof is None:
                return  # it answered, or was fenced again: this result is late
            known, self._problems[host] = self._problems.get(host), problem or ""
            if problem is None:
                self._state.renew_power_proof(host, asked_at)
            else:
                tell = log.debug if problem == known else log.warning
                tell("not proven off", host=host, reason=problem)
                at.verify_retry_at = self._loop.time() + VERIFY_PAUSE_S
                if problem == "on":
                    self._hosts[host].void_power_proof("its device says on")
        finally:
            at.verifying = False
            self._context.desk.learnt(self._context.groups_of(host))

    async def status_problem(self, host: HostId) -> str | None:
        """Why no level proves the host off; "on" when a device of every level says on."""
        distrusted = self._state.memory_of_host(host).distrusted
        if distrusted is not None:
            return f"its fence device is not trusted: {distrusted}"
        problems = []
        for devices in self._state.host_config(host).fence_levels:
            statuses = await self.run_all(host, devices, FenceAction.STATUS)
            problem = fencing.judge_status(statuses)
            if problem is None:
                return None
            on = any(status.power is PowerState.ON for status in statuses)
            problems.append("on" if on else problem)
        if problems and all(problem == "on" for problem in problems):
            return "on"
        return "; ".join(problems) or "it has no fence agent"

    # --- a living host: does its device tell the truth? ------------------------------------------

    def watch_devices(self) -> None:
        """Ask the devices of connected hosts hourly whether they tell the truth (S3)."""
        self._context.spawn(self._watch_devices())

    def check_device(self, host: HostId) -> None:
        """Ask the device of a host that just connected: it must not say off (S3)."""
        self._problems.pop(host, None)
        if self._state.host_config(host).fence_levels:
            self._context.spawn(self._check_device(host))

    async def _watch_devices(self) -> None:
        while True:
            await asyncio.sleep(self._state.settings.device_check_interval_s)
            for host, at in self._state.hosts.items():
                if at.connected and self._state.host_config(host).fence_levels:
                    await self._check_device(host)

    async def _check_device(self, host: HostId) -> None:
        at = self._state.hosts[host]
        epoch = at.epoch
        async with self._checks:
            for devices in self._state.host_config(host).fence_levels:
                statuses = await self.run_all(host, devices, FenceAction.STATUS)
                still_answers = at.ready and at.epoch == epoch and at.suspect_at is None
                if not still_answers or self._state.memory_of_host(host).distrusted:
                    return
                for device, status in zip(devices, statuses, strict=True):
                    if status.power is PowerState.OFF:
                        # It may have been cut off just now, and not be missed yet.
                        if not await self._still_answers(host, epoch):
                            return
                        why = f"{device.agent} says off while the agent of {host} answers"
                        log.error("fence device not trusted", host=host, reason=why)
                        record = self._context.journal.make(Event.DISTRUST, host, why)
                        await self._context.journal.rescue(record)
                        return
                    if status.power is not PowerState.ON:
                        log.warning("fence device silent", host=host, reason=status.message)

    async def _still_answers(self, host: HostId, epoch: int) -> bool:
        """Does the agent answer a ping sent now? An old agent can only be taken for alive."""
        at = self._state.hosts[host]
        asked_at = self._loop.time()
        self._hosts[host].link.ping()
        while at.ready and at.epoch == epoch:
            if at.identity.legacy or at.answered_at >= asked_at:
                return True
            if self._loop.time() - asked_at > self._state.settings.loss_budget_s:
                return False
            await asyncio.sleep(ANSWER_POLL_S)
        return False
