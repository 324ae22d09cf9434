"""Which host can take a group now, and why another cannot."""

from __future__ import annotations

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup


def unavailable(state: ClusterState, group: ResourceGroup, host: HostId) -> str | None:
    """Why `host` cannot take `group` now; None when it can."""
    at = state.hosts[host]
    if at.fence_phase is FencePhase.RUNNING:
        return f"{host} is being fenced"
    if not at.connected:
        return f"{host} is disconnected" + (f" ({at.loss})" if at.loss else "")
    if not at.accepted:
        return f"{host} is reconnecting"
    if not state.memory_of_host(host).active:
        return f"{host} is deactivated"
    if not has_reported(state, group, host):
        return f"{host} has just connected and was not looked through yet"
    failure = state.memory_of(group).start_failures.get(host)
    if failure is not None:
        return f"the start failed on {host}: {failure}"
    return None


def has_reported(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Was every resource of the group looked at over the standing connection?"""
    epoch = state.hosts[host].epoch
    return all(state.knowledge.of(r.id, host).epoch == epoch for r in group.exclusive)


def available_candidates(
    state: ClusterState, group: ResourceGroup, besides: HostId
) -> list[HostId]:
    """Which other candidates could take the group now, in order of preference."""
    return [
        host
        for host in group.candidates
        if host != besides and unavailable(state, group, host) is None
    ]


def is_being_looked_at(
    state: ClusterState, group: ResourceGroup, besides: HostId | None = None
) -> bool:
    """Does some candidate in sight, `besides` one, owe a first answer on the group, since it was
    forgotten?"""
    return any(
        host != besides
        and state.hosts[host].ready
        and state.knowledge.presence(group, host) is Presence.UNKNOWN
        and state.knowledge.error_on(group, host) is None
        for host in group.candidates
    )


def takers(state: ClusterState, group: ResourceGroup, lost: HostId) -> list[HostId]:
    """Candidates that could take `group` from `lost`: available, and heard of since the verdict."""
    verdict = state.hosts[lost].lost_at
    return [
        host
        for host in available_candidates(state, group, besides=lost)
        if verdict is None or state.hosts[host].answered_at > verdict
    ]


def awaiting_ping(state: ClusterState, group: ResourceGroup, lost: HostId) -> list[HostId]:
    """Candidates that could take `group` from `lost` once they answer a ping sent now."""
    heard = takers(state, group, lost)
    return [host for host in available_candidates(state, group, besides=lost) if host not in heard]
