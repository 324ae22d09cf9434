"""Powering hosts off, with proof: intent, off, status, "does its agent still answer?", record (S3).

One attempt a host at a time. From the intent to the outcome the host's link is stood down, so that
nothing it says is acted on; every token is home before the first `off` is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from itertools import count
from typing import Any

import structlog

from halo.core.cluster.host_state import FencePhase, PowerProof
from halo.core.cluster.state import ClusterState
from halo.core.errors import CommandFailed, CommandRefused, InvariantError, RecordError
from halo.core.fencing import rules
from halo.core.journal.records import Event
from halo.core.model import HostId
from halo.core.outcomes import FenceAction
from halo.manager.common.context import Context
from halo.manager.fencing.device_desk import DeviceDesk, OffWord
from halo.manager.hosts.host_task import HostTask
from halo.manager.hosts.link import ProbeAnswer

ANSWER_GRACE_S = 0.03
"""How long after the confirming status an agent's answer is still awaited, at the least."""

PROBE_DEADLINE_S = 1.0
NOT_SINCE = float("-inf")
"""A host that is fenced, and whose devices have to say once more that it is off."""

TOKENS_HOME_DEADLINE_S = 30.0
REBOOT_PAUSE_S = 2.0
"""How long after the power proof has aged a host is powered on again by `on_loss: reboot`."""

FROZEN_POLL_S = 1.0

log = structlog.get_logger("halo.fence")


@dataclass(frozen=True, slots=True)
class _Failed:
    """An attempt that confirmed nothing. `distrust`: why the device is not believed any more;
    `called_off`: no device was asked for anything, so none has failed."""

    why: str
    distrust: str | None = None
    called_off: bool = False


@dataclass(frozen=True, slots=True)
class _Confirmed:
    """The devices of `level` did it and then, asked at `asked_at`, said off at `at` (monotonic
    seconds); no level where a person said so."""

    at: float
    level: int | None = None
    asked_at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class _Warrant:
    """What an attempt was decided on. An administrator's holds whatever happens meanwhile."""

    host: HostId
    verdict_at: float | None
    automatic: bool
    by_command: bool

    def expired(self, state: ClusterState) -> str | None:
        """Why the host may not be powered off any more; None while it may."""
        if self.by_command:
            return None
        if not self.automatic:  # by policy, for a second copy: the host may well answer
            return rules.hold_reason(state, self.host)
        return rules.abandon_reason(state, self.host, self.verdict_at)


