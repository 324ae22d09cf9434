"""Monitors that are requested at the same moment over one connection travel in one call.

With a thousand hosts, nearly all work of a polling manager is the question "does it run?". One call
for each question would cost four times as much on both ends. And when a restarted manager asks for
everything at once, it would take half a gigabyte.

A script that hangs must delay only its own answer. So the agent answers a batch when no monitor of
it has ended for :data:`PATIENCE_S`. A *pending* monitor is requested again with its own call, which
waits for the script. From then on, that resource always gets its own call, until it has answered
quickly again.

Before something else is sent over the connection, :meth:`MonitorBatcher.flush` must be called. So a
monitor that was requested before a start is not sent after it.
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
"""Monitors in one call. Further monitors go out in parallel calls."""

Results = Sequence[OperationResult | None]
ManyRuns = Callable[[Sequence[Resource]], Awaitable[Results]]
SingleRun = Callable[[Resource, float], Coroutine[Any, Any, OperationResult]]


class _Asked:
    """One monitor that waits for its answer. There are thousands a second, so it has no task."""

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

    `send` makes a call at once, and returns its results to be awaited: one for each resource, None
    for a pending one. Both raise LinkError. `run` is a call for one resource.
    """

    def __init__(self, send: ManyRuns, run: SingleRun) -> None:
        self._send = send
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._gathered: list[_Asked] = []
        self._slow: set[ResourceId] = set()
        self._calls: set[asyncio.Task[None]] = set()

    def monitor(self, resource: Resource, deadline_s: float, take: AnswerTaker) -> None:
        """Monitor one resource. `take` is called once, in a later step."""
        if resource.id in self._slow:
            self.monitor_alone(resource, deadline_s, take)
            return
        if not self._gathered:
            self._loop.call_soon(self.flush)
        self._gathered.append(_Asked(resource, deadline_s, self._loop.time() + deadline_s, take))

    def monitor_alone(self, resource: Resource, deadline_s: float, take: AnswerTaker) -> None:
        """The same with a call for one resource, which waits for the script."""
        self._call_alone(_Asked(resource, deadline_s, self._loop.time() + deadline_s, take))

    def flush(self) -> None:
        """Send the monitors that were gathered so far, in this same step."""
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
        """Sends at once, like `send`."""
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
        """Give every asker the outcome of the call, in the order of the questions."""
        try:
            async with asyncio.timeout_at(min(asked.deadline for asked in batch)):
                results = await sent
        except TimeoutError:
            self._late(batch)
        except LinkError as error:
            if error.loss.kind is LossKind.PROTOCOL:
                # One of them may be the cause. Ask for each alone, so that the others are answered.
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
        """The earliest deadline of a batch has passed: request the other monitors once more."""
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
