"""The status as data: what `GET /v1/status` answers, built from the state in one step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from halo.core.cluster.host_state import FencePhase, HostState
from halo.core.cluster.knowledge import Presence, Sighting
from halo.core.cluster.state import ClusterState
from halo.core.journal import removed
from halo.core.journal.records import Event, Record, is_step_down
from halo.core.model import Host, HostId, Resource, ResourceGroup, as_number
from halo.core.peers import certificates
from halo.core.questions import former, room
from halo.core.secrets import is_secret_name
from halo.core.status.groups import group_row
from halo.core.status.words import ERROR, FAILED_OVER, RUNNING, STOPPED, UNKNOWN, joined
from halo.core.survival import forecast
from halo.core.survival.forecast import Forecast
from halo.core.survival.outlook import Outlook


def snapshot(state: ClusterState, version: str, now: float, wall_now: float) -> dict[str, Any]:
    """The whole status. `now` is monotonic, `wall_now` seconds since the epoch."""
    whole: dict[str, Any] = {}
    for key, value in parts(state, version, now, wall_now):
        if isinstance(value, list):
            whole.setdefault(key, []).extend(value)
        else:
            whole[key] = value
    return whole


def parts(
    state: ClusterState, version: str, now: float, wall_now: float
) -> Iterator[tuple[str, Any]]:
    """The status in parts. A part is a key with its value, or with further rows of the key's list.

    The state may change between two parts. Each part shows one moment. A part without rows is only
    a place where other work may be done."""
    for key in ("resources", "groups", "hosts", "events"):
        yield key, []
    listed: set[str] = set()
    # Without needs and wishes, any candidate that serves can take a group. That is no news.
    outlook = Outlook(state) if state.cluster.places_are_short else None
    for group in state.cluster.groups.values():
        copies = state.knowledge.running_on(group)
        if outlook is not None:
            outlook.note(group, copies)
        rows = [_resource(state, group, resource, copies) for resource in group.resources]
        whole_group = group_row(state, group, rows, now, wall_now)
        shown = [
            _shared(state, resource, row) if resource.shared else row
            for resource, row in zip(group.resources, rows, strict=True)
            if resource.id not in listed
        ]
        listed.update(row["id"] for row in shown)
        yield "resources", shown
        yield "groups", [whole_group]
    for host in state.cluster.hosts.values():
        yield "hosts", [_host(state, host, now, wall_now)]
    yield "events", [event(record) for record in state.remembered.events]
    for _ in outlook.steps() if outlook is not None else ():
        yield "hosts", []
    ahead = outlook.forecast if outlook is not None else None
    yield "manager", _manager(state, version, wall_now, ahead)


def event(record: Record) -> dict[str, str]:
    """One event as the operator reads it; times in the manager's time zone."""
    return {
        "timestamp": datetime.fromtimestamp(record.at).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "event": _name(record),
        "obj_id": record.object,
        "comment": record.comment,
    }


def _name(record: Record) -> str:
    if record.event is Event.CLEAR_EVENTS:
        return "clear"
    return "step-down" if is_step_down(record) else record.event.value


def on_host(at: HostState, sighting: Sighting) -> tuple[str, str]:
    """The status of a resource on one host, and its reason."""
    if sighting.presence is Presence.UNKNOWN and sighting.failure is None and not at.connected:
        return UNKNOWN, f"{at.id} is disconnected"
    if sighting.presence is Presence.RUNNING:
        return RUNNING, sighting.failure or sighting.reason
    if sighting.failure is not None:
        return ERROR, sighting.failure
    return sighting.presence.value, sighting.reason


