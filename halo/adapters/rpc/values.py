"""Between `halo.capnp` and the manager's values; and the receiver of an agent's reports."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from halo.adapters.rpc.schema import HaloAgent
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
from halo.core.peers.bounds import (
    BATCH_LIMIT,
    FEATURE_LIMIT,
    FEATURE_NAME_LIMIT,
    INSTANCE_LIMIT,
    NAME_LIMIT,
    REPORT_LIMIT,
    cut,
    cut_to_end,
    name,
)
from halo.ports import ReportSink
from halo.telling import PeerLog

T = TypeVar("T")
P = ParamSpec("P")

log = PeerLog()

_MAX_TIMEOUT_MS = 2**32 - 1

_BARE = {code: OperationResult(Outcome.COMPLETED, code) for code in range(10)}
"""Nearly every result is equal to one of these. Equal results share one object."""


REFUSAL_LIMIT_BYTES = 500
LEADER_LIMIT = 200
"""Characters of the name of another leader that are shown."""


class Observer(HaloAgent.Observer.Server):  # type: ignore[misc]  # made at run time from the schema
    """The object to which a watching agent reports. After it is cut off, it accepts nothing.

    `take` hands the parameters of a report to the sink.
    """

    def __init__(
        self, sink: ReportSink, host: str, take: Callable[[ReportSink, Any], bool]
    ) -> None:
        self.sink: ReportSink | None = sink
        self._host = host
        self._take = take

    async def report_context(self, context: Any) -> None:
        accepted = False
        if self.sink is not None:
            try:
                accepted = self._take(self.sink, context.params)
            except Exception:  # a defect of ours must reach our log, not the agent
                log.exception("a report could not be taken in", host=self._host)
        context.results.accepted = accepted


def of_peer(read: Callable[P, T]) -> Callable[P, T]:
    """Bad data of an agent must affect only that host. So every error in reading an agent's message
    counts as the agent's fault, and becomes LinkError."""

    @functools.wraps(read)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except LinkError:
            raise
        except UnicodeDecodeError as error:
            text = f"it sent a text that is not UTF-8: {error.reason}"
        except Exception as error:
            text = f"it sent something that cannot be read: {first_line(error)}"
        raise LinkError(Loss(LossKind.PROTOCOL, text))

    return checked


def first_line(error: BaseException) -> str:
    """The first line of a library's error, without its stack."""
    text = str(getattr(error, "description", "") or error)
    return cut(text.splitlines()[0], REFUSAL_LIMIT_BYTES) if text else "no reason given"


@of_peer
def identity_of(answer: Any) -> AgentIdentity:
    greeting = answer.greeting
    kind = greeting.which()
    if kind == "welcome":
        welcome = greeting.welcome
        features = itertools.islice(welcome.features, FEATURE_LIMIT)
        return AgentIdentity(
            version=name(welcome.version),
            boot_id=_id("boot", welcome.bootId),
            features=frozenset(each for each in features if len(each) <= FEATURE_NAME_LIMIT),
            start_id=_id("start", welcome.startId),
        )
    if kind == "busy":
        raise LinkError(Loss(LossKind.BUSY, _refusal(greeting.busy)))
    if kind == "staleTerm":
        raise _stale(greeting.staleTerm, greeting.leader)
    raise LinkError(Loss(LossKind.PROTOCOL, f"unknown answer to the greeting: {kind}"))


class Superseded(LinkError):
    """The agent served a leader with a higher term. It is not asked for anything more over this
    connection. Whether this manager leads, it decides by its own clock and its store, and not by
    what an agent says."""


def _stale(term: int, leader: str) -> Superseded:
    who = name(leader, LEADER_LIMIT) or "a leader"
    text = (
        f"this agent served {who} with the higher term {term}; if there was no such leader, stop "
        "this agent, and use halo_remote --forget-term there"
    )
    return Superseded(Loss(LossKind.BUSY, text))


