"""An alarm for one sleeper: woken by a call, or by the clock.

`asyncio.Event` inside `asyncio.timeout` does the same at four times the cost. A manager of ten
thousand groups would pay that thousands of times a second.
"""

from __future__ import annotations

import asyncio


class Wakeup:
    """Used by one waiting task at a time. Create it in the running loop."""

    __slots__ = ("_loop", "_rang", "_sleeper")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rang = False
        self._sleeper: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the sleeper, or make its next sleep end at once."""
        self._rang = True
        self._end_sleep()

    def reset(self) -> None:
        """Forget rings so far. The caller checks everything afterwards, or has just done so."""
        self._rang = False

    async def sleep_until(self, when: float | None) -> None:
        """Return when rung, or at the loop time `when`. None: return only when rung."""
        if self._rang:
            return
        self._sleeper = self._loop.create_future()
        timer = None if when is None else self._loop.call_at(when, self._end_sleep)
        try:
            await self._sleeper
        finally:
            self._sleeper = None
            if timer is not None:
                timer.cancel()

    def _end_sleep(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)
