"""When the groups of one host want to be looked at: one timer for all that is due at one moment.

Rejected: a task for each group that sleeps until its next monitor. It costs a timer, a future and
two turns of the event loop a group and period: at ten thousand groups, a fifth of polling.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

TICK_S = 0.01
"""What is due within a tick is done in one turn: one wakeup, and the monitors in one call."""


class Sleeper(Protocol):
    """What can be due."""

    def due(self, when: float) -> None:
        """It is `when`, as :meth:`Agenda.at` returned it; it may have been put off meanwhile."""
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
        """Call `sleeper.due(moment)` then. It cannot be taken back: compare, and ignore it."""
        sleepers = self._moments.get(moment)
        if sleepers is None:
            self._moments[moment] = [sleeper]
            self._loop.call_at(moment, self._ring, moment)
        else:
            sleepers.append(sleeper)

    def _ring(self, moment: float) -> None:
        for sleeper in self._moments.pop(moment):
            sleeper.due(moment)
