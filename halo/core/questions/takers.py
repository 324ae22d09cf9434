"""Who could take the groups of a host that is lost, or is to be powered off (S5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.host_state import HostState
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import candidates, proof


def takers(able: Iterable[Candidate], lost: HostState) -> list[HostId]:
    """Which of these, that are able, could take their group from `lost`: heard of since the
    verdict."""
    verdict = lost.lost_at
    return [c.host for c in able if verdict is None or c.at.answered_at > verdict]


def awaiting_ping(able: Sequence[Candidate], lost: HostState) -> list[HostId]:
    """Which of these, that are able, could take their group from `lost` once they answer a ping
    sent now."""
    heard = takers(able, lost)
    return [candidate.host for candidate in able if candidate.host not in heard]


def why_no_taker(state: ClusterState, groups: Sequence[ResourceGroup], lost: HostId) -> str | None:
    """Why none of these groups has a candidate to take it from `lost` now; None when one has."""
    at, awaited = state.hosts[lost], set[HostId]()
    for group in groups:
        able = candidates.available(state, group, besides=lost)
        if takers(able, at):
            return None
        awaited.update(awaiting_ping(able, at))
    if awaited:
        return f"waiting for an answer from {', '.join(sorted(awaited))}"
    return nobody_takes(state, groups, lost)


def nobody_takes(
    state: ClusterState, groups: Sequence[ResourceGroup], lost: HostId, what: str = "a group"
) -> str:
    """No candidate can take `what` from `lost`, and of each candidate why."""
    others = [
        state.candidate(group, host)
        for group in groups
        for host in group.candidates
        if host != lost
    ]
    why = [reason for c in others if (reason := candidates.unavailable(state, c)) is not None]
    if not why:  # somebody could, but it could not be proven that nobody else runs it
        why = [reason for g in groups if (reason := proof.obstacle(state, g, lost)) is not None]
    text = f"no other host can take {what} from {lost} now"
    return f"{text}: {'; '.join(dict.fromkeys(why))}" if why else text
