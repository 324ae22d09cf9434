"""The port of the agent's end: what one connection of a manager comes to, and who is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from halo.core.outcomes import OperationResult, ReportBatch
from halo.core.peers.calls import (
    BadTerm,
    Busy,
    NotServed,
    Request,
    StaleTerm,
    WatchRequest,
    Welcome,
)

Answer: TypeAlias = OperationResult | Busy | StaleTerm | BadTerm | NotServed


class Observer(Protocol):
    """Who is told what a watch finds: the manager at the other end of a connection."""

    async def report(self, batch: ReportBatch) -> bool:
        """Whether the manager took the batch; False also where the connection is lost. The caller
        sets the deadline."""
        ...


class AgentSession(Protocol):
    """What one connection of a manager comes to; calls arrive in order."""

    def hello(
        self, manager: str, cluster: str, term: int
    ) -> Welcome | Busy | StaleTerm | BadTerm: ...

    def heartbeat(self) -> None: ...

    async def run(self, request: Request, term: int) -> Answer:
        """Cancelled when the caller or the connection is gone."""
        ...

    async def operation(self, request: Request) -> OperationResult | Busy:
        """A call of a manager that knows nothing more. Cancelled as `run` is."""
        ...

    def watch(
        self,
        items: Sequence[WatchRequest],
        observer: Observer,
        digest_interval_s: float,
        term: int,
    ) -> str:
        """Watch these resources from now on; returns why not, or nothing."""
        ...

    def ended(self) -> None:
        """The connection is gone; called once, and never after `Link.close`."""
        ...


class Link(Protocol):
    """One connection as its session sees it."""

    @property
    def peer(self) -> str:
        """The other end's address, without the port."""
        ...

    def close(self) -> None:
        """Drop it at once; its calls under way are cancelled. Safe to repeat."""
        ...
