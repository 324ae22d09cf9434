"""Which running groups give way to a group that lacks only room, and on which host.

The first host, in order of preference, on which the groups of a lower priority that may be stopped
leave enough room. There, none is stopped that need not be. Those that can run elsewhere at once are
taken before those that stay down, then those of the lowest priority, then the largest.

The caller has made sure that the group may be started now, in every respect but room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from halo.core.cluster.group_state import MakingRoom
from halo.core.cluster.state import ClusterState
from halo.core.model import GroupId, HostId, ResourceGroup
from halo.core.questions import candidates, company, holds, proof, room
from halo.core.questions.preempting import giving_way
from halo.core.questions.starts import order

PAUSE_S = 60.0
"""If groups gave way in vain, no group gives way again before this time is over."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Which groups give way now, and what to add to the reason why the group waits for room."""

    making: MakingRoom | None = None
    words: str = ""
    groups: Mapping[GroupId, str] = field(default_factory=dict)


def answer(
    state: ClusterState, group: ResourceGroup, in_service: Sequence[HostId], now: float
) -> Answer:
    """Decide for a group that no host has room for. `in_service` are the candidates that could take
    it if they had room, in order of preference."""
    making, words = _decide(state, group, in_service, now) if group.preempt else (None, "")
    groups: dict[GroupId, str] = {}
    if making is not None:
        does = "gives" if len(making.givers) == 1 else "give"
        words = f"; {' and '.join(making.givers)} {does} way to it on {making.host}"
        groups |= dict.fromkeys(making.givers, f"it {giving_way.in_words(group)}")
    name = state.groups[group.id].gave_way_to
    if name is not None:
        priority = state.cluster.groups[name].priority
        words = f"; it gave way to {name}, which has priority {priority}{words}"
        groups[name] = f"{group.id} gave way to it"
    return Answer(making, words, groups)


def _decide(
    state: ClusterState, group: ResourceGroup, in_service: Sequence[HostId], now: float
) -> tuple[MakingRoom | None, str]:
    """Which groups give way to it; if none do, what to say about that."""
    at = state.groups[group.id]
    if at.makes_room is not None:
        if giving_way.goes_on(state, group, at.makes_room, in_service, now):
            return at.makes_room, ""
        return None, "; other groups gave way to it in vain"
    why_not = _why_not_now(state, group, now)
    if why_not is not None:
        return None, f"; {why_not}"
    making = plan(state, group, in_service, now)
    return making, "" if making else "; no group of a lower priority gives way to it now"


def _why_not_now(state: ClusterState, group: ResourceGroup, now: float) -> str | None:
    """Why no other group may be stopped for this one now, whatever runs where."""
    at = state.groups[group.id]
    error = state.remembered.group(at.resisted).error if at.resisted is not None else None
    if error is not None:
        return (
            f"{at.resisted} could not be stopped for it: {error}; no other group gives way before "
            f"somebody runs `halo cleanup {at.resisted}`"
        )
    if now - at.made_room_at < PAUSE_S:
        return "other groups gave way to it in vain, so none does for a minute"
    return None


def plan(
    state: ClusterState, group: ResourceGroup, in_service: Iterable[HostId], now: float
) -> MakingRoom | None:
    """Where and which groups give way; None if they cannot make enough room, or need not."""
    hosts = list(in_service)
    if any(room.lacking(state, group, host) is None for host in hosts):
        return None  # that room is kept for another group, for some seconds
    for host in hosts:
        if not _is_in_motion(state, group, host, now):
            givers = _givers(state, group, host, now)
            if givers:
                return MakingRoom(host, tuple(giver.id for giver in givers), now)
    return None


