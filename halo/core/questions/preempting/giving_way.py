"""What follows while groups give way: they stop, and the room that they leave is kept.

The marks are `makes_room` of the group that needs the room, and `gives_way_to` of the others
(:class:`halo.core.cluster.group_state.GroupState`). Each decision on the group that needs the room
sets or ends them. Nothing else does. So they last no longer than its wait for room.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.group_state import MakingRoom
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import holds, proof, room
from halo.core.reasons import Kind

BEGINS_WITHIN_S = 10.0
"""A group that has to give way is stopped at once. If its stop has not begun after this time,
something holds it, and the group that needs the room does not wait for it any longer."""

ASKED_AGAIN_WITHIN_S = 15.0
"""So long may an answer take that renews the proof, or twice as long as a slow device took last.
The room is not kept any longer than that."""


def gives_way_to(state: ClusterState, group: ResourceGroup, host: HostId) -> ResourceGroup | None:
    """To which group does this one give way on `host` now?"""
    name = state.groups[group.id].gives_way_to
    making = state.groups[name].makes_room if name is not None else None
    if name is None or making is None or making.host != host:
        return None
    return state.cluster.groups[name]


def may_begin(
    state: ClusterState, group: ResourceGroup, other: ResourceGroup, host: HostId
) -> bool:
    """May the first resource of `group` be stopped on `host` now for `other`? Only while that one
    lacks nothing but room, and if this group could be proven stopped afterwards."""
    waiting = state.groups[other.id].waiting
    lacks_room = waiting is not None and waiting.reason.kind is Kind.HOST_CAPACITY
    return lacks_room and proof.obstacle(state, group, host) is None


def in_words(group: ResourceGroup) -> str:
    """What is said of a group that gives way to this one."""
    return f"gives way to {group.id}, which has priority {group.priority}"


def goes_on(
    state: ClusterState,
    group: ResourceGroup,
    making: MakingRoom,
    in_service: Iterable[HostId],
    now: float,
) -> bool:
    """Is there still hope that the groups which give way leave enough room?"""
    there = _still_there(state, making)
    return (
        making.host in in_service
        and all(_can_leave(state, giver, making, now) for giver in there)
        and _is_enough(state, group, making.host, there)
    )


def kept_up(
    state: ClusterState, group: ResourceGroup, lacking: Sequence[Candidate], now: float
) -> MakingRoom | None:
    """What goes on although proof is lacking on these candidates: their answers are only too old,
    because the others took long to stop. They are asked again, and the group waits some seconds for
    them."""
    waiting = state.groups[group.id].waiting
    lacks_proof = waiting is not None and waiting.reason.kind is Kind.PROOF
    slowest_s = max((each.at.verify_took_s for each in lacking), default=0.0)
    patience_s = max(ASKED_AGAIN_WITHIN_S, 2 * slowest_s)
    if waiting is not None and lacks_proof and now - waiting.since > patience_s:
        return None
    is_known = all(
        each.at.is_proven_off or (each.at.ready and each.presence is Presence.STOPPED)
        for each in lacking
    )
    return state.groups[group.id].makes_room if is_known else None


def kept_for_turn(state: ClusterState, group: ResourceGroup, target: HostId) -> MakingRoom | None:
    """What goes on although the group has room on `target` now: it waits for its turn there, and
    the others must not take the room meanwhile."""
    making = state.groups[group.id].makes_room
    return making if making is not None and making.host == target else None


def kept(state: ClusterState, group: ResourceGroup, host: HostId) -> str | None:
    """For which other group the room on `host` is kept, because others give way to it there.

    A group of a higher priority may take that room."""
    for other in state.cluster.preempting:
        making = state.groups[other.id].makes_room
        if making is None or making.host != host or other is group:
            continue
        if group.id in making.givers:
            return f"the room on {host} is kept for {other.id}, and {group.id} {in_words(other)}"
        there = _still_there(state, making)
        if other.priority >= group.priority and not _is_enough(
            state, other, host, there, beside=group
        ):
            return f"the room on {host} is kept for {other.id}, to which other groups give way"
    return None


def _still_there(state: ClusterState, making: MakingRoom) -> list[ResourceGroup]:
    """The groups that have to leave, and have not left yet."""
    givers = map(state.cluster.groups.__getitem__, making.givers)
    return [giver for giver in givers if room.takes_room(state, giver, making.host)]


def _can_leave(state: ClusterState, giver: ResourceGroup, making: MakingRoom, now: float) -> bool:
    """Is it about to leave the host? It is, if it is being stopped, and if it may be stopped."""
    at = state.groups[giver.id]
    if (
        at.placed_on != making.host
        or state.memory_of(giver).error is not None
        or holds.hold_reason(state, giver) is not None
    ):
        return False
    is_late = now - making.since > BEGINS_WITHIN_S
    return at.stop_begun or (not is_late and proof.obstacle(state, giver, making.host) is None)


def _is_enough(
    state: ClusterState,
    group: ResourceGroup,
    host: HostId,
    leaving: Sequence[ResourceGroup],
    beside: ResourceGroup | None = None,
) -> bool:
    """Is there room for the group on `host` after these groups have left it? With `beside`: also if
    that group came to it, as far as the two need the same?"""
    counts_already = beside is not None and room.takes_room(state, beside, host)
    for name, total in state.cluster.hosts[host].capacity.items():
        need = group.needs.get(name, room.NOTHING)
        free = total - room.used(state, host, name, group)
        free += sum((each.needs.get(name, room.NOTHING) for each in leaving), room.NOTHING)
        if beside is not None:
            takes = beside.needs.get(name, room.NOTHING)
            free -= room.NOTHING if counts_already else takes
            need = room.NOTHING if takes == room.NOTHING else need
        if need != room.NOTHING and need > free:
            return False
    return True
