"""A limit for work that a busy processor must not begin a thousand times at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

GREETINGS_AT_ONCE = 64
GREETING_PATIENCE_S = 0.5
"""Handshakes and greetings share one limit in the whole manager. A thousand of them that begin
together end together. If the processor cannot complete them all within the deadline of one, none
would ever succeed. A host that is off does not need a slot, since it accepts no connection."""


class ConcurrencyLimit:
    """At most `limit` slots are taken at once. They are given in the order of asking.

    Work that takes longer than `patience_s` seconds waits for its peer, not for the processor. Its
    slot is then given to others, too, so that nobody waits long for peers that hang.
    """

    def __init__(self, limit: int, patience_s: float) -> None:
        self._free = asyncio.Semaphore(limit)
        self._patience_s = patience_s

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Wait for a slot, and have it until the end of the block."""
        await self._free.acquire()
        is_held = True

        def give_back() -> None:
            nonlocal is_held
            if is_held:
                is_held = False
                self._free.release()

        timer = asyncio.get_running_loop().call_later(self._patience_s, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()
