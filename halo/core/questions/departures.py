"""Why a group has to leave the host that manages it."""

from __future__ import annotations

from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import candidates, company, proof, room
from halo.core.questions.preempting import giving_way
from halo.core.questions.starts import turn


def departure_reason(
    state: ClusterState, group: ResourceGroup, host: HostId, *, begun: bool = False
) -> str | None:
    """Why a group managed on `host` has to stop there; None when it may stay.

    `begun`: a resource was stopped for this departure already. A departure begins only if the group
    could start on another host afterwards. After that, a failing monitor does not end it."""
    memory = state.memory_of(group)
    if not memory.wanted:
        return "stopped by the administrator"
    if memory.error_kind is not None:
        return None
    target = memory.move_target
    is_target = target is not None and target in group.candidates and target != host
    if target is not None and is_target and _may_go(state, group, host, target, begun=begun):
        return f"moving to {target}"
    needing = giving_way.gives_way_to(state, group, host)
    if needing is not None and (begun or giving_way.may_begin(state, group, needing, host)):
        return giving_way.in_words(needing)
    followed = company.host_to_follow(state, group, host)
    if followed is not None and _may_go(state, group, host, followed, begun=begun):
        return f"following {' and '.join(group.company.together_with)} to {followed}"
    if not state.memory_of_host(host).active:
        for able in candidates.available(state, group, besides=host):
            if _may_go(state, group, host, able.host, begun=begun):
                return f"{host} is deactivated; moving to {able.host}"
    return None


def _may_go(
    state: ClusterState, group: ResourceGroup, host: HostId, target: HostId, *, begun: bool
) -> bool:
    """Can the group be started on `target` after it left `host`? Other groups that are just being
    moved may come there first, so a departure does not begin beside them without need."""
    if candidates.unavailable(state, state.candidate(group, target)) is not None:
        return False
    if begun:
        return True
    beside = (
        room.lacking_beside_movers(state, group, target)
        or company.conflict_beside_movers(state, group, target)
        or turn.lacking_beside_movers(state, group, target)
        or giving_way.kept(state, group, target)
    )
    return beside is None and proof.obstacle(state, group, host) is None
