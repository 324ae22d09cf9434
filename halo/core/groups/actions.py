"""What a `GroupMachine` says, and what it keeps of each resource."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from halo.core.cluster.knowledge import Presence
from halo.core.journal.remembered import ErrorKind
from halo.core.model import Operation, Resource, ResourceId
from halo.core.outcomes import OperationResult, Outcome
from halo.core.peers.ocf import OcfCode


class Left(Enum):
    """Why a group task gave its token back."""

    REVOKED = "revoked"  # the connection ended, or a command wants the group decided afresh
    STOPPED = "stopped"  # as it was told to; nothing of it runs here
    START_FAILED = "start failed"  # and nothing of it runs here any more
    NO_PROOF = "no proof"  # a start was needed that must not be made without proof


@dataclass(frozen=True, slots=True)
class Run:
    """Run one operation and report its result by `finished`."""

    resource: Resource
    operation: Operation


@dataclass(frozen=True, slots=True)
class Leave:
    """Give the token back; no operation is in flight."""

    why: Left
    detail: str


@dataclass(frozen=True, slots=True)
class Report:
    """Write an error of the group into the journal."""

    kind: ErrorKind
    text: str
    resource: ResourceId  # left alone on this host until cleanup


@dataclass(frozen=True, slots=True)
class ReportStartFailure:
    """Write a failed start into the journal: the host is no candidate until `cleanup`."""

    text: str
    resource: ResourceId


@dataclass(frozen=True, slots=True)
class ReportMoved:
    """Everything runs on the target of a planned move."""


@dataclass(frozen=True, slots=True)
class ReportRestarted:
    """A resource that stopped, or went bad, by itself runs again. The restart limit bounds them."""

    text: str
    resource: ResourceId


Action: TypeAlias = Run | Leave | Report | ReportStartFailure | ReportMoved | ReportRestarted


@dataclass(slots=True)
class ResourceState:
    """One resource as its group's machine sees it."""

    resource: Resource
    presence: Presence = Presence.UNKNOWN
    busy: Operation | None = None
    due_at: float = 0.0  # of the next monitor
    bad_monitors: int = 0
    wants_restart: bool = False  # it must be stopped before it is started again
    stopped_by_script: bool = False  # a stop succeeded; a monitor has to bear it out
    failed: str | None = None  # left alone until cleanup
    released: bool = False  # shared: this group needs it here no more
    crashed: bool = False  # it stopped, or went bad, without being told to
    crash: str = ""  # how, in words, until it was started again
    overtaken: bool = False  # a report came in while its monitor was on its way
    in_doubt: bool = False  # found stopped, and seen running since: a monitor has to decide
    restarts: list[float] = field(default_factory=list)  # an empty deque takes ten times as much

    @property
    def is_down(self) -> bool:
        """Out of the way of its parents: stopped, or let go where it is shared."""
        if self.busy is not None:
            return False
        return self.released or self.stopped_by_script or self.presence is Presence.STOPPED

    @property
    def is_up(self) -> bool:
        """Fit to carry its dependents."""
        return (
            self.presence is Presence.RUNNING
            and self.busy in (None, Operation.MONITOR)
            and not self.wants_restart
        )


def describe(result: OperationResult) -> str:
    """An operation's failure in words."""
    if result.outcome is Outcome.COMPLETED:
        name = OcfCode.describe(result.code)
        return f"{name}: {result.message}" if result.message else name
    text = "timed out" if result.outcome is Outcome.TIMED_OUT else "could not be run"
    return f"{text}: {result.message}" if result.message else text
