"""What the manager needs from the world: small interfaces, each with a real implementation in
:mod:`halo.adapters` and a simulated one in the tests.

Monotonic time needs no port: the manager takes it, and timers, from the running event loop. A loop
with a virtual clock is enough to simulate it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from halo.core.errors import Loss
from halo.core.journal.remembered import Remembered
from halo.core.model import FenceDevice, Host, Operation, Resource
from halo.core.outcomes import (
    AgentIdentity,
    FenceAction,
    FenceResult,
    OperationResult,
    ReportBatch,
    WatchItem,
)
from halo.core.status.store import StoreSeen

JournalRecord: TypeAlias = dict[str, Any]
"""One journal record as JSON-ready data."""


AnswerTaker: TypeAlias = Callable[[OperationResult | Exception], None]
"""Takes the answer to a monitor: its result, LinkError if the connection ended, or another
exception, which is a defect. Must not raise."""


class ReportSink(Protocol):
    """Takes the reports of a watching agent."""

    def wants_reports(self) -> bool:
        """False: the next report will not be accepted, so nobody has to read it. Ask before each
        report."""
        ...

    def report(self, batch: ReportBatch) -> bool:
        """Take a batch. False: it is not accepted, and the agent starts again with a full report
        after the next heartbeat. Called on the event loop, in the order of `sequence`, and never
        after the connection has ended or a later `watch` was accepted."""
        ...


class AgentConnection(Protocol):
    """One standing connection to an agent. After it has ended, every call raises LinkError."""

    @property
    def identity(self) -> AgentIdentity: ...

    async def operation(
        self, resource: Resource, operation: Operation, deadline_s: float
    ) -> OperationResult:
        """Run one operation. The result is TIMED_OUT if no answer came within `deadline_s`.

        Raises LinkError if the connection ended. If the agent answers a start or a stop with an
        error and the connection stands, the result is NOT_RUN: only the operation failed."""
        ...

    def monitor(self, resource: Resource, deadline_s: float, take: AnswerTaker) -> None:
        """Like `operation` with a monitor, but cheap enough for thousands of calls a second. `take`
        is called once, in a later step of the event loop, even if the connection has ended."""
        ...

    async def heartbeat(self) -> None:
        """Return when the agent has answered. The caller sets the deadline."""
        ...

    async def watch(
        self, items: Sequence[WatchItem], sink: ReportSink, digest_interval_s: float
    ) -> None:
        """Have the agent monitor `items` by itself, and report to `sink` at least every
        `digest_interval_s`. Returns when the agent has accepted this, mostly before the first
        report. Ends an earlier watch of this connection at once. The caller sets the deadline.

        Call it only if `identity.features` has "watch". Raises LinkError if the connection ended
        (its `loss` says why), or if the agent refused (PROTOCOL; the connection stands).
        """
        ...

    async def wait_closed(self) -> Loss:
        """Return when the connection has ended, with the reason."""
        ...

    def close(self) -> None:
        """Drop the connection at once. Pending calls raise LinkError. Safe to repeat."""
        ...


GreetingTurn: TypeAlias = Callable[[], AbstractAsyncContextManager[float]]


class AgentConnector(Protocol):
    """Makes connections to agents."""

    async def connect(
        self, host: Host, deadline_s: float, turn: GreetingTurn | None = None
    ) -> AgentConnection:
        """Connect and exchange greetings within `deadline_s`. Raises LinkError.

        `turn` is entered when the connection was accepted, before anything is sent over it. It
        gives the seconds that the connector had to wait. The deadline does not count them."""
        ...


class FenceDevices(Protocol):
    """Runs fence programs."""

    async def run(
        self,
        device: FenceDevice,
        action: FenceAction,
        deadline_s: float,
        expired: Callable[[], str | None] = lambda: None,
    ) -> FenceResult:
        """Run one action. A device's fault never raises. A program that runs longer than
        `deadline_s` is killed with all its children. Cancelling the call kills it, too.

        `expired` is asked in the step that sends the action. If it gives a reason, nothing is sent,
        and the result is a failure with that reason."""
        ...


class JournalMedium(Protocol):
    """Where journal records are kept. Opening it takes the lock; both raise StateError."""

    def read(self) -> Iterable[JournalRecord]:
        """All records in order, at start-up (may block)."""
        ...

    async def append(self, records: Sequence[JournalRecord]) -> None:
        """Add all records or none. On return they are on stable storage. Raises RecordError."""
        ...

    async def compact(self, snapshot: Sequence[JournalRecord]) -> None:
        """Replace all records by `snapshot`, atomically. Raises RecordError."""
        ...

    async def close(self) -> None:
        """Release the lock."""
        ...


class WallClock(Protocol):
    """The time of day, only for timestamps. No decision depends on it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...


