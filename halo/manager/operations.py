"""One operation on one resource over one connection, and what it taught: the only way to an agent.

Every start passes :meth:`ClusterState.start_refusal` here, in the very step that sends it (S1).
"""

from __future__ import annotations

import asyncio

from halo.core.group_machine import describe
from halo.core.knowledge import Presence
from halo.core.model import HostId, Operation, Resource, ResourceGroup
from halo.core.ocf import OcfCode, is_present
from halo.core.outcomes import OperationResult, Outcome
from halo.core.state import ClusterState
from halo.ports import AgentConnection

DEADLINE_MARGIN_S = 5.0
LATE_S = 0.001
"""An answer that comes this shortly before its deadline may be the deadline."""


class StartRefused(Exception):
    """The start was not sent; the text says which proof is missing."""


async def operate(
    state: ClusterState,
    connection: AgentConnection,
    group: ResourceGroup,
    resource: Resource,
    host: HostId,
    operation: Operation,
    *,
    epoch: int,
    since: float = float("inf"),
) -> OperationResult:
    """Run one operation and write down what it taught.

    Raises StartRefused, before anything is sent, and LinkError when the connection ended."""
    now = asyncio.get_running_loop().time()
    if operation is Operation.START:
        refusal = state.start_refusal(group, host, epoch, since, now)
        if refusal is not None:
            raise StartRefused(refusal)
        state.knowledge.note_starting(resource, host, epoch=epoch, begun_at=now)
    configured = resource.timeout_s(operation)
    deadline_s = state.settings.operation_deadline_s
    if configured is not None:
        deadline_s = configured + DEADLINE_MARGIN_S
    if operation is Operation.MONITOR:
        reports = state.knowledge.of(resource.id, host).reports
        result = await connection.operation(resource, operation, deadline_s)
        if _is_overtaken(state, resource, host, reports, result):
            return result
    else:
        result = await _change(state, connection, resource, host, operation, deadline_s, epoch)
    presence, reason = taught(operation, result)
    state.observe(group, resource, host, presence, epoch=epoch, begun_at=now, reason=reason)
    return result


async def _change(
    state: ClusterState,
    connection: AgentConnection,
    resource: Resource,
    host: HostId,
    operation: Operation,
    deadline_s: float,
    epoch: int,
) -> OperationResult:
    """A start or stop, counted on both ends: reports are told from it by its number."""
    at, now = state.hosts[host], asyncio.get_running_loop().time
    count, ends_at = at.operation_count(resource.id), now() + deadline_s
    count.sent += 1
    is_certain = False  # without an answer in time it may still run, and end uncounted
    try:
        result = await connection.operation(resource, operation, deadline_s)
        is_certain = now() < ends_at - LATE_S
    finally:
        if not is_certain and at.epoch == epoch:
            at.counts_certain = False
    count.answered += 1
    return result


def _is_overtaken(
    state: ClusterState, resource: Resource, host: HostId, reports: int, result: OperationResult
) -> bool:
    """Did a report that says otherwise come in while this monitor was on its way?

    Nobody can tell which of the two is younger. The report stands, since the agent tells when it
    does not hold any more; of the monitor nobody would ever be told that it was the older one."""
    known = state.knowledge.of(resource.id, host)
    return known.reports != reports and known.presence is not taught(Operation.MONITOR, result)[0]


def taught(operation: Operation, result: OperationResult) -> tuple[Presence, str]:
    """What a result says of the resource."""
    succeeded = result.outcome is Outcome.COMPLETED and result.code == OcfCode.SUCCESS
    if operation is Operation.START:
        if succeeded:
            return Presence.RUNNING, ""
        return Presence.ERROR, f"start failed: {describe(result)}"
    if operation is Operation.STOP:
        # Only a monitor proves that something is stopped.
        if succeeded:
            return Presence.UNKNOWN, "stopped; to be looked at"
        return Presence.ERROR, f"stop failed: {describe(result)}"
    if result.outcome is Outcome.COMPLETED:
        if is_present(result.code):
            reason = "" if succeeded else OcfCode.describe(result.code)
            return Presence.RUNNING, reason
        if result.code == OcfCode.NOT_RUNNING:
            return Presence.STOPPED, ""
    return Presence.ERROR, f"monitor: {describe(result)}"
