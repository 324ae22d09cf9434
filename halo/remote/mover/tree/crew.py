"""Threads that copy. The first failure ends them all, and is the one that is told.

A failure ends the whole order, so it tells everybody to stop.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable

from halo.remote.mover.outcomes import Failure
from halo.remote.mover.pace import Stop, Stopped
from halo.remote.mover.tree.small import SmallFiles

Work = Callable[[SmallFiles], None]
"""One piece of work. It gets what its thread works with."""

_WAIT_S = 0.1


class Crew:
    """Some threads and a short queue. Used by one thread, which hands out the work."""

    def __init__(self, threads: int, make: Callable[[], SmallFiles], stop: Stop) -> None:
        self._queue: queue.Queue[Work | None] = queue.Queue(2 * threads)
        self._make = make
        self._stop = stop
        self.failure: BaseException | None = None
        """What ended the threads."""
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, name=f"mover-{n}", daemon=True)
            for n in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def do(self, work: Work) -> None:
        """Hand out a piece of work, as soon as there is room. Raises what a thread has raised."""
        self._put(work)

    def finish(self) -> None:
        """Wait until all is done, flushed and checked. Raises what a thread has raised."""
        for _ in self._threads:
            self._put(None)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(_WAIT_S)
                self._check()
        self._check()

    def abandon(self) -> None:
        """The order has failed: let the threads end. Does not wait for one that hangs."""
        self._over.set()
        self._stop.tell()
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        for _ in self._threads:
            with contextlib.suppress(queue.Full):
                self._queue.put_nowait(None)
        for thread in self._threads:
            thread.join(_WAIT_S)

    def _put(self, item: Work | None) -> None:
        while True:
            self._check()
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_WAIT_S)
                return

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure
        self._stop.check()

    def _run(self) -> None:
        try:
            files = self._make()
            while work := self._queue.get():
                if self._over.is_set():
                    return
                work(files)
            if not self._over.is_set():
                files.flush()
        except BaseException as error:
            # Told once, by the thread that hands out the work.
            is_better = isinstance(self.failure, Stopped) and isinstance(error, Failure)
            if self.failure is None or is_better:
                self.failure = error
            self._over.set()
            self._stop.tell()
