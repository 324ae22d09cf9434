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
from dataclasses import dataclass
from typing import Any

from halo.adapters.rpc_values import is_pending, result_of_outcome
from halo.core.errors import LinkError, Loss, LossKind
from halo.core.model import Resource, ResourceId
from halo.core.outcomes import OperationResult, Outcome

FEATURE = "monitorMany"
PATIENCE_S = 0.2
BATCH_LIMIT = 64
"""Monitors in one call; more go out side by side."""

SingleRun = Callable[[Resource, float], Coroutine[Any, Any, OperationResult]]


@dataclass(slots=True, eq=False)
class _Asked:
    resource: Resource
    deadline_s: float
    deadline: float  # loop time
    answer: asyncio.Future[OperationResult | None]  # None: pending at the agent


class MonitorBatcher:
    """Gathers the monitors of one turn of the event loop. One for each connection.

    `send` makes a call at once and returns its outcomes to be awaited; both raise LinkError. `run`
    is a call for one.
    """

    def __init__(
        self, send: Callable[[Sequence[Resource]], Awaitable[Any]], run: SingleRun
    ) -> None:
        self._send = send
        self._run = run
        self._loop = asyncio.get_running_loop()
        self._gathered: list[_Asked] = []
        self._slow: set[ResourceId] = set()
        self._calls: set[asyncio.Task[None]] = set()

    async def monitor(self, resource: Resource, deadline_s: float) -> OperationResult:
        """Monitor one resource. Raises LinkError."""
        deadline = self._loop.time() + deadline_s
        if resource.id not in self._slow:
            asked = _Asked(resource, deadline_s, deadline, self._loop.create_future())
            if not self._gathered:
                self._loop.call_soon(self._turn_ended)
            self._gathered.append(asked)
            result = await asked.answer
            if result is not None:
                return result
        began = self._loop.time()
        result = await self._run(resource, deadline - began)
        if self._loop.time() - began < PATIENCE_S:
            self._slow.discard(resource.id)
        return result

    async def flush(self) -> None:
        """Send what was gathered so far, and return when it is sent."""
        if self._gathered:
            self._turn_ended()
            for _ in range(2):  # a lone caller hears of it, then sends
                await asyncio.sleep(0)

    def _turn_ended(self) -> None:
        gathered = [asked for asked in self._gathered if not asked.answer.done()]
        self._gathered = []
        if len(gathered) == 1:
            _answer(
                gathered[0], None
            )  # its caller makes a call for one, which waits for the script
            return
        for first in range(0, len(gathered), BATCH_LIMIT):
            batch = gathered[first : first + BATCH_LIMIT]
            try:
                sent = self._send([asked.resource for asked in batch])
            except LinkError as error:
                _fail(batch, error)
                continue
            call = self._loop.create_task(self._hear(batch, sent))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    async def _hear(self, batch: list[_Asked], sent: Awaitable[Any]) -> None:
        """Whatever comes of a call, every caller hears of it."""
        try:
            async with asyncio.timeout_at(min(asked.deadline for asked in batch)):
                outcomes = await sent
            if len(outcomes) != len(batch):
                text = f"{len(outcomes)} outcomes for {len(batch)} monitors"
                raise LinkError(Loss(LossKind.PROTOCOL, text))
            for asked, outcome in zip(batch, outcomes, strict=True):
                if is_pending(outcome):
                    self._slow.add(asked.resource.id)
                    _answer(asked, None)
                else:
                    _answer(asked, result_of_outcome(outcome))
        except TimeoutError:
            now = self._loop.time()
            for asked in batch:
                _answer(asked, _timed_out(asked) if asked.deadline <= now else None)
        except Exception as error:
            _fail(batch, error)


def _fail(batch: list[_Asked], error: Exception) -> None:
    for asked in batch:
        if not asked.answer.done():
            asked.answer.set_exception(error)


def _timed_out(asked: _Asked) -> OperationResult:
    return OperationResult(
        Outcome.TIMED_OUT, message=f"no answer from the agent within {asked.deadline_s:g} s"
    )


def _answer(asked: _Asked, result: OperationResult | None) -> None:
    if not asked.answer.done():  # else its caller has gone
        asked.answer.set_result(result)
