"""Reads files on file systems that may hang, in daemon threads.

The event loop's own threads are not used: there are few of them, and a read on a dead file server
keeps its thread for ever. Here each file costs at most one thread, however many ask for it, and no
thread delays the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_daemon_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run work that may hang. It must not raise. Wait for the result with a deadline."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def tell(result: T) -> None:
        if not ended.done():
            ended.set_result(result)

    def run() -> None:
        result = work()
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=run, daemon=True, name=name).start()
    return ended


class PatientFiles:
    """Reads files. Used on one event loop."""

    def __init__(self) -> None:
        self._reading: dict[tuple[str, int], asyncio.Future[bytes | OSError]] = {}

    async def read(self, path: str, limit: int, deadline_s: float) -> bytes:
        """The first `limit` bytes. Raises OSError, and TimeoutError if it took too long."""
        key = path, limit
        reading = self._reading.get(key)
        if reading is None:
            reading = in_daemon_thread(lambda: _read(path, limit), f"read {path}")
            self._reading[key] = reading
            reading.add_done_callback(lambda _: self._reading.pop(key, None))
        done, _ = await asyncio.wait([reading], timeout=deadline_s)
        if not done:
            raise TimeoutError
        found = reading.result()
        if isinstance(found, OSError):
            raise found
        return found


def _read(path: str, limit: int) -> bytes | OSError:
    try:
        with open(path, "rb") as file:
            return file.read(limit)
    except OSError as error:
        return error
    except ValueError as error:  # a name that no file can have
        return OSError(str(error))
