"""Which manager an agent serves: one at a time, and only its newest connection.

A leader's term counts only within its cluster. So a manager of another cluster cannot lock a leader
out. The agent forgets terms when it ends. So an administrator can undo a wrong term by a restart of
the agent, which stops no resource.

Plain and synchronous code. Time is an argument, in seconds of any steady clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from halo.core.peers.bounds import TERM_LIMIT
from halo.core.peers.calls import BadTerm, Busy, StaleTerm

SILENCE_S = 10.0
"""A manager that made no call for this long does not count as served any more."""

CLUSTERS = 16
"""Clusters whose terms are remembered. The one that was served longest ago is forgotten first."""

Session = TypeVar("Session")


@dataclass(slots=True)
class _Served(Generic[Session]):
    session: Session
    manager: str
    cluster: str
    last_call: float
    pending: int = 0


class Arbiter(Generic[Session]):
    """Invariant: at most one session is served, and the agent obeys no term that is lower than one
    that it has seen in the same cluster."""

    def __init__(self) -> None:
        self._terms: dict[str, int] = {}  # by cluster; the one served last is the last
        self._served: _Served[Session] | None = None

    @property
    def manager(self) -> str:
        """The manager that is served, or nothing."""
        return self._served.manager if self._served else ""

    def is_served(self, session: Session) -> bool:
        return self._served is not None and self._served.session is session

    def claim(
        self, session: Session, manager: str, cluster: str, term: int | None, now: float
    ) -> Session | Busy | StaleTerm | BadTerm | None:
        """Ask to serve `session` for `manager`. `term` is None if the manager knows no terms.

        Returns a refusal, or the older session that it replaces and the caller must close, or None.
        """
        refusal = None if term is None else self._refusal_of(cluster, term)
        if refusal is not None:
            return refusal
        served = self._served
        if served is not None and served.manager != manager and not self._is_silent(served, now):
            return Busy(served.manager)
        if term is not None:
            self._note_term(cluster, term)
        older = served.session if served is not None and served.session is not session else None
        self._served = _Served(session, manager, cluster, now)
        return older

    def check_term(self, session: Session, term: int) -> StaleTerm | BadTerm | None:
        """Refuse a term of the served session if it is lower than the highest one of its cluster.
        Remember a higher one."""
        if not self.is_served(session):
            return None
        assert self._served is not None
        cluster = self._served.cluster
        refusal = self._refusal_of(cluster, term)
        if refusal is None:
            self._note_term(cluster, term)
        return refusal

    def _refusal_of(self, cluster: str, term: int) -> StaleTerm | BadTerm | None:
        if term > TERM_LIMIT:
            return BadTerm(term)
        highest = self._terms.get(cluster, 0)
        return StaleTerm(highest) if term < highest else None

    def _note_term(self, cluster: str, term: int) -> None:
        if term > 0:
            self._terms.pop(cluster, None)
            self._terms[cluster] = term
        if len(self._terms) > CLUSTERS:
            del self._terms[next(iter(self._terms))]

    def call(self, session: Session, now: float) -> bool:
        """Note a sign of life. Returns whether the session is the served one."""
        if self._served is None or self._served.session is not session:
            return False
        self._served.last_call = now
        return True

    def hold(self, session: Session, change: int, now: float) -> None:
        """A call began (1) or ended (-1), of a manager that sends no heartbeats. While it waits for
        an answer, it does not count as silent."""
        if self.call(session, now):
            assert self._served is not None
            self._served.pending += change

    def forget(self, session: Session) -> None:
        """The session's connection ended."""
        if self.is_served(session):
            self._served = None

    @staticmethod
    def _is_silent(served: _Served[Session], now: float) -> bool:
        return served.pending == 0 and now - served.last_call >= SILENCE_S
