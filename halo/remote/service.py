"""How the agent treats managers: which one it serves, and how it answers their calls."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from halo import __version__
from halo.core.model import ResourceId
from halo.core.outcomes import OperationResult
from halo.core.peers.calls import (
    VALIDATE_ALL,
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
from halo.core.peers.crowd import Crowd
from halo.remote.arbiter import Arbiter
from halo.remote.scripts.sessions import boot_identity
from halo.remote.term_keeper import TermKeeper
from halo.remote.terms import TermFile, Terms
from halo.remote.watch import Monitoring, Observer, Watch, WatchRefused
from halo.telling import PeerLog

log = PeerLog()

Refusal: TypeAlias = Busy | StaleTerm | SameTerm | BadTerm | NotRecorded

FEATURES = ("heartbeat", "run", "watch", "monitorMany", VALIDATE_ALL)
"""The abilities of this agent besides `operation`."""

COUNTED = 10000
"""Resources of one connection whose starts and stops are counted. A host has far fewer."""

CONNECTION_LIMIT = 64
CONNECTIONS_OF_PEER = 32
"""Open connections that are not served. Even with `BUSY_LIMIT` operations under way, they leave
descriptors for a manager, however many others come."""

GREETING_DEADLINE_S = 10.0
"""A connection without any call for this long is closed."""


class Performer(Monitoring, Protocol):
    """Carries operations out: :class:`halo.remote.scripts.operations.Operations`."""

    async def perform(
        self, request: Request, ended: Callable[[], None] = ...
    ) -> OperationResult: ...


class Link(Protocol):
    """One connection, as its session sees it."""

    @property
    def peer(self) -> str: ...

    def close(self) -> None: ...


class AgentService:
    """All connections of one agent. Needs a running event loop, for the time.

    `features` are those that depend on how the agent was started. `terms` are on record in
    `term_file`; without a file they are kept in memory only."""

    def __init__(
        self,
        operations: Performer,
        test_id: str | None = None,
        features: Sequence[str] = (),
        term_file: TermFile | None = None,
        terms: Terms | None = None,
    ) -> None:
        self.operations = operations
        self.arbiter: Arbiter[Session] = Arbiter(terms)
        self.terms = TermKeeper(term_file, terms or {}, lambda: self.arbiter.terms)
        start_id = uuid.uuid4().hex
        # In a test, an agent stands for a host, so its start is the host's boot.
        boot = start_id if test_id is not None else boot_identity()
        self.welcome = Welcome(__version__, boot, start_id, (*FEATURES, *features))
        self._sessions: set[Session] = set()
        self._crowd: Crowd[Session] = Crowd(CONNECTION_LIMIT, CONNECTIONS_OF_PEER)
        self._watch: tuple[Session, Watch] | None = None
        self._last_refusal: tuple[str, str, Refusal] | None = None

    def open_session(self, link: Link) -> Session:
        """A connection stands. If there are too many, an idle one is closed for it."""
        session = Session(self, link)
        self._sessions.add(session)
        if (out := self._crowd.enter(session, link.peer)) is not None:
            log.warning("too many connections", peer=link.peer)
            out.close("too many connections")
        return session

    def is_open(self, session: Session) -> bool:
        """Does its connection still stand?"""
        return session in self._sessions

    def serve(self, session: Session) -> None:
        """This session is served now: it does not count among the others any more."""
        self._crowd.leave(session)

    def dismiss(self, session: Session) -> None:
        """A session has ended."""
        self._sessions.discard(session)
        self._crowd.leave(session)
        if (watch := self.watch_of(session)) is not None:
            watch.disconnected()
        if self.arbiter.is_served(session):
            log.info("manager disconnected", manager=self.arbiter.manager)
        self.arbiter.forget(session)

    def note_refusal(self, manager: str, peer: str, why: Refusal) -> None:
        """Log it once, because a refused manager tries again twice a second."""
        refusal = (manager, peer, why)
        if refusal != self._last_refusal:
            log.warning("refused a manager", peer=peer, manager=manager, why=str(why))
        self._last_refusal = refusal

    def watch_of(self, session: Session) -> Watch | None:
        """The watch, if this session began it."""
        return self._watch[1] if self._watch and self._watch[0] is session else None

    def replace_watch(self, session: Session, watch: Watch | None) -> None:
        """End the present watch, of any session, and begin another one."""
        if self._watch is not None:
            self._watch[1].end()
        self._watch = (session, watch) if watch is not None else None
        if watch is not None:
            watch.begin()

    def close(self) -> None:
        """Drop all connections. Running scripts are not touched."""
        if self._watch is not None:
            self._watch[1].end()
        for session in list(self._sessions):
            session.close("the agent stops")


class Session:
    """One connection of a manager."""

    def __init__(self, service: AgentService, link: Link) -> None:
        self._service = service
        self._link = link
        self._ended_operations: dict[ResourceId, int] = {}
        deadline = asyncio.get_running_loop().call_later(GREETING_DEADLINE_S, self._give_up)
        self._greeting_deadline: asyncio.TimerHandle = deadline

    def _give_up(self) -> None:
        log.warning("a connection without a greeting", peer=self._link.peer)
        self.close("no greeting in time")

    def close(self, why: str) -> None:
        """Drop the connection. Safe to repeat. Do not call it within a call of this connection."""
        self._greeting_deadline.cancel()
        self._service.dismiss(self)
        self._link.close()

    def ended(self) -> None:
        """The manager or the network closed the connection."""
        self._greeting_deadline.cancel()
        self._service.dismiss(self)

    async def hello(self, manager: str, cluster: str, term: int) -> Welcome | Refusal | NotServed:
        """Become the served connection of `manager`, or return why not.

        A term that is new is on disk before the answer. Leaders before it are refused at once."""
        self._greeting_deadline.cancel()
        service = self._service
        refusal: Refusal | None = service.arbiter.note(manager, cluster, term, _now())
        if refusal is None:
            refusal = await service.terms.record(cluster, term)
            if not service.is_open(self):
                return NotServed()
        if refusal is not None:
            service.note_refusal(manager, self._link.peer, refusal)
            return refusal
        return self._claim(manager, cluster, term) or service.welcome

    def heartbeat(self) -> None:
        self._service.arbiter.call(self, _now())
        if (watch := self._service.watch_of(self)) is not None:
            watch.heartbeat()

    async def run(
        self, request: Request, term: int
    ) -> OperationResult | Refusal | OtherTerm | NotServed:
        """Run an operation. If the connection ends before its script begins, it is dropped."""
        if not self._service.arbiter.call(self, _now()):
            return NotServed()
        stale = self._service.arbiter.check_term(self, term)
        if stale is not None:
            return stale
        return await self._service.operations.perform(request, lambda: self._count(request))

    def _count(self, request: Request) -> None:
        """An operation has ended. A watch reports how many of each resource have ended."""
        counts, id = self._ended_operations, request.instance
        if request.operation.changes and (id in counts or len(counts) < COUNTED):
            counts[id] = counts.get(id, 0) + 1

    def watch(
        self,
        items: Sequence[WatchRequest],
        observer: Observer,
        digest_interval_s: float,
        term: int,
    ) -> str:
        """Watch these resources from now on, and no others. Returns why not, or nothing."""
        service = self._service
        if not service.arbiter.call(self, _now()):
            return str(NotServed())
        stale = service.arbiter.check_term(self, term)
        if stale is not None:
            return str(stale)
        counts = self._ended_operations
        try:
            watch = Watch(
                service.operations, items, observer, digest_interval_s, lambda id: counts.get(id, 0)
            )
        except WatchRefused as error:
            service.replace_watch(self, None)
            return str(error)
        service.replace_watch(self, watch)
        return ""

    async def operation(self, request: Request) -> OperationResult | Busy:
        """Like :meth:`run`, for a manager that sent no hello. Its address is its name."""
        arbiter = self._service.arbiter
        if not arbiter.is_served(self):
            answer = self._claim(f"manager at {self._link.peer}", "", None)
            if isinstance(answer, Busy):
                return answer
        arbiter.hold(self, 1, _now())
        try:
            return await self._service.operations.perform(request)
        finally:
            arbiter.hold(self, -1, _now())

    def _claim(self, manager: str, cluster: str, term: int | None) -> Refusal | None:
        self._greeting_deadline.cancel()
        arbiter = self._service.arbiter
        before = arbiter.manager
        answer = arbiter.claim(self, manager, cluster, term, _now())
        if isinstance(answer, Refusal):
            self._service.note_refusal(manager, self._link.peer, answer)
            return answer
        if answer is not None:
            answer.close("a newer connection took over")
        self._service.serve(self)
        if answer is not None or before != manager:
            log.info("serving a manager", manager=manager, peer=self._link.peer)
        return None


def _now() -> float:
    return asyncio.get_running_loop().time()
