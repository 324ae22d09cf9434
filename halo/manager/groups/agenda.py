"""When the groups of one host have to be checked: one timer for all that are due at one moment.

Rejected: a task for each group that sleeps until its next monitor. For each group and period, it
costs a timer, a future and two turns of the event loop. At ten thousand groups, that is a fifth of
polling.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

TICK_S = 0.01
"""All that is due within one tick is done in one turn: one wakeup, and the monitors in one call."""


class Sleeper(Protocol):
    """Something that can be due."""

    def due(self, when: float) -> None:
        """The moment `when` of :meth:`Agenda.at` has come. It may have been put off meanwhile."""
        ...


class Agenda:
    """Who is due when. Create it in the running loop."""

    __slots__ = ("_loop", "_moments")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._moments: dict[float, list[Sleeper]] = {}

    @staticmethod
    def moment(when: float) -> float:
        """The end of the tick that a loop time falls into."""
        return math.ceil(when / TICK_S) * TICK_S

    def at(self, moment: float, sleeper: Sleeper) -> None:
        """Call `sleeper.due(moment)` at `moment`. A call cannot be cancelled: ignore an old one."""
        sleepers = self._moments.get(moment)
        if sleepers is None:
            self._moments[moment] = [sleeper]
            self._loop.call_at(moment, self._ring, moment)
        else:
            sleepers.append(sleeper)

    def _ring(self, moment: float) -> None:
        for sleeper in self._moments.pop(moment):
            sleeper.due(moment)
