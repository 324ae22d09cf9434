"""The ports of the agent's end: the session of one connection, and the receiver of reports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from halo.core.outcomes import OperationResult, ReportBatch
from halo.core.peers.calls import (
    BadTerm,
    Busy,
    NotRecorded,
    NotServed,
    OtherTerm,
    Request,
    SameTerm,
    StaleTerm,
    WatchRequest,
    Welcome,
)

Refused: TypeAlias = Busy | StaleTerm | SameTerm | BadTerm | OtherTerm | NotRecorded | NotServed
Answer: TypeAlias = OperationResult | Refused


class Observer(Protocol):
    """Receives the reports of a watch: the manager at the other end of a connection."""

    async def report(self, batch: ReportBatch) -> bool:
        """Did the manager accept the batch? False also if the connection is lost. The caller sets
        the deadline."""
        ...


class AgentSession(Protocol):
    """The session of one connection of a manager. Calls arrive in order."""

    async def hello(self, manager: str, cluster: str, term: int) -> Welcome | Refused:
        """The answer to a greeting. It may have to wait for a disk."""
        ...

    def heartbeat(self) -> None: ...

    async def run(self, request: Request, term: int) -> Answer:
        """Run an operation. Cancelled when the caller or the connection has gone."""
        ...

    async def operation(self, request: Request) -> OperationResult | Busy:
        """A call of a manager that knows only this method. Cancelled like `run`."""
        ...

    def watch(
        self,
        items: Sequence[WatchRequest],
        observer: Observer,
        digest_interval_s: float,
        term: int,
    ) -> str:
        """Watch these resources from now on. Returns why not, or nothing."""
        ...

    def ended(self) -> None:
        """The connection has ended. Called once, and never after `Link.close`."""
        ...


class Link(Protocol):
    """One connection as its session sees it."""

    @property
    def peer(self) -> str:
        """The other end's address, without the port."""
        ...

    def close(self) -> None:
        """Drop the connection at once. Its calls under way are cancelled. Safe to repeat."""
        ...
