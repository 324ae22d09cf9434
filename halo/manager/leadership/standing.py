"""What a manager knows of the other managers, of the leader, and of the cluster.

While it stands by, it folds the journal as it reads it. The fold is for whoever asks. A manager
that begins to lead folds all records again, so nothing hangs on what was folded before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from halo.core.errors import CommandRefused, LeadershipError, SteppedDown
from halo.core.journal import fold
from halo.core.journal.records import Record
from halo.core.journal.remembered import Remembered
from halo.core.status.store import StoreSeen
from halo.ports import JournalRecord, Known, Lead, ManagerSeen, Standing, WallClock

__all__ = ["Known", "ManagerSeen", "Standing", "StoreStanding"]

RECORDS_A_TURN = 200


class Sighted(Protocol):
    """What is seen of the other managers. Nothing waits."""

    @property
    def leader(self) -> ManagerSeen | None: ...

    @property
    def managers(self) -> Sequence[ManagerSeen]: ...

    @property
    def term(self) -> int: ...

    @property
    def store(self) -> StoreSeen: ...

    @property
    def trouble(self) -> str | None: ...

    @property
    def confirmed_at(self) -> float: ...

    @property
    def lead(self) -> Lead | None: ...

    @property
    def seen_s_ago(self) -> float | None: ...


class StoreStanding:
    """The standing of a manager whose journal is in a store. Implements :class:`Standing`."""

    def __init__(self, sighted: Sighted, own_id: str, clock: WallClock) -> None:
        self._sighted = sighted
        self._own_id = own_id
        self._clock = clock
        self._folded = Remembered()
        self._entries = 0
        self._end: Callable[[LeadershipError], None] | None = None

    async def take(self, records: Sequence[JournalRecord], afresh: bool) -> None:
        """Fold records in, in their order. `afresh`: they are the whole journal.

        Raises StateError for a record that this version does not understand."""
        folded = Remembered() if afresh else self._folded
        for number, raw in enumerate(records, 1):
            fold.apply(folded, Record.from_json(raw))
            if number % RECORDS_A_TURN == 0:
                await asyncio.sleep(0)
        self._folded = folded
        self._entries = len(records) if afresh else self._entries + len(records)

    def lead(self, remembered: Remembered, end: Callable[[LeadershipError], None]) -> None:
        """This manager leads from now on: this is its memory. `end` ends its work."""
        self._folded = remembered
        self._end = end

    @property
    def own_id(self) -> str:
        """The id of this manager."""
        return self._own_id

    @property
    def term(self) -> int:
        """The term of the present leader; 0 if it is not known."""
        return self._sighted.term

    def leader(self) -> ManagerSeen | None:
        """The manager that leads, as far as it is known."""
        return self._sighted.leader

    def managers(self) -> Sequence[ManagerSeen]:
        """All managers that are registered now."""
        return self._sighted.managers

    def known(self) -> Known:
        """What is known of the cluster."""
        if self._end is not None:
            own = next((seen for seen in self.managers() if seen.id == self._own_id), None)
            entries = self._entries if own is None else own.entries
            return Known(self._folded, self._clock.now(), entries)
        return Known(self._folded, self._sighted.confirmed_at, self._entries)

    def store(self) -> StoreSeen:
        """The members of the store."""
        return self._sighted.store

    def trouble(self) -> str | None:
        """What is wrong with the store."""
        return self._sighted.trouble

    def last_lead(self) -> Lead | None:
        """The leadership that was seen last."""
        return self._sighted.lead

    def seen_s_ago(self) -> float | None:
        """How old is what is known of the managers; None: nothing is."""
        return self._sighted.seen_s_ago

    async def step_down(self, why: str) -> None:
        """End the leadership of this manager. Raises CommandRefused if it does not lead."""
        if self._end is None:
            raise CommandRefused("this manager does not lead, so it cannot step down")
        self._end(SteppedDown(why))
