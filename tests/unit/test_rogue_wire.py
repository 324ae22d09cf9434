"""An agent that says by hand what no library would: it costs the manager that host's connection.

Both ends are real: our connector over pycapnp here, bytes on a socket there.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from halo.adapters.rpc.connection import CapnpConnection
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.core.errors import LinkError, LossKind
from halo.core.model import Host, Operation, Resource
from halo.core.outcomes import Outcome, ReportBatch, WatchItem
from halo.core.peers.bounds import BATCH_LIMIT, INSTANCE_LIMIT, TEXT_LIMIT_BYTES
from tests.unit import raw_frames as raw

NO_TEXT = b"\xff\xfe\xfd"
DEADLINE_S = 20.0
RESOURCES = [Resource("r1", "a/b", {}), Resource("r2", "a/b", {})]

Answer = Callable[[raw.Heard], bytes]


class RogueAgent:
    """Greets properly, and answers one method as told. `b""` ends the connection."""

    def __init__(self, method: str, answer: Answer) -> None:
        self.method = method
        self.answer = answer
        self.reports: Callable[[int], bytes] = lambda observer: b""  # when it was asked to watch
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while data := self._answer(await raw.hear(reader)):
                writer.write(data)
                await writer.drain()
        writer.close()
        self.ended.set()

    def _answer(self, heard: raw.Heard) -> bytes:
        if heard.kind == "bootstrap":
            return raw.interface_results(heard.question)
        if heard.kind != "call":
            return raw.finish(1_000_000)  # of nothing: ignored
        if heard.method == self.method:
            return self.answer(heard)
        if heard.method == "run" and self.method == "monitorMany":
            return raw.exception(heard.question, "not so either")  # asked one by one, after that
        if heard.method == "hello":
            return raw.welcome(heard.question)
        if heard.method == "watch":
            return raw.results(heard.question, "watch") + self.reports(heard.observer)
        return raw.results(heard.question, heard.method)


@contextlib.asynccontextmanager
async def connected(agent: RogueAgent) -> AsyncIterator[CapnpConnection]:
    async with rpc_loop(), served(agent) as connection:
        yield connection


@contextlib.asynccontextmanager
async def served(agent: RogueAgent) -> AsyncIterator[CapnpConnection]:
    server = await asyncio.start_server(agent.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connector = CapnpConnector("manager", "cluster")
    try:
        connection = await connector.connect(Host("h1", "127.0.0.1", port), DEADLINE_S)
        try:
            yield connection
        finally:
            connection.close()
    finally:
        server.close()
        connector.close()


class Sink:
    def __init__(self, *, wants: bool = True) -> None:
        self.batches: list[ReportBatch] = []
        self.wants = wants

    def wants_reports(self) -> bool:
        return self.wants

    def report(self, batch: ReportBatch) -> bool:
        self.batches.append(batch)
        return True


def ask(connection: CapnpConnection, method: str) -> Any:
    """Have the manager's end call this method, once or in a batch."""
    if method == "heartbeat":
        return connection.heartbeat()
    if method == "watch":
        items = [WatchItem(each, 1.0, 1.0) for each in RESOURCES]
        return connection.watch(items, Sink(), 1.0)
    if method == "monitorMany":
        looks = [connection.operation(each, Operation.MONITOR, DEADLINE_S) for each in RESOURCES]
        return asyncio.gather(*looks)
    operation = {"run": Operation.START, "validateAll": Operation.VALIDATE}[method]
    return connection.operation(RESOURCES[0], operation, DEADLINE_S)


