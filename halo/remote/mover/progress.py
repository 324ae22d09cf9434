"""How far an order is: counted by the threads, told twice a second."""

from __future__ import annotations

import json
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from enum import StrEnum

INTERVAL_S = 0.5
RATE_WINDOW_S = 10.0
LINE_LIMIT = 4096
"""Bytes of a line. A pipe takes so many in one piece."""


class Phase(StrEnum):
    """What the mover does now."""

    SCANNING = "scanning"
    COPYING = "copying"
    FLUSHING = "flushing"
    CHECKING = "checking"
    PUBLISHING = "publishing"


class Tally:
    """Counts files and bytes of one order. What a predecessor did counts as done, not as speed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.phase = Phase.SCANNING
        self._clock = clock
        self._lock = threading.Lock()
        self._files_total: int | None = None
        self._bytes_total: int | None = None
        self._files = self._files_kept = 0
        self._bytes = self._bytes_kept = 0
        self._samples: deque[tuple[float, int]] = deque([(clock(), 0)])

    def set_total(self, files: int, size: int) -> None:
        """What there is to do, once it is known."""
        self._files_total, self._bytes_total = files, size

    def copied(self, size: int) -> None:
        """Bytes of a source that were copied, holes among them."""
        with self._lock:
            self._bytes += size

    def completed(self, files: int) -> None:
        """Files whose copy is on the disk and was checked."""
        with self._lock:
            self._files += files

    def kept(self, files: int, size: int) -> None:
        """Files and bytes that a predecessor has copied."""
        with self._lock:
            self._files_kept += files
            self._bytes_kept += size

    @property
    def bytes_done(self) -> int:
        """Bytes that need not be copied any more."""
        return self._bytes + self._bytes_kept

    def totals(self) -> dict[str, int]:
        """For the last line."""
        return {
            "files": self._files + self._files_kept,
            "files_kept": self._files_kept,
            "bytes": self.bytes_done,
            "bytes_kept": self._bytes_kept,
        }

    def now(self) -> dict[str, object]:
        """For a line of progress. Call it at regular intervals: the rate comes from them."""
        at = self._clock()
        self._samples.append((at, self._bytes))
        while len(self._samples) > 2 and at - self._samples[0][0] > RATE_WINDOW_S:
            self._samples.popleft()
        since, before = self._samples[0]
        rate = (self._bytes - before) / (at - since) if at > since else 0.0
        left = None
        if self._bytes_total is not None and rate > 0:
            left = round(max(self._bytes_total - self.bytes_done, 0) / rate, 1)
        return {
            "phase": str(self.phase),
            "files_done": self._files + self._files_kept,
            "files_total": self._files_total,
            "bytes_done": self.bytes_done,
            "bytes_total": self._bytes_total,
            "bytes_s": round(rate),
            "seconds_left": left,
        }


class Teller:
    """Writes JSON lines to whoever listens. A listener that went away, or does not read, does not
    hold up the work: lines are then dropped, but for the last one, which is waited for a little."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._gone = False

    def tell(self, line: Mapping[str, object], wait_s: float = 0.0) -> None:
        """Write one line, if it can be written within `wait_s`."""
        if self._gone:
            return
        text = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        try:
            if poll.poll(wait_s * 1000):
                os.write(self._fd, text)
        except OSError:
            self._gone = True
