"""When silence becomes a verdict: heartbeats and connection attempts in, "declared lost" out.

A verdict needs three things: the loss budget has passed since the last sign of life, at least two
probes were sent in that time, and none of them was answered. If the event loop ran late, the count
starts again, because answers may lie unread in our own sockets. It also starts again after a probe
that could not be sent.
"""

from __future__ import annotations

from halo.core.model import Settings

PROBES_BEFORE_VERDICT = 2
HEARTBEATS_PER_BUDGET = 3
"""Heartbeats are sent at least this often in one loss budget: one of three may be under way."""

ATTEMPTS_PER_BUDGET = 4
"""The same for connection attempts, which take some time each."""

LATE_S = 0.25
"""The loop ran late if a timer fired this late (or half the budget late, if that is less)."""


def heartbeat_period_s(settings: Settings) -> float:
    """The time between two heartbeats."""
    return min(settings.heartbeat_interval_s, settings.loss_budget_s / HEARTBEATS_PER_BUDGET)


class LossDetector:
    """Judges the silence of one host. Monotonic seconds; no clock of its own."""

    def __init__(self, settings: Settings, now: float, grace_s: float = 0.0) -> None:
        self._budget_s = settings.loss_budget_s
        self._late_s = min(LATE_S, settings.loss_budget_s / 2)
        self._silent_since = now + grace_s
        self._unanswered = 0

    @property
    def silent_since(self) -> float:
        """The last sign of life, or the start of the count if that came later."""
        return self._silent_since

    def alive(self, now: float) -> None:
        """The host gave a sign of life."""
        self._silent_since = now
        self._unanswered = 0

    def begin_afresh(self, now: float) -> None:
        """Probes so far do not count: they may not have left, or their answers may lie unread."""
        self._silent_since = max(now, self._silent_since)
        self._unanswered = 0

    def woke(self, now: float, due: float) -> None:
        """A timer set for `due` fired at `now`."""
        if now - due > self._late_s:
            self.begin_afresh(now)

    def excuse(self, since: float, now: float) -> None:
        """From `since` until `now` the manager kept the host waiting. That time does not count as
        silence of the host.

        The count continues after that. If it started again, hosts would never be lost when so many
        of them hang that each attempt has to wait."""
        self._silent_since += max(0.0, now - max(since, self._silent_since))

    def sent(self) -> None:
        """A probe was sent."""
        self._unanswered += 1

    def is_lost(self, now: float) -> bool:
        """Is the silence a verdict?"""
        return (
            self._unanswered >= PROBES_BEFORE_VERDICT and now - self._silent_since >= self._budget_s
        )

    def verdict_at(self) -> float:
        """The earliest time at which the present silence can become a verdict."""
        return self._silent_since + self._budget_s

    def is_suspect(self, now: float, period_s: float) -> bool:
        """Is an answer overdue, but not for long enough for a verdict?"""
        return self._unanswered > 0 and now - self._silent_since > 1.5 * period_s
