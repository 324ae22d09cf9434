"""When to go on: a stop that reaches every thread, and a limit on bytes a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LONGEST_WAIT_S = 0.1
BURST_S = 0.25
"""After a pause, this much time's worth of bytes may pass at once."""


class Stopped(Exception):
    """The work was told to stop. Whoever told it knows why."""


class Stop:
    """Told once, seen by all threads."""

    def __init__(self) -> None:
        self._told = threading.Event()

    def tell(self) -> None:
        """Stop all work. May be called more than once."""
        self._told.set()

    @property
    def told(self) -> bool:
        """Is the work over?"""
        return self._told.is_set()

    def check(self) -> None:
        """Raises Stopped if the work is over. Call it before each step of some milliseconds."""
        if self._told.is_set():
            raise Stopped

    def wait(self, seconds: float) -> None:
        """Wait. Raises Stopped as soon as the work is over."""
        if self._told.wait(seconds):
            raise Stopped


class Pace:
    """Lets so many bytes a second pass, all threads together. None: as many as there are."""

    def __init__(
        self,
        bytes_s: int | None,
        stop: Stop,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bytes_s = bytes_s
        self._stop = stop
        self._clock = clock
        self._lock = threading.Lock()
        self._next = clock()  # when the next byte may pass

    def take(self, size: int) -> None:
        """Wait until `size` more bytes may pass. Raises Stopped."""
        if self._bytes_s is None:
            self._stop.check()
            return
        with self._lock:
            begins = max(self._next, self._clock() - BURST_S)
            self._next = begins + size / self._bytes_s
        while True:
            left = begins - self._clock()
            self._stop.wait(min(max(left, 0.0), LONGEST_WAIT_S))
            if left <= 0:
                return
