"""Between `halo.capnp` and the agent's values: managers' requests, bounded, and the answers.

A caller's message is read once, here. Its lists are counted before they are read, because a list of
empty items can be millions long without taking a byte.
"""

from __future__ import annotations

from typing import Any

from halo.adapters.rpc.agent.session import Answer, Refused
from halo.adapters.rpc.schema import OcfResourceAgent
from halo.core.model import Operation
from halo.core.outcomes import OperationResult, Outcome, ReportBatch
from halo.core.peers.bounds import (
    INSTANCE_LIMIT,
    NAME_LIMIT,
    PARAMETER_LIMIT,
    PARAMETERS_LIMIT_BYTES,
    cut_to_end,
)
from halo.core.peers.calls import (
    Busy,
    Request,
    StaleTerm,
    WatchRequest,
    Welcome,
)

_OPERATIONS = (Operation.MONITOR, Operation.START, Operation.STOP)


class BadCall(Exception):
    """A call is out of bounds. The text says how, without its subject."""


def bare_request(params: Any) -> Request:
    """The request of a manager that knows only `operation`."""
    return Request(name_of(params.resource), operation_of(params), _arguments(params))


def single(params: Any, operation: Operation) -> Request:
    """One operation of a `run` or of an item."""
    return Request(
        kind=name_of(params.resource),
        operation=operation,
        parameters=_arguments(params),
        instance=name_of(params.instance, INSTANCE_LIMIT),
        timeout_s=params.timeoutMs / 1000 or None,
    )


def readable(item: Any) -> Request | BadCall:
    """One monitor of many, or what is wrong with it."""
    try:
        return single(item, Operation.MONITOR)
    except BadCall as error:
        return error
    except UnicodeDecodeError as error:
        return BadCall(no_text(error))


def no_text(error: UnicodeDecodeError) -> str:
    return f"it holds a text that is not UTF-8: {error.reason}"


def operation_of(params: Any) -> Operation:
    number = params.op.raw
    if number >= len(_OPERATIONS):
        raise BadCall(f"there is no operation {number}")
    return _OPERATIONS[number]


def name_of(text: str, limit: int = NAME_LIMIT) -> str:
    """The name, unless it is too long. Raises BadCall."""
    if len(text) > limit:
        raise BadCall(f"a name of {len(text)} characters is longer than {limit}")
    return text


def bounded(entries: Any, limit: int, what: str) -> Any:
    """The list, unless it is longer than `limit`. Raises BadCall before anything is read."""
    if len(entries) > limit:
        raise BadCall(f"{len(entries)} {what} are too many; the limit is {limit}")
    return entries


def _arguments(params: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    size = 0
    for argument in bounded(params.args, PARAMETER_LIMIT, "parameters"):
        key, value = argument.key, argument.value
        size += len(key.encode()) + len(value.encode())
        if size > PARAMETERS_LIMIT_BYTES:
            raise BadCall(f"the parameters are longer than {PARAMETERS_LIMIT_BYTES >> 10} KiB")
        found[key] = value
    return found


def watch_request(item: Any) -> WatchRequest:
    return WatchRequest(single(item, Operation.MONITOR), item.periodMs / 1000)


def fill_batch(target: Any, batch: ReportBatch) -> None:
    target.sequence = batch.sequence
    target.complete = batch.complete
    target.digest = batch.digest
    reports = target.init("reports", len(batch.results))
    for number, reported in enumerate(batch.results):
        report = reports[number]
        report.instance = reported.resource
        report.operations = reported.operations
        fill_outcome(report.init("outcome"), reported.result)


def fill_welcome(target: Any, welcome: Welcome) -> None:
    target.version = welcome.version
    target.bootId = welcome.boot_id
    target.startId = welcome.start_id
    target.features = list(welcome.features)


def fill_outcome(outcome: Any, result: Answer) -> None:
    if isinstance(result, StaleTerm):
        outcome.staleTerm = result.term
        outcome.leader = result.manager
    elif isinstance(result, Refused):
        outcome.refused = str(result)
    elif result.outcome is Outcome.COMPLETED:
        completed = outcome.init("completed")
        completed.code = result.code
        completed.message = _sent(result.message)
    elif result.outcome is Outcome.TIMED_OUT:
        outcome.timedOut = _sent(result.message)
    else:
        outcome.notRun = _sent(result.message)


def fill_result(answer: Any, result: OperationResult | Busy) -> None:
    """Method 0 has no result for a deadline. A script that was ended at its own is a failure."""
    if isinstance(result, Busy):
        answer.err = str(result)
    elif result.outcome is Outcome.NOT_RUN:
        answer.err = _sent(result.message)
    elif result.outcome is Outcome.COMPLETED and result.code == 0:
        answer.init("ok").innerOk = None
    else:
        error = answer.init("ok").init("innerErr")
        error.code = result.code if result.outcome is Outcome.COMPLETED else _OCF_ERR_GENERIC
        error.message = _sent(result.message)


def _sent(message: str) -> str:
    return cut_to_end(message) if message else ""


_OCF_ERR_GENERIC = 1

if set(OcfResourceAgent.Operation.schema.enumerants) != {o.value for o in _OPERATIONS}:
    raise ImportError("halo.capnp and halo.core.model.Operation disagree")
