"""An event loop whose clock jumps to the next timer: hours pass in milliseconds.

For units of the manager whose every wait is a timer or a future of the test. Nothing of it is for
sockets: a loop that waits for one while no timer is set would wait for ever, and raises instead.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Does not wait: it tells the loop how far to jump."""

    def __init__(self) -> None:
        super().__init__()
        self.jumped = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("the loop waits for something that never comes")
        if not ready and timeout:
            self.jumped += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Starts at 1000.0, so that no test rests on a clock that begins at zero."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        self._late_s = 0.0
        self._looks = 0
        super().__init__(self._virtual)

    def time(self) -> float:
        """As on a real clock, no two looks see the same time: what comes after is later."""
        self._looks += 1
        return 1000.0 + self._virtual.jumped + self._late_s + self._looks * 1e-9

    def run_late(self, seconds: float) -> None:
        """As if a callback, or a stopped process, had held the loop for this long."""
        self._late_s += seconds


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run a test on a loop of its own; fails when it leaves an error that nobody looked at."""
    loop = VirtualTimeLoop()
    unseen: list[str] = []
    loop.set_exception_handler(lambda _loop, context: unseen.append(str(context)))
    try:
        result = loop.run_until_complete(test)
    finally:
        _cancel_all(loop)
        loop.close()
    assert unseen == [], f"errors that nobody looked at: {unseen}"
    return result


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))


def loop_now() -> VirtualTimeLoop:
    """The running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


async def settle(rounds: int = 50) -> None:
    """Let everything run that is ready, without letting time pass."""
    for _ in range(rounds):
        await asyncio.sleep(0)
