"""One connection of a manager to an agent that misbehaves, and the honest answers it departs from.

A behaviour is a coroutine that gets the connection and does what it likes with it. Most serve it
honestly but for one thing::

    async def bad_version(connection: Connection) -> None:
        await serve(connection, hello=welcome(version=NO_TEXT))

Every use of such an answer is counted as *thrown*, so that a test knows that the manager got it.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import random
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from halo.core.outcomes import OperationResult, Outcome, ReportedResult
from halo.core.peers.digest import DigestKeeper
from tests.hostile import frames
from tests.hostile.frames import Asked, Fill, Text

NOT_RUNNING = 7
FEATURES = ("watch", "monitorMany", "validateAll")

_SLICE = 256 * 1024
_LONG = 1 << 20

_REPORT_QUESTIONS = 1000
"""Our own questions are numbered from here."""


class Connection:
    """One connection of the manager, with the means to misbehave on it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        chance: random.Random,
        number: int,
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.chance = chance
        self.number = number
        """1 for the first connection to this rogue, and so on."""
        self.thrown = 0
        self.reported = 0
        self.digest = DigestKeeper()
        self._questions = _REPORT_QUESTIONS
        self._waiting: deque[bytes] = deque()
        self._pushing: asyncio.Task[None] | None = None

    def threw(self) -> None:
        """Note that the manager was given what it should not be."""
        self.thrown += 1

    async def next(self) -> Asked:
        """The next message of the manager."""
        return await frames.read_message(self.reader)

    def send(self, data: bytes) -> None:
        """Say something; where nobody reads, it waits in memory."""
        if len(data) <= _SLICE and self._pushing is None:
            self.writer.write(data)
            return
        self._waiting.append(data)
        if self._pushing is None:
            self._pushing = asyncio.create_task(self._push_waiting())

    async def _push_waiting(self) -> None:
        with contextlib.suppress(OSError):
            while self._waiting:
                await self.push(self._waiting.popleft())
        self._pushing = None

    async def push(self, data: bytes) -> None:
        """Say something, and wait until most of it is on its way.

        In slices: a transport moves all that waits whenever it has sent a part of it."""
        view = memoryview(data)
        for at in range(0, len(view), _SLICE):
            self.writer.write(view[at : at + _SLICE])
            await self.writer.drain()
            await asyncio.sleep(0)  # the other rogues of this process have their turn

    def question(self) -> int:
        """A number for a question of ours."""
        self._questions += 1
        return self._questions

    async def close(self) -> None:
        """End the connection in order."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """End it with a reset."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def keep_silent(self) -> None:
        """Read what comes, and answer nothing any more."""
        while await self.reader.read(65536):
            pass

    async def read_nothing(self) -> None:
        """Not even read any more."""
        await asyncio.Event().wait()


Behaviour: TypeAlias = Callable[[Connection], Awaitable[None]]
Handler: TypeAlias = Callable[[Connection, Asked], "Awaitable[None] | None"]


async def serve(connection: Connection, **instead: Handler) -> None:
    """Serve the manager; `instead` names what is answered otherwise, by method, or `bootstrap`."""
    while True:
        asked = await connection.next()
        step = asked.method if asked.kind == "call" else asked.kind
        if step in instead:
            connection.threw()
        handler = instead.get(step) or _HONEST.get(step)
        if handler is not None:
            done = handler(connection, asked)
            if inspect.isawaitable(done):
                await done


# Honest answers ---------------------------------------------------------------------------------


def welcome(
    version: Text = "0.0.1",
    boot: Text = "boot",
    start: Text = "start",
    features: Sequence[Text] = FEATURES,
) -> Handler:
    """Answer the greeting."""

    def fill(results: Any) -> None:
        target = results.init("greeting").init("welcome")
        target.version, target.bootId, target.startId = version, boot, start
        names = target.init("features", len(features))
        for number, name in enumerate(features):
            names[number] = name

    return answer(fill)


def answer(fill: Fill | None = None) -> Handler:
    """Answer any method with these results."""
    return _made_once_if_long(lambda asked: frames.results(asked.question, asked.method, fill))


def refuse(reason: Text, kind: str = "failed", *, trace: Text | None = None) -> Handler:
    """Answer any method with an exception."""
    return _made_once_if_long(
        lambda asked: frames.exception(asked.question, reason, kind, trace=trace)
    )


