"""When HALO may not act on a group at all (S4, S9)."""

from __future__ import annotations

from halo.core import reasons
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.journal.remembered import ErrorKind
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import former
from halo.core.reasons import Reason


def hold_reason(state: ClusterState, group: ResourceGroup) -> str | None:
    """Why HALO may not act on a group at all now (S4, S9), in words; None if it may."""
    found = hold(state, group)
    return found.text if found is not None else None


def hold(state: ClusterState, group: ResourceGroup) -> Reason | None:
    """Why HALO may not act on a group at all now (S4, S9); None if it may."""
    standing = standing_hold(state, group)
    if standing is not None:
        return standing
    copies = state.knowledge.running_on(group)
    if len(copies) > 1:
        return two_copies(group, copies)
    if copies and copies[0] not in group.candidates:
        return runs_on_former_host(group, copies[0])
    return out_of_sight(state, group, copies[0]) if copies else None


def two_copies(group: ResourceGroup, copies: list[HostId]) -> Reason:
    """The group is seen running on several hosts."""
    text = f"running on {' and '.join(copies)} at once"
    remedy = f"at most one copy runs, and then somebody runs `halo cleanup {group.id}`"
    return reasons.held(text, remedy, dict.fromkeys(copies, "the group is seen running there"))


def runs_on_former_host(group: ResourceGroup, host: HostId) -> Reason:
    """The group is seen running on a host that is no candidate any more."""
    ends_when = f"the group is stopped on {host}, or {host} is a candidate again"
    seen = {host: "the group is seen running there"}
    return reasons.held(former.runs_there(group, host), ends_when, seen)


def out_of_sight(state: ClusterState, group: ResourceGroup, seen_on: HostId) -> Reason | None:
    """:func:`second_copy_out_of_sight` as a reason."""
    text = second_copy_out_of_sight(state, group, seen_on)
    ends_when = f"HALO knows that {group.id} runs only on {seen_on}"
    return reasons.held(text, ends_when) if text is not None else None


def standing_hold(state: ClusterState, group: ResourceGroup) -> Reason | None:
    """Like :func:`hold`, but without the reasons that depend on where the group is seen. For a
    group that is seen nowhere, the two are the same."""
    memory = state.memory_of(group)
    if state.observe_only:
        return reasons.held(
            "observe mode: the manager takes no action",
            "the manager is started with --manage-resources",
        )
    if not memory.managed:
        return reasons.held(
            "unmanaged" + (f": {memory.comment}" if memory.comment else ""),
            f"somebody runs `halo manage {group.id}`",
        )
    if state.remembered.frozen is not None:
        return reasons.held(f"frozen: {state.remembered.frozen}", "somebody runs `halo thaw`")
    if memory.error_kind is ErrorKind.SECOND_COPY:
        return reasons.held(
            f"{memory.error}; make sure that at most one copy runs, then run "
            f"`halo cleanup {group.id}`",
            f"at most one copy runs, and then somebody runs `halo cleanup {group.id}`",
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
