"""`on_loss: reboot`: a fenced host is powered on again when no start needs its power proof.

HALO tries until every device has switched on, because nobody else would power the host on. The
success is recorded afterwards, so that a restarted manager continues the tries.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from halo.core.cluster.host_state import FencePhase, PowerProof
from halo.core.cluster.state import ClusterState
from halo.core.errors import InvariantError
from halo.core.fencing import rules
from halo.core.fencing.outcomes import NOT_SINCE
from halo.core.fencing.runs import Outbox, Runs
from halo.core.fencing.steps import (
    Entry,
    Learnt,
    ProgramsEnded,
    Result,
    Sleep,
    SwitchOn,
    Tell,
    TimeUp,
    Weight,
    Write,
    Written,
)
from halo.core.journal.records import Event as Journaled
from halo.core.model import HostId

PAUSE_S = 2.0
"""How long after the power proof has become too old the host is powered on again."""

POLL_S = 1.0


class Stage(Enum):
    """What the power-on of one host waits for."""

    NOT_OWED = "nothing is owed"
    OWED = "waiting until nothing rests on its being off"
    SWITCHING = "switching on"
    RECORDING = "recording it"


class RebootMachine:
    """Powers one host on again after an automatic fence."""

    def __init__(
        self, state: ClusterState, host: HostId, out: Outbox, is_switching_off: Callable[[], bool]
    ) -> None:
        """`is_switching_off` tells whether an off of the host may be under way."""
        self._state = state
        self._host = host
        self._out = out
        self._is_switching_off = is_switching_off
        self._runs = Runs(out)
        self._stage = Stage.NOT_OWED
        self._proof: PowerProof | None = None
        self._epoch = 0  # of the host's connections, when it was proven off
        self._attempts = 0
        self._asked_by = 0.0
        self._timer = 0

    @property
    def is_switching(self) -> bool:
        """Is an on under way? Then an off of the same host has to wait until it has ended."""
        return self._stage in (Stage.SWITCHING, Stage.RECORDING)

    def awaits(self, run: int) -> bool:
        """Does this machine wait for the work with this number?"""
        return self._runs.awaits(run)

    def owe(self, now: float) -> None:
        """The host is proven off. If its policy is `reboot`, it has to be powered on again."""
        if not self._state.reboot_is_due(self._host) or self._state.observe_only:
            return
        self._runs.stop(self._timer)  # the timer of an earlier fence
        limits = self._state.settings
        pause_s = limits.power_proof_age_s + PAUSE_S
        at, self._attempts = self._state.hosts[self._host], 0
        self._proof, self._epoch = at.power_proof, at.epoch
        self._asked_by = now + pause_s + 2 * limits.fence_timeout_s
        self._wait(pause_s)

    def handle(self, event: Result, now: float) -> None:
        """Take in the end of one of our works. Raises InvariantError for any other event."""
        self._runs.take(event.run)
        if self._stage is Stage.OWED and isinstance(event, TimeUp):
            self._time_up(now)
        elif self._stage is Stage.SWITCHING and isinstance(event, ProgramsEnded):
            self._switched(event)
        elif self._stage is Stage.RECORDING and isinstance(event, Written):
            self._stage = Stage.NOT_OWED
        else:
            what = type(event).__name__
            raise InvariantError(f"the power-on of {self._host}: {what} while {self._stage.value}")

    def _wait(self, seconds: float) -> None:
        self._stage = Stage.OWED
        self._timer = self._runs.do(Sleep(seconds))

    def _time_up(self, now: float) -> None:
        frozen = self._state.remembered.frozen is not None
        if self._is_switching_off() or frozen or self._something_rests_on(now):
            self._wait(POLL_S)
            return
        at = self._state.hosts[self._host]
        is_ours = at.power_proof is self._proof and at.fence_phase is not FencePhase.RUNNING
        if at.connected or at.epoch != self._epoch or not is_ours:
            # The host has answered, was fenced again or was confirmed off: do not undo that. If it
            # is off again after its answer, somebody may have switched it off.
            self._stage = Stage.NOT_OWED
            return
        self._proof = None
        self._state.void_power_proof(self._host, f"{self._host} was powered on again")
        self._out.say(Learnt(afresh=True))
        self._stage = Stage.SWITCHING
        self._runs.do(SwitchOn())

    def _something_rests_on(self, now: float) -> bool:
        """May a start still need the power proof? Yes, if the devices still have to be asked for a
        proof that does not count yet, or if a renewed proof is not too old yet."""
        proof = self._proof
        if proof is None or self._state.hosts[self._host].power_proof is not proof:
            return False
        if now >= self._asked_by:
            return False
        age_s = now - proof.verified_at
        return proof.verified_at == NOT_SINCE or age_s < self._state.settings.power_proof_age_s

    def _switched(self, event: ProgramsEnded) -> None:
        failures = [result for result in event.results if not result.succeeded]
        for result in failures:
            self._out.say(Tell(Weight.ERROR, "power on failed", {"reason": result.message}))
        if failures:
            self._attempts += 1
            limits = self._state.settings
            self._wait(
                rules.retry_pause_s(
                    self._attempts, limits.fence_retry_min_s, limits.fence_retry_max_s
                )
            )
            return
        self._stage = Stage.RECORDING
        record = Entry(Journaled.POWER_ON, "on_loss: reboot", {"policy": "reboot"})
        self._runs.do(Write((record,)))