METHODS = ["heartbeat", "watch", "monitorMany", "run", "validateAll"]
REFUSALS = {
    "no text": lambda heard: raw.exception(heard.question, NO_TEXT),
    "no text in the trace": lambda heard: raw.exception(heard.question, "x", trace=NO_TEXT),
    "no text, overloaded": lambda heard: raw.exception(heard.question, NO_TEXT, "overloaded"),
    "disconnected": lambda heard: raw.exception(heard.question, NO_TEXT, "disconnected"),
    "a megabyte": lambda heard: raw.exception(heard.question, b"x" * 1_000_000),
    "more than is taken": lambda heard: raw.exception(heard.question, b"x" * 5_000_000),
    "goodbye": lambda heard: raw.abort(NO_TEXT),
    "orderly goodbye": lambda heard: raw.abort(NO_TEXT, "disconnected"),
    "another question's answer": lambda heard: raw.results(heard.question + 77, heard.method),
    "two answers": lambda heard: 2 * raw.exception(heard.question, "x"),
    "a resolve": lambda heard: raw.frame(
        lambda message: setattr(message.init("resolve").init("exception"), "reason", NO_TEXT)
    ),
    "zeros": lambda heard: bytes(4096),
    "HTTP": lambda heard: b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "an end": lambda heard: b"",
}


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("method", METHODS)
async def test_a_refusal_of_any_kind_costs_the_connection_at_most(
    method: str, refusal: str
) -> None:
    async with connected(RogueAgent(method, REFUSALS[refusal])) as connection:
        async with asyncio.timeout(DEADLINE_S):
            answers = await asyncio.gather(ask(connection, method), return_exceptions=True)
    result: Any = answers[0]
    if isinstance(result, LinkError):
        text = str(result)
    else:  # a start that the agent refused has failed, over a connection that stands
        assert method in ("run", "validateAll")
        assert result.outcome is Outcome.NOT_RUN
        assert result.uncounted
        text = result.message
    assert len(text) < 2 * TEXT_LIMIT_BYTES


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_greeting_refused_in_any_way_is_a_link_error(refusal: str) -> None:
    with pytest.raises(LinkError) as raised:
        async with connected(RogueAgent("hello", REFUSALS[refusal])):
            pass
    assert len(str(raised.value)) < 2 * TEXT_LIMIT_BYTES


LAST_WORDS = {
    "a goodbye": raw.abort("the agent stops"),
    "an orderly goodbye": raw.abort("", "disconnected"),
    "a bad frame": bytes(4096),
}


@pytest.mark.parametrize("last", LAST_WORDS)
async def test_an_answer_just_before_the_end_is_heard(last: str) -> None:
    """A stop that was done need not be done again."""

    def fill(answer: Any) -> None:
        answer.init("outcome").init("completed").code = 0

    def answer(heard: raw.Heard) -> bytes:
        return raw.results(heard.question, "run", fill) + LAST_WORDS[last]

    async with connected(RogueAgent("run", answer)) as connection:
        result = await connection.operation(RESOURCES[0], Operation.STOP, DEADLINE_S)
        assert (result.outcome, result.code) == (Outcome.COMPLETED, 0)
        async with asyncio.timeout(DEADLINE_S):
            loss = await connection.wait_closed()
        assert loss.kind is not LossKind.STALE


async def test_a_refused_heartbeat_is_no_silence() -> None:
    """The host answers: it must not be declared lost, and fenced, for what its agent says."""
    async with connected(RogueAgent("heartbeat", REFUSALS["no text"])) as connection:
        with pytest.raises(LinkError):
            await connection.heartbeat()
        async with asyncio.timeout(DEADLINE_S):
            loss = await connection.wait_closed()
        assert loss.kind is LossKind.PROTOCOL
        assert "???" in loss.detail


def refused(text: str | bytes) -> Answer:
    return lambda heard: raw.results(
        heard.question, "watch", lambda answer: setattr(answer, "refused", text)
    )


@pytest.mark.parametrize("text", [NO_TEXT, b"x" * 3_000_000, b"why\n" * 1000])
async def test_a_watch_refused_with_any_text_is_a_link_error(text: bytes) -> None:
    async with connected(RogueAgent("watch", refused(text))) as connection:
        with pytest.raises(LinkError) as raised:
            await ask(connection, "watch")
        assert raised.value.loss.kind is LossKind.PROTOCOL
        assert len(str(raised.value)) < TEXT_LIMIT_BYTES


