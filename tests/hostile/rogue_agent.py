"""The rogue agents of one test, as a program of its own: what they throw must not hit the test.

    python -m tests.hostile.rogue_agent SEED

Standard input tells it, a JSON object a line, which behaviour to serve where:
`{"open": {"r00": [8000, "closes_at_once"]}}`, or `{"close": true}`. The answer to each is a line on
standard output; that to `{"count": true}` says how often each has misbehaved so far.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from typing import Any

from tests.hostile.agent_behaviours import BEHAVIOURS
from tests.hostile.rogue import Behaviour, Connection

CONNECTIONS_LIMIT = 50
"""Of one rogue at once; older ones are dropped."""


class Rogue:
    """One host's agent."""

    def __init__(self, name: str, behave: Behaviour, chance: random.Random) -> None:
        self.name = name
        self.connections = 0
        self._thrown = 0
        self._behave = behave
        self._chance = chance
        self._server: asyncio.Server | None = None
        self._closed = False
        self._serving: dict[asyncio.Task[None], Connection] = {}

    @property
    def thrown(self) -> int:
        """How often it misbehaved so far."""
        return self._thrown + sum(c.thrown for c in self._serving.values())

    async def open(self, port: int) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", port)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._closed:  # accepted in the very moment
            writer.transport.abort()
            return
        self.connections += 1
        connection = Connection(reader, writer, self._chance, self.connections)
        self._serving[task] = connection
        if len(self._serving) > CONNECTIONS_LIMIT:
            next(iter(self._serving)).cancel()
        try:
            await self._behave(connection)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self._serving.pop(task, None)
            self._thrown += connection.thrown
            writer.transport.abort()

    async def close(self) -> None:
        self._closed = True
        if self._server is not None:
            self._server.close()
        for task in list(self._serving):
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.gather(*self._serving, return_exceptions=True)


async def main(seed: str) -> None:
    """Do as standard input says, until it ends."""
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=1 << 20)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    rogues: list[Rogue] = []
    while line := await orders.readline():
        order: dict[str, Any] = json.loads(line)
        if "open" in order:
            for name, (port, behaviour) in order["open"].items():
                chance = random.Random(f"{seed} {behaviour}")
                rogue = Rogue(name, BEHAVIOURS[behaviour](), chance)
                await rogue.open(port)
                rogues.append(rogue)
            answer: dict[str, Any] = {"opened": len(order["open"])}
        elif "count" in order:
            answer = {"thrown": {r.name: r.thrown for r in rogues}}
        else:
            for rogue in rogues:
                await rogue.close()
            answer = {"closed": len(rogues)}
            rogues.clear()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