def _id(of: str, text: str) -> str:
    """The id, unless it is too long. It is not cut, since two cut ids could be equal."""
    if len(text) > NAME_LIMIT:
        raise LinkError(Loss(LossKind.PROTOCOL, f"its {of} id has {len(text)} characters"))
    return text


def _refusal(text: str) -> str:
    return cut(text, REFUSAL_LIMIT_BYTES)


@of_peer
def refusal_of(answer: Any) -> str:
    """Why nothing is watched, or an empty text."""
    text: str = answer.refused
    return _refusal(text)


def set_arguments(request: Any, resource: Resource) -> None:
    """Set field by field. A list of dicts, which pycapnp also takes, costs five times as much."""
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


@of_peer
def results_of(answer: Any, count: int) -> list[OperationResult | None]:
    """The outcomes of `count` monitors. None: the monitor is pending."""
    outcomes = answer.outcomes
    if len(outcomes) != count:
        text = f"{len(outcomes)} outcomes for {count} monitors"
        raise LinkError(Loss(LossKind.PROTOCOL, text))
    return [None if each.which() == "pending" else _result(each) for each in outcomes]


@of_peer
def batch_of(params: Any) -> ReportBatch:
    batch = params.batch
    reports = batch.reports
    if len(reports) > BATCH_LIMIT:
        raise LinkError(Loss(LossKind.PROTOCOL, f"it sent {len(reports)} results in one report"))
    results, size = [], 0
    for report in reports:
        reported = ReportedResult(
            _instance(report.instance), report.operations, _result(report.outcome)
        )
        results.append(reported)
        size += len(reported.resource) + len(reported.result.message)
        if size > REPORT_LIMIT:  # pointers to one place can repeat a text many times
            text = f"it sent more than {REPORT_LIMIT} characters in one report"
            raise LinkError(Loss(LossKind.PROTOCOL, text))
    return ReportBatch(batch.sequence, batch.complete, batch.digest, tuple(results))


def _instance(text: str) -> str:
    if len(text) > INSTANCE_LIMIT:
        text = f"it reports a resource whose id has {len(text)} characters"
        raise LinkError(Loss(LossKind.PROTOCOL, text))
    return text


def timeout_ms(timeout_s: float | None) -> int:
    if timeout_s is None:
        return 0
    return min(max(1, round(timeout_s * 1000)), _MAX_TIMEOUT_MS)


@of_peer
def result_of(answer: Any) -> OperationResult:
    """The result of a `run` or a `validateAll`."""
    return _result(answer.outcome)


def _result(outcome: Any) -> OperationResult:
    kind = outcome.which()
    if kind == "completed":
        completed = outcome.completed
        code, message = completed.code, completed.message
        if not message and code in _BARE:
            return _BARE[code]
        return OperationResult(Outcome.COMPLETED, code, cut_to_end(message))
    if kind == "timedOut":
        return OperationResult(Outcome.TIMED_OUT, message=cut_to_end(outcome.timedOut))
    if kind == "notRun":
        return OperationResult(Outcome.NOT_RUN, message=cut(outcome.notRun))
    if kind == "refused":
        raise LinkError(Loss(LossKind.BUSY, _refusal(outcome.refused)))
    if kind == "staleTerm":
        raise _stale(outcome.staleTerm, outcome.leader)
    raise LinkError(Loss(LossKind.PROTOCOL, f"unknown outcome of an operation: {kind}"))


@of_peer
def result_of_legacy(answer: Any) -> OperationResult:
    result = answer.result
    if result.which() == "err":
        return OperationResult(Outcome.NOT_RUN, message=cut(result.err))
    inner = result.ok
    if inner.which() == "innerOk":
        return OperationResult(Outcome.COMPLETED, 0)
    error = inner.innerErr
    return OperationResult(Outcome.COMPLETED, error.code, cut_to_end(error.message))
