"""A manager that says by hand what no library would: it costs the agent nothing but the connection.

The agent's end is real: server, service and rules; only its scripts are not run.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from halo.adapters.rpc.agent.server import CapnpAgentServer
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.core.errors import LinkError, LossKind
from halo.core.model import Host, Operation
from halo.core.outcomes import OperationResult, Outcome
from halo.core.peers.bounds import TERM_LIMIT
from halo.core.peers.calls import Request
from halo.remote.scripts.operations import Monitor
from halo.remote.service import (
    CONNECTION_LIMIT,
    CONNECTIONS_OF_PEER,
    GREETING_DEADLINE_S,
    AgentService,
)
from tests.unit import raw_frames as raw
from tests.unit.remote_helpers import resource, until
from tests.unit.virtual_time import run

NO_TEXT = b"\xff\xfe\xfd"
DEADLINE_S = 20.0


class Scripts:
    """Stands for the agent's `Operations`: each ends at once, or never."""

    busy = 0

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.hang = False

    async def perform(
        self, request: Request, ended: Callable[[], None] = lambda: None
    ) -> OperationResult:
        self.requests.append(request)
        if self.hang:
            await asyncio.Event().wait()
        return OperationResult(Outcome.COMPLETED, 1, "x" * 10_000)

    async def monitor(
        self, monitor: Monitor, begin: Callable[[], bool], found: Callable[[OperationResult], None]
    ) -> None:
        if begin():
            found(OperationResult(Outcome.COMPLETED, 7))


