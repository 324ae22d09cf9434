"""How late the event loop runs its timers: the one figure that tells whether it is ever blocked."""

from __future__ import annotations

import asyncio
from collections import deque

INTERVAL_S = 0.05
SAMPLES_KEPT = 1200
"""A minute of samples."""


class LoopLag:
    """Samples the lateness of a timer, 20 times a second. Create it in the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late_s: deque[float] = deque(maxlen=SAMPLES_KEPT)
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to sample; :meth:`stop` ends it."""
        self._due = self._loop.time() + INTERVAL_S
        self._timer = self._loop.call_at(self._due, self._sample)

    def stop(self) -> None:
        """End sampling. Safe to repeat."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sample(self) -> None:
        self._late_s.append(max(self._loop.time() - self._due, 0.0))
        self.start()

    def figures(self) -> dict[str, float]:
        """Milliseconds over the last minute at most: median, 99th percentile, largest."""
        late = sorted(self._late_s)
        if not late:
            return {"p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0, "samples": 0}
        last = len(late) - 1
        return {
            "p50_ms": round(late[last // 2] * 1000, 3),
            "p99_ms": round(late[round(last * 0.99)] * 1000, 3),
            "max_ms": round(late[last] * 1000, 3),
            "samples": len(late),
        }
