"""Monitors that are asked for in the same moment over one connection travel as one call.

At a thousand hosts nearly all that a polling manager does is to ask "does it run?": a call of its
own for each question costs four times as much, on both ends, and half a gigabyte where a restarted
manager asks everything at once.

A script that hangs must hold up nothing but its own answer. So the agent answers a batch as soon as
nothing in it has ended for :data:`PATIENCE_S`, with what it has; what is *pending* is asked for
again by a call of its own, which waits for the script, and so is that resource from then on, until
it has answered quickly again.

Whoever sends something else over the connection calls :meth:`MonitorBatcher.flush` first: what was
asked for before a start is not sent after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from halo.core.errors import LinkError, LossKind
from halo.core.model import Resource, ResourceId
from halo.core.outcomes import OperationResult, Outcome
from halo.ports import AnswerTaker

FEATURE = "monitorMany"
PATIENCE_S = 0.2
BATCH_LIMIT = 64
"""Monitors in one call; more go out side by side."""

Results = Sequence[OperationResult | None]
ManyRuns = Callable[[Sequence[Resource]], Awaitable[Results]]
SingleRun = Callable[[Resource, float], Coroutine[Any, Any, OperationResult]]


class _Asked:
    """One monitor that waits for its answer. There are thousands a second: no task, no future."""

    __slots__ = ("deadline", "deadline_s", "resource", "take")

    def __init__(
        self, resource: Resource, deadline_s: float, deadline: float, take: AnswerTaker
    ) -> None:
        self.resource = resource
        self.deadline_s = deadline_s
        self.deadline = deadline  # loop time
        self.take = take


class MonitorBatcher:
    """Gathers the monitors of one turn of the event loop. One for each connection.

    `send` makes a call at once and returns its results to be awaited, as many as it was given
    resources, None for what is pending; both raise LinkError. `run` is a call for one.
    """

    def __init__(self, send: ManyRuns, run: SingleRun) -> None:
        self._send = send
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._gathered: list[_Asked] = []
        self._slow: set[ResourceId] = set()
        self._calls: set[asyncio.Task[None]] = set()

    def monitor(self, resource: Resource, deadline_s: float, take: AnswerTaker) -> None:
        """Monitor one resource; `take` is called once, in a later step."""
        if resource.id in self._slow:
            self.monitor_alone(resource, deadline_s, take)
            return
        if not self._gathered:
            self._loop.call_soon(self.flush)
        self._gathered.append(_Asked(resource, deadline_s, self._loop.time() + deadline_s, take))

    def monitor_alone(self, resource: Resource, deadline_s: float, take: AnswerTaker) -> None:
        """The same by a call for one, which waits for the script."""
        self._call_alone(_Asked(resource, deadline_s, self._loop.time() + deadline_s, take))

    def flush(self) -> None:
        """Send what was gathered so far, in this very step."""
        gathered, self._gathered = self._gathered, []
        if len(gathered) == 1:
            self._call_alone(gathered[0])
            return
        for first in range(0, len(gathered), BATCH_LIMIT):
            batch = gathered[first : first + BATCH_LIMIT]
            try:
                sent = self._send([asked.resource for asked in batch])
            except Exception as error:
                _answer_all(batch, error)
                continue
            self._spawn(self._hear(batch, sent))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        call = self._loop.create_task(work)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def _call_alone(self, asked: _Asked) -> None:
        """Sends at once, as `send` does."""
        try:
            answer = self._run(asked.resource, asked.deadline - self._loop.time())
        except Exception as error:
            self._loop.call_soon(asked.take, error)
            return
        self._spawn(self._hear_alone(asked, answer))

    async def _hear_alone(self, asked: _Asked, answer: Awaitable[OperationResult]) -> None:
        began = self._loop.time()
        try:
            result = await answer
        except Exception as error:
            asked.take(error)
            return
        if self._loop.time() - began < PATIENCE_S:
            self._slow.discard(asked.resource.id)
        asked.take(result)

    async def _hear(self, batch: list[_Asked], sent: Awaitable[Results]) -> None:
        """Whatever comes of a call, every asker hears of it, in the order of the questions."""
        try:
            async with asyncio.timeout_at(min(asked.deadline for asked in batch)):
                results = await sent
        except TimeoutError:
            self._late(batch)
        except LinkError as error:
            if error.loss.kind is LossKind.PROTOCOL:
                # It may be over one of them: each by itself, the others are not held up by it.
                for asked in batch:
                    self._call_alone(asked)
            else:
                _answer_all(batch, error)
        except Exception as error:
            _answer_all(batch, error)
        else:
            for asked, result in zip(batch, results, strict=True):
                if result is not None:
                    asked.take(result)
                else:
                    self._slow.add(asked.resource.id)
                    self._call_alone(asked)

    def _late(self, batch: list[_Asked]) -> None:
        """The earliest deadline of a batch has passed: the others are asked for once more."""
        now = self._loop.time()
        for asked in batch:
            if asked.deadline <= now:
                asked.take(_timed_out(asked))
            else:
                self._call_alone(asked)


def _answer_all(batch: list[_Asked], error: Exception) -> None:
    for asked in batch:
        asked.take(error)


def _timed_out(asked: _Asked) -> OperationResult:
    return OperationResult(
        Outcome.TIMED_OUT, message=f"no answer from the agent within {asked.deadline_s:g} s"
    )
