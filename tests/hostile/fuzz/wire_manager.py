"""Changed frames of an agent's session, said to the manager's end of a connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from halo.adapters.rpc.connection import CapnpConnection, HeartbeatUnknown
from halo.adapters.rpc.connector import CapnpConnector
from halo.core.errors import LinkError
from halo.core.model import Host, Operation
from halo.core.outcomes import OperationResult, ReportBatch, WatchItem
from tests.hostile.fuzz.fuzzer import Finding
from tests.hostile.fuzz.mutate import mutated
from tests.hostile.measure import memory_mib
from tests.hostile.nonsense import MESSAGES
from tests.hostile.rogue import Connection, serve
from tests.unit.remote_helpers import connector, resource

SIDE_BY_SIDE = 8
STEP_DEADLINE_S = 0.3
STEP_LIMIT_S = 10.0
"""For a step whose own deadline is a thirtieth: its end is not to depend on the agent."""

MEMORY_LIMIT_MIB = 128
TEXT_LIMIT = 64 * 1024


class ChangedConnection(Connection):
    """An honest agent's connection, on which now and then something else is said."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._honest = self.chance.choice((0, 0, 1, 1, 2, 2, 3, 4, 6))
        """So many frames are as they should be."""
        self._pool = [m for messages in MESSAGES.values() for m in messages if len(m) < 2000]

    def send(self, data: bytes) -> None:
        self._honest -= 1
        if self._honest < 0 and self.chance.random() < 0.6:
            self.threw()
            if self.chance.random() < 0.15:
                self.writer.write(self.chance.choice(self._pool))
            else:
                data = mutated(data, self.chance, self._pool)
        self.writer.write(data)


class _Sink:
    """Takes reports as the manager does, and looks at what it is given."""

    def wants_reports(self) -> bool:
        return True

    def report(self, batch: ReportBatch) -> bool:
        for reported in batch.results:
            _check_text(reported.resource)
            _check_text(reported.result.message)
        return True


class ManagerWireFuzzer:
    """Connections of a :class:`CapnpConnector`, with all that a manager asks on each."""

    def __init__(self) -> None:
        self._exit = contextlib.AsyncExitStack()
        self._connector: CapnpConnector | None = None
        self._memory_mib = 0.0
        self._pid = 0

    async def close(self) -> None:
        await self._exit.aclose()

    async def open(self, folder: Path) -> None:
        self._connector = await self._exit.enter_async_context(connector())
        self._pid = os.getpid()

    async def case(self, chance: random.Random) -> None:
        seeds = [chance.getrandbits(64) for _ in range(SIDE_BY_SIDE)]
        await asyncio.gather(*(self._one(random.Random(seed)) for seed in seeds))
        memory = memory_mib(self._pid)
        if not self._memory_mib:
            self._memory_mib = memory
        if (grown := memory - self._memory_mib) > MEMORY_LIMIT_MIB:
            raise Finding(f"the manager's end grew by {grown:.0f} MiB")

    async def _one(self, chance: random.Random) -> None:
        """One agent, one connection, and every question there is."""
        serving: set[asyncio.Task[Any]] = set()

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            serving.add(task)
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await serve(ChangedConnection(reader, writer, chance, 1))
            writer.transport.abort()

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        host = Host("h1", "127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            await self._ask_everything(host)
        finally:
            server.close()
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)

    async def _ask_everything(self, host: Host) -> None:
        assert self._connector is not None
        connection = await _ended(self._connector.connect(host, STEP_DEADLINE_S))
        if connection is None:
            return
        try:
            for text in (connection.identity.version, *connection.identity.features):
                _check_text(text)
            await asyncio.gather(*(_ended(step) for step in _questions(connection)))
        finally:
            connection.close()


def _questions(connection: CapnpConnection) -> list[Awaitable[Any]]:
    items = [WatchItem(resource(id=f"r{number}"), 1.0, 5.0) for number in range(3)]
    return [
        asyncio.wait_for(connection.heartbeat(), STEP_DEADLINE_S),
        asyncio.wait_for(connection.watch(items, _Sink(), 1.0), STEP_DEADLINE_S),
        *(
            connection.operation(resource(id=f"r{number}"), operation, STEP_DEADLINE_S)
            for number, operation in enumerate((*3 * [Operation.MONITOR], *Operation))
        ),
    ]


async def _ended(step: Awaitable[Any]) -> Any:
    """What a step came to; None where it failed in a way that its caller expects."""
    try:
        async with asyncio.timeout(STEP_LIMIT_S) as limit:
            result = await step
    except LinkError as error:
        _check_text(str(error))
        return None
    except HeartbeatUnknown:
        return None
    except TimeoutError:
        if limit.expired():
            raise Finding(f"no end of a step within {STEP_LIMIT_S:g} s") from None
        return None
    if isinstance(result, OperationResult):
        _check_text(result.message)
    return result


def _check_text(text: str) -> None:
    if len(text) > TEXT_LIMIT:
        raise Finding(f"a text of {len(text)} characters: {text[:200]!r}")
    text.encode()
