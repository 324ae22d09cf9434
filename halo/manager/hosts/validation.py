"""`halo validate --agents`: has the agents run `validate-all` of every resource they may get.

It changes nothing. So it needs no token, and is allowed in observe mode. Its results go only to the
operator: a script that refuses its parameters proves nothing about what runs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog

from halo.core import admin
from halo.core.cluster.state import ClusterState
from halo.core.errors import CommandRefused, LinkError
from halo.core.model import GroupId, HostId, Operation, Resource
from halo.core.outcomes import OperationResult, Outcome
from halo.core.peers.calls import VALIDATE_ALL
from halo.core.peers.ocf import OcfCode
from halo.manager.hosts.host_task import HostTask
from halo.ports import AgentConnection

AT_ONCE = 4
"""Scripts at a time on one host, which also has to run its services."""
ANSWER_DEADLINE_S = 90.0
"""Longest wait for one answer. The script's own deadline, at the agent, is mostly shorter."""
HOST_DEADLINE_S = 300.0
"""After this time, no further script is begun on a host."""

log = structlog.get_logger("halo.command")


class Validation:
    """Asks one host for all its resources. The caller may ask several hosts side by side."""

    def __init__(
        self,
        state: ClusterState,
        hosts: Mapping[HostId, HostTask],
        *,
        answer_deadline_s: float = ANSWER_DEADLINE_S,
        host_deadline_s: float = HOST_DEADLINE_S,
    ) -> None:
        self._state = state
        self._hosts = hosts
        self._answer_deadline_s = answer_deadline_s
        self._host_deadline_s = host_deadline_s
        self._running: set[HostId] = set()

    async def run(self, host: HostId) -> dict[str, Any]:
        """Run `validate-all` of every resource that has this host as a candidate.

        Returns one row for each resource, even if its script could not be asked. Raises
        UnknownObject, and CommandRefused if the host cannot be asked at all.
        """
        admin.require_host(self._state, host)
        connection = self._connection(host)
        if host in self._running:
            raise CommandRefused(f"the scripts of {host} are being validated already")
        self._running.add(host)
        try:
            rows = await self._all(host, connection)
        finally:
            self._running.discard(host)
        failed = sum(row["outcome"] != "ok" for row in rows)
        log.info("validated", host=host, resources=len(rows), failed=failed)
        message = f"{host}: {len(rows) - failed} of {len(rows)} resources are valid"
        return {"host": host, "message": message, "results": rows}

    def _connection(self, host: HostId) -> AgentConnection:
        connection = self._hosts[host].link.connection
        if connection is None:
            loss = self._state.hosts[host].loss
            raise CommandRefused(f"{host} is disconnected" + (f": {loss}" if loss else ""))
        if VALIDATE_ALL not in connection.identity.features:
            raise CommandRefused(
                f"the agent of {host} is too old to run validate-all; install a newer halo_remote"
            )
        return connection

    async def _all(self, host: HostId, connection: AgentConnection) -> list[dict[str, Any]]:
        found: dict[str, tuple[GroupId, Resource]] = {}
        for group in self._state.groups_of(host):
            for resource in group.resources if host in group.candidates else ():
                found.setdefault(resource.id, (group.id, resource))  # shared ones only once
        results: dict[str, OperationResult] = {}
        waiting = deque(resource for _, resource in found.values())
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._host_deadline_s

        async def work() -> None:
            while waiting:
                resource = waiting.popleft()
                results[resource.id] = await self._one(connection, resource, ends_at)

        async with asyncio.TaskGroup() as workers:
            for _ in range(min(AT_ONCE, len(found))):
                workers.create_task(work())
        return [_row(host, group, resource, results[id]) for id, (group, resource) in found.items()]

    async def _one(
        self, connection: AgentConnection, resource: Resource, ends_at: float
    ) -> OperationResult:
        if asyncio.get_running_loop().time() >= ends_at:
            text = f"no time was left: the scripts before it took all {self._host_deadline_s:g} s"
            return OperationResult(Outcome.NOT_RUN, message=text)
        try:
            return await connection.operation(resource, Operation.VALIDATE, self._answer_deadline_s)
        except LinkError as error:
            return OperationResult(Outcome.NOT_RUN, message=str(error))


def _row(
    host: HostId, group: GroupId, resource: Resource, result: OperationResult
) -> dict[str, Any]:
    completed = result.outcome is Outcome.COMPLETED
    if completed:
        outcome = "ok" if result.code == OcfCode.SUCCESS else "failed"
    else:
        outcome = result.outcome.value
    return {
        "resource": resource.id,
        "group": group,
        "kind": resource.kind,
        "host": host,
        "outcome": outcome,
        "code": result.code if completed else None,
        "ocf_name": (OcfCode.name_of(result.code) or None) if completed else None,
        "message": result.message or None,
    }
