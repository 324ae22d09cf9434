"""What operations on resources and on fence devices come to, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from halo.core.model import Resource, ResourceId


class Outcome(Enum):
    """How one operation on a resource ended."""

    COMPLETED = "completed"  # the script ran; `code` is its exit status
    NOT_RUN = "not run"  # the script could not be run at all
    TIMED_OUT = "timed out"  # it was killed at its deadline, or gave no answer within ours


@dataclass(frozen=True, slots=True)
class OperationResult:
    """What came of one operation. `code` is an OCF exit code, -1 unless COMPLETED.

    `uncounted`: a start or stop of which the agent may not have counted the end."""

    outcome: Outcome
    code: int = -1
    message: str = ""
    uncounted: bool = False


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """Who answers at the other end.

    `legacy`: it knows `operation` alone (no heartbeats). `boot_id` changes when the host boots,
    `start_id` when the agent starts. `features` names what it can do besides. With mutual TLS
    `certificate_expires_at` is when its certificate ends, in seconds since the epoch.
    """

    version: str = ""
    boot_id: str = ""
    legacy: bool = False
    features: frozenset[str] = frozenset()
    start_id: str = ""
    certificate_expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class WatchItem:
    """One resource for an agent to watch: a monitor every `period_s` seconds, ended after
    `timeout_s` (None: the timeout that the script advertises)."""

    resource: Resource
    period_s: float
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class ReportedResult:
    """What a watching agent's monitor found. `operations` is how many starts and stops of the
    resource, sent over this connection, had ended at the agent when the monitor began."""

    resource: ResourceId
    operations: int
    result: OperationResult


@dataclass(frozen=True, slots=True)
class ReportBatch:
    """One report of a watching agent; `docs/watching.md` says what each part means.

    `sequence` counts from 1, and again from 1 where a new full report begins. `complete`: the full
    report ends with this batch.
    `digest` is :func:`halo.core.peers.digest.digest_of` over the last reported result of every
    item, those of this batch included.
    """

    sequence: int
    complete: bool
    digest: int
    results: tuple[ReportedResult, ...]


class FenceAction(StrEnum):
    """The actions of the ClusterLabs fence-agent API that HALO uses."""

    ON = "on"
    OFF = "off"
    STATUS = "status"


class PowerState(Enum):
    """What a fence device says of its outlet."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class FenceResult:
    """What one run of a fence program came to.

    `succeeded`: it did as told (for STATUS: it reported a state). `power` is set by STATUS only.
    `message` says in words what happened, and never holds a secret. `duration_s` is the
    program's own run time.
    """

    succeeded: bool
    power: PowerState = PowerState.UNKNOWN
    message: str = ""
    duration_s: float = 0.0