def _made_once_if_long(make: Callable[[Asked], bytes]) -> Handler:
    """Long answers are the same each time, and a dozen rogues make them five times a second."""
    made: dict[tuple[str, int], bytes] = {}

    def handle(connection: Connection, asked: Asked) -> None:
        items = len(asked.params().items) if asked.method == "monitorMany" else 0
        frame = made.get((asked.method, items))
        if frame is not None:
            connection.send(frames.to_question(frame, asked.question))
            return
        frame = make(asked)
        if len(frame) > _LONG:
            made[asked.method, items] = frame
        connection.send(frame)

    return handle


def outcome(fill: Fill) -> Handler:
    """Answer `run` or `validateAll`; `fill` gets the `Outcome`."""
    return answer(lambda results: fill(results.init("outcome")))


def outcomes(fill: Fill) -> Handler:
    """Answer `monitorMany`; `fill` gets each `Outcome`."""

    def make(asked: Asked) -> bytes:
        def fill_all(results: Any) -> None:
            for each in results.init("outcomes", len(asked.params().items)):
                fill(each)

        return frames.results(asked.question, "monitorMany", fill_all)

    return _made_once_if_long(make)


def completed(code: int = NOT_RUNNING, message: Text = "") -> Fill:
    """An outcome: the script ended so."""

    def fill(target: Any) -> None:
        ended = target.init("completed")
        ended.code, ended.message = code, message

    return fill


@dataclass(frozen=True)
class Told:
    """One report: what a monitor of `instance` came to."""

    instance: Text
    code: int = NOT_RUNNING
    message: Text = ""
    operations: int = 0
    outcome: Outcome = Outcome.COMPLETED

    def fill(self, target: Any) -> None:
        """Into the `Report` of a batch."""
        target.instance, target.operations = self.instance, self.operations
        result = target.init("outcome")
        if self.outcome is Outcome.COMPLETED:
            completed(self.code, self.message)(result)
        elif self.outcome is Outcome.TIMED_OUT:
            result.timedOut = self.message
        else:
            result.notRun = self.message

    @property
    def reported(self) -> ReportedResult:
        """As the manager reads it; what is no text it cannot."""
        instance = self.instance if isinstance(self.instance, str) else ""
        code = self.code if self.outcome is Outcome.COMPLETED else 0
        return ReportedResult(instance, self.operations, OperationResult(self.outcome, code))


def watched(connection: Connection, asked: Asked) -> None:
    """Take a watch on, and report every item once."""
    take_watch(connection, asked)
    report(connection, asked, [Told(item.instance) for item in asked.params().items])


def take_watch(connection: Connection, asked: Asked) -> None:
    """Take a watch on, and say nothing yet."""
    connection.send(frames.results(asked.question, "watch"))
    connection.reported = 0
    connection.digest = DigestKeeper()


def report(
    connection: Connection,
    asked: Asked,
    told: Sequence[Told],
    *,
    sequence: int | None = None,
    digest: int | None = None,
    complete: bool = True,
) -> None:
    """Report to the observer that came with the call of `watch`. What is not given is as an honest
    agent would have it."""
    connection.reported += 1
    for each in told:
        connection.digest.set(each.reported)

    def fill(params: Any) -> None:
        batch = params.init("batch")
        batch.sequence = connection.reported if sequence is None else sequence
        batch.complete = complete
        batch.digest = connection.digest.value if digest is None else digest
        entries = batch.init("reports", len(told))
        for number, each in enumerate(told):
            each.fill(entries[number])

    observer = asked.imported()[0]
    connection.send(frames.call(connection.question(), "report", fill, on_import=observer))


def greet_cap(connection: Connection, asked: Asked) -> None:
    """Answer a bootstrap."""
    connection.send(frames.bootstrap_results(asked.question))


_HONEST: dict[str, Handler] = {
    "bootstrap": greet_cap,
    "hello": welcome(),
    "heartbeat": answer(),
    "run": outcome(completed()),
    "validateAll": outcome(completed()),
    "monitorMany": outcomes(completed()),
    "watch": watched,
    "operation": answer(lambda results: _not_running(results)),
}


def _not_running(results: Any) -> None:
    error = results.init("result").init("ok").init("innerErr")
    error.code = NOT_RUNNING
