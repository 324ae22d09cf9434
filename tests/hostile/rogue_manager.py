"""A manager that misbehaves, towards one real agent: its connections, and the ways to use them."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

from tests.hostile import frames
from tests.hostile.frames import Asked, Fill, Text

ANSWER_DEADLINE_S = 10.0
_BOOTSTRAP = 0


class Line:
    """One connection to the agent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._questions = _BOOTSTRAP

    def question(self) -> int:
        """A number for a question."""
        self._questions += 1
        return self._questions

    async def push(self, data: bytes) -> None:
        """Say something, and wait until most of it is on its way."""
        self.writer.write(data)
        await self.writer.drain()

    async def call(self, method: str, fill: Fill | None = None, **how: Any) -> int:
        """Call a method of the agent; returns the number of the question."""
        question = self.question()
        await self.push(frames.call(question, method, fill, on_answer=_BOOTSTRAP, **how))
        return question

    async def watch(self, fill: Fill, *, observer: str = "senderHosted") -> int:
        """Ask for a watch whose observer is capability 0 of that kind, our own where nothing else
        is told; returns the number of the question."""
        question = self.question()
        await self.push(frames.watch(question, fill, on_answer=_BOOTSTRAP, observer=observer))
        return question

    async def bootstrap(self) -> None:
        """Ask for the agent's interface, which calls go to from then on."""
        await self.push(frames.bootstrap(_BOOTSTRAP))

    async def greet(self, name: Text = "rogue", cluster: Text = "cluster", term: int = 0) -> None:
        """Say hello, and wait for what the agent says to that."""
        await self.bootstrap()

        def fill(params: Any) -> None:
            params.manager, params.cluster, params.term = name, cluster, term

        await self.answer(await self.call("hello", fill))

    async def answer(self, question: int) -> Asked:
        """The answer to a question; the end of the connection raises EOFError or OSError."""
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            while True:
                heard = await frames.read_message(self.reader)
                if heard.kind == "return" and heard.body.answerId == question:
                    return heard

    async def report(self) -> Asked:
        """The agent's next call of our observer."""
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            while True:
                heard = await frames.read_message(self.reader)
                if heard.method == "report":
                    return heard

    async def until_closed(self, seconds: float = ANSWER_DEADLINE_S) -> None:
        """Read on until the agent closes, or so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self.reader.read(1 << 16):
                    pass

    def drop(self) -> None:
        self.writer.transport.abort()


class RogueManager:
    """All connections of one behaviour."""

    def __init__(self, port: int, chance: random.Random) -> None:
        self.chance = chance
        self._port = port
        self._lines: list[Line] = []

    async def connect(self) -> Line:
        """One more connection."""
        line = Line(*await asyncio.open_connection("127.0.0.1", self._port))
        self._lines.append(line)
        return line

    async def greeted(self, **how: Any) -> Line:
        """One more connection, on which hello was said."""
        line = await self.connect()
        await line.greet(**how)
        return line

    def close(self) -> None:
        for line in self._lines:
            line.drop()


Behaviour: TypeAlias = Callable[[RogueManager], Awaitable[None]]


@contextlib.asynccontextmanager
async def rogue_manager(port: int, chance: random.Random) -> AsyncIterator[RogueManager]:
    """A rogue manager, all of whose connections end with the block."""
    rogue = RogueManager(port, chance)
    try:
        yield rogue
    finally:
        rogue.close()


async def misbehave(port: int, behave: Behaviour, seed: str) -> None:
    """Let a rogue manager do what it does. That the agent hangs up on it is no failure."""
    async with rogue_manager(port, random.Random(seed)) as rogue:
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            await behave(rogue)
