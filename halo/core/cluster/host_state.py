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
    RUNNING = "fencing"  # from the intent to the outcome: reports of the host are not acted on
    FAILED = "fence failed"  # tried again at `fence_retry_at`, unless the host answers


@dataclass(slots=True)
class PowerProof:
    """A confirmed fence without a sign of life since. Monotonic seconds."""

    verified_at: (
        float  # oldest answer of the level that last said off; -inf: the level must be asked
    )
    level: int | None = None  # that level, from 1; None: not known, or a person confirmed
    asked_at: float = float("-inf")  # when the question for that answer was sent
    doubted_at: float = float("-inf")  # only answers to questions sent after this count


@dataclass(slots=True)
class OperationCount:
    """How many starts and stops were sent over this connection, and how many were answered."""

    sent: int = 0
    answered: int = 0
    last: Operation | None = None


@dataclass
class HostState:
    """What one manager knows of one host at run time. A restart forgets all of it."""

    id: HostId
    connected: bool = False
    epoch: int = 0  # counts connections
    since: float = 0.0  # when `connected` last changed
    loss: Loss | None = None
    identity: AgentIdentity = field(default_factory=AgentIdentity)
    answered_at: float = float("-inf")  # when the last answered probe was *sent*
    suspect_at: float | None = None  # when the present silence began
    was_suspect_at: float | None = None  # when the previous silence began
    lost_at: float | None = None  # when the host was declared lost; None while it is not lost
    fence_phase: FencePhase = FencePhase.IDLE
    fence_error: str = ""
    fence_attempts: int = 0
    fence_retry_at: float = 0.0
    fence_held: str = ""  # why HALO refuses an automatic fence of the host now
    verifying_since: float | None = None  # its fence devices are being asked for their state
    verify_retry_at: float = float("-inf")
    verify_took_s: float = 0.0  # how long the last such answer took
    verify_error: str = ""  # why that answer did not prove the host off
    closed_since: float | None = None  # since when something other than an agent answers there
    power_proof: PowerProof | None = None
    accepted: bool = False  # a heartbeat was answered over this connection
    watched: bool = False  # the agent reports changes by itself, and no report was missed so far
    operations: dict[ResourceId, OperationCount] = field(default_factory=dict)
    counts_certain: bool = True  # every start and stop was answered before its deadline

    @property
    def ready(self) -> bool:
        """Connected, greeted, and a heartbeat was answered: HALO may act on what the host says."""
        return self.connected and self.accepted and self.fence_phase is not FencePhase.RUNNING

    @property
    def is_proven_off(self) -> bool:
        """Fenced, and no sign of life since. The proof may be old: ask the device again if so."""
        return self.power_proof is not None and not self.connected

    @property
    def is_out_of_sight(self) -> bool:
        """Neither connected nor proven off: only a fence can give proof."""
        return self.power_proof is None and not self.connected

    @property
    def verified_at(self) -> float:
        """The time of the answer that the power proof is based on."""
        return self.power_proof.verified_at if self.power_proof is not None else float("-inf")

    def operation_count(self, resource: ResourceId) -> OperationCount:
        """The counter of the starts and stops of one resource over this connection."""
        return self.operations.setdefault(resource, OperationCount())

    def settled_operations(self, resource: ResourceId) -> int | None:
        """How many starts and stops were answered; None while an answer is outstanding."""
        count = self.operations.get(resource)
        if count is None:
            return 0
        return count.answered if count.answered == count.sent else None
