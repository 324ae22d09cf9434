"""When silence becomes a verdict: heartbeats and connection attempts in, "declared lost" out.

The verdict needs a whole loss budget since the last sign of life, at least two probes sent in it,
and none of them answered. When the loop itself ran late the count starts afresh, since answers may
lie unread in our own sockets; so it does after a probe that could not even be sent.
"""

from __future__ import annotations

from halo.core.model import Settings

PROBES_BEFORE_VERDICT = 2
HEARTBEATS_PER_BUDGET = 3
"""Heartbeats are sent at least this often within one loss budget: of three one may be under way."""

ATTEMPTS_PER_BUDGET = 4
"""The same of attempts to connect, which take a while each."""

LATE_S = 0.25
"""The loop ran late when a timer fired this long after its time (or half the budget, if less)."""


def heartbeat_period_s(settings: Settings) -> float:
    """How often a heartbeat is sent."""
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
        """What was sent does not count: it may never have left, or answers may lie unread."""
        self._silent_since = max(now, self._silent_since)
        self._unanswered = 0

    def woke(self, now: float, due: float) -> None:
        """A timer set for `due` fired at `now`."""
        if now - due > self._late_s:
            self.begin_afresh(now)

    def excuse(self, since: float, now: float) -> None:
        """From `since` until `now` it was ours to speak: that time is no silence of the host's.

        The count goes on from there. Were it begun afresh, hosts that hang in such numbers that
        each attempt has to wait would never be lost."""
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
        """Is an answer overdue, if not yet for long enough?"""
        return self._unanswered > 0 and now - self._silent_since > 1.5 * period_s