@dataclass(frozen=True, slots=True)
class ManagerSeen:
    """One manager, as it registered itself. Its words are cut and checked, but not believed."""

    id: str
    host: str
    pid: int
    url: str | None  # where it answers the other managers
    version: str
    since: float  # seconds since the epoch
    entries: int  # records of the journal that it has read
    leads: bool
    observes: bool = False  # it acts on nothing, also when it leads; older versions do not say so


@dataclass(frozen=True, slots=True)
class Lead:
    """The leadership that was seen last. Times are seconds since the epoch."""

    id: str
    since: float | None  # as its leader wrote it
    silent_since: float | None = None  # the renewal of its lease is overdue: the time of the last
    ends_in_s: float | None = None  # the longest that the lease of a silent leader still lasts
    until: float | None = None  # it has ended; None: it has not


@dataclass(frozen=True, slots=True)
class Known:
    """What a manager that stands by knows of the cluster. Read it, and change nothing in it."""

    remembered: Remembered
    as_of: float  # seconds since the epoch, of the last read that etcd confirmed
    entries: int


class Standing(Protocol):
    """What the HTTP API needs to know of the managers. Nothing here waits for etcd, except
    :meth:`step_down`."""

    @property
    def own_id(self) -> str: ...

    @property
    def term(self) -> int:
        """The term of the present leader; 0 if it is not known."""
        ...

    def leader(self) -> ManagerSeen | None:
        """The manager that leads, as far as it is known."""
        ...

    def managers(self) -> Sequence[ManagerSeen]:
        """All managers that are registered now, this one among them, in the order of their ids."""
        ...

    def known(self) -> Known:
        """What is known of the cluster, from the journal alone."""
        ...

    def store(self) -> StoreSeen:
        """The members of the store, as this manager sees each of them."""
        ...

    def trouble(self) -> str | None:
        """What is wrong with the store, in words; None if nothing is."""
        ...

    def last_lead(self) -> Lead | None:
        """The leadership that was seen last; None if none was."""
        ...

    def seen_s_ago(self) -> float | None:
        """How old the answers of :meth:`leader` and :meth:`managers` are; None: there was no look
        yet."""
        ...

    async def step_down(self, why: str) -> None:
        """Give the leadership back: all work ends, and then the process with exit status 75. Only
        on the leader; returns at once."""
        ...


@dataclass(frozen=True, slots=True)
class PeerRequest:
    """One HTTP request for another manager. `target` is the path with its query, quoted."""

    method: str
    target: str
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """The answer of another manager. `allow` is the header of a refused method, or empty."""

    status: int
    body: bytes
    content_type: str
    allow: str = ""


class ManagerPeers(Protocol):
    """Asks other managers."""

    async def ask(
        self, url: str, request: PeerRequest, deadline_s: float, sending: Callable[[], None]
    ) -> PeerAnswer:
        """The answer of the manager at `url`, within `deadline_s`. `sending` is called directly
        before the first byte of the request is sent.

        Raises PeerUnreachable if the request was certainly not taken, otherwise PeerSilent."""
        ...


class Operations(Protocol):
    """What the HTTP API needs of the manager.

    Each command returns one sentence that says what was done and what still runs. By then, the
    command is durable. `validate` changes nothing. All of them raise subclasses of CommandError,
    whose `status` is the HTTP status.
    """

    def status(self) -> dict[str, Any]: ...

    def root_status(self) -> dict[str, Any]:
        """The status as HALO (Rust) gives it."""
        ...

    async def why_group(self, group: str) -> dict[str, Any]:
        """Why a group runs where it runs, or why it does not run, as JSON-ready data."""
        ...

    async def why_host(self, host: str) -> dict[str, Any]:
        """Why a host was fenced, or why it is not, as JSON-ready data."""
        ...

    async def validate(self, host: str) -> dict[str, Any]:
        """Have a host's agent run `validate-all` of every resource that may run there. Returns the
        results as JSON-ready data."""
        ...

    async def set_managed(self, group: str, managed: bool, comment: str | None) -> str: ...

    async def group_command(
        self, group: str, command: str, *, to: str | None, comment: str | None
    ) -> str:
        """A command on a group, by its name in the API; `to`: the host of a `move`."""
        ...

    async def confirm_stopped(self, group: str, host: str, comment: str | None) -> str:
        """The administrator confirms that a group is stopped on a host that left the config."""
        ...

    async def host_command(
        self, host: str, command: str, *, force: bool, comment: str | None
    ) -> str:
        """A command on a host, by its name in the API."""
        ...

    async def cluster_command(self, command: str, *, comment: str | None) -> str:
        """A command on the cluster, by its name in the API, or `clear_events`."""
        ...

    async def record_step_down(self, manager: str, comment: str | None) -> None:
        """Record that this manager gives its leadership back. The caller makes it do so."""
        ...
