"""Asking fence devices: is a fenced host still off, and does the device of a living one tell the
truth? (S1b, S3). Powering off is :mod:`halo.manager.fence_desk`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class OffWord:
    """What the fence devices of a host said: off, by `level`, or the `problem`.

    `says_on`: a device of each level that was asked said on."""

    level: int | None = None
    problem: str = ""
    says_on: bool = False


class DeviceDesk:
    """Runs the devices of hosts, and puts questions to them."""

    def __init__(self, context: Context, hosts: dict[HostId, HostTask]) -> None:
        self._context = context
        self._state = context.state
        self._hosts = hosts
        self._loop = asyncio.get_running_loop()
        self._ending: set[asyncio.Task[OffWord]] = (
            set()
        )  # called off; the loop keeps weak ones only
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
        """Ask the devices of a fenced host whether it is still off; the desk learns of it."""
        at = self._state.hosts[host]
        if at.verifying_since is None:
            at.verifying_since = self._loop.time()
            self._context.spawn(self._verify(host))

    async def _verify(self, host: HostId) -> None:
        at = self._state.hosts[host]
        proof, asked_at = at.power_proof, self._loop.time()
        try:
            word = await self.ask_whether_off(host, proof.level if proof is not None else None)
            answered_at = self._loop.time()
            at.verify_took_s = answered_at - asked_at
            if at.power_proof is not proof or proof is None:
                return  # it answered, or was fenced again: this result is late
            known, at.verify_error = at.verify_error, word.problem
            if not word.problem:
                self._state.renew_power_proof(
                    host, asked_at=asked_at, answered_at=answered_at, level=word.level
                )
                return
            tell = log.debug if word.problem == known else log.warning
            tell("not proven off", host=host, reason=word.problem)
            at.verify_retry_at = answered_at + VERIFY_PAUSE_S
            if word.says_on:
                self._hosts[host].void_power_proof("its device says on")
        finally:
            at.verifying_since = None
            self._context.desk.learnt(self._context.groups_of(host))

    async def ask_whether_off(self, host: HostId, level: int | None) -> OffWord:
        """Ask the devices of the `level` that confirmed a fence, and no others: one before it that
        is dead would take its whole deadline, again and again. Where the level is not known (a
        person saw the host dark; the manager died in the middle) all are asked side by side, and
        the first level that says off is believed."""
        distrusted = self._state.memory_of_host(host).distrusted
        if distrusted is not None:
            return OffWord(problem=f"its fence device is not trusted: {distrusted}")
        levels = self._state.host_config(host).fence_levels
        if not levels:
            return OffWord(problem="it has no fence agent")
        numbers = range(1, len(levels) + 1) if level is None else (level,)
        asking = [self._loop.create_task(self._ask_level(host, number)) for number in numbers]
        try:
            left: set[asyncio.Task[OffWord]] = set(asking)
            while left:
                _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for task in asking:
                    if task.done() and not task.result().problem:
                        return task.result()
        finally:
            for task in asking:
                if task.cancel():  # its fence programs are killed
                    self._ending.add(task)
                    task.add_done_callback(self._ending.discard)
        words = [task.result() for task in asking]
        return OffWord(
            problem="; ".join(word.problem for word in words),
            says_on=all(word.says_on for word in words),
        )

    async def _ask_level(self, host: HostId, number: int) -> OffWord:
        devices = self._state.host_config(host).fence_levels[number - 1]
        statuses = await self.run_all(host, devices, FenceAction.STATUS)
        problem = fencing.judge_status(statuses)
        return OffWord(
            level=number,
            problem=problem or "",
            says_on=any(status.power is PowerState.ON for status in statuses),
        )

    # --- a living host: does its device tell the truth? ------------------------------------------

    def watch_devices(self) -> None:
        """Ask the devices of connected hosts hourly whether they tell the truth (S3)."""
        self._context.spawn(self._watch_devices())

    def check_device(self, host: HostId) -> None:
        """Ask the device of a host that just connected: it must not say off (S3)."""
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
