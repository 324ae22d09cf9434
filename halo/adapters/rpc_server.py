"""The agent's side of the Cap'n Proto link: `halo.capnp` in, plain values out.

Must run inside `async with capnp.kj_loop():`. What a call comes to is decided behind
:class:`AgentSession`; nothing here knows scripts or managers.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import capnp
import structlog

from halo.adapters.frames import OF_MANAGERS, TRAVERSAL_LIMIT_WORDS
from halo.adapters.losses import loss_of
from halo.adapters.schema import HaloAgent, OcfResourceAgent
from halo.adapters.tls_listener import Door, Refusals, TlsListener
from halo.adapters.wire import ProtocolError, Wire, set_socket_options
from halo.core.agent import Busy, NotServed, Request, StaleTerm, WatchRequest, Welcome
from halo.core.errors import LossKind
from halo.core.model import Operation
from halo.core.outcomes import OperationResult, Outcome, ReportBatch

log = structlog.get_logger()

BACKLOG = 128
_PATIENCES = 10

_OPERATIONS = (Operation.MONITOR, Operation.START, Operation.STOP)


class Observer(Protocol):
    """Who is told what a watch finds: the manager at the other end of a connection."""

    async def report(self, batch: ReportBatch) -> bool:
        """Whether the manager took the batch; False also where the connection is lost. The caller
        sets the deadline."""
        ...


class AgentSession(Protocol):
    """What one connection of a manager comes to; calls arrive in order."""

    def hello(self, manager: str, cluster: str, term: int) -> Welcome | Busy | StaleTerm: ...

    def heartbeat(self) -> None: ...

    async def run(
        self, request: Request, term: int
    ) -> OperationResult | Busy | StaleTerm | NotServed:
        """Cancelled when the caller or the connection is gone."""
        ...

    async def operation(self, request: Request) -> OperationResult | Busy:
        """A call of a manager that knows nothing more. Cancelled as `run` is."""
        ...

    def watch(
        self,
        items: Sequence[WatchRequest],
        observer: Observer,
        digest_interval_s: float,
        term: int,
    ) -> str:
        """Watch these resources from now on; returns why not, or nothing."""
        ...

    def ended(self) -> None:
        """The connection is gone; called once, and never after `Link.close`."""
        ...


class Link(Protocol):
    """One connection as its session sees it."""

    @property
    def peer(self) -> str:
        """The other end's address, without the port."""
        ...

    def close(self) -> None:
        """Drop it at once; its calls under way are cancelled. Safe to repeat."""
        ...


class CapnpAgentServer:
    """Listens for managers; `open_session` is called for each connection that stands."""

    def __init__(
        self, open_session: Callable[[Link], AgentSession], tls: Door | None = None
    ) -> None:
        self._open_session = open_session
        self._tls = tls
        self._refusals = Refusals()
        self._server: asyncio.Server | TlsListener | None = None

    async def serve(self, sock: socket.socket) -> None:
        """Listen on a bound socket and return. Raises OSError."""
        if self._tls is not None:
            self._server = TlsListener(sock, self._tls, self._protocol, self._refusals, BACKLOG)
        else:
            self._server = await asyncio.get_running_loop().create_server(
                self._protocol, sock=sock, backlog=BACKLOG
            )

    def _protocol(self) -> Wire:
        return _Connection(self._open_session, self._refusals).wire

    def close(self) -> None:
        """Stop listening. Standing connections are their sessions' to close."""
        if self._server is not None:
            self._server.close()


class _Connection:
    """One accepted connection; a :class:`Link`."""

    def __init__(self, open_session: Callable[[Link], AgentSession], refusals: Refusals) -> None:
        self.wire = Wire(OF_MANAGERS, self._connected, self._lost)
        self._refusals = refusals
        self.peer = ""
        self._open_session = open_session
        self._session: AgentSession | None = None
        self._rpc: Any = None
        self._calls: set[asyncio.Task[Any]] = set()

    def _connected(self, wire: Wire) -> None:
        peer = wire.get_extra_info("peername")
        self.peer = str(peer[0]) if peer else "unknown"
        set_socket_options(wire.get_extra_info("socket"))
        self._session = self._open_session(self)
        if not wire.lost:
            self._rpc = capnp.TwoPartyServer(
                wire.stream,
                bootstrap=_Servant(self, self._session),
                traversal_limit_in_words=TRAVERSAL_LIMIT_WORDS,
            )

    def _lost(self, error: BaseException | None) -> None:
        loss = loss_of(error)
        if loss.kind is LossKind.TLS:
            self._refusals.note(self.peer, f"TLS failed: {loss.detail}")
        elif isinstance(error, ProtocolError):
            self._refusals.note(self.peer, f"{error}; is its manager started with --mtls?")
        self._cancel_calls()
        if self._session is not None:
            self._session.ended()

    def close(self) -> None:
        self._cancel_calls()
        self.wire.abort()

    def _cancel_calls(self) -> None:
        for call in list(self._calls):
            call.cancel()
        self._rpc = None

    def begin(self) -> None:
        """Note the current task as a call under way, to be cancelled with the connection.

        pycapnp cancels calls too, but only once its own machinery has noticed the end.
        """
        call = asyncio.current_task()
        assert call is not None
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)


