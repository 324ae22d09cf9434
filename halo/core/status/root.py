"""The status as HALO (Rust) gives it: the answer of `GET /status` at the root of the API.

Programs that were written for HALO read it into fixed structures. So every key must be there, with
the right type, and no key may be added. `GET /v1/status` has everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, Resource, ResourceGroup
from halo.core.status.ours import event, on_host, shown_parameters
from halo.core.status.words import ERROR, RUNNING, STOPPED, UNKNOWN, joined


def root_parts(state: ClusterState) -> Iterator[tuple[str, Any]]:
    """The status in parts, like :func:`halo.core.status.ours.parts`.

    The resources of a group come parents first. A shared resource comes only once."""
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
    """The status by host. A second copy is an error on both hosts, so a program that shows only
    one host does not show the group as running well."""
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
    """HALO knows only one failover host. If there are several, take the one that matters now: where
    the resource runs, or else is in error, or else is unknown."""
    for word in (RUNNING, ERROR, UNKNOWN):
        for host in group.failover_hosts:
            if status[host]["status"] == word:
                return host
    return group.failover_hosts[0] if group.failover_hosts else None
