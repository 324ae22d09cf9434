"""The status as JSON text, made in small steps. Heartbeats are handled between the steps.

With thirty thousand resources, the text takes one or two seconds. In one step, it would stop the
event loop for that time. A late loop starts to count the silence of hosts again. So an operator who
asks every few seconds would keep the manager from ever declaring a host lost.

The rows of one group show one moment. The rows of two groups may be a second apart. What the status
shows counts as told. So it is given out only when the journal has it on disk, or shows that it
cannot write (S7).

Rejected: a worker thread. While it encodes, the interpreter's lock would still stop the loop. And
it would read data that the loop is changing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

STEP_S = 0.004
"""About how long one step takes in a loop that has little else to do."""

LONGEST_STEP_S = 0.04
SHARE = 0.3
"""A step may take this fraction of the time of the last turn of the loop. In a busy loop a turn
takes long. With one short step in each turn, a status would never be ready."""

Part = tuple[str, Any]
"""A key of the status with its value, or with some rows if the value is a list."""

_encode = json.JSONEncoder(separators=(",", ":")).encode


async def _at_once() -> bool:
    return True


class StatusText:
    """Makes the text, at most one at a time, however many ask. Create it in the running loop.

    `parts` begins a new status. The rows of a list come in several parts, in their order. `settled`
    waits until everything that was shown is on disk. False: it is not, and the next status says so.
    """

    def __init__(
        self, parts: Callable[[], Iterator[Part]], settled: Callable[[], Awaitable[bool]] = _at_once
    ) -> None:
        self._parts = parts
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._making: asyncio.Task[bytes] | None = None
        self._next: asyncio.Task[bytes] | None = None

    async def read(self) -> bytes:
        """The status as of now or later. A status that was begun before this call is not used."""
        if self._making is None:
            self._making = self._loop.create_task(self._make())
            self._making.add_done_callback(self._made)
            return await asyncio.shield(self._making)
        if self._next is None:
            self._next = self._loop.create_task(self._make_after(self._making))
        return await asyncio.shield(self._next)

    async def _make_after(self, earlier: asyncio.Task[bytes]) -> bytes:
        await asyncio.wait({earlier})
        return await self._make()

    def _made(self, task: asyncio.Task[bytes]) -> None:
        self._making, self._next = self._next, None
        if self._making is not None:
            self._making.add_done_callback(self._made)
        if not task.cancelled():
            task.exception()  # marks it as seen, even if nobody waits any more

    async def _make(self) -> bytes:
        text = await self._encoded()
        return text if await self._settled() else await self._encoded()

    async def _encoded(self) -> bytes:
        texts: dict[str, list[str]] = {}
        lists: set[str] = set()
        now = self._loop.time
        step_ends = now() + STEP_S
        for key, value in self._parts():
            rows = texts.setdefault(key, [])
            if isinstance(value, list):
                lists.add(key)
                rows.extend(map(_encode, value))
            else:
                rows.append(_encode(value))
            left_at = now()
            if left_at >= step_ends:
                await asyncio.sleep(0)
                back_at = now()
                step_ends = back_at + min(max(STEP_S, SHARE * (back_at - left_at)), LONGEST_STEP_S)
        entries = (
            f"{_encode(key)}:[{','.join(rows)}]" if key in lists else f"{_encode(key)}:{rows[0]}"
            for key, rows in texts.items()
        )
        return f"{{{','.join(entries)}}}".encode()
