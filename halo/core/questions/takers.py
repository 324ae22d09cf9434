"""Which hosts can take the groups of a host that is lost or will be powered off (S5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.host_state import HostState
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import candidates, company, proof

MOST_TOLD = 8
"""Reasons that are told of a host with many groups."""


def takers(able: Iterable[Candidate], lost: HostState) -> list[HostId]:
    """Which of these able candidates can take their group from `lost`: those that answered since
    the verdict."""
    verdict = lost.lost_at
    return [c.host for c in able if verdict is None or c.at.answered_at > verdict]


def awaiting_ping(able: Sequence[Candidate], lost: HostState) -> list[HostId]:
    """Which of these able candidates can take their group from `lost` if they answer a ping that is
    sent now."""
    heard = takers(able, lost)
    return [candidate.host for candidate in able if candidate.host not in heard]


def why_no_taker(state: ClusterState, groups: Sequence[ResourceGroup], lost: HostId) -> str | None:
    """Why no candidate can take any of these groups from `lost` now; None if one can."""
    at, awaited = state.hosts[lost], set[HostId]()
    for group in groups:
        if company.led_by(state, group, lost):
            continue  # it can go where the group goes that it follows, and that one is asked about
        able = candidates.available(state, group, besides=lost)
        if takers(able, at):
            return None
        awaited.update(awaiting_ping(able, at))
    if awaited:
        return f"waiting for an answer from {', '.join(sorted(awaited))}"
    return nobody_takes(state, groups, lost)


def nobody_takes(
    state: ClusterState, groups: Sequence[ResourceGroup], lost: HostId, what: str = ""
) -> str:
    """Says that no candidate can take `what` from `lost`, with the reason for each candidate."""
    what = what or (groups[0].id if len(groups) == 1 else "a group")
    others = [
        state.candidate(group, host)
        for group in groups
        for host in group.candidates
        if host != lost
    ]
    why = [reason for c in others if (reason := _unavailable(state, c)) is not None]
    if not why:  # a candidate is available, but proof about the others would be missing
        why = [reason for g in groups if (reason := proof.obstacle(state, g, lost)) is not None]
    text = f"no other host can take {what} from {lost} now"
    told = list(dict.fromkeys(why))
    more = [f"and {len(told) - MOST_TOLD} more"] if len(told) > MOST_TOLD else []
    return f"{text}: {'; '.join([*told[:MOST_TOLD], *more])}" if told else text


def _unavailable(state: ClusterState, candidate: Candidate) -> str | None:
    """Why the candidate cannot take its group, with the command that ends a deactivation."""
    why = candidates.unavailable(state, candidate)
    if why is not None and candidate.at.ready and not state.memory_of_host(candidate.host).active:
        return f"{why} (`halo activate {candidate.host}` ends this)"
    return why
