"""Run as a process: it dies if an object of pycapnp is freed in the wrong thread or order.

Prints the threads in which the collector ran, and whether the garbage is gone.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

from halo.adapters.rpc.event_loop import rpc_loop
from halo.core.errors import LinkError
from tests.unit.test_rogue_wire import OUTCOMES, RogueAgent, ask, served


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self, *content: object) -> None:
        self.content = (self, *content)


async def fail() -> weakref.ref[Cycle]:
    """Have an answer refused. The exception keeps the frames, and these the parts of a connection
    that has ended since."""
    async with served(RogueAgent("monitorMany", OUTCOMES["too few"])) as connection:
        try:
            await ask(connection, "monitorMany")
        except LinkError as error:
            return weakref.ref(Cycle(error))
    raise AssertionError("the answer was taken")


def allocate() -> None:
    """Allocate as a thread of the journal does, until Python would collect many times."""
    for _ in range(50):
        kept: list[list[int]] = [[] for _ in range(10_000)]
        del kept


async def main() -> None:
    threads: set[str] = set()
    gc.callbacks.append(lambda phase, info: threads.add(threading.current_thread().name))
    async with rpc_loop():
        failed = await fail()
        for _ in range(100):
            await asyncio.to_thread(allocate)
            if failed() is None:
                break
        print(*sorted(threads))
        print("freed" if failed() is None else "kept")


asyncio.run(main())