def changed_tail(answer: Answer, old: bytes, new: bytes) -> Answer:
    """The same with these bytes changed, where they stand last."""

    def change(heard: raw.Heard) -> bytes:
        data = answer(heard)
        at = data.rindex(old)
        return data[:at] + new + data[at + len(old) :]

    return change


POINTERS = {
    "without an end": (b"abcdefg\0", b"abcdefg\xff"),
    "out of the message": (struct.pack("<II", 1, 2 | 8 << 3), struct.pack("<II", 1, 2 | 999 << 3)),
    "to a struct": (struct.pack("<II", 1, 2 | 8 << 3), struct.pack("<II", 0, 1)),
    "to itself": (struct.pack("<II", 1, 2 | 8 << 3), struct.pack("<II", 2, 0)),
    "of no bytes": (struct.pack("<II", 1, 2 | 8 << 3), struct.pack("<II", 1, 2)),
}


@pytest.mark.parametrize("pointer", POINTERS)
async def test_a_pointer_that_is_none_is_a_link_error(pointer: str) -> None:
    answer = changed_tail(refused("abcdefg"), *POINTERS[pointer])
    async with connected(RogueAgent("watch", answer)) as connection:
        with pytest.raises(LinkError) as raised:
            await ask(connection, "watch")
        assert raised.value.loss.kind is LossKind.PROTOCOL


def outcomes(fill: Callable[[Any], None], count: int = 2) -> Answer:
    def fill_all(answer: Any) -> None:
        for outcome in answer.init("outcomes", count):
            fill(outcome)

    return lambda heard: raw.results(heard.question, "monitorMany", fill_all)


def _not_run(outcome: Any) -> None:
    outcome.notRun = "abcdefg"


OUTCOMES = {
    "too few": outcomes(_not_run, 1),
    "too many": outcomes(_not_run, 3),
    "an unknown outcome": changed_tail(
        outcomes(_not_run), struct.pack("<HH", 0, 1), struct.pack("<HH", 0, 77)
    ),
    "millions of nothing": changed_tail(
        outcomes(_not_run),
        struct.pack("<I", 7 | 8 << 3),
        struct.pack("<I", 5_000_000 << 3),
    ),
}


@pytest.mark.parametrize("case", ["too few", "too many", "millions of nothing"])
async def test_outcomes_that_do_not_fit_are_a_link_error(case: str) -> None:
    async with connected(RogueAgent("monitorMany", OUTCOMES[case])) as connection:
        with pytest.raises(LinkError) as raised:
            await ask(connection, "monitorMany")
        assert raised.value.loss.kind is LossKind.PROTOCOL


async def test_an_outcome_of_a_kind_that_nobody_knows_is_a_link_error() -> None:
    def answer(heard: raw.Heard) -> bytes:
        data = bytearray(outcomes(_not_run)(heard))
        tag = data.index(struct.pack("<IHH", 2 << 2, 2, 2)) + 8  # the list's tag, then the first
        assert struct.unpack_from("<H", data, tag)[0] == 1
        struct.pack_into("<H", data, tag, 77)
        return bytes(data)

    async with connected(RogueAgent("monitorMany", answer)) as connection:
        with pytest.raises(LinkError) as raised:
            await ask(connection, "monitorMany")
        assert raised.value.loss.kind is LossKind.PROTOCOL


async def test_a_script_message_is_cut_to_its_end() -> None:
    def fill(answer: Any) -> None:
        completed = answer.init("outcome").init("completed")
        completed.code = 1
        completed.message = "x" * 2_000_000 + "the last line"

    def answer(heard: raw.Heard) -> bytes:
        return raw.results(heard.question, "run", fill)

    async with connected(RogueAgent("run", answer)) as connection:
        result = await ask(connection, "run")
    assert result.code == 1
    assert result.message.startswith("[1995977 bytes before this were cut] x")
    assert result.message.endswith("the last line")
    assert len(result.message) <= TEXT_LIMIT_BYTES


