"""Questions to fence devices: is a fenced host still off, and does the device of a living host tell
the truth (S1b, S3)? :mod:`halo.manager.fencing.fence_runner` powers hosts off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from halo.core.fencing import rules
from halo.core.fencing.answers import OffWord
from halo.core.journal.records import Event
from halo.core.model import FenceDevice, HostId
from halo.core.outcomes import FenceAction, FenceResult, PowerState
from halo.manager.common.context import Context
from halo.manager.hosts.host_task import HostTask

DEVICE_CHECKS_AT_ONCE = 8
VERIFY_PAUSE_S = 5.0
ANSWER_POLL_S = 0.05

log = structlog.get_logger("halo.fence")


@dataclass(frozen=True, slots=True)
class _Answer:
    """The answer of one device. Times are monotonic seconds."""

    result: FenceResult
    asked_at: float
    answered_at: float

    @property
    def took_s(self) -> float:
        return self.answered_at - self.asked_at


class DeviceRunner:
    """Runs the devices of hosts, and asks them for their state."""

    def __init__(self, context: Context, hosts: dict[HostId, HostTask]) -> None:
        self._context = context
        self._state = context.state
        self._hosts = hosts
        self._loop = asyncio.get_running_loop()
        self._ending: set[asyncio.Task[OffWord]] = set()  # the loop's references are weak
        self._took_s: dict[tuple[HostId, int, int], float] = {}  # by host, level, number in it
        self._checks = asyncio.Semaphore(DEVICE_CHECKS_AT_ONCE)

    async def run_all(
        self,
        host: HostId,
        devices: tuple[FenceDevice, ...],
        action: FenceAction,
        expired: Callable[[], str | None] = lambda: None,
    ) -> list[FenceResult]:
        """One action on several devices side by side, each within the fence timeout. `expired` may
        call each of them off in the step that sends it."""
        deadline_s, run = self._state.settings.fence_timeout_s, self._context.fence_devices.run
        results = await asyncio.gather(
            *(run(device, action, deadline_s, expired) for device in devices)
        )
        is_routine = action is FenceAction.STATUS and self._state.hosts[host].ready
        tell = log.debug if is_routine else log.info
        for device, result in zip(devices, results, strict=True):
            # After a slow failover, the first question is how long the device took.
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
        """Ask the devices of a fenced host whether it is still off, and tell the placer."""
        at = self._state.hosts[host]
        if at.verifying_since is None:
            at.verifying_since = self._loop.time()
            self._context.spawn(self._verify(host))

    async def _verify(self, host: HostId) -> None:
        at = self._state.hosts[host]
        proof, began_at = at.power_proof, self._loop.time()
        try:
            level = proof.level if proof is not None else None
            word = await self.ask_whether_off(host, level)
            at.verify_took_s = self._loop.time() - began_at
            if at.power_proof is not proof or proof is None:
                return  # the host answered, or was fenced again: this result is late
            known, at.verify_error = at.verify_error, word.problem
            if not word.problem:
                self._state.renew_power_proof(
                    host, asked_at=word.asked_at, answered_at=word.answered_at
                )
                return
            tell = log.debug if word.problem == known else log.warning
            tell("not proven off", host=host, reason=word.problem)
            at.verify_retry_at = self._loop.time() + VERIFY_PAUSE_S
            if word.says_on:
                self._hosts[host].void_power_proof("its device says on")
        finally:
            at.verifying_since = None
            self._context.placer.learnt(self._context.groups_of(host))

    async def ask_whether_off(self, host: HostId, level: int | None) -> OffWord:
        """Ask the devices of the `level` that confirmed a fence, and no others. A dead level before
        it would take its whole deadline, again and again.

        If that level gives no answer, or if it is not known (a person confirmed the host off, or
        the manager died during the fence), the other levels are asked side by side. The first level
        that says off is believed."""
        distrusted = self._state.memory_of_host(host).distrusted
        if distrusted is not None:
            return OffWord(problem=f"its fence device is not trusted: {distrusted}")
        numbers = list(range(1, len(self._state.host_config(host).fence_levels) + 1))
        if not numbers:
            return OffWord(problem="it has no fence agent")
        if level is None:
            return await self._first_word(host, numbers)
        word = await self.ask_level(host, level)
        others = [number for number in numbers if number != level]
        if not word.problem or word.says_on or not others:
            return word
        other = await self._first_word(host, others)
        if not other.problem:
            return other
        return OffWord(problem=f"level {level}: {word.problem}; {other.problem}")

    async def _first_word(self, host: HostId, numbers: list[int]) -> OffWord:
        """Ask several levels side by side. Returns the first answer that says off."""
        asking = {n: self._loop.create_task(self.ask_level(host, n)) for n in numbers}
        left = set(asking.values())
        try:
            while left:
                _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for task in asking.values():
                    if task.done() and not task.result().problem:
                        return task.result()
        finally:
            for task in asking.values():
                if task.cancel():  # its fence programs are killed
                    self._ending.add(task)
                    task.add_done_callback(self._ending.discard)
        words = {number: task.result() for number, task in asking.items()}
        has_levels = len(self._state.host_config(host).fence_levels) > 1
        return OffWord(
            problem="; ".join(
                f"level {number}: {word.problem}" if has_levels else word.problem
                for number, word in words.items()
            ),
            says_on=all(word.says_on for word in words.values()),
        )

    async def ask_level(self, host: HostId, number: int, *, after_off: bool = False) -> OffWord:
        """Ask every device of a level for its state.

        The result is as old as its oldest answer. So quick devices are asked later, by the time
        that each took last, except right after an off. If an answer has still become too old, its
        device is asked again."""
        devices = self._state.host_config(host).fence_levels[number - 1]
        took_s = [self._took_s.get((host, number, n), 0.0) for n in range(len(devices))]
        if after_off:
            took_s = [0.0] * len(devices)
        slowest = max(range(len(devices)), key=took_s.__getitem__)
        first = self._loop.create_task(self._ask(host, number, slowest))
        try:
            rest = [n for n in range(len(devices)) if n != slowest]
            later = await asyncio.gather(
                *(self._ask(host, number, n, first, took_s[slowest] - took_s[n]) for n in rest)
            )
            answers = dict(zip(rest, later, strict=True)) | {slowest: await first}
        finally:
            first.cancel()
        fresh_s = self._state.settings.power_proof_age_s / 2
        oldest = self._loop.time() - fresh_s
        aged = [n for n, a in answers.items() if a.answered_at < oldest and a.took_s < fresh_s]
        if any(answer.result.power is not PowerState.OFF for answer in answers.values()):
            aged = []
        again = await asyncio.gather(*(self._ask(host, number, n) for n in aged))
        answers |= dict(zip(aged, again, strict=True))
        results = [answers[n].result for n in range(len(devices))]
        return OffWord(
            level=number,
            problem=rules.judge_status(results, after_off=after_off) or "",
            says_on=any(result.power is PowerState.ON for result in results),
            asked_at=min(answer.asked_at for answer in answers.values()),
            answered_at=min(answer.answered_at for answer in answers.values()),
        )

    async def _ask(
        self,
        host: HostId,
        level: int,
        number: int,
        other: asyncio.Task[_Answer] | None = None,
        delay_s: float = 0.0,
    ) -> _Answer:
        """Ask one device of a level for its state, after `delay_s` or when `other` has answered."""
        if other is not None and delay_s > 0:
            await asyncio.wait({other}, timeout=delay_s)
        asked_at = self._loop.time()
        device = self._state.host_config(host).fence_levels[level - 1][number]
        [result] = await self.run_all(host, (device,), FenceAction.STATUS)
        answer = _Answer(result, asked_at, self._loop.time())
        if result.power is not PowerState.UNKNOWN:
            self._took_s[host, level, number] = answer.took_s
        return answer

    # --- a living host: does its device tell the truth? ------------------------------------------

    def watch_devices(self) -> None:
        """Ask the devices of connected hosts hourly whether they tell the truth (S3)."""
        self._context.spawn(self._watch_devices())

    def check_device(self, host: HostId) -> None:
        """Ask the device of a host that just connected. It must not say off (S3)."""
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
            if not at.connected or at.epoch != epoch:
                return  # it was lost while this check waited for its turn
            for devices in self._state.host_config(host).fence_levels:
                statuses = await self.run_all(host, devices, FenceAction.STATUS)
                still_answers = at.ready and at.epoch == epoch and at.suspect_at is None
                if not still_answers or self._state.memory_of_host(host).distrusted:
                    return
                for device, status in zip(devices, statuses, strict=True):
                    if status.power is PowerState.OFF:
                        # The power may have been cut just now, so that the host is not missed yet.
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
        """Does the agent answer a ping sent now? A legacy agent is assumed to be alive."""
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
