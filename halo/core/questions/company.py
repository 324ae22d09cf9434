"""Which groups a group shares its host with: `together_with` and `apart_from` in the config.

Like the order of groups, company is asked for at a start, and not of a group that runs. There is
one exception: when the group that it belongs to has moved to another host, the group follows.
"""

from __future__ import annotations

from collections.abc import Iterable

from halo.core import reasons
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.model import GroupId, HostId, ResourceGroup
from halo.core.questions import holds, room
from halo.core.questions.starts import order
from halo.core.reasons import Reason


def lacking(state: ClusterState, group: ResourceGroup) -> Reason | None:
    """Why the group may be started nowhere: a group that it belongs to runs nowhere. A group that
    ran, and is being moved, does not wait for that: its company may be on its way, too."""
    if state.groups[group.id].moving:
        return None
    missing = {
        other.id: order.why_it_does_not_run(state, other)
        for other in _named(state, group.company.together_with)
        if _runs_on(state, other) is None
    }
    return reasons.company(group.id, missing) if missing else None


def conflict(state: ClusterState, group: ResourceGroup, host: HostId) -> str | None:
    """Why the company on `host` does not suit the group; None if it does."""
    for other in _named(state, group.company.apart_from):
        if room.takes_room(state, other, host):
            return f"{other.id} is on {host}, and {group.id} has to be apart from it"
    for other in _named(state, group.company.together_with):
        runs_on = _runs_on(state, other)
        if runs_on is not None and runs_on != host:
            return f"{other.id} runs on {runs_on}, and {group.id} has to be together with it"
    return None


def preferred(state: ClusterState, group: ResourceGroup, hosts: list[HostId]) -> list[HostId]:
    """These hosts, those with the preferred company first. Their order decides between equals."""
    company = group.company
    if not company.prefer_together_with and not company.prefer_apart_from:
        return hosts

    def unwelcome(host: HostId) -> int:
        apart = _named(state, company.prefer_apart_from)
        together = _named(state, company.prefer_together_with)
        return sum(room.takes_room(state, other, host) for other in apart) - sum(
            room.takes_room(state, other, host) for other in together
        )

    return sorted(hosts, key=unwelcome)


def host_to_follow(state: ClusterState, group: ResourceGroup, host: HostId) -> HostId | None:
    """To which host the group has to follow another one, away from `host`. None if it may stay.

    It follows only groups that HALO manages there, and of which no other copy is seen."""
    followed = {_settled_on(state, other) for other in _named(state, group.company.together_with)}
    followed.discard(None)
    if len(followed) != 1:  # nowhere, or not all on one host
        return None
    [target] = followed
    return target if target != host and target in group.candidates else None


def _settled_on(state: ClusterState, group: ResourceGroup) -> HostId | None:
    host = state.groups[group.id].managed_on
    if host is None or holds.hold_reason(state, group) is not None:
        return None
    is_alone = state.knowledge.running_on(group) == [host]
    return host if is_alone and _runs_on(state, group) == host else None


def led_by(state: ClusterState, group: ResourceGroup, host: HostId) -> list[GroupId]:
    """The groups that this one can follow if they leave `host`: they are there, too."""
    elsewhere = set(group.candidates) - {host}
    return [
        other.id
        for other in _named(state, group.company.together_with)
        if _was_there(state, other, host) and not elsewhere.isdisjoint(other.candidates)
    ]


def _was_there(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Is it there, or was it there before the host went out of sight?"""
    if state.hosts[host].ready:
        return room.is_there(state, group, host)
    at = state.groups[group.id]
    seen = host in group.candidates and state.candidate(group, host).last_seen
    return at.placed_on == host or (at.placed_on is None and seen is Presence.RUNNING)


def conflict_beside_movers(state: ClusterState, group: ResourceGroup, host: HostId) -> str | None:
    """The same as `conflict`, if the groups that are just being moved came to `host`, too."""
    for other in _named(state, group.company.apart_from):
        if room.may_come(state, other, host):
            return f"{other.id} is being moved, and {group.id} has to be apart from it"
    return None


def _runs_on(state: ClusterState, group: ResourceGroup) -> HostId | None:
    """Where the whole group runs, if it should run, and HALO may believe that host."""
    if not state.memory_of(group).wanted:
        return None
    return next((h for h in group.candidates if order.runs_on(state, group, h)), None)


def _named(state: ClusterState, names: Iterable[GroupId]) -> Iterable[ResourceGroup]:
    return (state.cluster.groups[name] for name in names)
