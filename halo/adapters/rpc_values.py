"""Between `halo.capnp` and the manager's values, and what serves an agent's reports."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import structlog

from halo.adapters.schema import HaloAgent
from halo.core.errors import LinkError, Loss, LossKind
from halo.core.model import Resource
from halo.core.outcomes import (
    AgentIdentity,
    OperationResult,
    Outcome,
    ReportBatch,
    ReportedResult,
    WatchItem,
)
from halo.ports import ReportSink

T = TypeVar("T")

log = structlog.get_logger()

_MAX_TIMEOUT_MS = 2**32 - 1

_BARE = {code: OperationResult(Outcome.COMPLETED, code) for code in range(10)}
"""Nearly every result is one of these: they share one object each."""


class Observer(HaloAgent.Observer.Server):  # type: ignore[misc]  # made at run time from the schema
    """What a watching agent reports to. Cut off, it accepts nothing."""

    def __init__(self, sink: ReportSink) -> None:
        self.sink: ReportSink | None = sink

    async def report_context(self, context: Any) -> None:
        accepted = False
        if self.sink is not None:
            try:
                accepted = self.sink.report(batch_of(context.params.batch))
            except Exception:  # a defect of ours must reach our log, not the agent
                log.exception("a report of an agent could not be taken in")
        context.results.accepted = accepted


def _as_text(read: Callable[[Any], T]) -> Callable[[Any], T]:
    """Whatever an agent sends must cost the manager that host alone."""

    @functools.wraps(read)
    def checked(message: Any) -> T:
        try:
            return read(message)
        except UnicodeDecodeError as error:
            loss = Loss(LossKind.PROTOCOL, f"it sent what is no text: {error.reason}")
            raise LinkError(loss) from error

    return checked


@_as_text
def identity_of(greeting: Any) -> AgentIdentity:
    kind = greeting.which()
    if kind == "welcome":
        welcome = greeting.welcome
        return AgentIdentity(
            version=welcome.version,
            boot_id=welcome.bootId,
            features=frozenset(welcome.features),
            start_id=welcome.startId,
        )
    if kind == "busy":
        raise LinkError(Loss(LossKind.BUSY, greeting.busy))
    if kind == "staleTerm":
        raise LinkError(
            Loss(LossKind.BUSY, f"a leader with the higher term {greeting.staleTerm} was served")
        )
    raise LinkError(Loss(LossKind.PROTOCOL, f"unknown answer to the greeting: {kind}"))


def set_arguments(request: Any, resource: Resource) -> None:
    """Field by field: a list of dicts, which pycapnp takes too, costs five times as much."""
    arguments = request.init("args", len(resource.parameters))
    for number, (key, value) in enumerate(resource.parameters.items()):
        argument = arguments[number]
        argument.key = key
        argument.value = value


def set_items(request: Any, items: Sequence[WatchItem]) -> None:
    entries = request.init("items", len(items))
    for number, item in enumerate(items):
        entry = entries[number]
        entry.resource = item.resource.kind
        entry.instance = item.resource.id
        entry.periodMs = timeout_ms(item.period_s)
        entry.timeoutMs = timeout_ms(item.timeout_s)
        set_arguments(entry, item.resource)


def set_monitors(request: Any, resources: Sequence[Resource]) -> None:
    items = request.init("items", len(resources))
    for number, resource in enumerate(resources):
        item = items[number]
        item.resource = resource.kind
        item.instance = resource.id
        item.timeoutMs = timeout_ms(resource.monitor_timeout_s)
        set_arguments(item, resource)


def is_pending(outcome: Any) -> bool:
    return bool(outcome.which() == "pending")


def batch_of(batch: Any) -> ReportBatch:
    return ReportBatch(
        batch.sequence,
        batch.complete,
        batch.digest,
        tuple(
            ReportedResult(report.instance, report.operations, result_of_outcome(report.outcome))
            for report in batch.reports
        ),
    )


def timeout_ms(timeout_s: float | None) -> int:
    if timeout_s is None:
        return 0
    return min(max(1, round(timeout_s * 1000)), _MAX_TIMEOUT_MS)


@_as_text
def result_of_outcome(outcome: Any) -> OperationResult:
    kind = outcome.which()
    if kind == "completed":
        completed = outcome.completed
        code, message = completed.code, completed.message
        if not message and code in _BARE:
            return _BARE[code]
        return OperationResult(Outcome.COMPLETED, code, message)
    if kind == "timedOut":
        return OperationResult(Outcome.TIMED_OUT, message=outcome.timedOut)
    if kind == "notRun":
        return OperationResult(Outcome.NOT_RUN, message=outcome.notRun)
    if kind == "refused":
        raise LinkError(Loss(LossKind.BUSY, outcome.refused))
    if kind == "staleTerm":
        raise LinkError(
            Loss(LossKind.BUSY, f"a leader with the higher term {outcome.staleTerm} was served")
        )
    raise LinkError(Loss(LossKind.PROTOCOL, f"unknown outcome of an operation: {kind}"))


@_as_text
def result_of_legacy(result: Any) -> OperationResult:
    if result.which() == "err":
        return OperationResult(Outcome.NOT_RUN, message=result.err)
    inner = result.ok
    if inner.which() == "innerOk":
        return OperationResult(Outcome.COMPLETED, 0)
    error = inner.innerErr
    return OperationResult(Outcome.COMPLETED, error.code, error.message)
