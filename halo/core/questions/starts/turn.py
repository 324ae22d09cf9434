"""Whose turn is it to be started on a host? `max_starts` of hosts in the config.

Such a host starts a few groups at a time, for example because the import of one pool loads its
disks fully. The other groups wait for their turn there. They do not go to another host instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice

from halo.core.cluster.state import ClusterState
from halo.core.model import GroupId, HostId, ResourceGroup
from halo.core.questions import candidates, room
from halo.core.reasons import Kind

MOST_NAMED = 4
"""So many groups are named of those that a group waits for."""


def lacking(state: ClusterState, group: ResourceGroup, host: HostId, now: float) -> str | None:
    """Which groups are started on `host` first; None if it is the turn of this group.

    Of the groups that wait, the highest priority comes first, then the longest wait. A group of a
    higher priority that still lacks proof comes first, too, but only for some seconds."""
    most = state.cluster.hosts[host].max_starts
    if most is None:
        return None
    starting = list(_starting(state, group, host))
    if len(starting) >= most:
        return f"{host} starts {_at_once(most)}, and starts {_named(starting)} now"
    before = list(islice(_before(state, group, host, now), most))
    if len(starting) + len(before) >= most:
        return f"{host} starts {_at_once(most)}, and starts {_named(before)} first"
    return None


def lacking_beside_movers(state: ClusterState, group: ResourceGroup, host: HostId) -> str | None:
    """The same for a group that runs on another host, and is to be moved to `host`. It is not
    stopped before it can be started there. So it waits for the groups that are moved there now, and
    for those that are down and wait there."""
    most = state.cluster.hosts[host].max_starts
    if most is None:
        return None
    first = chain(_starting(state, group, host), _coming(state, group, host))
    names = list(islice(first, most))
    if len(names) < most:
        return None
    return f"{host} starts {_at_once(most)}, and starts {_named(names)} first"


def _starting(state: ClusterState, group: ResourceGroup, host: HostId) -> Iterator[GroupId]:
    """The other groups that are being started on `host`."""
    for other in state.groups_of(host):
        at = state.groups[other.id]
        if at.starting and at.placed_on == host and other is not group:
            yield other.id


def _coming(state: ClusterState, group: ResourceGroup, host: HostId) -> Iterator[GroupId]:
    """The other groups that wait for their turn on `host`, or are being moved and may come."""
    for other in state.groups_of(host):
        if other is group or state.groups[other.id].placed_on == host:
            continue
        is_moved_here = room.heads_for(state, other) in (None, host)
        waits_here = _waits_on(state, other) == host
        if waits_here or (is_moved_here and room.may_come(state, other, host)):
            yield other.id


def _before(
    state: ClusterState, group: ResourceGroup, host: HostId, now: float
) -> Iterator[GroupId]:
    """The other groups that wait, and come before this one on `host`."""
    place, is_patient = _place(state, group), not room.has_waited(state, group, now)
    for other in state.groups_of(host):
        if other is group or state.groups[other.id].placed_on is not None:
            continue
        waits_on = _waits_on(state, other)
        if waits_on is not None:
            if waits_on == host and _place(state, other) < place:
                yield other.id
        elif is_patient and other.priority > group.priority and _will_come(state, other, host):
            yield other.id


def _waits_on(state: ClusterState, group: ResourceGroup) -> HostId | None:
    """The host on which the group waits for its turn."""
    waiting = state.groups[group.id].waiting
    if waiting is None or waiting.reason.kind is not Kind.TURN:
        return None
    return next(iter(waiting.reason.hosts))


def _will_come(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Is it down, does it lack nothing but proof, and would it be started on `host` then?"""
    if not room.is_due(state, group):
        return False
    able = candidates.able(state, state.candidates_of(group))
    return bool(able) and able[0].host == host


def _place(state: ClusterState, group: ResourceGroup) -> tuple[int, float, GroupId]:
    """The place in the line. A group that does not wait yet stands at its end."""
    since = state.groups[group.id].in_line_since
    return -group.priority, float("inf") if since is None else since, group.id


def _at_once(most: int) -> str:
    return "one group at a time" if most == 1 else f"{most} groups at a time"


def _named(names: Sequence[GroupId]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
