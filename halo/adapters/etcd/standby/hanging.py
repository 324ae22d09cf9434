"""Whether the manager's event loop still turns, as seen from another thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

LOOK_S = 5.0


async def watch_loop(
    loop: asyncio.AbstractEventLoop, limit_s: float, hangs: Callable[[str], None]
) -> None:
    """Call `hangs` with the reason if that loop does not turn for `limit_s`. Returns then, or when
    either loop has ended."""
    here, turned = asyncio.get_running_loop(), asyncio.Event()

    def answer() -> None:
        with contextlib.suppress(RuntimeError):  # this loop has ended
            here.call_soon_threadsafe(turned.set)

    with contextlib.suppress(RuntimeError):  # that loop has ended
        while True:
            turned.clear()
            loop.call_soon_threadsafe(answer)
            try:
                async with asyncio.timeout(limit_s):
                    await turned.wait()
            except TimeoutError:
                hangs(f"its event loop stood still for {limit_s:g} s")
                return
            await asyncio.sleep(min(LOOK_S, limit_s))
