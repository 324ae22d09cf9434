"""Agents without a network: each test says how one behaves, and when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from halo.core.errors import LinkError, Loss, LossKind
from halo.core.model import Host, Operation, Resource
from halo.core.outcomes import AgentIdentity, OperationResult, Outcome, WatchItem
from halo.ports import GreetingTurn, ReportSink
from tests.fakes.monitors import MonitorsByOperation


class FakeConnection(MonitorsByOperation):
    """Implements :class:`halo.ports.AgentConnection` for one :class:`FakeAgent`."""

    def __init__(self, agent: FakeAgent) -> None:
        self.identity = agent.identity
        self._agent = agent
        self._closed: asyncio.Future[Loss] = asyncio.get_running_loop().create_future()

    async def operation(
        self, resource: Resource, operation: Operation, deadline_s: float
    ) -> OperationResult:
        await asyncio.sleep(self._agent.script_s)
        await self._answered()
        up = self._agent.up
        if operation is Operation.VALIDATE:
            return await self._agent.validate(resource.id)
        if (failure := self._agent.fails.get(operation)) is not None:
            return failure
        if operation is Operation.MONITOR:
            return OperationResult(Outcome.COMPLETED, 0 if resource.id in up else 7)
        if operation is Operation.START:
            self._agent.on_start(resource.id)
            up.add(resource.id)
        else:
            up.discard(resource.id)
        return OperationResult(Outcome.COMPLETED, 0)

    async def heartbeat(self) -> None:
        self._agent.heartbeats += 1
        if self._agent.defect is not None:
            raise self._agent.defect
        await self._answered()

    async def _answered(self) -> None:
        """Return when the agent answers; raise when the connection ends before it does."""
        if self._agent.latency_s:
            await asyncio.sleep(self._agent.latency_s)
        answer = asyncio.ensure_future(self._agent.answers.wait())
        self._closed.add_done_callback(lambda _closed: answer.cancel())
        try:
            await asyncio.wait({answer})
        finally:
            answer.cancel()
        if self._closed.done():
            raise LinkError(self._closed.result())

    async def watch(
        self, items: Sequence[WatchItem], sink: ReportSink, digest_interval_s: float
    ) -> None:
        raise LinkError(Loss(LossKind.PROTOCOL, "this agent watches nothing"))

    async def wait_closed(self) -> Loss:
        return await asyncio.shield(self._closed)

    def close(self) -> None:
        self.end(Loss(LossKind.STALE, "closed by us"))

    def end(self, loss: Loss) -> None:
        """The connection is gone, for this reason."""
        if not self._closed.done():
            self._closed.set_result(loss)

    @property
    def is_open(self) -> bool:
        return not self._closed.done()


async def _valid(_resource: str) -> OperationResult:
    return OperationResult(Outcome.COMPLETED, 0)


class FakeAgent:
    """One host. `refuses`: what a connection attempt ends with; None: it is accepted.

    While `answers` is cleared it is silent: attempts hang, and so does all that was asked.
    """

    def __init__(self, *, legacy: bool = False) -> None:
        self.identity = AgentIdentity("" if legacy else "1", legacy=legacy)
        self.refuses: LossKind | None = None
        self.refuses_after_s = 0.0
        self.is_off = False  # silent, and not even its kernel accepts a connection
        self.answers = asyncio.Event()
        self.answers.set()
        self.latency_s = 0.0
        self.script_s = 0.0  # how long each script runs
        self.fails: dict[Operation, OperationResult] = {}  # what such scripts end with, undone
        self.defect: Exception | None = None
        self.on_connect: Callable[[], object] = lambda: None
        self.connections: list[FakeConnection] = []
        self.attempts: list[float] = []
        self.heartbeats = 0
        self.up: set[str] = set()  # what runs there
        self.on_start: Callable[[str], object] = lambda name: None
        self.validate: Callable[[str], Awaitable[OperationResult]] = _valid

    @property
    def standing(self) -> list[FakeConnection]:
        return [connection for connection in self.connections if connection.is_open]

    def fall_silent(self) -> None:
        self.answers.clear()

    def speak_again(self) -> None:
        self.answers.set()

    def die(self) -> None:
        """The power is cut: nothing runs there, and nothing answers."""
        self.up.clear()
        self.fall_silent()

    def live_again(self) -> None:
        """The host has booted, and runs nothing."""
        self.up.clear()
        self.end(LossKind.RESET)
        self.speak_again()

    def end(self, kind: LossKind) -> None:
        """Every standing connection ends so."""
        for connection in self.standing:
            connection.end(Loss(kind))


class FakeConnector:
    """Implements :class:`halo.ports.AgentConnector` on fake agents, by host."""

    def __init__(self, agents: dict[str, FakeAgent]) -> None:
        self._agents = agents

    async def connect(
        self, host: Host, deadline_s: float, turn: GreetingTurn | None = None
    ) -> FakeConnection:
        agent = self._agents[host.id]
        now = asyncio.get_running_loop().time
        agent.attempts.append(now())
        ends_at = now() + deadline_s
        if (refusal := agent.refuses) is not None:
            if agent.refuses_after_s:
                await asyncio.sleep(agent.refuses_after_s)
            raise LinkError(Loss(refusal))
        async with AsyncExitStack() as stack:
            try:
                if agent.is_off:
                    await asyncio.sleep(deadline_s)
                    raise TimeoutError
                if turn is not None:
                    ends_at += await stack.enter_async_context(turn())
                async with asyncio.timeout_at(ends_at):
                    if agent.latency_s:
                        await asyncio.sleep(agent.latency_s)
                    await agent.answers.wait()
            except TimeoutError:
                raise LinkError(Loss(LossKind.SILENT, "no connection in time")) from None
        connection = FakeConnection(agent)
        agent.connections.append(connection)
        agent.on_connect()
        return connection
