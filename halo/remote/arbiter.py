"""Which manager an agent serves: one at a time, and of that one the newest connection.

Plain and synchronous; time comes in as an argument, in seconds of any steady clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from halo.core.agent import Busy, StaleTerm

SILENCE_S = 10.0
"""A manager that called nothing for so long no longer counts as served."""

Session = TypeVar("Session")


@dataclass(slots=True)
class _Served(Generic[Session]):
    session: Session
    manager: str
    last_call: float
    pending: int = 0


class Arbiter(Generic[Session]):
    """Invariant: at most one session is served, and no term below `term` is obeyed."""

    def __init__(self) -> None:
        self.term = 0
        self._served: _Served[Session] | None = None

    @property
    def manager(self) -> str:
        """The manager that is served, or nothing."""
        return self._served.manager if self._served else ""

    def is_served(self, session: Session) -> bool:
        return self._served is not None and self._served.session is session

    def claim(
        self, session: Session, manager: str, term: int, now: float
    ) -> Session | Busy | StaleTerm | None:
        """Ask that `session` be served for `manager`.

        Returns why not, or the older session that it replaces and the caller must close, or None.
        """
        if term < self.term:
            return StaleTerm(self.term)
        served = self._served
        if served is not None and served.manager != manager and not self._is_silent(served, now):
            return Busy(served.manager)
        self.term = term
        older = served.session if served is not None and served.session is not session else None
        self._served = _Served(session, manager, now)
        return older

    def check_term(self, term: int) -> StaleTerm | None:
        """Refuse a term below the highest seen, and remember a higher one."""
        if term < self.term:
            return StaleTerm(self.term)
        self.term = term
        return None

    def call(self, session: Session, now: float) -> bool:
        """Note a sign of life; returns whether the session is the served one."""
        if self._served is None or self._served.session is not session:
            return False
        self._served.last_call = now
        return True

    def hold(self, session: Session, change: int, now: float) -> None:
        """A call of a manager that sends no heartbeats began (1) or ended (-1): while it waits for
        an answer it has no reason to call, and is not silent."""
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