def _is_in_motion(state: ClusterState, group: ResourceGroup, host: HostId, now: float) -> bool:
    """Will another group leave the host anyway, or take the room there? Then wait for that first:
    nothing is stopped that need not be, and nothing for a group that comes too late.

    For those that take the room, this group waits some seconds."""
    is_patient = not room.has_waited(state, group, now)
    for other in state.groups_of(host):
        if other is group or group.needs.keys().isdisjoint(other.needs):
            continue
        at = state.groups[other.id]
        if at.makes_room is not None and at.makes_room.host == host:
            return True
        if room.takes_room(state, other, host):
            memory = state.memory_of(other)
            leaves = memory.managed and memory.error is None and at.managed_on == host
            if leaves and (at.departing or not memory.wanted):
                return True
        elif is_patient and host in other.candidates:
            is_next = other.priority > group.priority and room.is_due(state, other)
            if is_next or room.is_on_the_move(state, other):
                return True
    return False


def _givers(
    state: ClusterState, group: ResourceGroup, host: HostId, now: float
) -> list[ResourceGroup]:
    """The groups that give way on this host; none if they cannot make enough room."""
    lack = _lack(state, group, host)

    def cost(giver: ResourceGroup) -> tuple[bool, int, Decimal, GroupId]:
        stays_down = not _can_run_elsewhere(state, giver, host, now)
        shares = (min(_of(giver, name) / much, Decimal(1)) for name, much in lack.items())
        gain = sum(shares, room.NOTHING)
        return stays_down, giver.priority, -gain, giver.id

    possible = [
        other
        for other in state.groups_of(host)
        if any(_of(other, name) > room.NOTHING for name in lack)
        and _may_give_way(state, other, group, host)
    ]
    chosen: list[ResourceGroup] = []
    for giver in sorted(possible, key=cost):
        chosen.append(giver)
        if _is_enough(chosen, lack):
            break
    else:
        return []
    for giver in reversed(chosen[:]):  # the dearest first: what it makes needless was cheaper
        others = [each for each in chosen if each is not giver]
        chosen = others if _is_enough(others, lack) else chosen
    return chosen


def _lack(state: ClusterState, group: ResourceGroup, host: HostId) -> dict[str, Decimal]:
    """How much of what is lacking for the group on this host."""
    found = {}
    for name, total in state.cluster.hosts[host].capacity.items():
        much = _of(group, name) - (total - room.used(state, host, name, group))
        if _of(group, name) > room.NOTHING and much > room.NOTHING:
            found[name] = much
    return found


def _is_enough(givers: Iterable[ResourceGroup], lack: Mapping[str, Decimal]) -> bool:
    named = list(givers)
    return all(
        sum((_of(giver, name) for giver in named), room.NOTHING) >= much
        for name, much in lack.items()
    )


def _of(group: ResourceGroup, name: str) -> Decimal:
    return group.needs.get(name, room.NOTHING)


def _may_give_way(
    state: ClusterState, other: ResourceGroup, group: ResourceGroup, host: HostId
) -> bool:
    """May `other` be stopped on this host for `group`? It runs well, and is free to be moved, no
    other group needs it, and it could be started again."""
    at, memory = state.groups[other.id], state.memory_of(other)
    return (
        other.priority < group.priority
        and host in other.candidates
        and at.managed_on == at.placed_on == host
        and at.gives_way_to is None
        and not at.departing
        and memory.wanted
        and memory.error is None
        and memory.move_target is None
        and not memory.left_alone.get(host)
        and holds.hold_reason(state, other) is None
        and order.runs_on(state, other, host)
        and not _is_relied_on(state, other)
        and order.lacking(state, other) is None
        and company.lacking(state, other) is None
        and proof.obstacle(state, other, host) is None
    )


def _is_relied_on(state: ClusterState, group: ResourceGroup) -> bool:
    """Is another group started after this one, or together with it?"""
    followers = state.cluster.followers.get(group.id, ())
    return any(
        group.id in follower.after or group.id in follower.company.together_with
        for follower in map(state.cluster.groups.__getitem__, followers)
    )


def _can_run_elsewhere(
    state: ClusterState, group: ResourceGroup, leaving: HostId, now: float
) -> bool:
    """Is there another host that could take it at once?"""
    return any(
        room.kept(state, group, each.host, now) is None
        for each in candidates.available(state, group, besides=leaving)
    )