def _resource(
    state: ClusterState, group: ResourceGroup, resource: Resource, copies: list[HostId]
) -> dict[str, Any]:
    memory, at = state.memory_of(group), state.groups[group.id]
    per_host = {
        host: on_host(state.hosts[host], state.knowledge.of(resource.id, host))
        for host in group.candidates
    }
    running = [host for host, (status, _) in per_host.items() if status == RUNNING]
    elsewhere = [] if resource.shared else _on_former_hosts(state, group, resource)
    statuses = [found for found, _ in (*per_host.values(), *elsewhere)]
    status = _overall([group.home_host], statuses, running)
    comment = at.comment if at.managed_on is None else ""
    if len(copies) > 1 and not resource.shared:
        status, comment = ERROR, f"running on {' and '.join(copies)} at once"
    elif status == UNKNOWN and at.failed:
        status = ERROR
    if status in (RUNNING, FAILED_OVER):
        comment = "; ".join(filter(None, {per_host[host][1] for host in running}))
    elif not comment or status in (ERROR, UNKNOWN):
        reasons = [f"{why}" for found, why in per_host.values() if why and found != STOPPED]
        comment = joined([*reasons, comment]) or joined(
            [why for found, why in elsewhere if found != STOPPED]
        )
    return {
        "id": resource.id,
        "group": group.id,
        "groups": [group.id],
        "kind": resource.kind,
        "parameters": shown_parameters(resource.parameters),
        "dependents": list(resource.dependents),
        "status": status,
        "comment": comment or None,
        "managed": memory.managed,
        "host": running[0] if len(running) == 1 else None,
        "hosts": running,
        "home_host": group.home_host,
        "failover_host": group.failover_hosts[0] if group.failover_hosts else None,
        "failover_hosts": list(group.failover_hosts),
        "shared": resource.shared,
        "candidates": {
            host: {"status": found, "comment": why or None}
            for host, (found, why) in per_host.items()
        },
    }


def _on_former_hosts(
    state: ClusterState, group: ResourceGroup, resource: Resource
) -> list[tuple[str, str]]:
    """The status of a resource, and its reason, where it may still run or is seen, though the
    config does not name the hosts as candidates any more. The group is not stopped before it is
    stopped there, too."""
    may_run = state.memory_of(group).former
    if not (may_run or group.former_hosts):
        return []  # as of nearly every group
    found = []
    for each in state.former_of(group):
        status, why = on_host(each.at, state.knowledge.of(resource.id, each.host))
        if each.host in may_run or status == RUNNING:
            found.append((status, why or f"{status} on {each.host}, a former host"))
    return found + [
        (UNKNOWN, f"it may run on {host}, which is not in the config any more")
        for host in former.gone(state, group)
    ]


def _shared(state: ClusterState, resource: Resource, row: dict[str, Any]) -> dict[str, Any]:
    """The row of a shared resource for all its groups, made from the `row` for one of them."""
    groups = state.cluster.groups_of_shared[resource.id]
    if len(groups) == 1:
        return row
    homes = dict.fromkeys(group.home_host for group in groups)
    hosts = dict.fromkeys([*homes, *(host for group in groups for host in group.candidates)])
    per_host = {h: on_host(state.hosts[h], state.knowledge.of(resource.id, h)) for h in hosts}
    running = [host for host, (status, _) in per_host.items() if status == RUNNING]
    status = _overall(homes, [status for status, _ in per_host.values()], running)
    failover = [host for host in hosts if host != row["home_host"]]
    return {
        **row,
        "groups": [group.id for group in groups],
        "status": status,
        "comment": joined([why for found, why in per_host.values() if found != STOPPED]) or None,
        "managed": any(state.memory_of(group).managed for group in groups),
        "host": running[0] if len(running) == 1 else None,
        "hosts": running,
        "failover_host": failover[0] if failover else None,
        "failover_hosts": failover,
        "candidates": {
            host: {"status": found, "comment": why or None}
            for host, (found, why) in per_host.items()
        },
    }


def shown_parameters(parameters: Mapping[str, str]) -> dict[str, str]:
    """Parameters without values that look like secrets."""
    return {name: "***" if is_secret_name(name) else value for name, value in parameters.items()}


def _overall(homes: Iterable[HostId], statuses: list[str], running: list[HostId]) -> str:
    if any(home in running for home in homes):
        return RUNNING
    if running:
        return FAILED_OVER
    if all(status == STOPPED for status in statuses):
        return STOPPED
    return ERROR if ERROR in statuses else UNKNOWN


