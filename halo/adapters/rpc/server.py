"""The agent's side of the Cap'n Proto link: `halo.capnp` in, plain values out.

Must run inside `async with capnp.kj_loop():`. What a call comes to is decided behind
:class:`AgentSession`; nothing here knows scripts or managers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import capnp

from halo.adapters.listener import PlainListener
from halo.adapters.rpc.frame_layout import NO_RPC
from halo.adapters.rpc.frames import OF_MANAGERS, TRAVERSAL_LIMIT_WORDS
from halo.adapters.rpc.losses import loss_of
from halo.adapters.rpc.requests import (
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
from halo.adapters.rpc.schema import HaloAgent
from halo.adapters.rpc.wire import ProtocolError, Wire, set_socket_options
from halo.adapters.tls.listener import Door, Refusals, TlsListener
from halo.core.errors import LossKind
from halo.core.model import Operation
from halo.core.outcomes import OperationResult, Outcome, ReportBatch
from halo.core.peers.bounds import ITEM_LIMIT, MANAGER_NAME_LIMIT, MONITOR_LIMIT, name
from halo.core.peers.calls import (
    BadTerm,
    Busy,
    NotServed,
    Request,
    StaleTerm,
    WatchRequest,
    Welcome,
)
from halo.telling import PeerLog

log = PeerLog()

BACKLOG = 512
"""Connections that wait to be accepted: a flood must not fill it, and drop a manager's."""

UNDER_WAY_LIMIT = 10000
"""Operations of one connection that have not ended: five for each of the resources of a host that
has more than any. What the scripts do not get to is refused long before."""

HELD_LIMIT_BYTES = 16 * 1024 * 1024
"""Of their parameters."""

_PATIENCES = 10


Answer: TypeAlias = OperationResult | Busy | StaleTerm | BadTerm | NotServed


class Observer(Protocol):
    """Who is told what a watch finds: the manager at the other end of a connection."""

    async def report(self, batch: ReportBatch) -> bool:
        """Whether the manager took the batch; False also where the connection is lost. The caller
        sets the deadline."""
        ...


class AgentSession(Protocol):
    """What one connection of a manager comes to; calls arrive in order."""

    def hello(
        self, manager: str, cluster: str, term: int
    ) -> Welcome | Busy | StaleTerm | BadTerm: ...

    def heartbeat(self) -> None: ...

    async def run(self, request: Request, term: int) -> Answer:
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
        self._server: PlainListener | TlsListener | None = None

    async def serve(self, sock: socket.socket) -> None:
        """Listen on a bound socket and return. Raises OSError."""
        if self._tls is not None:
            self._server = TlsListener(sock, self._tls, self._protocol, self._refusals, BACKLOG)
        else:
            self._server = PlainListener(sock, self._protocol, BACKLOG)

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
        self._under_way = 0
        self._held_bytes = 0

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
            hint = "; is its manager started with --mtls?" if str(error) == NO_RPC else ""
            self._refusals.note(self.peer, f"{error}{hint}")
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

    @contextlib.contextmanager
    def carrying_out(self, *requests: Request) -> Iterator[None]:
        """Note the current task as a call under way, to be cancelled with the connection.

        pycapnp cancels calls too, but only once its own machinery has noticed the end. Raises
        BadCall where the connection has too much under way.
        """
        call = asyncio.current_task()
        assert call is not None
        size = sum(request.size for request in requests)
        if self._under_way + len(requests) > UNDER_WAY_LIMIT:
            raise BadCall(f"more than {UNDER_WAY_LIMIT} operations of one connection are under way")
        if self._held_bytes + size > HELD_LIMIT_BYTES:
            raise BadCall(
                "the parameters of what is under way for one connection are longer than "
                f"{HELD_LIMIT_BYTES >> 20} MiB"
            )
        self._under_way += len(requests)
        self._held_bytes += size
        self._calls.add(call)
        try:
            yield
        finally:
            self._under_way -= len(requests)
            self._held_bytes -= size
            self._calls.discard(call)

    def note(self, method: str, why: str) -> None:
        """A call was refused for what it said."""
        log.warning("refused a call", peer=self.peer, method=method, why=why)

    def note_defect(self, method: str) -> None:
        """A call failed for a reason of ours: inside its exception handler."""
        log.exception("a call failed inside the agent", peer=self.peer, method=method)


