"""The results of operations on resources and on fence devices, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from halo.core.model import Resource, ResourceId


class Outcome(Enum):
    """How one operation on a resource ended."""

    COMPLETED = "completed"  # the script ran; `code` is its exit status
    NOT_RUN = "not run"  # the script could not be run at all
    TIMED_OUT = "timed out"  # the script was killed at its deadline, or no answer came in time


@dataclass(frozen=True, slots=True)
class OperationResult:
    """The result of one operation. `code` is an OCF exit code, or -1 if it is not COMPLETED.

    `uncounted`: a start or stop whose end the agent may not have counted."""

    outcome: Outcome
    code: int = -1
    message: str = ""
    uncounted: bool = False


@dataclass(frozen=True, slots=True)
class AgentIdentity:
    """Who answers at the other end.

    `legacy`: it knows only `operation` (no heartbeats). `boot_id` changes when the host boots,
    `start_id` when the agent starts. `features` names its further abilities. With mutual TLS,
    `certificate_expires_at` is the time when its certificate expires, in seconds since the epoch.
    """

    version: str = ""
    boot_id: str = ""
    legacy: bool = False
    features: frozenset[str] = frozenset()
    start_id: str = ""
    certificate_expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class WatchItem:
    """One resource that an agent watches: a monitor every `period_s` seconds, which is ended after
    `timeout_s` (None: the timeout that the script advertises)."""

    resource: Resource
    period_s: float
    timeout_s: float | None


@dataclass(frozen=True, slots=True)
class ReportedResult:
    """The result of a watching agent's monitor. `operations` is the number of starts and stops of
    the resource, sent over this connection, that had ended at the agent when the monitor began."""

    resource: ResourceId
    operations: int
    result: OperationResult


@dataclass(frozen=True, slots=True)
class ReportBatch:
    """One report of a watching agent; `docs/watching.md` says what each part means.

    `sequence` counts from 1. It starts again at 1 when a new full report begins. `complete`: the
    full report ends with this batch.
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
    """The result of one run of a fence program.

    `succeeded`: it did its action (for STATUS: it reported a state). `power` is set by STATUS only.
    `message` says in words what happened, and never holds a secret. `duration_s` is the
    program's own run time.
    """

    succeeded: bool
    power: PowerState = PowerState.UNKNOWN
    message: str = ""
    duration_s: float = 0.0
