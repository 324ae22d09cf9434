"""Which groups a group is started after (`after` in the config), and which of them do not run.

The order is for starts alone. A group that runs goes on without the groups before it, and it is
completed and restarted in place without them. A planned move of a running group is not held up.
"""

from __future__ import annotations

from halo.core import reasons
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup
from halo.core.reasons import Reason


def runs_whole(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Is every resource of the group seen running on `host`?"""
    of = state.knowledge.of
    return all(of(each.id, host).presence is Presence.RUNNING for each in group.resources)


def runs(state: ClusterState, group: ResourceGroup) -> bool:
    """Does the whole group run on a candidate that HALO may believe, and should it run?"""
    return state.memory_of(group).wanted and any(
        runs_on(state, group, host) for host in group.candidates
    )


def runs_on(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Does the whole group run on this host, and nothing of it is started or stopped there?"""
    return (
        state.hosts[host].ready
        and runs_whole(state, group, host)
        and not _is_changing(state, group, host)
    )


def _is_changing(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Is a start or stop of the group under way there? It may be on its way to another host."""
    at = state.hosts[host]
    return any(at.settled_operations(resource.id) is None for resource in group.resources)


def lacking(state: ClusterState, group: ResourceGroup) -> Reason | None:
    """Why the group may not be started yet: a group that it is started after does not run. None if
    it may. Ask it in the decision on a start, and again in the step that sends it."""
    if not group.after or state.groups[group.id].moving:
        return None
    missing = {
        other.id: why_it_does_not_run(state, other)
        for other in map(state.cluster.groups.__getitem__, group.after)
        if not runs(state, other)
    }
    return reasons.dependency(group.id, missing) if missing else None


def why_it_does_not_run(state: ClusterState, group: ResourceGroup) -> str:
    """The reason for those that wait for it."""
    name, memory = group.id, state.memory_of(group)
    if not memory.wanted:
        return f"{name} was stopped by the administrator"
    if memory.error is not None:
        return f"{name} is in error: {memory.error}"
    if memory.start_failures:
        return f"{name} could not be started: {'; '.join(memory.start_failures.values())}"
    return f"{name} does not run completely yet"