@pytest.mark.parametrize(
    "greeting",
    [
        {"version": NO_TEXT},
        {"bootId": NO_TEXT},
        {"startId": NO_TEXT},
        {"features": [NO_TEXT]},
        {"bootId": "b" * 1000},
        {"version": "v" * 30_000_000},
    ],
)
async def test_a_greeting_that_cannot_be_believed_is_refused(greeting: dict[str, Any]) -> None:
    with pytest.raises(LinkError) as raised:
        async with connected(RogueAgent("hello", lambda h: raw.welcome(h.question, **greeting))):
            pass
    assert raised.value.loss.kind is LossKind.PROTOCOL


async def test_what_an_agent_says_of_itself_is_cut() -> None:
    greeting = {"version": "v\n" * 1_000_000, "features": ["f" * 1000, *map(str, range(10_000))]}
    agent = RogueAgent("hello", lambda heard: raw.welcome(heard.question, **greeting))
    async with connected(agent) as connection:
        assert len(connection.identity.version) < 300
        assert "\n" not in connection.identity.version
        assert len(connection.identity.features) < 65
        assert max(map(len, connection.identity.features)) < 65


async def watching(
    reports: Callable[[int], bytes], *, wants: bool = True
) -> tuple[LossKind | None, list[ReportBatch], list[Any]]:
    """What comes of these bytes after the answer to `watch`, made for the observer's number: the
    loss, if any, the batches that were taken, and the log."""
    agent, sink = RogueAgent("", lambda heard: b""), Sink(wants=wants)
    agent.reports = reports
    with capture_logs() as log:
        async with connected(agent) as connection:
            with contextlib.suppress(LinkError):
                await connection.watch([WatchItem(RESOURCES[0], 1.0, 1.0)], sink, 1.0)
            try:
                async with asyncio.timeout(1.0):
                    kind = (await connection.wait_closed()).kind
            except TimeoutError:
                kind = None
    return kind, sink.batches, log


def batch(sequence: int, **fields: Any) -> Callable[[Any], None]:
    def fill(target: Any) -> None:
        target.sequence = sequence
        report = target.init("reports", 1)[0]
        report.instance = fields.get("instance", "r1")
        completed = report.init("outcome").init("completed")
        completed.message = fields.get("message", "")

    return fill


def reports_of(count: int, **fields: Any) -> Callable[[int], bytes]:
    return lambda observer: b"".join(
        raw.report(number, batch(number, **fields), to=observer) for number in range(1, count + 1)
    )


async def test_reports_are_taken() -> None:
    kind, batches, _ = await watching(reports_of(2))
    assert kind is None
    assert [each.sequence for each in batches] == [1, 2]


@pytest.mark.parametrize(
    "fields",
    [{"instance": NO_TEXT}, {"message": NO_TEXT}, {"instance": "\x1b[31m" + INSTANCE_LIMIT * "x"}],
)
async def test_bad_reports_end_the_connection_without_a_traceback(fields: dict[str, Any]) -> None:
    kind, batches, log = await watching(reports_of(100, **fields))
    assert kind is LossKind.PROTOCOL
    assert batches == []
    assert log == []


async def test_a_report_may_end_its_own_connection() -> None:
    """Its host may be fenced on account of it. pycapnp would end the process when it answers."""
    for count in (1, 2, 100):
        agent = RogueAgent("", lambda heard: b"")
        agent.reports = reports_of(count)
        async with connected(agent) as connection:

            class Fencing(Sink):
                def report(self, batch: ReportBatch, connection: Any = connection) -> bool:
                    connection.close()
                    return super().report(batch)

            sink = Fencing()
            with contextlib.suppress(LinkError):
                await connection.watch([WatchItem(RESOURCES[0], 1.0, 1.0)], sink, 1.0)
            async with asyncio.timeout(DEADLINE_S):
                assert (await connection.wait_closed()).kind is LossKind.STALE
                await agent.ended.wait()
            assert len(sink.batches) == 1


