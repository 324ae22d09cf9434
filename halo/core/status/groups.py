"""A group in the status: where it runs, or the one reason why it does not, and what failed."""

from __future__ import annotations

from typing import Any

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup, as_number
from halo.core.questions import former, holds, proof, unfinished
from halo.core.questions.preempting import giving_way
from halo.core.reasons import Reason
from halo.core.status.words import ERROR, FAILED_OVER, RUNNING, UNKNOWN, joined


def waiting(
    state: ClusterState, group: ResourceGroup, now: float, wall_now: float
) -> dict[str, Any] | None:
    """The reason on record why a group that should run does not. None if there is none: it runs, it
    is being started, or it should not run.

    While no host manages the group, it is the reason that the placer acted on last."""
    at = state.groups[group.id]
    if at.managed_on is not None:
        reason = unfinished.reason(state, group, at.managed_on)
        return None if reason is None else _shown(reason, None)
    if at.waiting is None:
        return None
    return _shown(at.waiting.reason, wall_now - (now - at.waiting.since))


def _shown(reason: Reason, since: float | None) -> dict[str, Any]:
    return {
        "reason": reason.kind.value,
        "since": since,
        "text": reason.text,
        "ends_when": reason.ends_when,
        "data": {"hosts": dict(reason.hosts), "groups": dict(reason.groups)},
    }


def group_row(
    state: ClusterState,
    group: ResourceGroup,
    rows: list[dict[str, Any]],
    now: float,
    wall_now: float,
) -> dict[str, Any]:
    """The row of a group. `rows` are those of its resources."""
    memory, at = state.memory_of(group), state.groups[group.id]
    exclusive = [row["host"] for row in rows if row["host"] and not row["shared"]]
    host = next(iter(exclusive), at.managed_on)  # a held group may run where no host manages it
    status = ERROR if memory.error is not None else _status_of_all(rows, host)
    work, unable = under_way(state, group), _cannot_take(state, group, host)
    return {
        "id": group.id,
        "status": status,
        "host": host,
        "comment": joined(_group_comments(state, group, rows, status, work, unable)) or None,
        "waiting": waiting(state, group, now, wall_now),
        "managed": memory.managed,
        "wanted": "started" if memory.wanted else "stopped",
        "move_target": memory.move_target,
        "error": memory.error,
        "error_kind": memory.error_kind.value if memory.error_kind is not None else None,
        "start_failures": dict(memory.start_failures),
        "under_way": work,
        "cannot_take": unable,
        "token": state.ledger.holder(group.id),
        "home_host": group.home_host,
        "failover_hosts": list(group.failover_hosts),
        "after": list(group.after),
        "company": {key: list(names) for key, names in vars(group.company).items() if names},
        "needs": {name: as_number(amount) for name, amount in group.needs.items()},
        "priority": group.priority,
        "preempt": group.preempt,
        "gives_way_to": at.gives_way_to,
        "candidates": {
            host: state.knowledge.presence(group, host).value for host in group.candidates
        },
        "former_hosts": former.shown(state, group),
    }


def under_way(state: ClusterState, group: ResourceGroup) -> list[str]:
    """The starts and stops that were sent but not answered, in words."""
    found = []
    for host in group.candidates:
        operations = state.hosts[host].operations
        for resource in group.resources if operations and state.hosts[host].connected else ():
            count = operations.get(resource.id)
            if count is not None and count.sent != count.answered and count.last is not None:
                found.append(f"{count.last.value} of {resource.id} on {host}")
    return found


def _cannot_take(
    state: ClusterState, group: ResourceGroup, besides: HostId | None
) -> dict[HostId, str]:
    """The candidates in sight that cannot take the group until somebody repairs them, and why."""
    failures = state.memory_of(group).start_failures
    reasons = {}
    for host in group.candidates:
        if host != besides and state.hosts[host].ready:
            reason = state.candidate(group, host).error or failures.get(host)
            if reason is not None:
                reasons[host] = reason
    return reasons


def _status_of_all(rows: list[dict[str, Any]], host: HostId | None) -> str:
    """A group's status. Shared resources count only on the group's host, and only while it runs."""
    statuses = {row["status"] for row in rows if not row["shared"]}
    if ERROR in statuses:
        return ERROR
    status = str(statuses.pop()) if len(statuses) == 1 else UNKNOWN
    if status not in (RUNNING, FAILED_OVER) or host is None:
        return status
    shared = {row["candidates"][host]["status"] for row in rows if row["shared"]} - {RUNNING}
    if ERROR in shared:
        return ERROR
    return UNKNOWN if shared else status


def _group_comments(
    state: ClusterState,
    group: ResourceGroup,
    rows: list[dict[str, Any]],
    status: str,
    work: list[str],
    unable: dict[HostId, str],
) -> list[str]:
    """What an operator has to know of a group: why it waits, what failed, and what to do."""
    memory, at = state.memory_of(group), state.groups[group.id]
    failures = [memory.error or "", *memory.start_failures.values()]
    if at.managed_on is None:
        comments = [at.comment, *failures]
        if status == UNKNOWN:  # a held group tells only why it is held
            comments += [row["comment"] or "" for row in rows if row["status"] == UNKNOWN]
    else:
        # If a group runs well, do not repeat a hold of the whole cluster, which is shown elsewhere.
        is_well = status in (RUNNING, FAILED_OVER)
        held = holds.hold_reason(state, group) or ""
        other = giving_way.gives_way_to(state, group, at.managed_on) if not held else None
        gives_way = giving_way.in_words(other) if other is not None else ""
        comments = ["" if is_well and memory.managed else held, *failures, gives_way]
        comments += [row["comment"] or "" for row in rows if row["status"] == ERROR]
        down = [
            resource.id
            for resource in group.resources
            if state.knowledge.of(resource.id, at.managed_on).presence is Presence.STOPPED
        ]
        if down:
            comments.append(f"not running on {at.managed_on}: {', '.join(down)}")
            comments.append(former.gained_elsewhere(state, group, at.managed_on) or "")
        comments += [f"{what} is under way" for what in work]
        comments += [
            f"{host} cannot take it: {reason}"
            for host, reason in unable.items()
            if reason not in failures
        ]
        if not state.memory_of_host(at.managed_on).active and memory.wanted and not held:
            stays = proof.obstacle(state, group, at.managed_on)
            comments.append(f"it stays on {at.managed_on}, deactivated: {stays}" if stays else "")
    if any(failures) and not any("halo cleanup" in comment for comment in comments):
        comments.append(f"remove the cause, then run `halo cleanup {group.id}`")
    return comments