class _Servant(HaloAgent.Server):  # type: ignore[misc]  # made at run time from the schema
    """The methods of `halo.capnp`, by the names that pycapnp looks for."""

    def __init__(self, connection: _Connection, session: AgentSession) -> None:
        self._connection = connection
        self._session = session

    async def hello_context(self, context: Any) -> None:
        params = context.params
        answer = self._session.hello(params.manager, params.cluster, params.term)
        greeting = context.results.init("greeting")
        if isinstance(answer, Busy):
            greeting.busy = str(answer)
        elif isinstance(answer, StaleTerm):
            greeting.staleTerm = answer.term
        else:
            _fill_welcome(greeting.init("welcome"), answer)

    async def heartbeat_context(self, context: Any) -> None:
        self._session.heartbeat()

    async def run_context(self, context: Any) -> None:
        self._connection.begin()
        params = context.params
        request = _single(params, _OPERATIONS[params.op.raw])
        result = await self._session.run(request, params.term)
        _fill_outcome(context.results.init("outcome"), result)

    async def validateAll_context(self, context: Any) -> None:
        self._connection.begin()
        params = context.params
        result = await self._session.run(_single(params, Operation.VALIDATE), params.term)
        _fill_outcome(context.results.init("outcome"), result)

    async def monitorMany_context(self, context: Any) -> None:
        self._connection.begin()
        params = context.params
        term = params.term
        calls = [
            asyncio.get_running_loop().create_task(
                self._session.run(_single(item, Operation.MONITOR), term)
            )
            for item in params.items
        ]
        try:
            await _while_some_end(calls, params.patienceMs / 1000)
            outcomes = context.results.init("outcomes", len(calls))
            for number, call in enumerate(calls):
                if call.done():
                    _fill_outcome(outcomes[number], call.result())
                else:
                    outcomes[number].pending = None
        finally:
            for call in calls:
                call.cancel()

    async def operation_context(self, context: Any) -> None:
        self._connection.begin()
        result = await self._session.operation(_bare_request(context.params))
        _fill_result(context.results.init("result"), result)

    async def watch_context(self, context: Any) -> None:
        params = context.params
        items = [_watch_request(item) for item in params.items]
        observer = _RemoteObserver(params.observer)
        context.results.refused = self._session.watch(
            items, observer, params.digestMs / 1000, params.term
        )


async def _while_some_end(calls: Sequence[asyncio.Task[Any]], patience_s: float) -> None:
    """Return when all have ended, when none did for `patience_s`, or after ten times that."""
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
    """The manager's observer, as the agent calls it: an :class:`Observer`."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def report(self, batch: ReportBatch) -> bool:
        request = self._client.report_request()
        _fill_batch(request.init("batch"), batch)
        try:
            answer = await request.send()
        except capnp.KjException as error:
            log.debug("a report was not taken", error=error.description)
            return False
        return bool(answer.accepted)


def _bare_request(params: Any) -> Request:
    """What a manager asks that knows `operation` alone."""
    return Request(params.resource, _OPERATIONS[params.op.raw], _arguments(params))


def _single(params: Any, operation: Operation) -> Request:
    """One operation, of a `run` or of an item."""
    return Request(
        kind=params.resource,
        operation=operation,
        parameters=_arguments(params),
        instance=params.instance,
        timeout_s=params.timeoutMs / 1000 or None,
    )


def _arguments(params: Any) -> dict[str, str]:
    return {argument.key: argument.value for argument in params.args}


def _watch_request(item: Any) -> WatchRequest:
    return WatchRequest(_single(item, Operation.MONITOR), item.periodMs / 1000)


def _fill_batch(target: Any, batch: ReportBatch) -> None:
    target.sequence = batch.sequence
    target.complete = batch.complete
    target.digest = batch.digest
    reports = target.init("reports", len(batch.results))
    for number, reported in enumerate(batch.results):
        report = reports[number]
        report.instance = reported.resource
        report.operations = reported.operations
        _fill_outcome(report.init("outcome"), reported.result)


def _fill_welcome(target: Any, welcome: Welcome) -> None:
    target.version = welcome.version
    target.bootId = welcome.boot_id
    target.startId = welcome.start_id
    target.features = list(welcome.features)


def _fill_outcome(outcome: Any, result: OperationResult | Busy | StaleTerm | NotServed) -> None:
    if isinstance(result, StaleTerm):
        outcome.staleTerm = result.term
    elif isinstance(result, Busy | NotServed):
        outcome.refused = str(result)
    elif result.outcome is Outcome.COMPLETED:
        completed = outcome.init("completed")
        completed.code = result.code
        completed.message = result.message
    elif result.outcome is Outcome.TIMED_OUT:
        outcome.timedOut = result.message
    else:
        outcome.notRun = result.message


def _fill_result(answer: Any, result: OperationResult | Busy) -> None:
    """Method 0 knows no deadline: a script ended at its own is an unspecific failure of it."""
    if isinstance(result, Busy):
        answer.err = str(result)
    elif result.outcome is Outcome.NOT_RUN:
        answer.err = result.message
    elif result.outcome is Outcome.COMPLETED and result.code == 0:
        answer.init("ok").innerOk = None
    else:
        error = answer.init("ok").init("innerErr")
        error.code = result.code if result.outcome is Outcome.COMPLETED else _OCF_ERR_GENERIC
        error.message = result.message


_OCF_ERR_GENERIC = 1

if set(OcfResourceAgent.Operation.schema.enumerants) != {o.value for o in _OPERATIONS}:
    raise ImportError("halo.capnp and halo.core.model.Operation disagree")
