"""Is the host off? Both the host's fence devices and its agent are asked (S3).

The devices are asked once. A slow device takes a minute to answer. Meanwhile, the agent is asked
again and again, because no other part of the manager listens to it. If the agent answers, the
inquiry ends, and the manager listens to the host again at once. There is one exception: if the
agent answers the first probe after an off, the inquiry still waits for the devices. If a device
says off then, it is wrong, and HALO does not trust it any more.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from halo.core.cluster.state import ClusterState
from halo.core.errors import InvariantError
from halo.core.fencing.answers import OffWord, ProbeAnswer
from halo.core.fencing.outcomes import Confirmed, Failed, Outcome, confirmation
from halo.core.fencing.runs import Outbox, Runs
from halo.core.fencing.steps import (
    AgentAnswered,
    Ask,
    DenyOff,
    DevicesSaid,
    Kind,
    Listen,
    Probe,
    Probed,
    Result,
    Sleep,
    Stopped,
    TimeUp,
)
from halo.core.model import HostId

ANSWER_GRACE_S = 0.03
"""How long after the devices' answer an agent's answer is still awaited, at the least."""

PROBE_DEADLINE_S = 1.0
"""How long one probe of the agent may take. If the devices took longer, the host may have been off
when they looked."""


class Stage(Enum):
    """What the inquiry waits for."""

    ASKING = "asking the devices, listening to the agent"
    LISTENING = "listening to the agent a little longer"
    PROBING = "asking the agent a last time"
    ENDING = "ending the question to the devices"


class Inquiry:
    """One inquiry of devices and agent, after the off of a level, or for an open intent."""

    def __init__(
        self, state: ClusterState, host: HostId, kind: Kind, out: Outbox, runs: Runs
    ) -> None:
        self._state = state
        self._host = host
        self._kind = kind
        self._out = out
        self._runs = runs
        self._stage = Stage.ASKING
        self._asked_at = 0.0
        self._took_s = 0.0
        self._word: OffWord | None = None
        self._probes: int | None = None  # which probe the agent answered
        self._asking = self._listening = self._grace = 0

    def begin(self, level: int | None, now: float) -> None:
        """Ask the devices of `level` (None: of all levels), and listen to the agent."""
        self._asked_at = now
        self._asking = self._runs.do(Ask(level))
        self._listening = self._runs.do(Listen())

    def handle(self, event: Result, now: float) -> Outcome | None:
        """Take in a result. Returns the outcome as soon as it is clear.

        Raises InvariantError if the event cannot happen in this stage."""
        handler = TABLE.get((self._stage, type(event)))
        if handler is None:
            what = type(event).__name__
            raise InvariantError(f"the fence of {self._host}: {what} while {self._stage.value}")
        if isinstance(event, DevicesSaid):
            self._took_s = now - self._asked_at
        return handler(self, event)

    # --- the agent ---------------------------------------------------------------------------

    def _agent_answered(self, event: AgentAnswered) -> Outcome | None:
        self._probes = event.number
        if self._is_after_off and event.number == 1:
            return None  # does the device say off all the same?
        self._stage = Stage.ENDING
        self._runs.stop(self._asking, wait=True)
        return None

    def _question_ended(self, _: Result) -> Outcome:
        if not self._is_after_off:
            return self._decided_afresh(ProbeAnswer.ANSWERS)
        return Failed("the host's agent answers again while its device is asked")

    def _answered_late(self, event: AgentAnswered) -> Outcome:
        self._runs.stop(self._grace)
        self._probes = event.number
        return self._contradicted()

    def _probed(self, event: Probed) -> Outcome:
        if not self._is_after_off:
            silent = event.answer in (ProbeAnswer.NONE, ProbeAnswer.CLOSED_PORT)
            return self._confirmed() if silent else self._decided_afresh(event.answer)
        if event.answer is ProbeAnswer.ANSWERS:
            self._probes = 2 if self._is_slow else 1
            return self._contradicted()
        if event.answer is ProbeAnswer.NOT_ASKED:
            return Failed(
                "the device says off, but the manager could not ask whether the host's agent still "
                "answers; check the manager's network and name resolution"
            )
        return self._confirmed()

    # --- the devices -------------------------------------------------------------------------

    def _devices_said(self, event: DevicesSaid) -> Outcome | None:
        self._word = word = event.word
        if self._is_after_off:
            self._state.hosts[self._host].verify_took_s = self._took_s
            if word.says_on:
                self._out.say(DenyOff("its device says on"))
        if word.problem:
            self._runs.stop(self._listening)
            silent = ProbeAnswer.NONE
            return Failed(word.problem) if self._is_after_off else self._decided_afresh(silent)
        if self._probes is not None:
            return self._contradicted()
        # A host that was silent for a whole loss budget needs no long wait for its silence.
        waited_s = 0.0 if self._is_slow else self._took_s
        self._stage = Stage.LISTENING
        self._grace = self._runs.do(Sleep(max(ANSWER_GRACE_S - waited_s, 0.0)))
        return None

    def _silent(self, _: TimeUp) -> Outcome | None:
        self._runs.stop(self._listening)
        if self._kind is Kind.AUTOMATIC:
            return self._confirmed()
        self._stage = Stage.PROBING
        self._runs.do(Probe())
        return None

    # --- the conclusion ----------------------------------------------------------------------

    @property
    def _is_after_off(self) -> bool:
        return self._kind is not Kind.OPEN_INTENT

    @property
    def _is_slow(self) -> bool:
        return self._took_s > PROBE_DEADLINE_S

    def _contradicted(self) -> Outcome:
        """The devices say off, and the agent answered."""
        if not self._is_after_off:
            return self._decided_afresh(ProbeAnswer.ANSWERS)
        if self._probes is not None and self._probes > 1:
            # The host may have been off when the devices looked.
            return Failed("the device said off, but the host's agent answers again by now")
        why = "the device says off, but the host's agent still answers"
        return Failed(why, distrust=why)

    def _confirmed(self) -> Confirmed:
        if self._word is None:
            raise InvariantError(f"a fence of {self._host} without a word of its devices")
        return confirmation(self._word, self._state.hosts[self._host].closed_since)

    def _decided_afresh(self, answer: ProbeAnswer) -> Failed:
        """An open intent is not confirmed: HALO decides again whether to fence the host."""
        problem = self._word.problem if self._word is not None else ""
        if problem:
            doubt = f"the device did not confirm that the host is off ({problem})"
        elif answer is ProbeAnswer.ANSWERS:
            doubt = "the host's agent answers"
        else:
            doubt = "the host's agent could not be asked, because of a fault on the manager's side"
        return Failed(
            f"the manager restarted during the fence, and {doubt}; HALO decides again whether to "
            "fence the host",
            afresh=True,
        )


_I = Inquiry
TABLE: dict[tuple[Stage, type[Result]], Callable[[Inquiry, Any], Outcome | None]] = {
    (Stage.ASKING, AgentAnswered): _I._agent_answered,
    (Stage.ASKING, DevicesSaid): _I._devices_said,
    (Stage.LISTENING, AgentAnswered): _I._answered_late,
    (Stage.LISTENING, TimeUp): _I._silent,
    (Stage.PROBING, Probed): _I._probed,
    (Stage.ENDING, Stopped): _I._question_ended,
    (Stage.ENDING, DevicesSaid): _I._question_ended,  # it ended by itself in the same moment
}
"""What to do with a result in each stage. A pair that is missing here cannot happen."""
