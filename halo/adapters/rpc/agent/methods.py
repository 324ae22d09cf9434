"""The agent's methods of `halo.capnp`: `halo.capnp` in, plain values out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import capnp

from halo.adapters.rpc.agent.requests import (
    BadCall,
    bare_request,
    bounded,
    fill_batch,
    fill_outcome,
    fill_result,
    fill_welcome,
    name_of,
    no_text,
    operation_of,
    readable,
    single,
    watch_request,
)
from halo.adapters.rpc.agent.session import AgentSession, Answer
from halo.adapters.rpc.agent.under_way import UnderWay
from halo.adapters.rpc.schema import HaloAgent
from halo.core.model import Operation
from halo.core.outcomes import OperationResult, Outcome, ReportBatch
from halo.core.peers.bounds import ITEM_LIMIT, MANAGER_NAME_LIMIT, MONITOR_LIMIT, name
from halo.core.peers.calls import Request, StaleTerm, Welcome

_PATIENCES = 10

Method: TypeAlias = Callable[["Servant", Any], Awaitable[None]]


def _refusing(refuse: Callable[[Any, str], None]) -> Callable[[Method], Method]:
    """No call may harm the agent. A call that cannot be read, or is out of bounds, is refused with
    a sentence by `refuse(results, sentence)`.

    No other exception may leave a method unchanged: pycapnp would send it with its traceback, and
    would hang for ever on a text that is not UTF-8."""

    def decorate(method: Method) -> Method:
        called = method.__name__.removesuffix("_context")

        @functools.wraps(method)
        async def guarded(servant: Servant, context: Any) -> None:
            try:
                await method(servant, context)
                return
            except BadCall as error:
                why = str(error)
            except UnicodeDecodeError as error:
                why = no_text(error)
            except capnp.KjException:
                why = "it holds something that cannot be read"
            except Exception:
                servant.under_way.note_defect(called)
                raise RuntimeError("the agent failed in this call; see the agent's log") from None
            servant.under_way.note(called, why)
            refuse(context.results, f"the call of {called} is refused: {why}")

        return guarded

    return decorate


def _refuse_greeting(results: Any, why: str) -> None:
    results.init("greeting").busy = why


def _refuse_outcome(results: Any, why: str) -> None:
    results.init("outcome").notRun = why


def _refuse_outcomes(results: Any, why: str) -> None:
    """Answer with an empty list, since one outcome for each requested monitor could be too many."""


def _refuse_result(results: Any, why: str) -> None:
    results.init("result").err = why


def _refuse_watch(results: Any, why: str) -> None:
    results.refused = why


def _refuse_silently(results: Any, why: str) -> None:
    """Answer nothing: a heartbeat has no content, and its answer has none."""


class Servant(HaloAgent.Server):  # type: ignore[misc]  # made at run time from the schema
    """The methods of `halo.capnp`, with the names that pycapnp expects.

    A call is read before anything is done, and its message is then released."""

    def __init__(self, under_way: UnderWay, session: AgentSession) -> None:
        self.under_way = under_way
        self._session = session

    @_refusing(_refuse_greeting)
    async def hello_context(self, context: Any) -> None:
        params = context.params
        manager = name(name_of(params.manager, MANAGER_NAME_LIMIT), MANAGER_NAME_LIMIT)
        cluster = name(name_of(params.cluster))
        answer = await self._session.hello(manager, cluster, params.term)
        greeting = context.results.init("greeting")
        if isinstance(answer, StaleTerm):
            greeting.staleTerm = answer.term
            greeting.leader = answer.manager
        elif isinstance(answer, Welcome):
            fill_welcome(greeting.init("welcome"), answer)
        else:
            greeting.busy = str(answer)

    @_refusing(_refuse_silently)
    async def heartbeat_context(self, context: Any) -> None:
        self._session.heartbeat()

    @_refusing(_refuse_outcome)
    async def run_context(self, context: Any) -> None:
        params = context.params
        operation = operation_of(params)
        try:
            request, term = single(params, operation), params.term
            await self._run(context, request, term)
        except BadCall as error:
            if not operation.changes:
                raise
            # Not as a result: the manager would count a start or stop that the agent does not.
            self.under_way.note("run", str(error))
            context.results.init("outcome").refused = f"the call of run is refused: {error}"

    @_refusing(_refuse_outcome)
    async def validateAll_context(self, context: Any) -> None:
        params = context.params
        request, term = single(params, Operation.VALIDATE), params.term
        await self._run(context, request, term)

    async def _run(self, context: Any, request: Request, term: int) -> None:
        context.release_params()
        with self.under_way.carrying_out(request):
            result = await self._session.run(request, term)
        fill_outcome(context.results.init("outcome"), result)

    @_refusing(_refuse_outcomes)
    async def monitorMany_context(self, context: Any) -> None:
        params = context.params
        term, patience_s = params.term, params.patienceMs / 1000
        items = bounded(params.items, MONITOR_LIMIT, "monitors")
        requests = [readable(item) for item in items]
        context.release_params()
        bad = [each for each in requests if isinstance(each, BadCall)]
        if bad:
            self.under_way.note("monitorMany", f"{len(bad)} of {len(requests)}, first: {bad[0]}")
        with self.under_way.carrying_out(*(r for r in requests if isinstance(r, Request))):
            await self._monitor_many(context, requests, term, patience_s)

    async def _monitor(self, request: Request | BadCall, term: int) -> Answer:
        """One monitor of many. If something is wrong with it, only it fails."""
        if isinstance(request, BadCall):
            return OperationResult(Outcome.NOT_RUN, message=f"the monitor is refused: {request}")
        return await self._session.run(request, term)

    async def _monitor_many(
        self, context: Any, requests: Sequence[Request | BadCall], term: int, patience_s: float
    ) -> None:
        loop = asyncio.get_running_loop()
        calls = [loop.create_task(self._monitor(request, term)) for request in requests]
        try:
            await _while_some_end(calls, patience_s)
            outcomes = context.results.init("outcomes", len(calls))
            for number, call in enumerate(calls):
                if call.done():
                    fill_outcome(outcomes[number], call.result())
                else:
                    outcomes[number].pending = None
        finally:
            for call in calls:
                call.cancel()

    @_refusing(_refuse_result)
    async def operation_context(self, context: Any) -> None:
        request = bare_request(context.params)
        context.release_params()
        with self.under_way.carrying_out(request):
            result = await self._session.operation(request)
        fill_result(context.results.init("result"), result)

    @_refusing(_refuse_watch)
    async def watch_context(self, context: Any) -> None:
        params = context.params
        digest_interval_s, term = params.digestMs / 1000, params.term
        items = [watch_request(item) for item in bounded(params.items, ITEM_LIMIT, "resources")]
        observer = _RemoteObserver(params.observer)
        context.results.refused = self._session.watch(items, observer, digest_interval_s, term)


async def _while_some_end(calls: Sequence[asyncio.Task[Any]], patience_s: float) -> None:
    """Return when all have ended, when none has ended for `patience_s`, or after ten times that."""
    one_ended = asyncio.Event()
    left = len(calls)

    def note(_: object) -> None:
        nonlocal left
        left -= 1
        one_ended.set()

    for call in calls:
        call.add_done_callback(note)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCES * patience_s):
            while left > 0:
                one_ended.clear()
                async with asyncio.timeout(patience_s):
                    await one_ended.wait()


class _RemoteObserver:
    """The manager's observer, which the agent calls: an :class:`Observer`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def report(self, batch: ReportBatch) -> bool:
        try:
            request = self._client.report_request()
            fill_batch(request.init("batch"), batch)
            answer = await request.send()
            return bool(answer.accepted)
        except (capnp.KjException, UnicodeError):
            return False
