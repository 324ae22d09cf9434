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
    """For which other group the room on `host` is kept; None if for none.

    It is kept for a group that ran, and is being moved: it would have been stopped for nothing. And
    it is kept for a group of a higher priority that is down, and lacks only the proof that it is
    stopped elsewhere. After some seconds, the room is not kept for such a group any more."""
    capacity = state.cluster.hosts[host].capacity if group.needs else {}
    if state.groups[group.id].moving:
        return None
    for name, total in capacity.items():
        need = group.needs.get(name, NOTHING)
        if need == NOTHING:
            continue
        free = total - used(state, host, name, group) - need
        for other in state.groups_of(host):
            if other.needs.get(name, NOTHING) <= free or host not in other.candidates:
                continue
            if takes_room(state, other, host):
                continue  # it counts already
            if _is_on_the_move(state, other, host, now):
                return f"the room on {host} is kept for {other.id}, which is being moved"
            if other.priority > group.priority and _is_due(state, other, now):
                return f"the room on {host} is kept for {other.id}, which has a higher priority"
    return None


def _is_on_the_move(state: ClusterState, group: ResourceGroup, host: HostId, now: float) -> bool:
    at = state.groups[group.id]
    if at.placed_on is not None:
        return at.departing and at.placed_on != host
    return at.moving and state.memory_of(group).wanted and _is_about_to_start(state, group, now)


def _is_due(state: ClusterState, group: ResourceGroup, now: float) -> bool:
    at = state.groups[group.id]
    is_down = at.placed_on is None and urgency.is_down(state, group)
    return is_down and _is_about_to_start(state, group, now)


def _is_about_to_start(state: ClusterState, group: ResourceGroup, now: float) -> bool:
    """Does it lack nothing, or only proof, and not for long?"""
    waiting = state.groups[group.id].waiting
    return waiting is None or (waiting.reason.kind is Kind.PROOF and now - waiting.since < KEPT_S)


def _others(
    state: ClusterState, host: HostId, name: str, besides: ResourceGroup | None
) -> Iterator[ResourceGroup]:
    for group in state.groups_of(host):
        if name in group.needs and group is not besides and takes_room(state, group, host):
            yield group
