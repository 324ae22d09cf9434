"""The thread that does the journal's work, so that a slow disk holds up nothing else.

A daemon thread of our own rather than an executor: the interpreter joins executors at exit, so a
hanging disk would keep a manager from ending.
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
        """Have this done after the jobs before it."""
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
        """End the thread after the jobs before this call."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            # A job holds its caller's records: do not keep them until the next one comes.
            del job
