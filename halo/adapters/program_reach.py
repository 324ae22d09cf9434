"""Is a program's file system alive? Asked in a thread, before the program is started.

Starting a program stops the whole process until the kernel has read its first page: Python holds
its lock meanwhile (vfork), so a thread would not help, and a plain fork costs a manager of 300 MB
ten milliseconds. A program on a file system that hangs (a dead file server) would so stop the event
loop for ever. Reading it first hangs one thread instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

_FIRST_BYTES = 4096


class ProgramReach:
    """Reads programs, at most one thread a program, however many ask. Used on one event loop."""

    def __init__(self) -> None:
        self._reading: dict[str, asyncio.Future[None]] = {}

    async def is_readable(self, program: str, deadline_s: float) -> bool:
        """False when its beginning could not be read within `deadline_s`. A program that is not
        there, or may not be read, is True: starting it tells why."""
        reading = self._reading.get(program)
        if reading is None:
            reading = self._reading[program] = self._begin(program)
        done, _ = await asyncio.wait([reading], timeout=deadline_s)
        return bool(done)

    def _begin(self, program: str) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            self._reading.pop(program, None)
            ended.set_result(None)

        def read() -> None:
            with contextlib.suppress(OSError), open(program, "rb") as file:
                file.read(_FIRST_BYTES)
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(tell)

        threading.Thread(target=read, daemon=True, name=f"read {program}").start()
        return ended
