"""Monitors of one moment travel as one call; a script that hangs holds up its own answer alone."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import capnp
import pytest

from halo.adapters.rpc.agent.server import CapnpAgentServer
from halo.adapters.rpc.connection import CapnpConnection
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.adapters.rpc.monitor_batch import FEATURE, PATIENCE_S
from halo.adapters.rpc.schema import HaloAgent
from halo.core.errors import LinkError, LossKind
from halo.core.model import Host, Operation, Resource
from halo.core.outcomes import OperationResult, Outcome
from halo.core.peers.bounds import (
    INSTANCE_LIMIT,
    NAME_LIMIT,
    PARAMETER_LIMIT,
    PARAMETERS_LIMIT_BYTES,
)
from halo.core.peers.calls import NotServed, Request, Welcome
from tests.unit.remote_helpers import PATIENCE_S as LONG_S
from tests.unit.remote_helpers import resource, until

MONITOR, START, STOP = Operation.MONITOR, Operation.START, Operation.STOP


class Agent:
    """Answers with the code that its parameter names; `hung` hangs until it is let go."""

    def __init__(self, features: tuple[str, ...] = ("heartbeat", "run", FEATURE)) -> None:
        self.features = features
        self.links: list[Any] = []
        self.asked: list[tuple[str, Operation]] = []
        self.let_go = asyncio.Event()
        self.served = True

    def open_session(self, link: Any) -> Any:
        self.links.append(link)
        return self

    async def hello(self, manager: str, cluster: str, term: int) -> Welcome:
        return Welcome("1", "boot", "start", self.features)

    def heartbeat(self) -> None:
        pass

    async def run(self, request: Request, term: int) -> OperationResult | NotServed:
        self.asked.append((request.instance, request.operation))
        if not self.served:
            return NotServed()
        if request.instance.startswith("hung"):
            await self.let_go.wait()
        return OperationResult(Outcome.COMPLETED, int(request.parameters.get("code", "0")))

    def ended(self) -> None:
        pass


def named(id: str, code: int = 0) -> Resource:
    return resource("test/Script", {"code": str(code)}, id=id)


@contextlib.asynccontextmanager
async def connected(agent: Agent) -> AsyncIterator[CapnpConnection]:
    async with rpc_loop():
        sock = socket.create_server(("127.0.0.1", 0))
        server = CapnpAgentServer(agent.open_session)
        await server.serve(sock)
        connector = CapnpConnector("manager", "cluster")
        connection = await connector.connect(Host("h1", "127.0.0.1", sock.getsockname()[1]), LONG_S)
        try:
            yield connection
        finally:
            connection.close()
            connector.close()
            server.close()
            for link in agent.links:
                link.close()


def monitors(connection: CapnpConnection, *resources: Resource) -> list[Any]:
    return [asyncio.create_task(connection.operation(each, MONITOR, LONG_S)) for each in resources]


class Wire(HaloAgent.Server):  # type: ignore[misc]  # made at run time from the schema
    """The other end of the protocol, written out: notes which methods are called."""

    def __init__(self, features: list[str]) -> None:
        self.features = features
        self.calls: list[str] = []
        self.refuses_batches = False

    async def hello_context(self, context: Any) -> None:
        context.results.init("greeting").init("welcome").features = self.features

    async def run_context(self, context: Any) -> None:
        self.calls.append("run")
        context.results.init("outcome").init("completed").code = int(context.params.args[0].value)

    async def monitorMany_context(self, context: Any) -> None:
        self.calls.append("monitorMany")
        items = [] if self.refuses_batches else context.params.items
        outcomes = context.results.init("outcomes", len(items))
        for number, item in enumerate(items):
            outcomes[number].init("completed").code = int(item.args[0].value)


@contextlib.asynccontextmanager
async def wired(*features: str) -> AsyncIterator[tuple[Wire, CapnpConnection]]:
    agent = Wire(list(features))

    async def serve(stream: Any) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=agent).on_disconnect()

    async with rpc_loop():
        server = await capnp.AsyncIoStream.create_server(serve, "127.0.0.1", 0)
        connector = CapnpConnector("manager", "cluster")
        host = Host("h1", "127.0.0.1", server.sockets[0].getsockname()[1])
        connection = await connector.connect(host, LONG_S)
        try:
            yield agent, connection
        finally:
            connection.close()
            connector.close()
            server.close()


async def test_monitors_of_one_moment_are_one_call_and_each_gets_its_own_answer() -> None:
    async with wired("run", FEATURE) as (agent, connection):
        asked = [named(f"r{n}", code=n) for n in range(10)]
        results = await asyncio.gather(*monitors(connection, *asked))
    assert [result.code for result in results] == list(range(10))
    assert agent.calls == ["monitorMany"]


async def test_one_monitor_alone_and_other_operations_are_calls_of_their_own() -> None:
    async with wired("run", FEATURE) as (agent, connection):
        await connection.operation(named("r1"), MONITOR, LONG_S)
        await connection.operation(named("r1"), START, LONG_S)
    assert agent.calls == ["run", "run"]


async def test_an_agent_that_does_not_know_it_is_asked_one_by_one() -> None:
    async with wired("run") as (agent, connection):
        await asyncio.gather(*monitors(connection, named("r1"), named("r2")))
    assert agent.calls == ["run", "run"]


async def test_what_was_asked_before_a_start_is_not_sent_after_it() -> None:
    agent = Agent()
    async with connected(agent) as connection:
        look = monitors(connection, named("r1"))
        start = asyncio.create_task(connection.operation(named("r1"), START, LONG_S))
        await asyncio.gather(*look, start)
    assert agent.asked == [("r1", MONITOR), ("r1", START)]


async def test_a_script_that_hangs_holds_up_its_own_answer_alone() -> None:
    agent = Agent()
    async with connected(agent) as connection:
        hung, *others = monitors(connection, named("hung"), named("r1", 7), named("r2"))
        results = await asyncio.wait_for(asyncio.gather(*others), LONG_S)
        assert [result.code for result in results] == [7, 0]
        assert not hung.done()

        again, *others = monitors(connection, named("hung"), named("r1", 7), named("r2"))
        results = await asyncio.wait_for(asyncio.gather(*others), LONG_S)
        assert [result.code for result in results] == [7, 0]
        assert not again.done()
        agent.let_go.set()
        assert (await asyncio.wait_for(hung, LONG_S)).code == 0
        assert (await asyncio.wait_for(again, LONG_S)).code == 0


async def test_a_hung_script_times_out_at_its_own_deadline() -> None:
    async with connected(Agent()) as connection:
        deadline_s = 3 * PATIENCE_S
        hung = asyncio.create_task(connection.operation(named("hung"), MONITOR, deadline_s))
        (other,) = monitors(connection, named("r1"))
        assert (await asyncio.wait_for(other, LONG_S)).code == 0
        result = await asyncio.wait_for(hung, LONG_S)
    assert result.outcome is Outcome.TIMED_OUT


async def test_the_end_of_the_connection_fails_every_one_of_a_batch() -> None:
    agent = Agent()
    async with connected(agent) as connection:
        looks = monitors(connection, named("hung1"), named("hung2"))
        await until(lambda: len(agent.asked) == 2, "both scripts")
        agent.links[0].close()
        for look in looks:
            with pytest.raises(LinkError) as caught:
                await asyncio.wait_for(look, LONG_S)
            assert caught.value.loss.kind is LossKind.RESET


async def test_an_agent_that_serves_another_manager_refuses_a_batch_as_a_call() -> None:
    agent = Agent()
    agent.served = False
    async with connected(agent) as connection:
        for look in monitors(connection, named("r1"), named("r2")):
            with pytest.raises(LinkError) as caught:
                await asyncio.wait_for(look, LONG_S)
            assert caught.value.loss.kind is LossKind.BUSY


async def test_a_caller_that_goes_away_takes_nobody_with_it() -> None:
    agent = Agent()
    async with connected(agent) as connection:
        gone, other = monitors(connection, named("r1"), named("r2", 7))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await asyncio.wait_for(other, LONG_S)).code == 7
        assert (await asyncio.gather(gone, return_exceptions=True))[0].__class__ is (
            asyncio.CancelledError
        )


LONG = "x" * (PARAMETERS_LIMIT_BYTES + 1)
OUT_OF_BOUNDS = [
    resource("test/Script", {"note": LONG}, id="bad"),
    resource("k" * (NAME_LIMIT + 1), {}, id="bad"),
    resource("test/Script", {f"p{n}": "1" for n in range(PARAMETER_LIMIT + 1)}, id="bad"),
    resource("test/Script", {}, id="b" * (INSTANCE_LIMIT + 1)),
]


@pytest.mark.parametrize("bad", OUT_OF_BOUNDS)
async def test_what_is_out_of_bounds_costs_its_own_answer_alone(bad: Resource) -> None:
    agent = Agent()
    async with connected(agent) as connection:
        *good, refused = await asyncio.gather(
            *monitors(connection, named("one"), named("two", 7), bad)
        )
        assert [each.code for each in good] == [0, 7]
        assert refused.outcome is Outcome.NOT_RUN
        assert "is refused: " in refused.message


async def test_an_agent_that_refuses_a_batch_over_one_of_it_is_asked_one_by_one() -> None:
    async with wired("run", FEATURE) as (agent, connection):
        agent.refuses_batches = True
        answers = await asyncio.gather(*monitors(connection, named("one"), named("two", 7)))
        assert [each.code for each in answers] == [0, 7]
        assert agent.calls == ["monitorMany", "run", "run"]
