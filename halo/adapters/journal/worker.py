"""The thread that does the journal's work, so that a slow disk delays nothing else.

It is our own daemon thread and not an executor. The interpreter waits for executors at exit, so a
disk that hangs would keep a manager from ending.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


class Worker:
    """One daemon thread that runs jobs in order."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        """How many jobs wait."""
        return self._jobs.qsize()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Run this job after all earlier jobs."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = work()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        self._jobs.put(job)
        return future

    def stop(self) -> None:
        """End the thread after all earlier jobs."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            # A job holds its caller's records. Do not keep them until the next job comes.
            del job
