"""Fencing one host, with proof: intent, off, status, "does its agent still answer?", record (S3).

Events in, actions out (:mod:`halo.core.fencing.steps`). The machine knows no clock, task, program
or disk. The caller runs every :class:`Do` that it gets, hands the result back to
:meth:`FenceMachine.handle`, and ends the works that it is told to end.

From the intent to the outcome the host's phase is `FencePhase.RUNNING`: HALO does not act on what
the host says. No off is sent before every token is home. A host has one attempt at a time. A late
result, which nobody waits for any more, is discarded. :data:`TABLE` names what may happen in each
stage. Anything else is a defect and raises InvariantError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from halo.core.cluster.host_state import FencePhase, HostState
from halo.core.cluster.state import ClusterState
from halo.core.errors import CommandFailed, CommandRefused, InvariantError
from halo.core.fencing import rules, steps
from halo.core.fencing.attempt import Attempt
from halo.core.fencing.inquiry import Inquiry
from halo.core.fencing.outcomes import Confirmed, Failed, Outcome
from halo.core.fencing.reboot import RebootMachine
from halo.core.fencing.runs import Outbox, Runs
from halo.core.fencing.settling import entries, note_cancelled, note_failure
from halo.core.fencing.steps import Kind, Stage
from halo.core.journal.records import Event as Journaled
from halo.core.journal.remembered import RememberedHost
from halo.core.model import FenceDevice, HostId


class FenceMachine:
    """Fences one host: by itself, for the administrator, and again after failures."""

    def __init__(self, state: ClusterState, host: HostId) -> None:
        self._state = state
        self._host = host
        self._out = Outbox()
        self._runs = Runs(self._out)
        self.stage = Stage.AT_REST
        self.attempt: Attempt | None = None
        self._inquiry: Inquiry | None = None
        self.reboot = RebootMachine(state, host, self._out, lambda: self.stage is Stage.ENDING)
        self._cancellation: tuple[int, int] | None = None  # its ticket, and the run of its record
        self._cancels: list[steps.Cancel] = []  # waiting for an outcome, or for another cancel
        self._cancelled_by: int | None = None  # its ticket, while the attempt's works end
        self._now = 0.0

    # --- what the caller asks ----------------------------------------------------------------

    def handle(self, event: steps.Event, now: float) -> list[steps.Action]:
        """Take in what happened at `now` (monotonic seconds). Returns what to do next, in order.

        Raises InvariantError if the event cannot happen in this stage."""
        self._now = now
        if isinstance(event, steps.Begin):
            self._begin(event)
        elif isinstance(event, steps.Cancel):
            self._cancel(event)
        elif self._cancellation is not None and event.run == self._cancellation[1]:
            self._cancellation_written(event)
        elif self.reboot.awaits(event.run):
            self.reboot.handle(event, now)
            if self.stage is Stage.QUEUED and not self.reboot.is_switching:
                self._next_level()
        elif self._runs.take(event.run):  # else the result is late, and nobody waits for it
            handler = TABLE.get((self.stage, type(event)))
            if handler is None:
                what = type(event).__name__
                raise InvariantError(f"the fence of {self._host}: {what} while {self.stage.value}")
            handler(self, event)
        return self._out.take()

    def resume_reboot(self, now: float) -> list[steps.Action]:
        """At start-up: power the host on if a fence of the previous manager still requires it."""
        if self._memory.reboot_owed and self._at.power_proof is not None:
            self.reboot.owe(now)
        return self._out.take()

    def expired(self) -> str | None:
        """Why the host may not be powered off any more; None while it may.

        Ask it in the step that sends each off. Since the decision, the host may have answered, or
        the administrator may have frozen the cluster."""
        return self._attempt.expired(self._state, self._host)

    # --- the intent --------------------------------------------------------------------------

    def _begin(self, begin: steps.Begin) -> None:
        at = self._at
        if self.stage is not Stage.AT_REST:
            self._cannot_begin(begin)
            return
        if at.fence_phase is FencePhase.RUNNING:
            raise InvariantError(f"a second fence of {self._host} was begun")
        self.attempt = Attempt.of(begin, self._state, self._host, self._now)
        at.fence_phase = FencePhase.RUNNING
        if begin.kind is Kind.COMMAND:
            self._tell(steps.Weight.WARNING, "fencing", by="administrator")
            self._write_intent(must=True)
        elif begin.kind is Kind.CONFIRM_OFF:
            self._out.say(steps.StandDown())
            self._gather()
        elif begin.kind is Kind.OPEN_INTENT:
            self._out.say(steps.StandDown())
            self._inquire(None)
        else:
            self._tell(steps.Weight.ERROR, "fencing", by="manager", reason=begin.comment)
            self._state.note_automatic_fence(self._now)
            if begin.kind is Kind.SECOND_COPY:
                self._out.say(steps.StandDown())
            self._write_intent(must=False)

    def _cannot_begin(self, begin: steps.Begin) -> None:
        if begin.ticket is None:
            return  # an automatic fence, which is decided again
        why = f"{self._host} is being fenced already"
        if begin.kind is Kind.CONFIRM_OFF:
            why = f"the fencing of {self._host} is just ending; try again"
        self._out.say(steps.Answer(begin.ticket, CommandRefused(why)))

    def _write_intent(self, *, must: bool) -> None:
        automatic = self._attempt.kind is Kind.AUTOMATIC
        intent = steps.Entry(
            Journaled.FENCE_INTENT, self._attempt.comment, {"automatic": automatic}
        )
        self.stage = Stage.RECORDING
        self._runs.do(steps.Write((intent,), must))

    def _intent_written(self, _: steps.Written) -> None:
        """An administrator's attempt begins only when its intent is on disk (S7)."""
        if self._attempt.kind is Kind.COMMAND:
            self._attempt.verdict_at = self._at.lost_at
            self._out.say(steps.StandDown())
        self._gather()

    def _intent_not_written(self, event: steps.NotWritten) -> None:
        attempt, at = self._attempt, self._at
        at.fence_phase = attempt.before
        if (at.epoch, at.accepted) != attempt.greeted:  # it came back, and was not probed
            self._out.say(steps.StandDown(), steps.Resume())
        self._out.say(steps.Poke())  # meanwhile, its groups were held
        self._close(CommandFailed(f"fencing {self._host} failed: {event.error}"))

    def _gather(self) -> None:
        self.stage = Stage.GATHERING
        self._runs.do(steps.GatherTokens())

    def _tokens_home(self, _: steps.TokensHome) -> None:
        if self._attempt.kind is Kind.CONFIRM_OFF:
            seen_at = self._attempt.begun_at  # at the latest, since the disk may be slow
            self._settle(Confirmed(seen_at, asked_at=seen_at))
        elif self.reboot.is_switching:
            # An on and an off of one host never run at the same time: one would undo the other.
            self.stage = Stage.QUEUED
        else:
            self._next_level()

    # --- one level after the other -----------------------------------------------------------

    def _next_level(self) -> None:
        attempt = self._attempt
        attempt.level += 1
        if attempt.level > len(self._levels):
            self._give_up()
        elif attempt.must_look_again(self._now):
            self._look()
        else:
            self._send_off(self.expired())

    def _look(self) -> None:
        self._out.say(steps.StandDown())  # the probe is the only connection
        self._attempt.looked_at, self.stage = self._now, Stage.LOOKING
        self._runs.do(steps.Probe())

    def _looked(self, event: steps.Probed) -> None:
        answers = self._attempt.what_answers(event.answer)
        if answers is not None:
            self._state.host_alive(self._host)
        if answers is None and self._attempt.is_look_old(self._now):
            self._tell(steps.Weight.WARNING, "looking again", reason="the manager stood still")
            self._look()  # an answer may lie unread
        else:
            self._send_off(answers or self.expired())

    def _send_off(self, abandoned: str | None) -> None:
        attempt = self._attempt
        if abandoned:
            attempt.problems.append(f"abandoned: {abandoned}")
            if attempt.level == 1:
                self._settle(Failed(attempt.problems[0], called_off=True))
            else:
                self._give_up()
            return
        self._out.say(steps.StandDown())
        # An earlier proof does not count until the devices answer a later question.
        self._state.doubt_power_proof(self._host, self._now)
        self.stage = Stage.SWITCHING
        self._runs.do(steps.SwitchOff(attempt.level))

    def _switched(self, event: steps.ProgramsEnded) -> None:
        wrong = rules.judge_off(event.results)
        if wrong is None:
            self._inquire(self._attempt.level)
            return
        devices = self._levels[self._attempt.level - 1]
        self._attempt.note_left_off(devices, event.results)
        self._level_failed(wrong)

    def _level_failed(self, why: str) -> None:
        level = self._attempt.level
        self._attempt.problems.append(f"level {level}: {why}" if len(self._levels) > 1 else why)
        self._next_level()

    def _give_up(self) -> None:
        """No level is left, or no further level may be tried."""
        problems = [*self._attempt.problems, *self._attempt.what_is_left_off(self._host)]
        self._settle(Failed("; ".join(problems)))

    # --- is it off? --------------------------------------------------------------------------

    def _inquire(self, level: int | None) -> None:
        self.stage, kind = Stage.INQUIRING, self._attempt.kind
        self._inquiry = Inquiry(self._state, self._host, kind, self._out, self._runs)
        self._inquiry.begin(level, self._now)

    def _inquired(self, event: steps.Result) -> None:
        if self._inquiry is None:
            raise InvariantError(f"no inquiry about {self._host} is under way")
        found = self._inquiry.handle(event, self._now)
        if found is None:
            return
        self._inquiry = None
        if isinstance(found, Confirmed) or found.distrust is not None or found.afresh:
            self._settle(found)
        else:
            self._level_failed(found.why)

    # --- the outcome -------------------------------------------------------------------------

    def _settle(self, outcome: Outcome) -> None:
        """Write the outcome down. If an outcome and a cancellation compete, the one that is written
        down first is valid."""
        self._attempt.outcome = outcome
        if self._cancellation is not None:
            self.stage = Stage.HELD
            return
        if isinstance(outcome, Failed) and not outcome.afresh:
            if outcome.called_off:
                self._tell(steps.Weight.WARNING, "fence called off", reason=outcome.why)
            else:
                self._tell(steps.Weight.ERROR, "fence failed", reason=outcome.why)
        self.stage = Stage.SETTLING
        records = entries(self._state, self._host, outcome, self._attempt)
        self._runs.do(steps.Write(records, must=self._attempt.kind is Kind.CONFIRM_OFF))

    def _outcome_written(self, _: steps.Written) -> None:
        attempt = self._attempt
        outcome, error = attempt.outcome, None
        if isinstance(outcome, Confirmed):
            self._confirmed(outcome)
            if attempt.kind is Kind.COMMAND and self._state.journal_trouble is not None:
                error = CommandFailed(
                    f"{self._host} is fenced, but this could not be recorded: after a restart the "
                    f"manager does not know it ({self._state.journal_trouble})"
                )
        elif isinstance(outcome, Failed) and not outcome.afresh:
            note_failure(self._state, self._host, outcome, attempt, self._now)
            error = CommandFailed(f"fencing {self._host} failed: {outcome.why}")
        self._leave(error)

    def _confirmed(self, outcome: Confirmed) -> None:
        self._tell(steps.Weight.WARNING, "fenced", level=outcome.level)
        self._state.host_fenced(self._host, outcome.at, outcome.level, outcome.asked_at)
        if outcome.is_doubted:
            self._state.doubt_power_proof(self._host, self._now)
        if self._attempt.automatic:
            self.reboot.owe(self._now)

    def _outcome_not_written(self, event: steps.NotWritten) -> None:
        self._leave(event.error)

    def _leave(self, error: Exception | None) -> None:
        """The attempt is over: listen to the host again, and have its groups decided."""
        attempt, at = self._attempt, self._at
        if at.fence_phase is FencePhase.RUNNING:
            vouched = attempt.kind is Kind.CONFIRM_OFF
            at.fence_phase = attempt.before if vouched else FencePhase.IDLE
        if attempt.kind not in (Kind.CONFIRM_OFF, Kind.OPEN_INTENT):
            self._out.say(steps.StandDown())  # what it said meanwhile was ignored
        self._out.say(steps.Resume(), steps.Learnt(afresh=attempt.kind is Kind.OPEN_INTENT))
        self._close(error)

    def _close(self, error: Exception | None) -> None:
        ticket = self._attempt.ticket
        self.attempt, self.stage = None, Stage.AT_REST
        if ticket is not None:
            self._out.say(steps.Answer(ticket, error))
        self._look_at_cancels()

    # --- cancelling --------------------------------------------------------------------------

    def _cancel(self, cancel: steps.Cancel) -> None:
        attempt = self.attempt
        vouching = attempt is not None and attempt.kind is Kind.CONFIRM_OFF
        ending = self.stage in (Stage.SETTLING, Stage.ENDING)
        if vouching or ending or self._cancellation is not None:
            self._cancels.append(cancel)
        elif self._at.fence_phase is FencePhase.IDLE:
            why = f"{self._host} is not being fenced (any more)"
            self._out.say(steps.Answer(cancel.ticket, CommandRefused(why)))
        else:
            record = steps.Write((steps.Entry(Journaled.FENCE_CANCEL, cancel.comment),), must=True)
            self._cancellation = (cancel.ticket, self._runs.do(record))

    def _look_at_cancels(self) -> None:
        waiting, self._cancels = self._cancels, []
        for cancel in waiting:  # a command that has to wait longer is added again
            self._cancel(cancel)

    def _cancellation_written(self, event: steps.Event) -> None:
        if self._cancellation is None:
            raise InvariantError(f"no cancellation of the fence of {self._host} is under way")
        ticket, run = self._cancellation
        self._cancellation = None
        self._runs.take(run)
        if isinstance(event, steps.NotWritten):
            self._out.say(steps.Answer(ticket, event.error))
            self._settle_what_was_held()
            return
        note_cancelled(self._at, self.attempt)
        if self.attempt is not None and self.attempt.kind is Kind.CONFIRM_OFF:
            # This order came after the cancellation, and is not an attempt that can be given up.
            self._out.say(steps.Answer(ticket))
            self._settle_what_was_held()
        elif self.attempt is None or not self._runs.awaited():
            self._cancelled(ticket)
        else:
            self.stage, self._cancelled_by, self._inquiry = Stage.ENDING, ticket, None
            for run in self._runs.awaited():
                self._runs.stop(run, wait=True)

    def _settle_what_was_held(self) -> None:
        if self.stage is Stage.HELD and self._attempt.outcome is not None:
            self._settle(self._attempt.outcome)
        self._look_at_cancels()

    def _cancelled(self, ticket: int | None) -> None:
        if self.attempt is not None:
            what = f"the fencing of {self._host} was cancelled; it is not known to be off"
            self._leave(CommandFailed(what))
        self._out.say(steps.Learnt(), *([] if ticket is None else [steps.Answer(ticket)]))
        self._look_at_cancels()

    def _work_ended(self, event: steps.Result) -> None:
        """The works of a cancelled attempt have ended. Its fence programs were killed."""
        if not self._runs.awaited():
            ticket, self._cancelled_by = self._cancelled_by, None
            self._cancelled(ticket)

    @property
    def _attempt(self) -> Attempt:
        if self.attempt is None:
            raise InvariantError(f"{self._host} is not being fenced")
        return self.attempt

    @property
    def _at(self) -> HostState:
        return self._state.hosts[self._host]

    @property
    def _memory(self) -> RememberedHost:
        return self._state.memory_of_host(self._host)

    @property
    def _levels(self) -> tuple[tuple[FenceDevice, ...], ...]:
        return self._state.host_config(self._host).fence_levels

    def _tell(self, weight: steps.Weight, text: str, **fields: object) -> None:
        self._out.say(steps.Tell(weight, text, fields))


_M = FenceMachine
TABLE: dict[tuple[Stage, type[steps.Event]], Callable[[FenceMachine, Any], None]] = {
    (Stage.RECORDING, steps.Written): _M._intent_written,
    (Stage.RECORDING, steps.NotWritten): _M._intent_not_written,
    (Stage.GATHERING, steps.TokensHome): _M._tokens_home,
    (Stage.LOOKING, steps.Probed): _M._looked,
    (Stage.SWITCHING, steps.ProgramsEnded): _M._switched,
    **{(Stage.INQUIRING, result): _M._inquired for result in steps.RESULTS},
    (Stage.SETTLING, steps.Written): _M._outcome_written,
    (Stage.SETTLING, steps.NotWritten): _M._outcome_not_written,
    # A work that is stopped may have ended by itself at the same moment.
    **{(Stage.ENDING, result): _M._work_ended for result in steps.RESULTS},
}
"""What to do with a result in each stage. A pair that is missing here cannot happen. `Begin` and
`Cancel` may come in every stage. The results of a power-on and of a cancellation's record are
recognized by their run."""
