"""The actions of a `GroupMachine`, and its state of each resource."""

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

    REVOKED = "revoked"  # the connection ended, or the group has to be decided again
    STOPPED = "stopped"  # as it was told to; nothing of the group runs here
    MOVING = "moving"  # the same, but it is to be started on another host
    START_FAILED = "start failed"  # nothing of the group runs here any more
    NO_PROOF = "no proof"  # a start was needed, but its proof was missing


@dataclass(frozen=True, slots=True)
class Run:
    """Run one operation and report its result with `finished`."""

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
    resource: ResourceId  # not touched on this host until cleanup


@dataclass(frozen=True, slots=True)
class ReportStartFailure:
    """Write a failed start into the journal: the host cannot take the group until `cleanup`."""

    text: str
    resource: ResourceId


@dataclass(frozen=True, slots=True)
class ReportMoved:
    """The whole group runs on the target of a planned move."""


@dataclass(frozen=True, slots=True)
class ReportRestarted:
    """A resource that had stopped or failed by itself runs again. The restart limit bounds this."""

    text: str
    resource: ResourceId


Action: TypeAlias = Run | Leave | Report | ReportStartFailure | ReportMoved | ReportRestarted


@dataclass(slots=True)
class ResourceState:
    """What the group's machine knows of one resource."""

    resource: Resource
    presence: Presence = Presence.UNKNOWN
    busy: Operation | None = None
    due_at: float = 0.0  # when the next monitor is due
    bad_monitors: int = 0
    wants_restart: bool = False  # it must be stopped before it is started again
    stopped_by_script: bool = False  # a stop succeeded; a monitor has to confirm that
    failed: str | None = None  # why it is not touched until cleanup
    released: bool = False  # shared: this group does not need it here any more
    crashed: bool = False  # it stopped or failed without being told to
    crash: str = ""  # how it crashed, in words, until it was started again
    overtaken: bool = False  # a report came in while its monitor was under way
    in_doubt: bool = False  # found stopped, but seen running since: a monitor has to decide
    restarts: list[float] = field(default_factory=list)  # an empty deque takes ten times as much

    @property
    def is_down(self) -> bool:
        """Stopped, or released if it is shared: its parents may be stopped or restarted."""
        if self.busy is not None:
            return False
        return self.released or self.stopped_by_script or self.presence is Presence.STOPPED

    @property
    def is_up(self) -> bool:
        """Running well enough that its dependents may start."""
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
