"""What the manager needs from the world: small interfaces, each with a real implementation in
:mod:`halo.adapters` and a simulated one in the tests.

Time needs no port of its own: the manager takes monotonic time and timers from the running event
loop, so a loop with a virtual clock is enough to simulate it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeAlias

from halo.core.errors import Loss
from halo.core.model import FenceDevice, Host, Operation, Resource
from halo.core.outcomes import (
    AgentIdentity,
    FenceAction,
    FenceResult,
    OperationResult,
    ReportBatch,
    WatchItem,
)

JournalRecord: TypeAlias = dict[str, Any]
"""One journal record as JSON-ready data."""


AnswerTaker: TypeAlias = Callable[[OperationResult | Exception], None]
"""Where the answer to a monitor goes: its result, LinkError where the connection ended, or another
exception, which is a defect. Must not raise."""


class ReportSink(Protocol):
    """Where the reports of a watching agent go."""

    def wants_reports(self) -> bool:
        """False: the next report is not accepted, whatever it says, so nobody has to read it. Asked
        before each."""
        ...

    def report(self, batch: ReportBatch) -> bool:
        """Take a batch; False: not accepted, and the agent starts again with a full report after
        the next heartbeat. Called on the event loop, in the order of `sequence`; never after the
        connection ended or a later `watch` was taken."""
        ...


class AgentConnection(Protocol):
    """One standing connection to an agent. Every call raises LinkError once it is gone."""

    @property
    def identity(self) -> AgentIdentity: ...

    async def operation(
        self, resource: Resource, operation: Operation, deadline_s: float
    ) -> OperationResult:
        """Run one operation; TIMED_OUT when no answer came within `deadline_s`.

        Raises LinkError where the connection ended. An agent that answers with an error over a
        connection that stands is NOT_RUN for a start or a stop: the failure is the operation's."""
        ...

    def monitor(self, resource: Resource, deadline_s: float, take: AnswerTaker) -> None:
        """As `operation` with a monitor, for those who ask thousands of times a second: `take` is
        called once, in a later step of the event loop, also where the connection is gone."""
        ...

    async def heartbeat(self) -> None:
        """Return when the agent answered; the caller sets the deadline."""
        ...

    async def watch(
        self, items: Sequence[WatchItem], sink: ReportSink, digest_interval_s: float
    ) -> None:
        """Have the agent monitor `items` by itself and report to `sink`, at least every
        `digest_interval_s`; returns when the agent has taken this over, mostly before the first
        report. Ends an earlier watch of this connection at once. The caller sets the deadline.

        Only where `identity.features` has "watch". Raises LinkError when the connection is gone
        (its `loss` says why) or the agent refused (PROTOCOL; the connection stands).
        """
        ...

    async def wait_closed(self) -> Loss:
        """Return when the connection ended, with the reason."""
        ...

    def close(self) -> None:
        """Drop the connection at once; pending calls raise LinkError. Safe to repeat."""
        ...


GreetingTurn: TypeAlias = Callable[[], AbstractAsyncContextManager[float]]


class AgentConnector(Protocol):
    """Makes connections to agents."""

    async def connect(
        self, host: Host, deadline_s: float, turn: GreetingTurn | None = None
    ) -> AgentConnection:
        """Connect and exchange greetings, within `deadline_s`; raises LinkError.

        `turn` is entered when the connection was accepted, before anything is said over it. It
        gives the seconds that it kept the connector waiting, which the deadline does not count."""
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
        """Run one action. Never raises for a device's fault; a program that outlives
        `deadline_s` is killed with all its children. Cancelling the call kills it too.

        `expired` is asked in the step that sends the action: where it gives a reason, nothing is
        sent, and the result is a failure with that reason."""
        ...


class JournalMedium(Protocol):
    """Where journal records are kept. Opening it takes the lock; both raise StateError."""

    def read(self) -> Iterable[JournalRecord]:
        """All records in order, at start-up (may block)."""
        ...

    async def append(self, records: Sequence[JournalRecord]) -> None:
        """Add records; on return they are on stable storage, all or none. Raises RecordError."""
        ...

    async def compact(self, snapshot: Sequence[JournalRecord]) -> None:
        """Replace all records by `snapshot`, atomically. Raises RecordError."""
        ...

    async def close(self) -> None:
        """Release the lock."""
        ...


class WallClock(Protocol):
    """The time of day, for timestamps alone: no decision depends on it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...


class Operations(Protocol):
    """What the HTTP API needs of the manager.

    Each command returns one sentence that says what was done and what still runs; it is durable
    by then. `validate` commands nothing. All raise CommandError subclasses, whose `status` is the
    HTTP status.
    """

    def status(self) -> dict[str, Any]: ...

    def root_status(self) -> dict[str, Any]:
        """The status as HALO (Rust) gives it."""
        ...

    async def validate(self, host: str) -> dict[str, Any]:
        """Have a host's agent run `validate-all` of every resource that may run there; the answer
        as JSON-ready data."""
        ...

    async def set_managed(self, group: str, managed: bool, comment: str | None) -> str: ...

    async def group_command(
        self, group: str, command: str, *, to: str | None, comment: str | None
    ) -> str:
        """A command on a group, by its name in the API; `to`: the host of a `move`."""
        ...

    async def host_command(
        self, host: str, command: str, *, force: bool, comment: str | None
    ) -> str:
        """A command on a host, by its name in the API."""
        ...

    async def cluster_command(self, command: str, *, comment: str | None) -> str:
        """A command on the cluster, by its name in the API, or `clear_events`."""
        ...
