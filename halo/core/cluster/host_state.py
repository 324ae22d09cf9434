"""What one manager knows of one host at run time. Monotonic seconds throughout."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from halo.core.errors import Loss
from halo.core.model import HostId, Operation, ResourceId
from halo.core.outcomes import AgentIdentity


class FencePhase(StrEnum):
    """Where the fencing of one host stands."""

    IDLE = "idle"
    RUNNING = "fencing"  # from the intent to the outcome: its connection is not acted on
    FAILED = "fence failed"  # tried again at `fence_retry_at`, unless the host answers


@dataclass(slots=True)
class PowerProof:
    """A confirmed fence without a sign of life since. Monotonic seconds."""

    verified_at: float  # the oldest answer of a level that last said off; -inf: it has to be asked
    level: int | None = None  # the one that confirmed, from 1; None: not known, or a person's word
    asked_at: float = float("-inf")  # when the question to that answer was put
    doubted_at: float = float("-inf")  # only questions put after this count


@dataclass(slots=True)
class OperationCount:
    """How many starts and stops were sent over this connection, and how many were answered."""

    sent: int = 0
    answered: int = 0
    last: Operation | None = None


@dataclass
class HostState:
    """What one manager knows of one host at run time; nothing of it survives a restart."""

    id: HostId
    connected: bool = False
    epoch: int = 0  # counts connections
    since: float = 0.0  # of the last change of `connected`
    loss: Loss | None = None
    identity: AgentIdentity = field(default_factory=AgentIdentity)
    answered_at: float = float("-inf")  # when the last answered probe was *sent*
    suspect_at: float | None = None  # when its present silence began
    was_suspect_at: float | None = None  # when the silence before that began
    lost_at: float | None = None  # when it was declared lost; None while it is not
    fence_phase: FencePhase = FencePhase.IDLE
    fence_error: str = ""
    fence_attempts: int = 0
    fence_retry_at: float = 0.0
    fence_held: str = ""  # why an automatic fence of it is refused just now
    verifying_since: float | None = None  # its fence devices are being asked for their state
    verify_retry_at: float = float("-inf")
    verify_took_s: float = 0.0  # how long the last such answer took
    verify_error: str = ""  # why that did not prove it off
    closed_since: float | None = None  # something, but no agent, answers at its address
    power_proof: PowerProof | None = None
    accepted: bool = False  # a heartbeat was answered over this connection
    watched: bool = False  # its agent reports changes by itself, and nothing was missed so far
    operations: dict[ResourceId, OperationCount] = field(default_factory=dict)
    counts_certain: bool = True  # no start or stop is without an answer after its deadline

    @property
    def ready(self) -> bool:
        """Connected, greeted, heard: its word may be acted on."""
        return self.connected and self.accepted and self.fence_phase is not FencePhase.RUNNING

    @property
    def is_proven_off(self) -> bool:
        """Was it fenced, without a sign of life since? The device may have to be asked again."""
        return self.power_proof is not None and not self.connected

    @property
    def is_out_of_sight(self) -> bool:
        """Neither connected nor proven off: nothing but a fence can bring proof."""
        return self.power_proof is None and not self.connected

    @property
    def verified_at(self) -> float:
        """When its devices last said off, of the answer that its power proof rests on."""
        return self.power_proof.verified_at if self.power_proof is not None else float("-inf")

    def operation_count(self, resource: ResourceId) -> OperationCount:
        """The starts and stops of one resource over this connection, to be counted on."""
        return self.operations.setdefault(resource, OperationCount())

    def settled_operations(self, resource: ResourceId) -> int | None:
        """How many starts and stops were answered; None while one is not."""
        count = self.operations.get(resource)
        if count is None:
            return 0
        return count.answered if count.answered == count.sent else None