Method: TypeAlias = Callable[["_Servant", Any], Awaitable[None]]


def _refusing(refuse: Callable[[Any, str], None]) -> Callable[[Method], Method]:
    """What a caller says must cost the agent nothing: a call that cannot be read, or is out of
    bounds, is refused with a sentence by `refuse(results, sentence)`.

    No other exception may leave a method as it is, since pycapnp sends it with its traceback, and
    stops for ever over a text that is not UTF-8."""

    def decorate(method: Method) -> Method:
        called = method.__name__.removesuffix("_context")

        @functools.wraps(method)
        async def guarded(servant: _Servant, context: Any) -> None:
            try:
                await method(servant, context)
                return
            except BadCall as error:
                why = str(error)
            except UnicodeDecodeError as error:
                why = no_text(error)
            except capnp.KjException:
                why = "it holds what cannot be read"
            except Exception:
                servant.connection.note_defect(called)
                raise RuntimeError("the agent failed over this call; its log says how") from None
            servant.connection.note(called, why)
            refuse(context.results, f"the call of {called} is refused: {why}")

        return guarded

    return decorate


def _refuse_greeting(results: Any, why: str) -> None:
    results.init("greeting").busy = why


def _refuse_outcome(results: Any, why: str) -> None:
    results.init("outcome").notRun = why


def _refuse_outcomes(results: Any, why: str) -> None:
    """An empty list: as many outcomes as the caller asked for could be too many."""


def _refuse_result(results: Any, why: str) -> None:
    results.init("result").err = why


def _refuse_watch(results: Any, why: str) -> None:
    results.refused = why


def _refuse_silently(results: Any, why: str) -> None:
    """A heartbeat says nothing and is told nothing."""


class _Servant(HaloAgent.Server):  # type: ignore[misc]  # made at run time from the schema
    """The methods of `halo.capnp`, by the names that pycapnp looks for.

    What a call says is read before anything is done, and then let go of."""

    def __init__(self, connection: _Connection, session: AgentSession) -> None:
        self.connection = connection
        self._session = session

    @_refusing(_refuse_greeting)
    async def hello_context(self, context: Any) -> None:
        params = context.params
        manager = name(name_of(params.manager, MANAGER_NAME_LIMIT), MANAGER_NAME_LIMIT)
        cluster = name(name_of(params.cluster))
        answer = self._session.hello(manager, cluster, params.term)
        greeting = context.results.init("greeting")
        if isinstance(answer, StaleTerm):
            greeting.staleTerm = answer.term
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
            # Not as what came of it: the manager would count a start or stop that we do not.
            self.connection.note("run", str(error))
            context.results.init("outcome").refused = f"the call of run is refused: {error}"

    @_refusing(_refuse_outcome)
    async def validateAll_context(self, context: Any) -> None:
        params = context.params
        request, term = single(params, Operation.VALIDATE), params.term
        await self._run(context, request, term)

    async def _run(self, context: Any, request: Request, term: int) -> None:
        context.release_params()
        with self.connection.carrying_out(request):
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
            self.connection.note("monitorMany", f"{len(bad)} of {len(requests)}, first: {bad[0]}")
        with self.connection.carrying_out(*(r for r in requests if isinstance(r, Request))):
            await self._monitor_many(context, requests, term, patience_s)

    async def _monitor(self, request: Request | BadCall, term: int) -> Answer:
        """One of many: what is wrong with it is its own alone."""
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
        with self.connection.carrying_out(request):
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
        try:
            request = self._client.report_request()
            fill_batch(request.init("batch"), batch)
            answer = await request.send()
            return bool(answer.accepted)
        except (capnp.KjException, UnicodeError):
            return False
