"""A virtual clock, and an event loop on it that runs only when it is told to.

The simulated world schedules plain calls on a :class:`Clock`. The manager gets a
:class:`VirtualLoop`, which keeps its own queues, so that one incarnation of the manager can be
dropped whole at any step, as a kill does, while the world goes on.

Rejected: subclassing asyncio's own loop with a fake selector. Its handles, contexts and debug hooks
cost a third of the run time, and a crash could not take the manager's callbacks out of its queues.
"""

from __future__ import annotations

import asyncio
from asyncio.events import _set_running_loop  # the way asyncio's own loops do it
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heapify, heappop, heappush
from random import Random
from typing import Any

Call = tuple[float, int, Callable[..., object], tuple[Any, ...]]


class Clock:
    """Virtual seconds, and the world's calls in the order of their times (then of arrival)."""

    __slots__ = ("_sequence", "heap", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.heap: list[Call] = []
        self._sequence = 0

    def at(self, when: float, function: Callable[..., object], *args: Any) -> None:
        """Call `function` at virtual time `when`."""
        self._sequence += 1
        heappush(self.heap, (max(when, self.now), self._sequence, function, args))

    def after(self, delay: float, function: Callable[..., object], *args: Any) -> None:
        """Call `function` in `delay` virtual seconds."""
        self._sequence += 1
        heappush(self.heap, (self.now + delay, self._sequence, function, args))


class VirtualHandle:
    """What call_soon and call_at return: all that asyncio asks of a handle."""

    __slots__ = ("args", "callback", "cancelled_flag", "loop", "when_s")

    def __init__(
        self, loop: VirtualLoop, callback: Callable[..., object], args: tuple[Any, ...], when: float
    ) -> None:
        self.loop = loop
        self.callback = callback
        self.args = args
        self.when_s = when
        self.cancelled_flag = False

    def cancel(self) -> None:
        """Drop the call."""
        if not self.cancelled_flag:
            self.cancelled_flag = True
            self.args = ()
            self.loop.timers_cancelled += 1

    def cancelled(self) -> bool:
        """Was it dropped?"""
        return self.cancelled_flag

    def when(self) -> float:
        """The loop's time at which it is due."""
        return self.when_s


class VirtualTask(asyncio.Task[Any]):
    """A task that sets keep in the same order in every run: by its number, not by its address.

    Whoever cancels a set of tasks, as at shutdown, else does it in another order each time."""

    def __init__(
        self, work: Coroutine[Any, Any, Any], loop: VirtualLoop, name: str | None, number: int
    ) -> None:
        self._number = number
        super().__init__(work, loop=loop, name=name)
        # A task that is dropped with its manager is no news.
        self._log_destroy_pending = False  # asyncio's own switch

    def __hash__(self) -> int:
        return self._number

    __eq__ = object.__eq__


class VirtualLoop(asyncio.AbstractEventLoop):
    """The part of an event loop that the manager uses, driven from outside step by step."""

    def __init__(self, clock: Clock, on_error: Callable[[str], None]) -> None:
        self.clock = clock
        self.ready: deque[VirtualHandle] = deque()
        self.timers: list[tuple[float, int, VirtualHandle]] = []
        self.timers_cancelled = 0
        self._sequence = 0
        self._tasks = 0
        self._on_error = on_error
        self._closed = False

    # --- what the driver uses ----------------------------------------------------------------

    def enter(self) -> None:
        """Make this the running loop."""
        _set_running_loop(self)

    def leave(self) -> None:
        """No loop runs any more."""
        _set_running_loop(None)

    def next_timer(self) -> float:
        """When the next timer is due; infinity when there is none."""
        timers = self.timers
        while timers and timers[0][2].cancelled_flag:
            heappop(timers)
            self.timers_cancelled -= 1
        return timers[0][0] if timers else float("inf")

    def wake_timers(self) -> None:
        """Make every timer that is due ready."""
        timers, now = self.timers, self.clock.now
        while timers and timers[0][0] <= now:
            handle = heappop(timers)[2]
            if handle.cancelled_flag:
                self.timers_cancelled -= 1
            else:
                self.ready.append(handle)
        if self.timers_cancelled > 500 and self.timers_cancelled > len(timers) // 2:
            self.timers = [entry for entry in timers if not entry[2].cancelled_flag]
            heapify(self.timers)
            self.timers_cancelled = 0

    def scramble(self, random: Random) -> int:
        """Make every timer that is due ready, in any order, and anywhere between what is ready."""
        waiting = list(self.ready)
        self.ready.clear()
        self.wake_timers()
        late = list(self.ready)
        for handle in late:
            waiting.insert(random.randint(0, len(waiting)), handle)
        self.ready.clear()
        self.ready.extend(waiting)
        return len(late)

    def shut(self) -> None:
        """Nothing runs here any more."""
        self._closed = True
        self.ready.clear()
        self.timers.clear()

    # --- what asyncio and the manager use ----------------------------------------------------

    def time(self) -> float:
        """Virtual seconds."""
        return self.clock.now

    def call_soon(  # type: ignore[override]  # no Handle: asyncio uses its methods alone
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> VirtualHandle:
        """Contexts are left out: nothing in the manager reads a context variable."""
        handle = VirtualHandle(self, callback, args, 0.0)
        if not self._closed:
            self.ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # as above
        self, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> VirtualHandle:
        """All loops of a simulation run in one thread."""
        if self._closed:
            raise RuntimeError("the loop has ended")
        return self.call_soon(callback, *args)

    def call_at(  # type: ignore[override]  # as above
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> VirtualHandle:
        handle = VirtualHandle(self, callback, args, when)
        if not self._closed:
            self._sequence += 1
            heappush(self.timers, (when, self._sequence, handle))
        return handle

    def call_later(  # type: ignore[override]  # as above
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> VirtualHandle:
        return self.call_at(self.clock.now + delay, callback, *args)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]  # a narrower signature than asyncio's
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, context: Any = None
    ) -> asyncio.Task[Any]:
        self._tasks += 1
        return VirtualTask(coro, self, name, self._tasks)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._on_error(f"{context.get('message')}: {error!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self._closed
