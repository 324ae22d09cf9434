"""Files that may lie on a file system that hangs: read in threads of no importance.

Not in the event loop's own threads: those are few, and a read on a dead file server keeps its
thread for ever. Here each file costs one thread at most, however many ask for it, and none of them
holds up the end of the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_daemon_thread(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run what may hang; `work` must not raise. Wait for the result with a deadline."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def tell(result: T) -> None:
        if not ended.done():
            ended.set_result(result)

    def run() -> None:
        result = work()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=run, daemon=True, name=name).start()
    return ended


class PatientFiles:
    """Reads files. Used on one event loop."""

    def __init__(self) -> None:
        self._reading: dict[tuple[str, int], asyncio.Future[bytes | OSError]] = {}

    async def read(self, path: str, limit: int, deadline_s: float) -> bytes:
        """The first `limit` bytes. Raises OSError, and TimeoutError when it took too long."""
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
