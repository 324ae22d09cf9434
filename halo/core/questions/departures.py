"""Why a group has to leave the host that manages it."""

from __future__ import annotations

from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import candidates, company, proof


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
    if (
        target in group.candidates
        and target != host
        and candidates.unavailable(state, state.candidate(group, target)) is None
        and (begun or proof.obstacle(state, group, host) is None)
    ):
        return f"moving to {target}"
    followed = company.host_to_follow(state, group, host)
    if (
        followed is not None
        and candidates.unavailable(state, state.candidate(group, followed)) is None
        and (begun or proof.obstacle(state, group, host) is None)
    ):
        return f"following {' and '.join(group.company.together_with)} to {followed}"
    if not state.memory_of_host(host).active:
        others = candidates.available(state, group, besides=host)
        if others and (begun or proof.obstacle(state, group, host) is None):
            return f"{host} is deactivated; moving to {others[0].host}"
    return None
