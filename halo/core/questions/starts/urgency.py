"""Which waiting groups come first: those that are down, before those that wait to be managed.

A group that runs is served by its host, whether or not a task manages it already. So with ten
thousand groups to decide, nothing is lost if those that run wait for a moment.
"""

from __future__ import annotations

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup


def is_down(state: ClusterState, group: ResourceGroup) -> bool:
    """Should the group run, and does it run nowhere, as far as its candidates can tell?

    Each candidate says that the group is stopped there, or is off, or was declared lost. This is an
    order of work, and no proof. A group of which a candidate has still to tell something is not
    down: its decision could do nothing yet."""
    memory = state.memory_of(group)
    if not memory.wanted or not memory.managed:
        return False
    return all(_is_without(state, host, group) for host in group.candidates)


def _is_without(state: ClusterState, host: HostId, group: ResourceGroup) -> bool:
    at = state.hosts[host]
    if at.ready:
        return state.knowledge.presence(group, host) is Presence.STOPPED
    return at.is_proven_off or at.lost_at is not None
