"""One operation at a time for each resource, in order of arrival. Resources run side by side."""

from __future__ import annotations

import asyncio
from collections import deque

from halo.core.errors import HaloError

QUEUE_LIMIT = 32
"""A manager has only a few calls for one resource under way. More is a fault of the caller."""


class QueueFull(HaloError):
    """Too many operations wait for one resource."""


class ResourceQueues:
    """A key is present while its resource is busy. Its queue holds the operations that wait."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def busy(self) -> int:
        """How many resources are busy."""
        return len(self._waiting)

    def occupy(self, key: str) -> None:
        """Take a free lane at once, for operations that were under way before this agent began."""
        self._waiting.setdefault(key, deque())

    async def enter(self, key: str) -> None:
        """Wait for our turn. Then the lane is ours until :meth:`leave`.

        If the wait is cancelled, the turn is given up. Raises QueueFull.
        """
        queue = self._waiting.get(key)
        if queue is None:
            self._waiting[key] = deque()
            return
        if len(queue) >= QUEUE_LIMIT:
            raise QueueFull(f"{len(queue)} operations wait for this resource already")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                if turn in queue:  # else `leave` skipped it at the same moment
                    queue.remove(turn)
            else:  # our turn came at the same moment
                self.leave(key)
            raise

    def leave(self, key: str) -> None:
        """Hand the lane to the next in order."""
        queue = self._waiting[key]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiting[key]
