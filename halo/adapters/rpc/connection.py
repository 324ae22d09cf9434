"""One connection of the manager to an agent: greetings, heartbeats, operations, watching.

Every call must run inside `async with rpc_loop():`, which the manager's main enters once.

One connection costs one socket, and no task. The reason of its loss comes from the socket itself
(:mod:`halo.adapters.rpc.wire`), and not from the text of a library's exception.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import capnp

from halo.adapters.rpc.frame_layout import MESSAGE_LIMIT_BYTES, WORD_BYTES
from halo.adapters.rpc.frames import OF_AGENTS, TRAVERSAL_LIMIT_WORDS
from halo.adapters.rpc.losses import loss_of
from halo.adapters.rpc.monitor_batch import FEATURE, PATIENCE_S, MonitorBatcher, Results
from halo.adapters.rpc.report_appetite import Appetite
from halo.adapters.rpc.schema import HaloAgent
from halo.adapters.rpc.values import (
    Observer,
    Superseded,
    batch_of,
    first_line,
    identity_of,
    refusal_of,
    result_of,
    result_of_legacy,
    results_of,
    set_arguments,
    set_items,
    set_monitors,
    timeout_ms,
)
from halo.adapters.rpc.wire import Wire
from halo.adapters.tls.farewell import refusal_in
from halo.core.errors import HaloError, LinkError, Loss, LossKind
from halo.core.model import Operation, Resource
from halo.core.outcomes import AgentIdentity, OperationResult, Outcome, WatchItem
from halo.core.peers.calls import VALIDATE_ALL
from halo.ports import AnswerTaker, ReportSink

WATCH_LIMIT_BYTES = MESSAGE_LIMIT_BYTES - 4096
"""Bytes of the items of a watch. The message is a little longer."""

_TLS_THERE = "if the agent runs with --mtls, start the manager with --mtls, too"
_NOT_LET_IN = "the agent may have refused the manager's certificate; see the agent's log"

PEERS_FAULT = (capnp.KjException, UnicodeError)
"""The exceptions that a wait for an answer can raise, whatever the agent does."""

_OPERATION_NUMBER = {Operation.MONITOR: 0, Operation.START: 1, Operation.STOP: 2}


CHANGES = frozenset({Operation.START, Operation.STOP})


class HeartbeatUnknown(HaloError):
    """The agent knows only `operation`. Check `identity.legacy` before asking for heartbeats."""


class CapnpConnection:
    """One standing connection. Implements :class:`halo.ports.AgentConnection`.

    Only :meth:`halo.adapters.rpc.connector.CapnpConnector.connect` makes it.
    """

    def __init__(
        self, host: str, term: Callable[[], int], may_act: Callable[[], None], *, uses_tls: bool
    ) -> None:
        self.identity = AgentIdentity()
        self.wire = Wire(OF_AGENTS, self._connected, self._lost)
        self._host = host
        self._term = term
        self._may_act = may_act
        self._uses_tls = uses_tls
        self._greeted = False
        self._loss: Loss | None = None
        self._closed: asyncio.Future[Loss] = asyncio.get_running_loop().create_future()
        self._client: Any = None
        self._agent: Any = None
        self._observer: Observer | None = None
        self._is_reporting = False
        self._appetite = Appetite()
        self._monitors = MonitorBatcher(
            self._send_monitors,
            lambda resource, left_s: self._operate_alone(resource, Operation.MONITOR, left_s),
        )

    def __repr__(self) -> str:
        return f"<CapnpConnection {self._host} {self._loss or 'open'}>"

    def _connected(self, wire: Wire) -> None:
        self._client = capnp.TwoPartyClient(
            wire.stream, traversal_limit_in_words=TRAVERSAL_LIMIT_WORDS
        )
        self._agent = self._client.bootstrap().cast_as(HaloAgent)

    def _lost(self, error: BaseException | None) -> None:
        loss = self._refusal_in(error) or loss_of(error)
        if not self._greeted and loss.kind is LossKind.RESET:
            if self._uses_tls:
                # With TLS 1.3, our side finishes before the agent has checked our certificate.
                text = f"after the handshake, before a greeting: {loss.detail}; {_NOT_LET_IN}"
                loss = Loss(LossKind.TLS, text)
            else:
                loss = Loss(LossKind.RESET, f"{loss.detail}, before a greeting; {_TLS_THERE}")
        self._end(loss)

    def _refusal_in(self, error: BaseException | None) -> Loss | None:
        """The loss if the agent refused our certificate and said so at the end, or None."""
        reason = refusal_in(error) if self._uses_tls and not self._greeted else None
        if reason is None:
            return None
        return Loss(LossKind.TLS, f"the agent refused this manager's certificate: {reason}")

    def _end(self, loss: Loss) -> None:
        if self._loss is None:
            self._loss = loss
            self._cut_off_observer()
            if not self._is_reporting:
                self._let_go()
            if not self._closed.done():
                self._closed.set_result(loss)

    async def wait_closed(self) -> Loss:
        """Return when the connection has ended, with the reason."""
        return await asyncio.shield(self._closed)

    def close(self) -> None:
        """Drop the connection at once. Pending calls raise LinkError. Safe to repeat."""
        self._give_up(Loss(LossKind.STALE, "closed by us"))

    def _give_up(self, loss: Loss) -> None:
        """End the connection for this reason, unless it has ended for another one."""
        self._end(loss)
        if not self._is_reporting:
            self.wire.abort()

    def _report(self, sink: ReportSink, params: Any) -> bool:
        """Take one report. It may lead to the end of this connection. pycapnp would then free the
        memory of the answer. So the connection ends only when the answer has been given."""
        loop = asyncio.get_running_loop()
        self._is_reporting = True
        try:
            if not sink.wants_reports():
                self._appetite.refuse()
                return False
            batch = batch_of(params)
            self._appetite.take(batch, loop.time())
            return sink.report(batch)
        except LinkError as error:
            self._give_up(error.loss)
            return False
        finally:
            self._is_reporting = False
            if self._loss is not None:
                loop.call_soon(loop.call_soon, self._let_go_and_abort)

    def _let_go_and_abort(self) -> None:
        self._let_go()
        self.wire.abort()

    def _let_go(self) -> None:
        """Free the RPC system now. The collector would free its parts in any order: SIGSEGV."""
        if self._client is not None:
            self._client.close()
        self._client = self._agent = None

    async def greet(self, manager: str, cluster: str) -> None:
        """Greet the agent, and learn who it is. Raises LinkError. The caller sets the deadline."""
        self._require_open()
        try:
            answer = await self._agent.hello(manager=manager, cluster=cluster, term=self._term())
        except PEERS_FAULT as error:
            if (refusal := self._refusal_in(error)) is not None:
                raise LinkError(refusal) from error
            if self._loss is None and getattr(error, "type", "") == "UNIMPLEMENTED":
                self.take_for_legacy()
                return
            raise self._failure(error) from error
        self._greeted = True
        self.identity = identity_of(answer)

    def take_for_legacy(self) -> None:
        """Continue with an agent that knows only `operation`."""
        self._greeted = True
        self.identity = AgentIdentity(legacy=True)

    async def heartbeat(self) -> None:
        """Return when the agent has answered. The caller sets the deadline.

        Raises LinkError, and HeartbeatUnknown if `identity.legacy`. A refusal is neither silence
        nor an answer: it ends the connection.
        """
        self._require_open()
        if self.identity.legacy:
            raise HeartbeatUnknown(
                f"the agent of {self._host} knows no heartbeats: judge it by its connection"
            )
        self._appetite.heartbeat()
        try:
            await self._agent.heartbeat()
        except PEERS_FAULT as error:
            failure = self._failure(error)
            if failure.loss.kind is not LossKind.RESET:  # else the wire will tell the reason
                self._give_up(failure.loss)
            raise failure from error

    async def operation(
        self, resource: Resource, operation: Operation, deadline_s: float
    ) -> OperationResult:
        """Run one operation. The result is TIMED_OUT if no answer came within `deadline_s`.

        The script's own deadline is the configured one of the resource, or else the timeout that
        the script advertises. Raises LinkError.
        """
        if operation is Operation.MONITOR and FEATURE in self.identity.features:
            return await self._monitor_and_wait(resource, deadline_s)
        # There is no turn of the loop between the gate that a start passed and its sending.
        self._monitors.flush()
        return await self._operate_alone(resource, operation, deadline_s)

    def monitor(self, resource: Resource, deadline_s: float, take: AnswerTaker) -> None:
        """Monitor one resource. `take` is called once, in a later step. Never raises."""
        if FEATURE in self.identity.features:
            self._monitors.monitor(resource, deadline_s, take)
        else:
            self._monitors.monitor_alone(resource, deadline_s, take)

    async def _monitor_and_wait(self, resource: Resource, deadline_s: float) -> OperationResult:
        self._require_open()
        answer: asyncio.Future[OperationResult] = asyncio.get_running_loop().create_future()

        def take(result: OperationResult | Exception) -> None:
            if answer.done():
                return  # the caller has gone
            if isinstance(result, OperationResult):
                answer.set_result(result)
            else:
                answer.set_exception(result)

        self._monitors.monitor(resource, deadline_s, take)
        return await answer

    def _operate_alone(
        self, resource: Resource, operation: Operation, deadline_s: float
    ) -> Coroutine[Any, Any, OperationResult]:
        """Sends at once. Returns the answer, to be awaited."""
        self._require_open()
        if operation in CHANGES:
            self._may_act()
        call = self._operation if self.identity.legacy else self._run
        if operation is Operation.VALIDATE:
            if VALIDATE_ALL not in self.identity.features:
                return _not_run("the agent knows no validate-all")
            call = self._validate
        try:
            return self._in_time(call(resource, operation), operation, deadline_s)
        except PEERS_FAULT as error:
            raise self._failure(error) from error

    async def _in_time(
        self, answer: Awaitable[OperationResult], operation: Operation, deadline_s: float
    ) -> OperationResult:
        try:
            async with asyncio.timeout(deadline_s):
                return await answer
        except TimeoutError:
            return OperationResult(
                Outcome.TIMED_OUT, message=f"no answer from the agent within {deadline_s:g} s"
            )
        except PEERS_FAULT as error:
            failure = self._failure(error)
        except LinkError as error:
            failure = self._superseded(error)
        is_ended = self._loss is not None or failure.loss.kind is LossKind.RESET
        if is_ended or operation is Operation.MONITOR:
            raise failure
        # The connection stands, so this is no loss: a new connection may give the same answer.
        answered = f"the agent answered: {failure.loss}"
        return OperationResult(Outcome.NOT_RUN, message=answered, uncounted=True)

    def _send_monitors(self, resources: Sequence[Resource]) -> Awaitable[Results]:
        self._require_open()
        request = self._agent.monitorMany_request(
            patienceMs=round(PATIENCE_S * 1000), term=self._term()
        )
        set_monitors(request, resources)
        return self._results_of(request.send(), len(resources))

    async def _results_of(self, sent: Any, count: int) -> Results:
        try:
            answer = await sent
        except PEERS_FAULT as error:
            raise self._failure(error) from error
        try:
            return results_of(answer, count)
        except LinkError as error:
            raise self._superseded(error) from error

    def _superseded(self, error: LinkError) -> LinkError:
        """End the connection if the agent served a leader with a higher term. As the failure of a
        start it would count against the group, and the next host would be tried."""
        if isinstance(error, Superseded):
            self._give_up(error.loss)
        return error

    def _run(self, resource: Resource, operation: Operation) -> Awaitable[OperationResult]:
        request = self._agent.run_request(
            resource=resource.kind,
            op=_OPERATION_NUMBER[operation],
            instance=resource.id,
            timeoutMs=timeout_ms(resource.timeout_s(operation)),
            term=self._term(),
        )
        set_arguments(request, resource)
        return _outcome_of(request.send())

    def _validate(self, resource: Resource, operation: Operation) -> Awaitable[OperationResult]:
        request = self._agent.validateAll_request(
            resource=resource.kind,
            instance=resource.id,
            timeoutMs=timeout_ms(resource.timeout_s(operation)),
            term=self._term(),
        )
        set_arguments(request, resource)
        return _outcome_of(request.send())

    def _operation(self, resource: Resource, operation: Operation) -> Awaitable[OperationResult]:
        request = self._agent.operation_request(
            resource=resource.kind, op=_OPERATION_NUMBER[operation]
        )
        set_arguments(request, resource)
        return _legacy_result_of(request.send())

    async def watch(
        self, items: Sequence[WatchItem], sink: ReportSink, digest_interval_s: float
    ) -> None:
        """Have the agent monitor `items` by itself and report to `sink`. Returns when it has
        accepted this. The caller sets the deadline. Raises LinkError.
        """
        self._require_open()
        self._cut_off_observer()
        observer = self._observer = Observer(sink, self._host, self._report)
        request = self._agent.watch_request(
            observer=observer,
            digestMs=timeout_ms(digest_interval_s),
            term=self._term(),
        )
        set_items(request, items)
        size = request.total_size.word_count * WORD_BYTES
        if size > WATCH_LIMIT_BYTES:  # the agent would end the connection for it
            text = f"{len(items)} resources with their parameters have {size} bytes, too many"
            raise LinkError(Loss(LossKind.PROTOCOL, f"it cannot be asked to watch: {text}"))
        try:
            answer = await request.send()
        except PEERS_FAULT as error:
            raise self._failure(error) from error
        if refusal := refusal_of(answer):
            raise LinkError(Loss(LossKind.PROTOCOL, f"it does not watch: {refusal}"))

    def _cut_off_observer(self) -> None:
        if self._observer is not None:
            self._observer.sink = None
            self._observer = None

    def _require_open(self) -> None:
        if self._loss is not None:
            raise LinkError(self._loss)

    def _failure(self, error: BaseException) -> LinkError:
        """The reason of the loss, or else what was wrong with the agent's answer."""
        if self._loss is not None:
            return LinkError(self._loss)
        kind = {
            "DISCONNECTED": LossKind.RESET,
            "OVERLOADED": LossKind.BUSY,
        }.get(getattr(error, "type", ""), LossKind.PROTOCOL)
        return LinkError(Loss(kind, first_line(error)))


async def _not_run(message: str) -> OperationResult:
    return OperationResult(Outcome.NOT_RUN, message=message)


async def _outcome_of(sent: Any) -> OperationResult:
    return result_of(await sent)


async def _legacy_result_of(sent: Any) -> OperationResult:
    return result_of_legacy(await sent)
