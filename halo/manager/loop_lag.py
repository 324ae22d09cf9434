"""How late the event loop runs its timers, which shows whether it is ever blocked. And how long the
collector took, which is the most likely cause."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import deque

INTERVAL_S = 0.05
SAMPLES_KEPT = 1200
"""The samples of one minute."""


class LoopLag:
    """Samples the lateness of a timer, 20 times a second. Create it in the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._late_s: deque[float] = deque(maxlen=SAMPLES_KEPT)
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to sample. :meth:`stop` ends it."""
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

    def figures(self, last_s: float = 60.0) -> dict[str, float]:
        """Milliseconds of lateness in the last `last_s` seconds: median, 99th percentile, largest.

        If the loop was blocked, there are fewer samples, and they reach further back."""
        late = sorted(list(self._late_s)[-max(round(last_s / INTERVAL_S), 1) :])
        if not late:
            return {"p50_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0, "samples": 0}
        last = len(late) - 1
        return {
            "p50_ms": round(late[last // 2] * 1000, 3),
            "p99_ms": round(late[round(last * 0.99)] * 1000, 3),
            "max_ms": round(late[last] * 1000, 3),
            "samples": len(late),
        }


class CollectorPauses:
    """Counts the passes of Python's cyclic collector, which stop the whole process. Measures the
    longest pass of each generation."""

    def __init__(self) -> None:
        self._began = 0.0
        self._passes = [0, 0, 0]
        self._longest_s = [0.0, 0.0, 0.0]

    def start(self) -> None:
        """Begin to count. :meth:`stop` ends it."""
        gc.callbacks.append(self._passed)

    def stop(self) -> None:
        """End counting. Safe to repeat."""
        if self._passed in gc.callbacks:
            gc.callbacks.remove(self._passed)

    def _passed(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.perf_counter()
            return
        generation, took_s = info["generation"], time.perf_counter() - self._began
        self._passes[generation] += 1
        self._longest_s[generation] = max(self._longest_s[generation], took_s)

    def figures(self) -> dict[str, list[float]]:
        """For each generation (the last one walks everything): passes so far, and longest in ms."""
        longest_ms = [round(seconds * 1000, 3) for seconds in self._longest_s]
        return {"passes": list(self._passes), "longest_ms": longest_ms}
