"""The policy for a second copy of a group (S9): report it, stop it, or fence its host.

HALO acts only if a host's task holds the token, so that it is clear which copy is the second. If
the policy cannot be carried out, it falls back to `report`: Error until `cleanup`.
"""

from __future__ import annotations

import asyncio

import structlog

from halo.core.cluster.knowledge import Presence
from halo.core.errors import LinkError
from halo.core.fencing import rules
from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind
from halo.core.model import HostId, Operation, ResourceGroup, SecondCopyPolicy
from halo.core.outcomes import Outcome
from halo.core.peers.ocf import OcfCode
from halo.manager.common.context import Context
from halo.manager.fencing.fence_runner import FenceRunner
from halo.manager.groups.operations import operate
from halo.manager.hosts.host_task import HostTask

CONFIRM_S = 3.0
"""How long a second probe may take. A copy without another answer by then counts as running."""

CONFIRM_POLL_S = 0.02

log = structlog.get_logger("halo.second-copy")


class SecondCopies:
    """Carries out `second_copy` policies."""

    def __init__(
        self, context: Context, hosts: dict[HostId, HostTask], fence_runner: FenceRunner
    ) -> None:
        self._context = context
        self._state = context.state
        self._hosts = hosts
        self._fence_runner = fence_runner
        self._under_way: set[str] = set()

    def seen(self, group: ResourceGroup) -> None:
        """Two copies are seen: act according to the policy, or record the error."""
        memory = self._state.memory_of(group)
        if self._state.observe_only or memory.error_kind is ErrorKind.SECOND_COPY:
            return
        if group.id in self._under_way or not memory.managed:
            return  # the status shows an unmanaged group, which people may be moving now
        self._under_way.add(group.id)
        self._context.spawn(self._meet(group))

    async def _meet(self, group: ResourceGroup) -> None:
        """Probe again, then act by the policy. Meanwhile nothing is done to the group, because the
        two copies hold it."""
        try:
            if await self._is_confirmed(group):
                await self._act(group)
        finally:
            self._under_way.discard(group.id)
            self._context.placer.learnt([group.id])
            for host in group.hosts:
                self._hosts[host].poke(group.id)

    async def _is_confirmed(self, group: ResourceGroup) -> bool:
        """Do both copies run at the same time? One result may be older than the other, and the
        group may have been moved by hand in between."""
        now = asyncio.get_running_loop().time
        began, deadline = now(), now() + CONFIRM_S
        knowledge = self._state.knowledge
        while now() < deadline and len(copies := knowledge.running_on(group)) > 1:
            unsure = {
                host
                for host in copies
                for resource in group.exclusive
                if knowledge.of(resource.id, host).presence is Presence.RUNNING
                and knowledge.of(resource.id, host).begun_at < began
            }
            if not unsure:
                break
            for host in group.hosts:
                if host in unsure:
                    self._hosts[host].probe(group.id)  # one at a time; an older one may be running
            await asyncio.sleep(CONFIRM_POLL_S)
        return len(knowledge.running_on(group)) > 1

    def _report(self, group: ResourceGroup, hosts: list[HostId], why: str = "") -> None:
        text = f"running on {' and '.join(hosts)} at once" + (f"; {why}" if why else "")
        kind = ErrorKind.SECOND_COPY.value
        self._context.journal.note(
            self._context.journal.make(Event.ERROR, group.id, text, kind=kind, hosts=hosts)
        )
        self._context.placer.learnt([group.id])
        for host in group.hosts:
            self._hosts[host].poke(group.id)

    async def _act(self, group: ResourceGroup) -> None:
        memory = self._state.memory_of(group)
        holder = self._state.groups[group.id].managed_on
        copies = self._state.knowledge.running_on(group)
        log.error("second copy", group=group.id, hosts=copies)
        may_act = memory.managed and self._state.remembered.frozen is None
        if group.second_copy is SecondCopyPolicy.REPORT or not may_act or holder not in copies:
            self._report(group, copies)
            return
        for other in copies:
            if other == holder:
                continue
            if group.second_copy is SecondCopyPolicy.FENCE:
                problem = self._fence(group, other)
            else:
                problem = await self._stop(group, holder, other)
            if problem is not None:
                self._report(group, [holder, other], problem)
                return

    def _fence(self, group: ResourceGroup, host: HostId) -> str | None:
        now = asyncio.get_running_loop().time()
        refusal = rules.second_copy_refusal(self._state, host, now)
        if refusal is not None:
            return f"not fenced: {refusal}"
        self._fence_runner.fence_second_copy(host, f"it ran a second copy of {group.id}")
        return None

    async def _stop(self, group: ResourceGroup, holder: HostId, host: HostId) -> str | None:
        """Stop the group's exclusive resources on `host`, leaves first. Returns why that failed."""
        connection, epoch = self._hosts[host].link.connection, self._state.hosts[host].epoch
        if connection is None:
            return f"{host} is disconnected"
        for resource in reversed(group.exclusive):
            for operation in (Operation.STOP, Operation.MONITOR):
                memory = self._state.memory_of(group)
                if self._state.groups[group.id].managed_on != holder or not memory.managed:
                    return "the group is no longer managed on the same host"
                if self._state.remembered.frozen is not None:
                    return "the cluster was frozen meanwhile"
                log.warning(operation.value, group=group.id, resource=resource.id, host=host)
                try:
                    result = await operate(
                        self._state, connection, group, resource, host, operation, epoch=epoch
                    )
                except LinkError as error:
                    return str(error)
                if operation is Operation.STOP and (
                    result.outcome is not Outcome.COMPLETED or result.code != OcfCode.SUCCESS
                ):
                    return f"stop of {resource.id} on {host} failed"
        if self._state.knowledge.presence(group, host) is not Presence.STOPPED:
            return f"the copy on {host} was stopped, but it still runs"
        text = f"the second copy on {host} was stopped (policy)"
        self._context.journal.note(self._context.journal.make(Event.STOP_COPY, group.id, text))
        return None
