"""Which manager an agent serves: one at a time, and only its newest connection.

A leader's term counts only within its cluster. So a manager of another cluster cannot lock a leader
out. The highest term of a cluster is kept on disk (:mod:`halo.remote.terms`). An administrator can
have a wrong one forgotten with `halo_remote --forget-term`.

Plain and synchronous code. Time is an argument, in seconds of any steady clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from halo.core.peers.bounds import TERM_LIMIT
from halo.core.peers.calls import BadTerm, Busy, OtherTerm, SameTerm, StaleTerm
from halo.remote.terms import CLUSTERS, Seen, Terms

SILENCE_S = 10.0
"""A manager that made no call for this long does not count as served any more."""

Session = TypeVar("Session")


@dataclass(slots=True)
class _Served(Generic[Session]):
    session: Session
    manager: str
    cluster: str
    term: int
    last_call: float
    pending: int = 0


class Arbiter(Generic[Session]):
    """Invariant: at most one session is served, and the agent obeys no term that is lower than one
    that it has seen in the same cluster."""

    def __init__(self, terms: Terms | None = None) -> None:
        """`terms` are those on record."""
        self._terms: dict[str, Seen] = dict(terms or {})
        self._served: _Served[Session] | None = None

    @property
    def manager(self) -> str:
        """The manager that is served, or nothing."""
        return self._served.manager if self._served else ""

    @property
    def terms(self) -> Terms:
        """The highest term of each cluster."""
        return self._terms

    def is_served(self, session: Session) -> bool:
        return self._served is not None and self._served.session is session

    def note(
        self, manager: str, cluster: str, term: int, now: float
    ) -> Busy | StaleTerm | SameTerm | BadTerm | None:
        """Refuse lower terms from now on, unless the manager with this one is refused itself.
        Returns that refusal. Once the term is on record, :meth:`claim`."""
        refusal = (
            self._refusal_of(cluster, term)
            or self._busy(manager, cluster, term, now)
            or self._other_of_same_term(manager, cluster, term)
        )
        if refusal is None:
            self._note_term(cluster, term, manager)
        return refusal

    def claim(
        self, session: Session, manager: str, cluster: str, term: int | None, now: float
    ) -> Session | Busy | StaleTerm | SameTerm | BadTerm | None:
        """Ask to serve `session` for `manager`. `term` is None if the manager knows no terms.

        Returns a refusal, or the older session that it replaces and the caller must close, or None.
        """
        if term is None:
            refusal: Busy | StaleTerm | SameTerm | BadTerm | None
            refusal = self._busy(manager, cluster, 0, now)
        else:
            refusal = self.note(manager, cluster, term, now)
        if refusal is not None:
            return refusal
        served = self._served
        older = served.session if served is not None and served.session is not session else None
        self._served = _Served(session, manager, cluster, term or 0, now)
        return older

    def check_term(self, session: Session, term: int) -> StaleTerm | BadTerm | OtherTerm | None:
        """Refuse a call of the served session unless its term is that of the greeting, and none
        that is higher was seen in its cluster. A greeting's term is on record, a call's is not."""
        if not self.is_served(session):
            return None
        assert self._served is not None
        if (refusal := self._refusal_of(self._served.cluster, term)) is not None:
            return refusal
        return None if term == self._served.term else OtherTerm(term)

    def _busy(self, manager: str, cluster: str, term: int, now: float) -> Busy | None:
        """Is another manager served, which this one does not succeed?"""
        served = self._served
        if served is None or served.manager == manager or self._is_silent(served, now):
            return None
        # Only where leaders are elected. A single manager sends 0, and is not to be pushed out.
        succeeds = served.cluster == cluster and 0 < served.term < term
        return None if succeeds else Busy(served.manager)

    def _refusal_of(self, cluster: str, term: int) -> StaleTerm | BadTerm | None:
        if term > TERM_LIMIT:
            return BadTerm(term)
        highest = self._terms.get(cluster)
        if highest is not None and term < highest.term:
            return StaleTerm(highest.term, highest.manager)
        return None

    def _other_of_same_term(self, manager: str, cluster: str, term: int) -> SameTerm | None:
        """Did another manager have this very term? A leadership has a term of its own. Only a store
        that was restored or built anew gives one twice, and nobody knows which of the two leads."""
        seen = self._terms.get(cluster)
        if seen is None or not 0 < term == seen.term or seen.manager in ("", manager):
            return None
        return SameTerm(seen.term, seen.manager)

    def _note_term(self, cluster: str, term: int, manager: str) -> None:
        if term > 0:
            before = self._terms.pop(cluster, None)
            if before is None or before.term != term:
                before = Seen(term, manager)
            self._terms[cluster] = before
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
