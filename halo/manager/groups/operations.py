"""One operation on one resource over one connection, and its result: the only way to an agent.

Every start must pass :func:`halo.core.questions.proof.start_refusal` here, in the same step that
sends it (S1).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.errors import LinkError
from halo.core.groups.actions import describe
from halo.core.groups.results import is_of_setup
from halo.core.model import HostId, Operation, Resource, ResourceGroup
from halo.core.outcomes import OperationResult, Outcome
from halo.core.peers.ocf import OcfCode, is_present
from halo.core.questions import proof
from halo.manager.common.context import Context
from halo.ports import AgentConnection

DEADLINE_MARGIN_S = 5.0
LATE_S = 0.001
"""An answer that comes this shortly before the deadline may be caused by the deadline."""


MonitorTaker = Callable[[Resource, OperationResult | LinkError], None]


class StartRefused(Exception):
    """The start was not sent. The text says which proof is missing."""


class SeenRunning(Exception):
    """The start was not sent: after the decision, the resource was seen running there."""


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
    """Run one operation, and note its result in the knowledge.

    Raises StartRefused or SeenRunning before anything is sent, and LinkError if the connection
    ended."""
    now = asyncio.get_running_loop().time()
    if operation is Operation.START:
        if state.knowledge.is_seen_running(resource, host, epoch):
            raise SeenRunning
        refusal = proof.start_refusal(state, group, host, epoch, since, now)
        if refusal is not None:
            raise StartRefused(refusal)
        state.knowledge.note_starting(resource, host, epoch=epoch, begun_at=now)
    deadline_s = _deadline_s(state, resource.timeout_s(operation))
    if operation is Operation.MONITOR:
        reports = state.knowledge.of(resource.id, host).reports
        result = await connection.operation(resource, operation, deadline_s)
        if _is_overtaken(state, resource, host, reports, result):
            return result
    else:
        try:
            result = await _change(state, connection, resource, host, operation, deadline_s, epoch)
        finally:
            state.operation_ended(group, resource)
    presence, reason = taught(operation, result)
    state.observe(
        group,
        resource,
        host,
        presence,
        epoch=epoch,
        begun_at=now,
        reason=reason,
        of_setup=presence is Presence.ERROR and is_of_setup(result),
    )
    return result


class _Monitor:
    """One monitor under way: what was asked, and who gets the answer.

    A manager that polls thirty thousand resources makes six thousand of these a second. A task or a
    future for each would cost more than all the rest."""

    __slots__ = ("began_at", "context", "epoch", "group", "host", "reports", "resource", "taker")

    def __init__(
        self,
        context: Context,
        group: ResourceGroup,
        resource: Resource,
        host: HostId,
        epoch: int,
        began_at: float,
        taker: MonitorTaker,
    ) -> None:
        self.context = context
        self.group = group
        self.resource = resource
        self.host = host
        self.epoch = epoch
        self.began_at = began_at
        self.reports = context.state.knowledge.of(resource.id, host).reports
        self.taker = taker

    def answered(self, answer: OperationResult | Exception) -> None:
        """Note the result in the knowledge, and hand it to the caller, in one step."""
        try:
            if isinstance(answer, OperationResult):
                self._learn(answer)
            elif not isinstance(answer, LinkError):
                raise answer
            self.taker(self.resource, answer)
        except Exception as error:  # a defect of ours, which no caller would see
            self.context.fatal(error)

    def _learn(self, result: OperationResult) -> None:
        state, group, resource, host = self.context.state, self.group, self.resource, self.host
        if _is_overtaken(state, resource, host, self.reports, result):
            return
        presence, reason = taught(Operation.MONITOR, result)
        knowledge = state.knowledge
        is_news = knowledge.of(resource.id, host).presence is not presence
        copies_before = len(knowledge.running_on(group)) if is_news else 0
        state.observe(
            group,
            resource,
            host,
            presence,
            epoch=self.epoch,
            begun_at=self.began_at,
            reason=reason,
            of_setup=presence is Presence.ERROR and is_of_setup(result),
        )
        if is_news and copies_before < 2 and len(knowledge.running_on(group)) > 1:
            self.context.placer.second_copy(group.id)


def monitor(
    context: Context,
    connection: AgentConnection,
    group: ResourceGroup,
    resource: Resource,
    host: HostId,
    *,
    epoch: int,
    taker: MonitorTaker,
) -> None:
    """Send one monitor. In one later step, its result is noted like that of :func:`operate`, the
    placer is told of a second copy, and `taker` is called."""
    state = context.state
    now = asyncio.get_running_loop().time()
    asked = _Monitor(context, group, resource, host, epoch, now, taker)
    connection.monitor(resource, _deadline_s(state, resource.monitor_timeout_s), asked.answered)


def _deadline_s(state: ClusterState, configured_s: float | None) -> float:
    if configured_s is None:
        return state.settings.operation_deadline_s
    return configured_s + DEADLINE_MARGIN_S


async def _change(
    state: ClusterState,
    connection: AgentConnection,
    resource: Resource,
    host: HostId,
    operation: Operation,
    deadline_s: float,
    epoch: int,
) -> OperationResult:
    """A start or stop, which both ends count. The count in a report shows whether it is newer."""
    at, now = state.hosts[host], asyncio.get_running_loop().time
    count, ends_at = at.operation_count(resource.id), now() + deadline_s
    count.sent, count.last = count.sent + 1, operation
    is_certain = False  # without an answer in time it may still run, and end without being counted
    try:
        result = await connection.operation(resource, operation, deadline_s)
        is_certain = not result.uncounted and now() < ends_at - LATE_S
    finally:
        if not is_certain and at.epoch == epoch:
            at.counts_certain = False
    count.answered += 1
    return result


def _is_overtaken(
    state: ClusterState, resource: Resource, host: HostId, reports: int, result: OperationResult
) -> bool:
    """Did a report with another result come in while this monitor was under way?

    Nobody can tell which of the two is newer. The report is kept, because the agent tells when it
    is not valid any more. Nobody would ever tell that the monitor was the older one."""
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
        # Only a monitor proves that a resource is stopped.
        if succeeded:
            return Presence.UNKNOWN, "stopped; HALO has to probe it"
        return Presence.ERROR, f"stop failed: {describe(result)}"
    if result.outcome is Outcome.COMPLETED:
        if is_present(result.code):
            reason = "" if succeeded else OcfCode.describe(result.code)
            return Presence.RUNNING, reason
        if result.code == OcfCode.NOT_RUNNING:
            return Presence.STOPPED, ""
    return Presence.ERROR, f"monitor: {describe(result)}"
