"""KJ's event loop on asyncio's, and Python's cyclic collector in that thread alone.

pycapnp's objects must be freed in the thread that runs KJ's loop. In any other thread, the process
dies: "No event loop is running on this thread", or SIGSEGV. Python's collector runs in whichever
thread happens to allocate next, such as the journal's. So it is switched off, and the loop runs it.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import capnp

LOOK_EVERY_S = 0.5
LOOK_AGAIN_S = 0.05
"""After a pass: where much is allocated, many short passes stop the loop less than a long one."""


@asynccontextmanager
async def rpc_loop() -> AsyncIterator[None]:
    """Run KJ's event loop. Everything of :mod:`halo.adapters.rpc` needs it. One per process."""
    async with capnp.kj_loop():
        collector = LoopCollector()
        try:
            yield
        finally:
            collector.close()


class LoopCollector:
    """Runs the collector in the running loop's thread, at the thresholds of :mod:`gc`.

    It looks twice a second, and more often while much is allocated. No pass comes in the middle of
    a callback of KJ either."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._was_enabled = gc.isenabled()
        gc.disable()
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)

    def close(self) -> None:
        """Free the garbage of KJ's objects while its loop still runs. Then collect as before."""
        self._timer.cancel()
        gc.collect()
        if self._was_enabled:
            gc.enable()

    def _look(self) -> None:
        gc.disable()  # a thread that read a config meanwhile may have switched it on again
        generation = due_generation(gc.get_count(), gc.get_threshold())
        if generation is not None:
            gc.collect(generation)
        pause_s = LOOK_EVERY_S if generation is None else LOOK_AGAIN_S
        self._timer = self._loop.call_later(pause_s, self._look)


def due_generation(count: tuple[int, int, int], threshold: tuple[int, int, int]) -> int | None:
    """The oldest generation that is due, as Python itself would choose it; None while none is.

    A threshold of 0 for the youngest generation means never."""
    if not threshold[0] or count[0] <= threshold[0]:
        return None
    return max(n for n in range(3) if count[n] > threshold[n])
