"""Which host can take a group now, and why another cannot."""

from __future__ import annotations

from collections.abc import Iterable

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import company, room


def unavailable(state: ClusterState, candidate: Candidate) -> str | None:
    """Why the candidate cannot take its group now; None when it can."""
    return out_of_service(state, candidate) or room.lacking(state, candidate.group, candidate.host)


def out_of_service(state: ClusterState, candidate: Candidate) -> str | None:
    """Why the candidate could not take its group even if it had room for it; None when it could."""
    return not_serving(state, candidate) or company.conflict(state, candidate.group, candidate.host)


def not_serving(state: ClusterState, candidate: Candidate) -> str | None:
    """Why the candidate could not take its group, whatever else runs there; None when it could."""
    host, at = candidate.host, candidate.at
    if host not in candidate.group.candidates:
        return f"{host} is no candidate of {candidate.group.id}"
    if at.fence_phase is FencePhase.RUNNING:
        return f"{host} is being fenced"
    if not at.connected:
        return f"{host} is disconnected" + (f" ({at.loss})" if at.loss else "")
    if not at.accepted:
        return f"{host} is reconnecting"
    if not state.memory_of_host(host).active:
        return f"{host} is deactivated"
    if not candidate.has_reported:
        return f"{host} has just connected, and HALO has not probed the group there yet"
    failure = state.memory_of(candidate.group).start_failures.get(host)
    return f"the start failed on {host}: {failure}" if failure is not None else None


def able(state: ClusterState, seen: Iterable[Candidate]) -> list[Candidate]:
    """Which of these candidates can take their group now."""
    return [candidate for candidate in seen if unavailable(state, candidate) is None]


def available(state: ClusterState, group: ResourceGroup, besides: HostId) -> list[Candidate]:
    """Which other candidates can take the group now, in order of preference."""
    return able(
        state, [state.candidate(group, host) for host in group.candidates if host != besides]
    )


def has_reported(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Was every resource of the group probed over the standing connection?"""
    return state.candidate(group, host).has_reported


def is_being_looked_at(
    state: ClusterState, group: ResourceGroup, besides: HostId | None = None
) -> bool:
    """Does a candidate in sight, other than `besides`, still owe a first answer on the group?"""
    return any(
        candidate.host != besides and candidate.at.ready and candidate.owes_a_look
        for candidate in state.candidates_of(group)
    )