def _host(state: ClusterState, config: Host, now: float, wall_now: float) -> dict[str, Any]:
    at, memory = state.hosts[config.id], state.memory_of_host(config.id)
    return {
        "id": config.id,
        "address": config.address,
        "port": config.port,
        "active": memory.active,
        "connected": at.connected,
        "fenced": memory.fenced,
        "state": _host_state(state, at),
        "lifecycle": _lifecycle(state, config.id),
        "comment": _host_comment(at, memory.distrusted),
        "version": at.identity.version or None,
        "legacy": at.identity.legacy,
        "certificate_expires": at.identity.certificate_expires_at,
        "since": wall_now - (now - at.since),
        "fence_trusted": memory.distrusted is None,
        "fence_held": at.fence_held or None,
        "capacity": {
            name: {"total": as_number(total), "used": as_number(room.used(state, config.id, name))}
            for name, total in config.capacity.items()
        },
        "max_starts": config.max_starts,
        "fence_agents": [device.agent for level in config.fence_levels for device in level],
    }


def _lifecycle(state: ClusterState, host: HostId) -> dict[str, Any]:
    """The last transition of a host in the journal."""
    last = state.remembered.lifecycle(host)
    return {"state": last.state.value, "since": last.at or None, "reason": last.reason or None}


def _host_state(state: ClusterState, at: HostState) -> str:
    if at.fence_phase is not FencePhase.IDLE:
        return at.fence_phase.value
    if at.connected:
        return "suspect" if at.suspect_at is not None else "connected"
    if at.power_proof is not None:
        return "fenced"
    return "lost" if at.lost_at is not None else "disconnected"


def _host_comment(at: HostState, distrusted: str | None) -> str | None:
    parts = []
    if not at.connected and at.loss is not None:
        parts.append(str(at.loss))
    held = at.fence_held if not at.connected else ""
    if at.fence_phase is FencePhase.FAILED and at.fence_error not in held:
        parts.append(f"fencing failed: {at.fence_error}")
    if held:
        parts.append(f"not fenced: {held}")
    if distrusted:
        parts.append(f"fence device not trusted: {distrusted}")
    return "; ".join(parts) or None


def _manager(
    state: ClusterState, version: str, wall_now: float, ahead: Forecast | None
) -> dict[str, Any]:
    return {
        "version": version,
        "cluster": state.cluster.name,
        "mode": "observe" if state.observe_only else "manage",
        "frozen": state.remembered.frozen is not None,
        "frozen_comment": state.remembered.frozen,
        "journal": state.journal_trouble or "ok",
        "removed_groups": {name: list(on) for name, on in state.remembered.removed.items()},
        "survival": forecast.shown(ahead) if ahead is not None else None,
        "notices": _notices(state, version, wall_now, ahead),
    }


def _notices(
    state: ClusterState, version: str, wall_now: float, ahead: Forecast | None
) -> list[str]:
    notices = []
    if state.journal_trouble is not None:
        notices.append(
            f"the journal cannot be written ({state.journal_trouble}); commands are refused, and "
            "after a restart the manager does not remember what it did by itself"
        )
    skewed: dict[str, list[HostId]] = {}
    for host, at in sorted(state.hosts.items()):
        if at.connected and not at.identity.legacy and at.identity.version != version:
            skewed.setdefault(at.identity.version or "unknown", []).append(host)
    if skewed:
        others = "; ".join(f"{other} on {', '.join(hosts)}" for other, hosts in skewed.items())
        notices.append(
            f"the manager has version {version}, and some agents have another one: {others}. "
            "Finish the upgrade"
        )
    connected = {at.id: at.identity for at in state.hosts.values() if at.connected}
    notices += certificates.notices(state.own_certificates, connected, wall_now) + state.redundancy
    notices += removed.notices(state.remembered.removed) + former.notices(state)
    loss = forecast.in_words(ahead) if ahead is not None else None
    return notices if loss is None else [*notices, loss]
