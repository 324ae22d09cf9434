"""What is kept of one attempt to fence a host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.state import ClusterState
from halo.core.fencing import rules
from halo.core.fencing.answers import ProbeAnswer
from halo.core.fencing.outcomes import Outcome
from halo.core.fencing.steps import Begin, Kind
from halo.core.model import FenceDevice, HostId
from halo.core.outcomes import FenceResult

LOOK_AGAIN_AFTER_S = 2.0
"""The intent may take a second to be written, and a probe a second to be answered."""


@dataclass(slots=True)
class Attempt:
    """One attempt, from the decision to the outcome."""

    kind: Kind
    comment: str
    ticket: int | None
    automatic: bool  # for the records; for an open intent, whether that fence was automatic
    before: FencePhase  # the phase to go back to if the attempt is called off
    verdict_at: float | None  # the time of the verdict that led to the attempt
    greeted: tuple[int, bool]  # the connection at the decision
    begun_at: float
    looked_at: float  # the last look at the host: the decision, or a probe was sent
    level: int = 0
    problems: list[str] = field(default_factory=list)
    left_off: list[str] = field(default_factory=list)  # switched off by levels that failed
    outcome: Outcome | None = None

    @classmethod
    def of(cls, begin: Begin, state: ClusterState, host: HostId, now: float) -> Attempt:
        """The attempt that begins now."""
        at, kind = state.hosts[host], begin.kind
        automatic = kind is Kind.AUTOMATIC
        if kind is Kind.OPEN_INTENT:
            automatic = rules.was_automatic(state.memory_of_host(host))
        return cls(
            kind, begin.comment, begin.ticket, automatic,
            at.fence_phase, at.lost_at, (at.epoch, at.accepted), now, now,
        )  # fmt: skip

    def note_left_off(self, devices: Iterable[FenceDevice], offs: Iterable[FenceResult]) -> None:
        """Note which devices of a level that failed have switched off."""
        for device, off in zip(devices, offs, strict=True):
            if off.succeeded:
                outlet = device.parameters.get("port") or device.parameters.get("plug")
                self.left_off.append(f"{device.agent} {outlet}" if outlet else device.agent)

    def what_is_left_off(self, host: HostId) -> Iterator[str]:
        """A sentence on the devices that levels have switched off in vain."""
        if self.left_off:
            yield (
                "these devices switched off, but the host is not proven off: "
                f"{', '.join(self.left_off)} (`halo power on {host}` switches them on again)"
            )

    def is_look_old(self, now: float) -> bool:
        """Has too much time passed since the last look at the host? The manager stood still."""
        return now - self.looked_at > LOOK_AGAIN_AFTER_S

    def must_look_again(self, now: float) -> bool:
        """Must the host be looked at once more before the off of this level? A stood-down link
        hears nothing, and the last level may have taken a minute."""
        return self.kind is Kind.AUTOMATIC and (self.level > 1 or self.is_look_old(now))

    def what_answers(self, said: ProbeAnswer) -> str | None:
        """Why the answer to a look calls the fence off; None if it does not. Before the first off,
        a closed port counts as it would over the link: the host lives."""
        if said is ProbeAnswer.ANSWERS:
            return "it answers again"
        if said is ProbeAnswer.CLOSED_PORT and self.level == 1:
            return "something answers at its address again"
        return None

    def expired(self, state: ClusterState, host: HostId) -> str | None:
        """Why the host may not be powered off any more; None while it may.

        An administrator's attempt never expires."""
        if self.kind is Kind.COMMAND:
            return None
        if self.kind is Kind.SECOND_COPY:  # the host may still answer
            return rules.hold_reason(state, host)
        return rules.abandon_reason(state, host, self.verdict_at)
