"""Is there room for a group on a host? `capacity` of hosts and `needs` of groups in the config.

What is free is derived each time, and stored nowhere: the capacity, without the needs of every
group that may be there. A group that is stopped there counts until its host has returned its token.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import urgency
from halo.core.reasons import Kind

KEPT_S = 10.0
"""So long is room kept for a group of a higher priority that still lacks proof."""

NOTHING = Decimal(0)


def takes_room(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Does the group count on `host`? It runs there, is started or stopped there, or is on its way;
    or its token waits, and it is not known to be stopped there."""
    at = state.groups[group.id]
    if host in (at.placed_on, state.memory_of(group).move_target):
        return True
    presence = state.knowledge.presence(group, host)
    return at.placed_on is None and presence is not Presence.STOPPED


def used(
    state: ClusterState, host: HostId, name: str, besides: ResourceGroup | None = None
) -> Decimal:
    """How much of one capacity the groups on `host` take, without the group `besides`."""
    return sum((group.needs[name] for group in _others(state, host, name, besides)), NOTHING)


def lacking(state: ClusterState, group: ResourceGroup, host: HostId) -> str | None:
    """What there is not enough of on `host`; None if the group has room there."""
    capacity = state.cluster.hosts[host].capacity if group.needs else {}
    for name, total in capacity.items():
        need = group.needs.get(name, NOTHING)
        if need == NOTHING:
            continue
        free = total - used(state, host, name, group)
        if need > free:
            return (
                f"{host} has {max(free, NOTHING)} of {total} {name} free, and {group.id} needs "
                f"{need}"
            )
    return None


def kept(state: ClusterState, group: ResourceGroup, host: HostId, now: float) -> str | None:
    """For which group of a higher priority the room on `host` is kept; None if for none.

    Such a group is down and is about to be started: it lacks only the proof that it is stopped
    elsewhere. After some seconds, the room is not kept for it any more."""
    capacity = state.cluster.hosts[host].capacity if group.needs else {}
    for name, total in capacity.items():
        need = group.needs.get(name, NOTHING)
        if need == NOTHING:
            continue
        free = total - used(state, host, name, group) - need
        for other in state.groups_of(host):
            first = other.priority > group.priority and host in other.candidates
            if first and other.needs.get(name, NOTHING) > free and _is_due(state, other, now):
                return f"the room on {host} is kept for {other.id}, which has a higher priority"
    return None


def _is_due(state: ClusterState, group: ResourceGroup, now: float) -> bool:
    at = state.groups[group.id]
    if at.placed_on is not None or not urgency.is_down(state, group):
        return False
    waiting = at.waiting
    return waiting is None or (waiting.reason.kind is Kind.PROOF and now - waiting.since < KEPT_S)


def _others(
    state: ClusterState, host: HostId, name: str, besides: ResourceGroup | None
) -> Iterator[ResourceGroup]:
    for group in state.groups_of(host):
        if name in group.needs and group is not besides and takes_room(state, group, host):
            yield group