class FenceDesk:
    """Fences hosts: by itself, for the administrator, and again after failures."""

    def __init__(
        self, context: Context, hosts: dict[HostId, HostTask], devices: DeviceDesk
    ) -> None:
        self._context = context
        self._state = context.state
        self._hosts = hosts
        self._devices = devices
        self._loop = asyncio.get_running_loop()
        self._attempts: dict[HostId, asyncio.Task[str | None]] = {}
        # An on and an off of one host never run side by side: the later one would be undone.
        self._switching = {host: asyncio.Lock() for host in self._state.hosts}
        # Nor do an outcome and a cancellation: whichever is written down first holds.
        self._settling = {host: asyncio.Lock() for host in self._state.hosts}

    # --- by itself ---------------------------------------------------------------------------

    def fence_automatically(self, host: HostId) -> None:
        """Begin one automatic attempt; the decision to do so was made in this very step."""
        if host in self._attempts:
            return
        now = self._loop.time()
        self._state.note_automatic_fence(now)
        comment = rules.automatic_comment(self._state, host, now)
        log.error("fencing", host=host, by="manager", reason=comment)
        self._begin(host, comment, automatic=True)

    def fence_second_copy(self, host: HostId, comment: str) -> None:
        """One attempt, by policy `second_copy: fence`; the caller checked that it is allowed."""
        log.error("fencing", host=host, by="manager", reason=comment)
        self._state.note_automatic_fence(self._loop.time())
        self._begin(host, comment, automatic=False)

    def resolve_open_intents(self) -> None:
        """At start-up, before any link runs: settle every fence without a recorded outcome."""
        for host, at in self._state.hosts.items():
            if self._state.memory_of_host(host).fence_intent is not None:
                at.fence_phase = FencePhase.RUNNING
                self._hosts[host].link.stand_down()
                self._watch_over(host, self._resolve_intent(host))

    def resume_reboots(self) -> None:
        """At start-up: a host that was powered off by `on_loss: reboot` is still to be on again."""
        for host, at in self._state.hosts.items():
            owed = self._state.memory_of_host(host).reboot_owed
            if owed and at.power_proof is not None and self._may_reboot(host):
                self._context.spawn(self._power_on_again(host))

    # --- for the administrator ---------------------------------------------------------------

    async def fence_by_command(self, host: HostId, comment: str) -> None:
        """One attempt. Raises CommandFailed when the device failed; the caller checked S8."""
        if host in self._attempts:
            raise CommandRefused(f"{host} is being fenced already")
        log.warning("fencing", host=host, by="administrator")
        attempt = self._begin(host, comment, automatic=False, by_command=True)
        await asyncio.wait({attempt})
        if attempt.cancelled():
            raise CommandFailed(
                f"the fencing of {host} was cancelled; whether it is off is not known"
            )
        failure = attempt.result()
        if failure is not None:
            raise CommandFailed(f"fencing {host} failed: {failure}")
        if self._state.journal_trouble is not None:
            raise CommandFailed(
                f"{host} is fenced, but it could not be written down: a manager that is restarted "
                f"now does not know it ({self._state.journal_trouble})"
            )

    async def confirm_off(self, host: HostId, comment: str) -> None:
        """The administrator saw it dark: that counts as a confirmed fence."""
        if host in self._attempts:
            raise CommandRefused(f"the fencing of {host} is just ending; try again")
        task = self._hosts[host]
        at = self._state.hosts[host]
        seen_dark_at = self._loop.time()  # at the latest: the disk may take its time
        before, at.fence_phase = at.fence_phase, FencePhase.RUNNING
        task.link.stand_down()
        try:
            await self._tokens_home(host)
            record = self._context.journal.make(Event.FENCE, host, comment, confirmed_by="operator")
            await self._context.journal.command(record)
            seen = _Confirmed(seen_dark_at, asked_at=seen_dark_at)
            self._confirmed(host, seen, automatic=False)
        finally:
            if at.fence_phase is FencePhase.RUNNING:
                at.fence_phase = before
            task.link.resume()
            self._context.desk.learnt(self._context.groups_of(host))

    async def cancel(self, host: HostId, comment: str) -> None:
        """Stop trying. An attempt under way is abandoned, and its result discarded."""
        at = self._state.hosts[host]
        async with self._settling[host]:
            if at.fence_phase is FencePhase.IDLE:
                raise CommandRefused(f"{host} is not being fenced (any more)")
            await self._context.journal.command(
                self._context.journal.make(Event.FENCE_CANCEL, host, comment)
            )
            self._give_up(host)  # first: whoever is woken by the attempt's end finds it cancelled
            attempt = self._attempts.get(host)
            if attempt is not None:
                attempt.cancel()
        if attempt is not None:
            await asyncio.wait({attempt})
        self._context.desk.learnt(self._context.groups_of(host))

    def _give_up(self, host: HostId) -> None:
        at = self._state.hosts[host]
        if at.fence_phase is not FencePhase.IDLE:  # else it answered, or was not begun after all
            at.fence_phase = FencePhase.FAILED
            at.fence_error = "cancelled by the administrator"
            at.fence_retry_at = float("inf")

    # --- one attempt -------------------------------------------------------------------------

    def _begin(
        self, host: HostId, comment: str, *, automatic: bool, by_command: bool = False
    ) -> asyncio.Task[str | None]:
        at = self._state.hosts[host]
        if at.fence_phase is FencePhase.RUNNING:
            raise InvariantError(f"a second fence of {host} was begun")
        before, at.fence_phase = at.fence_phase, FencePhase.RUNNING
        if by_command:
            work = self._commanded(host, comment, before)
        else:
            if not automatic:
                self._hosts[host].link.stand_down()
            work = self._attempt(host, comment, automatic, before=before)
        return self._watch_over(host, work)

    def _watch_over(
        self, host: HostId, work: Coroutine[Any, Any, str | None]
    ) -> asyncio.Task[str | None]:
        """The one that fences this host, or settles a fence of it: no other begins beside it."""
        task = self._loop.create_task(work)
        self._attempts[host] = task
        task.add_done_callback(lambda done: self._ended(host, done))
        return task

    def _ended(self, host: HostId, task: asyncio.Task[str | None]) -> None:
        if self._attempts.get(host) is task:
            del self._attempts[host]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._context.fatal(error)

    async def _commanded(self, host: HostId, comment: str, before: FencePhase) -> str | None:
        """An administrator's attempt: begun only when its intent is on disk (S7)."""
        at, journal = self._state.hosts[host], self._context.journal
        written, greeted = False, (at.epoch, at.accepted)
        try:
            intent = journal.make(Event.FENCE_INTENT, host, comment, automatic=False)
            await journal.command(intent)
            written = True
        except RecordError as error:
            return str(error)
        finally:
            if not written and at.fence_phase is FencePhase.RUNNING:
                at.fence_phase = before
                if (at.epoch, at.accepted) != greeted:  # it came back, and was not looked at
                    self._hosts[host].link.stand_down()
                    self._hosts[host].link.resume()
                self._hosts[host].poke()  # its groups were held meanwhile
        self._hosts[host].link.stand_down()
        return await self._attempt(host, comment, automatic=False, recorded=True)

    async def _attempt(
        self,
        host: HostId,
        comment: str,
        automatic: bool,
        *,
        recorded: bool = False,
        before: FencePhase = FencePhase.IDLE,
    ) -> str | None:
        """Returns why it failed, or None when it is confirmed, recorded and acted on. `before`:
        what an attempt that is called off goes back to."""
        at, make = self._state.hosts[host], self._context.journal.make
        verdict_at = at.lost_at
        try:
            if not recorded:
                intent = make(Event.FENCE_INTENT, host, comment, automatic=automatic)
                await self._context.journal.rescue(intent)
            await self._tokens_home(host)
            async with self._switching[host]:
                warrant = _Warrant(host, verdict_at, automatic, by_command=recorded)
                outcome = await self._switch_off(host, warrant)
            async with self._settling[host]:
                if isinstance(outcome, _Failed):
                    await self._failed(host, outcome, automatic, before)
                    return outcome.why
                await self._record_fence(host, comment, outcome.level, automatic=automatic)
                self._confirmed(host, outcome, automatic=automatic)
                return None
        finally:
            if at.fence_phase is FencePhase.RUNNING:
                at.fence_phase = FencePhase.IDLE
            self._hosts[host].link.stand_down()  # what it said meanwhile was not acted on
            self._hosts[host].link.resume()
            self._context.desk.learnt(self._context.groups_of(host))

    async def _tokens_home(self, host: HostId) -> None:
        """Every child of the host has given its token back."""
        try:
            async with asyncio.timeout(TOKENS_HOME_DEADLINE_S):
                await self._hosts[host].wait_idle()
        except TimeoutError:
            raise InvariantError(
                f"the tokens of {host} did not come home within {TOKENS_HOME_DEADLINE_S:g} s"
            ) from None

    async def _switch_off(self, host: HostId, warrant: _Warrant) -> _Failed | _Confirmed:
        """Try the levels in order.

        The warrant is looked at before each level and again in the step that sends each off: the
        host may have answered, or the administrator have frozen the cluster, since the decision."""
        problems: list[str] = []
        left_off: list[str] = []
        levels = self._state.host_config(host).fence_levels
        for number in range(1, len(levels) + 1):
            # Stood down, its link hears nothing, and the level before may have taken a minute.
            looks_again = number > 1 and warrant.automatic
            answer = await self._hosts[host].link.probe(PROBE_DEADLINE_S) if looks_again else None
            abandoned = warrant.expired(self._state)
            if answer is ProbeAnswer.ANSWERS:
                abandoned = "it answers again"
            if abandoned is not None:
                problems.append(f"abandoned: {abandoned}")
                if number == 1:
                    return _Failed(problems[0], called_off=True)
                break
            self._hosts[host].link.stand_down()
            outcome = await self._one_level(host, number, left_off, warrant)
            if isinstance(outcome, _Confirmed) or outcome.distrust is not None:
                return outcome
            problems.append(f"level {number}: {outcome.why}" if len(levels) > 1 else outcome.why)
        text = "; ".join(problems)
        if left_off:
            text += f"; left off by failed levels: {', '.join(left_off)}"
        return _Failed(text)

    async def _one_level(
        self, host: HostId, number: int, left_off: list[str], warrant: _Warrant
    ) -> _Failed | _Confirmed:
        devices = self._state.host_config(host).fence_levels[number - 1]
        # What was proven before counts for nothing until the devices answer a later question.
        self._state.doubt_power_proof(host, self._loop.time())
        offs = await self._devices.run_all(
            host, devices, FenceAction.OFF, lambda: warrant.expired(self._state)
        )
        wrong = rules.judge_off(offs)
        if wrong is not None:
            left_off += [d.agent for d, off in zip(devices, offs, strict=True) if off.succeeded]
            return _Failed(wrong)
        began_at = self._loop.time()
        question = self._devices.ask_level(host, number, after_off=True)
        word, answered = await self._word_or_answer(host, question, answers_at_once=2)
        took_s = self._loop.time() - began_at
        if word is None:
            return _Failed("the host's agent answers again while its device is asked")
        self._state.hosts[host].verify_took_s = took_s
        if word.says_on:
            self._hosts[host].void_power_proof("its device says on")
        if word.problem:
            return _Failed(word.problem)
        if answered is not None:
            return self._answered(answered)
        if not warrant.automatic:
            answer = await self._hosts[host].link.probe(PROBE_DEADLINE_S)
            if answer is ProbeAnswer.ANSWERS:
                return self._answered(2 if took_s > PROBE_DEADLINE_S else 1)
            if answer is ProbeAnswer.NOT_ASKED:
                return _Failed(
                    "the device says off, but whether the host's agent still answers could not be "
                    "asked: see to the manager's network and name resolution"
                )
        return self._confirmation(host, word)

    async def _word_or_answer(
        self, host: HostId, question: Coroutine[Any, Any, OffWord], *, answers_at_once: int = 1
    ) -> tuple[OffWord | None, int | None]:
        """Put a question to the devices of a host, and listen to its agent meanwhile.

        Returns the word of the devices, and which probe the agent answered. A slow device takes a
        minute, in which nobody else listens to the host: where its agent answers first, the word
        is not waited for, and the host is heard again at once. That holds from the probe
        `answers_at_once` on: after an off an answer to the first one shows that the device lies,
        if it says off then."""
        began_at = self._loop.time()
        asking = self._loop.create_task(question)
        listening = self._loop.create_task(self._until_it_answers(host))
        try:
            await asyncio.wait({asking, listening}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done() and listening.result() < answers_at_once:
                await asyncio.wait({asking})  # within the deadline of a fence program
            if asking.done() and not listening.done():
                # A host that was silent for a whole loss budget needs no long wait for its silence.
                took_s = self._loop.time() - began_at
                is_slow = took_s > PROBE_DEADLINE_S
                grace_s = ANSWER_GRACE_S if is_slow else max(ANSWER_GRACE_S - took_s, 0.0)
                await asyncio.wait({listening}, timeout=grace_s)
            return (
                asking.result() if asking.done() else None,
                listening.result() if listening.done() else None,
            )
        finally:
            listening.cancel()
            if not asking.done():
                asking.cancel()
                await asyncio.wait({asking})  # its fence programs are killed

    async def _until_it_answers(self, host: HostId) -> int:
        """Ask the host's agent again and again while its devices are asked, which may take a
        minute: nobody else listens to it. Ends when it answers, with the number of probes."""
        for number in count(1):
            began_at = self._loop.time()
            if await self._hosts[host].link.probe(PROBE_DEADLINE_S) is ProbeAnswer.ANSWERS:
                return number
            await asyncio.sleep(max(began_at + PROBE_DEADLINE_S - self._loop.time(), 0.0))
        raise AssertionError  # there is no last number

    @staticmethod
    def _answered(probes: int) -> _Failed:
        """The devices say off, and the agent answered this probe."""
        if probes > 1:  # the devices may have told the truth of when they looked
            return _Failed("the device said off, and meanwhile the host's agent answers again")
        why = "the device says off, but the host's agent still answers"
        return _Failed(why, distrust=why)

    def _confirmation(self, host: HostId, word: OffWord) -> _Confirmed:
        """Where something answers since they were asked, if not the agent, the devices are to be
        asked anew."""
        closed_since = self._state.hosts[host].closed_since
        is_news = closed_since is not None and closed_since > word.asked_at
        return _Confirmed(NOT_SINCE if is_news else word.answered_at, word.level, word.asked_at)

    async def _failed(
        self, host: HostId, failure: _Failed, automatic: bool, before: FencePhase
    ) -> None:
        at, make = self._state.hosts[host], self._context.journal.make
        if failure.called_off:
            log.warning("fence called off", host=host, reason=failure.why)
        else:
            log.error("fence failed", host=host, reason=failure.why)
        records = [make(Event.FENCE_FAILED, host, failure.why)]
        if failure.distrust is not None:
            records.append(make(Event.DISTRUST, host, failure.distrust))
        await self._context.journal.rescue(*records)
        if failure.called_off:  # nothing more to pause after, should a group wait for it again
            at.fence_phase = before
            return
        at.fence_phase, at.fence_error = FencePhase.FAILED, failure.why
        at.fence_attempts += 1
        limits = self._state.settings
        at.fence_retry_at = self._loop.time() + rules.retry_pause_s(
            at.fence_attempts, limits.fence_retry_min_s, limits.fence_retry_max_s
        )
        if not automatic and at.lost_at is None:
            at.fence_retry_at = float("inf")  # an administrator's fence is one attempt

    async def _record_fence(
        self, host: HostId, comment: str, level: int | None, *, automatic: bool
    ) -> None:
        data: dict[str, object] = {"automatic": automatic}
        if level is not None:
            devices = self._state.host_config(host).fence_levels[level - 1]
            data.update(level=level, agents=[device.agent for device in devices])
        if automatic and self._state.reboot_is_due(host):
            data["reboot"] = True
        await self._context.journal.rescue(
            self._context.journal.make(Event.FENCE, host, comment, **data)
        )

    def _confirmed(self, host: HostId, confirmed: _Confirmed, *, automatic: bool) -> None:
        log.warning("fenced", host=host, level=confirmed.level)
        self._state.host_fenced(host, confirmed.at, confirmed.level, confirmed.asked_at)
        if confirmed.at == NOT_SINCE:
            self._state.doubt_power_proof(host, self._loop.time())
        if automatic and self._may_reboot(host):
            self._context.spawn(self._power_on_again(host))

    def _may_reboot(self, host: HostId) -> bool:
        return self._state.reboot_is_due(host) and not self._state.observe_only

    async def _power_on_again(self, host: HostId) -> None:
        """`on_loss: reboot`: on again, once nothing rests on its being off any more.

        Tried until every device did it: nobody else would power the host on. Recorded
        afterwards, so that a manager that is restarted meanwhile goes on."""
        at, limits = self._state.hosts[host], self._state.settings
        proof, pause_s, attempts = at.power_proof, limits.power_proof_age_s + REBOOT_PAUSE_S, 0
        while True:
            await asyncio.sleep(pause_s)
            if proof is not None:
                await self._until_nothing_rests_on(host, proof)
            while self._state.remembered.frozen is not None:  # noqa: ASYNC110  # a thaw is no event
                await asyncio.sleep(FROZEN_POLL_S)
            async with self._switching[host]:
                # It answered, or was fenced or vouched for anew: that is not ours to undo.
                if (
                    at.connected
                    or at.power_proof is not proof
                    or at.fence_phase is FencePhase.RUNNING
                ):
                    return
                proof = None
                self._state.void_power_proof(host, f"{host} was powered on again")
                self._hosts_changed(host)
                if await self._switch_on(host):
                    record = self._context.journal.make(
                        Event.POWER_ON, host, "on_loss: reboot", policy="reboot"
                    )
                    await self._context.journal.rescue(record)
                    return
            attempts += 1
            pause_s = rules.retry_pause_s(
                attempts, limits.fence_retry_min_s, limits.fence_retry_max_s
            )

    async def _until_nothing_rests_on(self, host: HostId, proof: PowerProof) -> None:
        """A proof that nothing could rest on yet is waited for, until its devices were asked; and
        one that was renewed, until that has aged."""
        at, limits = self._state.hosts[host], self._state.settings
        asked_by = self._loop.time() + 2 * limits.fence_timeout_s
        while at.power_proof is proof and self._loop.time() < asked_by:
            aged_at = proof.verified_at + limits.power_proof_age_s
            if proof.verified_at != NOT_SINCE and self._loop.time() >= aged_at:
                return
            await asyncio.sleep(FROZEN_POLL_S)

    async def _switch_on(self, host: HostId) -> bool:
        """Did every device?"""
        succeeded = True
        for devices in self._state.host_config(host).fence_levels:
            for result in await self._devices.run_all(host, devices, FenceAction.ON):
                if not result.succeeded:
                    succeeded = False
                    log.error("power on failed", host=host, reason=result.message)
        return succeeded

    # --- at start-up -------------------------------------------------------------------------

    async def _resolve_intent(self, host: HostId) -> None:
        """A fence was under way when the manager ended: off and silent confirms it."""
        at, make = self._state.hosts[host], self._context.journal.make
        memory = self._state.memory_of_host(host)
        intent = memory.fence_intent or rules.AUTOMATIC_COMMENT
        automatic = rules.was_automatic(memory)  # what people switch off stays off
        try:
            question = self._devices.ask_whether_off(host, None)
            word, answered = await self._word_or_answer(host, question)
            answer = ProbeAnswer.ANSWERS
            if answered is None:
                answer = await self._hosts[host].link.probe(PROBE_DEADLINE_S)
            async with self._settling[host]:
                if at.fence_phase is not FencePhase.RUNNING:
                    return  # cancelled meanwhile: what was found is discarded
                silent = answer in (ProbeAnswer.NONE, ProbeAnswer.CLOSED_PORT)
                if word is not None and not word.problem and silent:
                    await self._record_fence(host, intent, word.level, automatic=automatic)
                    self._confirmed(host, self._confirmation(host, word), automatic=automatic)
                else:
                    why = answer.value
                    if word is not None and word.problem:
                        why = f"its device says: {word.problem}"
                    text = f"open when the manager restarted; {why}; decided afresh"
                    await self._context.journal.rescue(make(Event.FENCE_FAILED, host, text))
        finally:
            if at.fence_phase is FencePhase.RUNNING:
                at.fence_phase = FencePhase.IDLE
            self._hosts[host].link.resume()
            self._hosts_changed(host)

    # --- upkeep ------------------------------------------------------------------------------

    def _hosts_changed(self, host: HostId) -> None:
        self._context.desk.changed(self._context.groups_of(host))

    def close(self) -> None:
        """End every attempt: fence programs die with the manager."""
        for task in self._attempts.values():
            task.cancel()
