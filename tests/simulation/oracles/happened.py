"""When acts of a kind happened last, as far as that is kept."""

from __future__ import annotations

from collections import deque

KEPT = 64
"""Acts of one kind that are remembered."""


class Acts:
    """The last acts of each kind, by what they concern."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, ...], deque[float]] = {}

    def note(self, now: float, *what: str) -> None:
        """It happens now."""
        times = self._times.get(what)
        if times is None:
            times = self._times[what] = deque(maxlen=KEPT)
        times.append(now)

    def within(self, earliest: float, latest: float, *what: str) -> bool:
        """Did it happen in that time?"""
        return any(earliest <= at <= latest for at in self._times.get(what, ()))

    def may_be_within(self, earliest: float, latest: float, *what: str) -> bool:
        """Can it have happened in that time, as far as that is remembered?"""
        times = self._times.get(what, deque[float]())
        is_forgotten = len(times) == KEPT and times[0] > earliest
        return is_forgotten or any(earliest <= at <= latest for at in times)
