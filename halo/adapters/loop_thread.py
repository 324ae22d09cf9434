"""An event loop in a daemon thread of its own, and how one loop watches another."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """A daemon thread that runs an event loop. Stop it when nothing runs in it any more."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine in the thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        """End the loop and the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)


async def stands_still(
    other: asyncio.AbstractEventLoop, limit_s: float, at_most_every_s: float
) -> bool:
    """Return True when the loop of another thread did not turn for `limit_s`; False when it is
    closed."""
    here, turned = asyncio.get_running_loop(), asyncio.Event()

    def answer() -> None:
        with contextlib.suppress(RuntimeError):  # this loop has ended
            here.call_soon_threadsafe(turned.set)

    with contextlib.suppress(RuntimeError):  # that loop has ended
        while True:
            turned.clear()
            other.call_soon_threadsafe(answer)
            try:
                async with asyncio.timeout(limit_s):
                    await turned.wait()
            except TimeoutError:
                return True
            await asyncio.sleep(min(at_most_every_s, limit_s))
    return False