async def test_a_flood_of_reports_ends_the_connection() -> None:
    kind, batches, _ = await watching(reports_of(3000))
    assert kind is LossKind.PROTOCOL
    assert len(batches) < 1000


def results_of(count: int, message: str) -> Callable[[Any], None]:
    def fill(target: Any) -> None:
        target.sequence = 1
        for report in target.init("reports", count):
            report.init("outcome").notRun = message

    return fill


@pytest.mark.parametrize("character", ["x", "é", "\n"])
async def test_as_much_as_an_agent_ever_reports_is_taken(character: str) -> None:
    full = results_of(BATCH_LIMIT, 2048 * character)
    kind, batches, _ = await watching(lambda observer: raw.report(1, full, to=observer))
    assert kind is None
    assert len(batches[0].results) == BATCH_LIMIT


@pytest.mark.parametrize(
    "fill", [results_of(BATCH_LIMIT + 1, "x"), results_of(BATCH_LIMIT, 4000 * "x")]
)
async def test_a_report_of_more_than_that_ends_the_connection(fill: Callable[[Any], None]) -> None:
    kind, batches, _ = await watching(lambda observer: raw.report(1, fill, to=observer))
    assert (kind, batches) == (LossKind.PROTOCOL, [])


async def test_a_report_that_nobody_wants_is_not_read() -> None:
    kind, batches, _ = await watching(reports_of(3, instance=NO_TEXT), wants=False)
    assert (kind, batches) == (None, [])


async def test_an_agent_that_goes_on_reporting_in_vain_loses_its_connection() -> None:
    kind, batches, _ = await watching(reports_of(4), wants=False)
    assert (kind, batches) == (LossKind.PROTOCOL, [])


async def test_after_each_heartbeat_an_agent_may_report_again() -> None:
    agent = RogueAgent("heartbeat", lambda heard: b"")
    observers: list[int] = []
    agent.reports = lambda observer: observers.append(observer) or raw.finish(1_000_000)  # type: ignore[func-returns-value]  # that is the point
    agent.answer = lambda heard: (
        raw.report(heard.question, batch(1), to=observers[0])
        + raw.results(heard.question, "heartbeat")
    )
    async with connected(agent) as connection, asyncio.timeout(DEADLINE_S):
        await connection.watch([WatchItem(RESOURCES[0], 1.0, 1.0)], Sink(wants=False), 1.0)
        for _ in range(10):
            await connection.heartbeat()


async def test_calls_of_what_the_manager_never_gave_end_the_connection() -> None:
    for bad in (raw.report(1, batch(1), to=44), raw.bootstrap(3), raw.call(3)):
        kind, batches, _ = await watching(lambda observer, bad=bad: bad)  # type: ignore[misc]  # bound anew in each round
        assert (kind, batches) == (LossKind.PROTOCOL, [])


async def test_a_frame_that_never_ends_is_not_kept_for_long() -> None:
    """A size beyond the limit ends it at once; any other the greeting's deadline."""
    sock = socket.create_server(("127.0.0.1", 0))
    async with rpc_loop():
        loop = asyncio.get_running_loop()
        connector = CapnpConnector("manager", "cluster")
        host = Host("h1", "127.0.0.1", sock.getsockname()[1])
        connecting = loop.create_task(connector.connect(host, 1.0))
        sock.setblocking(False)
        accepted, _ = await loop.sock_accept(sock)
        await loop.sock_sendall(accepted, struct.pack("<II", 0, 100))
        with pytest.raises(LinkError) as raised:
            await connecting
        assert raised.value.loss.kind is LossKind.SILENT
        accepted.close()
        connector.close()
    sock.close()
