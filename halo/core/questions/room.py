"""Is there room for a group on a host? `capacity` of hosts and `needs` of groups in the config.

What is free is derived from what is known: the capacity, without the needs of every group that may
be there. A group that is stopped there counts until its host has returned its token.

The sum for a host is kept until something changes that it depends on. Otherwise each of a hundred
groups that wait for room there would add up all the others, again and again.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from halo.core.cluster.group_state import RoomTaken
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.model import GroupId, HostId, ResourceGroup
from halo.core.questions.starts import urgency
from halo.core.reasons import Kind

KEPT_S = 10.0
"""So long does a group wait for one of a higher priority that still lacks proof."""

NOTHING = Decimal(0)


def takes_room(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Does the group count on `host`? It runs there, is started or stopped there, or is on its way;
    or its token waits, and it is not known to be stopped there."""
    return is_there(state, group, host) or heads_for(state, group) == host


def is_there(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """May something of the group be on this host now?"""
    at, presence = state.groups[group.id], state.knowledge.presence(group, host)
    if at.placed_on == host or presence is Presence.RUNNING:
        return True
    if at.placed_on is not None or host not in group.hosts:
        return False  # where it may not run, it is not looked for
    return state.hosts[host].ready and presence is not Presence.STOPPED


def heads_for(state: ClusterState, group: ResourceGroup) -> HostId | None:
    """The target of a planned move. A group that HALO may not touch heads for nowhere."""
    memory = state.memory_of(group)
    return memory.move_target if memory.managed and memory.error_kind is None else None


def is_on_the_move(state: ClusterState, group: ResourceGroup) -> bool:
    """Is it being stopped, or was it stopped, to be started on another host?"""
    at = state.groups[group.id]
    return at.departing or (at.moving and at.placed_on is None and state.memory_of(group).wanted)


def may_come(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Is the group being moved, and may it be started on `host` then? Not where a start of it
    failed already: it may wait for somebody's cleanup for days."""
    failed_on = state.memory_of(group).start_failures
    return host in group.candidates and host not in failed_on and is_on_the_move(state, group)


def used(
    state: ClusterState, host: HostId, name: str, besides: ResourceGroup | None = None
) -> Decimal:
    """How much of one capacity the groups on `host` take, without the group `besides`."""
    taken = _taken(state, host)
    if besides is None:
        return taken.sums.get(name, NOTHING)
    heads_too = bool(taken.heading) and heads_for(state, besides) == host
    if besides.id not in taken.groups and not heads_too:
        return taken.sums.get(name, NOTHING)
    counted = (
        group
        for group in taken.groups.values()
        if name in group.needs and group.id != besides.id
        # Groups that move to the same host must not wait for each other.
        if not (heads_too and group.id in taken.heading and _comes_later(besides, group))
    )
    return sum((group.needs[name] for group in counted), NOTHING)


def _taken(state: ClusterState, host: HostId) -> RoomTaken:
    """What takes room on `host` now. The basis has everything that :func:`takes_room` looks at."""
    basis = (
        state.knowledge.changes_on(host),
        state.hosts[host].ready,
        state.placings.count,
        state.remembered.changes,
    )
    found = state.room_taken.get(host)
    if found is None or found.basis != basis:
        found = state.room_taken[host] = _add_up(state, host, basis)
    return found


def _add_up(state: ClusterState, host: HostId, basis: tuple[int, bool, int, int]) -> RoomTaken:
    groups: dict[GroupId, ResourceGroup] = {}
    heading = set()
    sums: dict[str, Decimal] = {}
    for group in state.groups_of(host):
        if not group.needs:
            continue
        if not is_there(state, group, host):
            if heads_for(state, group) != host:
                continue
            heading.add(group.id)
        groups[group.id] = group
        for name, need in group.needs.items():
            sums[name] = sums.get(name, NOTHING) + need
    return RoomTaken(basis, groups, frozenset(heading), sums)


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


def lacking_beside_movers(state: ClusterState, group: ResourceGroup, host: HostId) -> str | None:
    """The same, if the groups that are just being moved came to `host`, too. A group that runs is
    not stopped as long as such a group may take its room."""
    capacity = state.cluster.hosts[host].capacity if group.needs else {}
    for name, total in capacity.items():
        need = group.needs.get(name, NOTHING)
        free = total - used(state, host, name, group) - need
        for other in _coming(state, group, host):
            free -= other.needs.get(name, NOTHING)
        if need != NOTHING and free < NOTHING:
            return f"groups that are being moved may need the room on {host}"
    return None


def _coming(state: ClusterState, group: ResourceGroup, host: HostId) -> Iterator[ResourceGroup]:
    for other in state.groups_of(host):
        is_another = other is not group and not takes_room(state, other, host)
        if is_another and may_come(state, other, host):
            yield other


def kept(state: ClusterState, group: ResourceGroup, host: HostId, now: float) -> str | None:
    """For which other group the room on `host` is kept; None if for none.

    It is kept for a group that ran, and is being moved: it would have been stopped for nothing. And
    it is kept for a group of a higher priority that is down, and lacks only the proof that it is
    stopped elsewhere. This group waits for such a one no longer than some seconds."""
    at, capacity = state.groups[group.id], state.cluster.hosts[host].capacity
    if not group.needs or not capacity or at.moving or has_waited(state, group, now):
        return None
    for name, total in capacity.items():
        need = group.needs.get(name, NOTHING)
        free = total - used(state, host, name, group)
        for other in state.groups_of(host) if need != NOTHING else ():
            wants = other.needs.get(name, NOTHING)
            if not free - need < wants <= free or host not in other.candidates:
                continue  # there is room for both, or for the other one in no case
            if takes_room(state, other, host):
                continue  # it counts already
            if is_on_the_move(state, other):
                return f"the room on {host} is kept for {other.id}, which is being moved"
            if other.priority > group.priority and is_due(state, other):
                return f"the room on {host} is kept for {other.id}, which has a higher priority"
    return None


def has_waited(state: ClusterState, group: ResourceGroup, now: float) -> bool:
    """Has it waited long enough for groups of a higher priority that still lack proof?"""
    since = state.groups[group.id].in_line_since
    return since is not None and now - since >= KEPT_S


def is_due(state: ClusterState, group: ResourceGroup) -> bool:
    """Is it down, and lacks nothing, or only proof or its turn?"""
    at = state.groups[group.id]
    if at.placed_on is not None or not urgency.is_down(state, group):
        return False
    return at.waiting is None or at.waiting.reason.kind in (Kind.PROOF, Kind.TURN)


def _comes_later(group: ResourceGroup, other: ResourceGroup) -> bool:
    """Of two groups that only head for a host: is `other` asked after `group`?"""
    return (-other.priority, other.id) > (-group.priority, group.id)
