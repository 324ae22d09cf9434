"""When HALO may not act on a group at all (S4, S9)."""

from __future__ import annotations

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.journal.remembered import ErrorKind
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import former


def hold_reason(state: ClusterState, group: ResourceGroup) -> str | None:
    """Why HALO may not act on a group at all now (S4, S9); None if it may."""
    standing = standing_hold(state, group)
    if standing is not None:
        return standing
    copies = state.knowledge.running_on(group)
    if len(copies) > 1:
        return f"running on {' and '.join(copies)} at once"
    if copies and copies[0] not in group.candidates:
        return former.runs_there(group, copies[0])
    return second_copy_out_of_sight(state, group, copies[0]) if copies else None


def standing_hold(state: ClusterState, group: ResourceGroup) -> str | None:
    """Like :func:`hold_reason`, but without the reasons that depend on where the group is seen. For
    a group that is seen nowhere, the two are the same."""
    memory = state.memory_of(group)
    if state.observe_only:
        return "observe mode: the manager takes no action"
    if not memory.managed:
        return "unmanaged" + (f": {memory.comment}" if memory.comment else "")
    if state.remembered.frozen is not None:
        return f"frozen: {state.remembered.frozen}"
    if memory.error_kind is ErrorKind.SECOND_COPY:
        return (
            f"{memory.error}; make sure that at most one copy runs, then run "
            f"`halo cleanup {group.id}`"
        )
    return None


def second_copy_out_of_sight(
    state: ClusterState, group: ResourceGroup, seen_on: HostId
) -> str | None:
    """Why the group may not be completed on `seen_on`: it was last seen running on another host,
    too, which is not proven off. A start here could be a second start (S1, S9)."""
    for host in group.hosts:
        at = state.hosts[host]
        if host == seen_on or at.power_proof is not None:
            continue
        if state.candidate(group, host).last_seen is not Presence.RUNNING:
            continue
        text = f"seen running on {seen_on}, and last seen running on {host} too"
        if at.ready:
            return f"{text}, which has to be probed first"
        return (
            f"{text}, which is out of sight; bring that host back, or make sure that it is off "
            f"and run `halo fence {host} --confirm-off --reason ...`"
        )
    return None
