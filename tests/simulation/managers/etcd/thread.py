"""The journal's thread: a second loop of the process, on the same virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from tests.simulation.loop import VirtualLoop

T = TypeVar("T")


class _Driven(Future[Any]):
    """Whoever waits for it without a loop has the thread run until it is done."""

    def __init__(self, thread: SimThread) -> None:
        super().__init__()
        self._of = thread

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self._of.drive(self)
        return super().result(0)


class SimThread:
    """Implements what :class:`halo.adapters.loop_thread.LoopThread` does, without a thread."""

    def __init__(self, loop: VirtualLoop, main: VirtualLoop) -> None:
        self.loop = loop
        self._main = main

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """As `asyncio.run_coroutine_threadsafe`."""
        future = _Driven(self)

        def begin() -> None:
            task = self.loop.create_task(work)
            task.add_done_callback(lambda _: _hand_over(task, future))
            future.add_done_callback(lambda _: self._cancelled(task, future))

        self.loop.call_soon_threadsafe(begin)
        return future

    def _cancelled(self, task: asyncio.Task[Any], future: Future[Any]) -> None:
        if future.cancelled() and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(task.cancel)

    def drive(self, future: Future[Any]) -> None:
        """Run the thread while the main loop waits for it. Only for what awaits nothing."""
        self.loop.enter()
        try:
            while self.loop.ready and not future.done():
                handle = self.loop.ready.popleft()
                if not handle.cancelled_flag:
                    handle.callback(*handle.args)
        finally:
            self._main.enter()

    def stop(self) -> None:
        """Nothing runs in it after this step."""
        self.loop.call_soon(self.loop.shut)


def _hand_over(task: asyncio.Task[Any], future: Future[Any]) -> None:
    if task.cancelled():
        future.cancel()
    if not future.set_running_or_notify_cancel():
        return
    error = task.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(task.result())
