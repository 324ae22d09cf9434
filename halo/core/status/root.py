"""The status as HALO (Rust) gives it: what `GET /status`, at the root of the API, answers.

Programs that were written for HALO read it into fixed structures: every key is there, of the right
kind, and none may be added. What an operator has to know beyond it stands in `GET /v1/status`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, Resource, ResourceGroup
from halo.core.status.ours import (
    ERROR,
    RUNNING,
    STOPPED,
    UNKNOWN,
    event,
    joined,
    on_host,
    shown_parameters,
)


def root_parts(state: ClusterState) -> Iterator[tuple[str, Any]]:
    """The status in parts, as :func:`halo.core.status.ours.parts` gives it: some rows of a list.

    Every group's resources in the order its tree is walked, parents first; a shared one once."""
    for key in ("resources", "hosts", "events"):
        yield key, []
    listed: set[str] = set()
    for group in state.cluster.groups.values():
        copies = state.knowledge.running_on(group)
        new = [resource for resource in group.resources if resource.id not in listed]
        listed.update(resource.id for resource in new)
        yield "resources", [_resource(state, group, resource, copies) for resource in new]
    for host in state.cluster.hosts:
        memory = state.memory_of_host(host)
        row = {
            "id": host,
            "active": memory.active,
            "connected": state.hosts[host].connected,
            "fenced": memory.fenced,
        }
        yield "hosts", [row]
    events = [event(record) for record in state.remembered.events]
    yield "events", [{**told, "comment": told["comment"] or None} for told in events]


def _resource(
    state: ClusterState, group: ResourceGroup, resource: Resource, copies: list[HostId]
) -> dict[str, Any]:
    groups = state.cluster.groups_of_shared[resource.id] if resource.shared else (group,)
    status = _status(state, groups, resource, copies)
    return {
        "id": resource.id,
        "kind": resource.kind,
        "parameters": shown_parameters(resource.parameters),
        "status": status,
        "managed": any(state.memory_of(group).managed for group in groups),
        "home_host": group.home_host,
        "failover_host": _failover_host(group, status),
        "dependents": list(resource.dependents),
        "exclusive": not resource.shared,
    }


def _status(
    state: ClusterState,
    groups: tuple[ResourceGroup, ...],
    resource: Resource,
    copies: list[HostId],
) -> dict[HostId, dict[str, str | None]]:
    """By host. A second copy is an error on both: a program that shows one host must not show a
    group as running well."""
    at = state.groups[groups[0].id]
    waits = at.comment if at.managed_on is None and not resource.shared else ""
    found: dict[HostId, dict[str, str | None]] = {}
    for host in dict.fromkeys(host for group in groups for host in group.candidates):
        word, why = on_host(state.hosts[host], state.knowledge.of(resource.id, host))
        if word == RUNNING and len(copies) > 1 and not resource.shared:
            word, why = ERROR, f"running on {' and '.join(copies)} at once"
        elif word not in (RUNNING, STOPPED):
            why = joined([why, waits])
        found[host] = {"status": word, "comment": why or None}
    return found


def _failover_host(group: ResourceGroup, status: dict[HostId, dict[str, str | None]]) -> str | None:
    """HALO knows one. Of several it is the one that matters now: where the resource runs, else
    where something is wrong, else what is out of sight."""
    for word in (RUNNING, ERROR, UNKNOWN):
        for host in group.failover_hosts:
            if status[host]["status"] == word:
                return host
    return group.failover_hosts[0] if group.failover_hosts else None