class Served:
    """An agent, and the port it listens on."""

    def __init__(self, scripts: Scripts, port: int) -> None:
        self.scripts = scripts
        self.port = port
        self.host = Host("h1", "127.0.0.1", port)

    async def say(self, *frames: bytes, until_answers: int = 0) -> tuple[list[raw.Heard], bool]:
        """Send these on a new connection; returns what was answered, and whether the agent ended
        the connection. With `until_answers`, stop listening after so many."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        heard: list[raw.Heard] = []
        ended = False
        try:
            async with asyncio.timeout(DEADLINE_S):
                with contextlib.suppress(ConnectionError):
                    writer.write(b"".join(frames))
                    await writer.drain()
                while not until_answers or len(heard) < until_answers:
                    heard.append(await raw.hear(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            ended = True
        finally:
            writer.close()
        return heard, ended

    async def is_at_service(self) -> None:
        """An honest manager is served."""
        connector = CapnpConnector("honest", "cluster")
        try:
            connection = await connector.connect(self.host, DEADLINE_S)
            await connection.heartbeat()
            result = await connection.operation(resource(), Operation.START, DEADLINE_S)
            assert result.code == 1
            connection.close()
        finally:
            connector.close()


@contextlib.asynccontextmanager
async def agent() -> AsyncIterator[Served]:
    async with rpc_loop():
        scripts = Scripts()
        service = AgentService(scripts)
        server = CapnpAgentServer(service.open_session)
        sock = socket.create_server(("127.0.0.1", 0))
        await server.serve(sock)
        try:
            yield Served(scripts, sock.getsockname()[1])
        finally:
            server.close()
            service.close()
            await asyncio.sleep(0)


def _hello(params: Any, **changes: Any) -> None:
    fields = {"manager": "rogue", "cluster": "cluster", "term": 0, **changes}
    for name, value in fields.items():
        setattr(params, name, value)


HELLO = raw.call(1, "hello", _hello)
GREETING = raw.bootstrap(0) + HELLO


def setting(**fields: Any) -> Callable[[Any], None]:
    def fill(params: Any) -> None:
        for name, value in fields.items():
            setattr(params, name, value)

    return fill


def arguments(count: int, key: str | bytes, value: str | bytes) -> Callable[[Any], None]:
    def fill(params: Any) -> None:
        params.resource = "a/b"
        for argument in params.init("args", count):
            argument.key, argument.value = key, value

    return fill


def items(count: int, **fields: Any) -> Callable[[Any], None]:
    def fill(params: Any) -> None:
        for item in params.init("items", count):
            for name, value in {"instance": "r", "periodMs": 1000, **fields}.items():
                setattr(item, name, value)

    return fill


def millions_of_monitors(question: int) -> bytes:
    """A list of structs of no size: it takes no byte of the message."""
    data = bytearray(raw.call(question, "monitorMany", items(1)))
    words = [raw.WORD.unpack_from(data, at)[0] for at in range(0, len(data), 8)]
    place = next(n for n, w in enumerate(words) if w & 0xFFFF_FFFF == 1 and w >> 32 & 7 == 7)
    raw.WORD.pack_into(data, 8 * place, words[place] & 0xFFFF_FFFF | 500_000 << 35)
    return bytes(data)


BAD_CALLS = {
    "hello: no text": raw.call(2, "hello", lambda p: _hello(p, manager=NO_TEXT)),
    "hello: no cluster": raw.call(2, "hello", lambda p: _hello(p, cluster=NO_TEXT)),
    "hello: a long name": raw.call(2, "hello", lambda p: _hello(p, manager="m" * 100_000)),
    "run: no text": raw.call(2, "run", setting(resource=NO_TEXT)),
    "run: no instance": raw.call(2, "run", setting(resource="a/b", instance=NO_TEXT)),
    "run: a long instance": raw.call(2, "run", setting(resource="a/b", instance="i" * 5000)),
    "run: no key": raw.call(2, "run", arguments(1, NO_TEXT, "x")),
    "run: no value": raw.call(2, "run", arguments(1, "x", NO_TEXT)),
    "run: many arguments": raw.call(2, "run", arguments(300, "x", "y")),
    "run: long arguments": raw.call(2, "run", arguments(2, "x", "ü" * 10_000)),
    "operation: no text": raw.call(2, "operation", setting(resource=NO_TEXT)),
    "validateAll: no text": raw.call(2, "validateAll", setting(resource=NO_TEXT)),
    "monitorMany: no text": raw.call(2, "monitorMany", items(1, resource=NO_TEXT)),
    "monitorMany: many": raw.call(2, "monitorMany", items(1000)),
    "monitorMany: millions": millions_of_monitors(2),
    "watch: no text": raw.watch(2, items(1, instance=NO_TEXT)),
    "watch: many": raw.watch(2, items(3000)),
}


@pytest.mark.parametrize("bad", BAD_CALLS)
async def test_a_bad_call_is_refused_in_one_line(bad: str) -> None:
    async with agent() as served:
        with capture_logs() as log:
            heard, ended = await served.say(GREETING + BAD_CALLS[bad], until_answers=3)
        assert not ended
        assert heard[-1].kind == "return"
        assert len(heard[-1].answer) < 1000
        lines = [line for line in log if line["event"] == "refused a call"]
        assert len(lines) == 1
        assert len(str(lines[0])) < 1000
        assert not any(line["log_level"] == "error" for line in log)
        assert served.scripts.requests == []
        await served.is_at_service()


FATAL = {
    "a resolve": raw.frame(lambda message: message.init("resolve").init("exception")),
    "bad text in an answer to nobody": raw.exception(9, NO_TEXT),
    "calls that wait for a call": raw.frame(
        lambda message: setattr(
            message.init("call").init("target").init("promisedAnswer"), "questionId", 1
        )
    ),
    "the interface again and again": b"".join(raw.bootstrap(n) for n in range(2, 20)),
    "a goodbye": raw.abort(NO_TEXT),
    "HTTP": b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("words", FATAL)
async def test_whatever_breaks_the_protocol_ends_its_connection_alone(words: str) -> None:
    async with agent() as served:
        with capture_logs() as log:
            _, ended = await served.say(GREETING + FATAL[words])
        assert ended
        assert len([line for line in log if line["log_level"] != "info"]) <= 1
        await served.is_at_service()


async def test_an_observer_that_answers_with_no_text_harms_nobody() -> None:
    async with agent() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(GREETING + raw.watch(2, items(1, resource="a/b")))
        while (heard := await raw.hear(reader)).kind != "call":
            pass
        writer.write(raw.exception(heard.question, NO_TEXT) + raw.call(3, "heartbeat"))
        while (await raw.hear(reader)).kind != "call":  # it begins afresh after a heartbeat
            pass
        writer.close()
        await until(lambda: reader.at_eof(), "the end")
        await served.is_at_service()


async def test_what_a_script_says_travels_cut() -> None:
    async with agent() as served:
        connector = CapnpConnector("honest", "cluster")
        connection = await connector.connect(served.host, DEADLINE_S)
        result = await connection.operation(resource(), Operation.START, DEADLINE_S)
        assert result.message.startswith("[5964 bytes before this were cut] x")
        connection.close()
        connector.close()


async def test_a_refused_start_is_not_taken_for_one_that_was_counted() -> None:
    async with agent() as served:
        connector = CapnpConnector("honest", "cluster")
        connection = await connector.connect(served.host, DEADLINE_S)
        too_long = resource("a/b", {"note": 33_000 * "x"})
        for asked, operation, is_counted in (
            (too_long, Operation.START, False),
            (too_long, Operation.STOP, False),
            (resource(), Operation.START, True),
        ):
            result = await connection.operation(asked, operation, DEADLINE_S)
            assert result.uncounted is not is_counted
        monitored = await connection.operation(too_long, Operation.MONITOR, DEADLINE_S)
        assert monitored.outcome is Outcome.NOT_RUN
        connection.close()
        connector.close()


async def test_calls_under_way_are_bounded() -> None:
    async with agent() as served:
        served.scripts.hang = True
        call = raw.call(2, "run", arguments(1, "x", "y" * 30_000))
        many = [call.replace(b"\2\0\0\0", n.to_bytes(4, "little"), 1) for n in range(100, 900)]
        with capture_logs():
            await served.say(GREETING + b"".join(many), until_answers=100)
        assert len(served.scripts.requests) < 600
        served.scripts.hang = False
        await served.is_at_service()


async def test_a_flood_of_connections_does_not_lock_a_manager_out() -> None:
    async with agent() as served:
        stop = asyncio.Event()
        open_now: list[socket.socket] = []

        async def flood() -> None:
            loop = asyncio.get_running_loop()
            while not stop.is_set():
                sock = socket.socket()
                sock.setblocking(False)
                sock.bind(("127.0.0.2", 0))
                await loop.sock_connect(sock, ("127.0.0.1", served.port))
                open_now.append(sock)
                if len(open_now) > 300:
                    open_now.pop(0).close()

        flooding = asyncio.get_running_loop().create_task(flood())
        with capture_logs() as log:
            await until(lambda: len(open_now) > 2 * CONNECTION_LIMIT, "a flood")
            for _ in range(5):
                await served.is_at_service()
        stop.set()
        await flooding
        for sock in open_now:
            sock.close()
    told = [line for line in log if line["log_level"] == "warning"]
    assert 0 < len(told) <= 10


async def test_a_hostile_term_keeps_no_leader_of_another_cluster_out() -> None:
    hostile = raw.call(1, "hello", lambda p: _hello(p, cluster="rogue", term=TERM_LIMIT))
    impossible = raw.call(1, "hello", lambda p: _hello(p, term=2**64 - 1))
    async with agent() as served:
        for hello in (hostile, impossible):
            await served.say(raw.bootstrap(0) + hello, until_answers=2)
            await served.is_at_service()
        leader = raw.call(1, "hello", lambda p: _hello(p, term=5))
        await served.say(raw.bootstrap(0) + leader, until_answers=2)
        with pytest.raises(LinkError) as raised:
            await served.is_at_service()
    assert raised.value.loss.kind is LossKind.BUSY
    assert "--forget-term" in raised.value.loss.detail


class MuteLink:
    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_a_connection_that_says_nothing_is_closed() -> None:
    async def story() -> None:
        service = AgentService(Scripts())
        mute, manager = MuteLink("a"), MuteLink("b")
        service.open_session(mute)
        await service.open_session(manager).hello("m", "c", 0)
        await asyncio.sleep(GREETING_DEADLINE_S + 1)
        assert mute.closed
        assert not manager.closed

    run(story())


def test_the_peer_with_most_connections_loses_one_and_the_served_never() -> None:
    async def story() -> None:
        service = AgentService(Scripts())
        served = MuteLink("flood")
        await service.open_session(served).hello("m", "c", 0)
        others = [MuteLink(f"peer{n}") for n in range(CONNECTION_LIMIT - CONNECTIONS_OF_PEER)]
        flood = [MuteLink("flood") for _ in range(1000)]
        for link in [*others, *flood]:
            service.open_session(link)
        assert not served.closed
        assert not any(link.closed for link in others)
        assert [link.closed for link in flood[-CONNECTIONS_OF_PEER:]] == [
            False
        ] * CONNECTIONS_OF_PEER
        assert all(link.closed for link in flood[:-CONNECTIONS_OF_PEER])
        service.close()

    run(story())
