"""What could bring the proof that a waiting group lacks: devices to ask, hosts to ping, and last,
hosts to fence.

A fence is thus asked for by a group that waits, never by the loss of a host alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.fencing import rounds, rules
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import candidates, former, takers


@dataclass(frozen=True, slots=True)
class ProofSearch:
    """What is done to get the missing proof, beside the probes of agents that are in sight."""

    verify: tuple[HostId, ...] = ()
    ping: tuple[HostId, ...] = ()
    fence: tuple[HostId, ...] = ()
    not_fenced: tuple[tuple[HostId, str], ...] = ()
    words: str = ""  # what to add to the reason why the group waits
    failed: bool = False  # a fence failed


NOTHING = ProofSearch()


def search(
    state: ClusterState,
    group: ResourceGroup,
    seen: Sequence[Candidate],
    unproven: Sequence[HostId],
    now: float,
) -> ProofSearch:
    """What could prove that the group is stopped on the hosts `unproven`, which a decision named.
    `seen` is what is known of the candidates, as in that decision."""
    if not unproven:
        return NOTHING
    seen = [*seen, *former.to_ask(state, group)]
    lacking = [each for each in seen if each.host in unproven]
    if not state.memory_of(group).wanted:
        return ProofSearch(rounds.to_ask_unhurried(state, [each.at for each in lacking], now))
    verify = rounds.to_ask(state, [each.at for each in seen], unproven, now)
    silent = [each for each in lacking if each.at.is_out_of_sight]
    if not silent:
        return ProofSearch(verify) if verify else NOTHING
    plan = rules.plan_step(state, [each.host for each in silent], now)
    # One power-off proves nothing while another host is not proven.
    others_proven = all(each.at.is_out_of_sight or _is_known_stopped(each) for each in lacking)
    fence = plan.fence if others_proven and not plan.refusals and not plan.under_way else []
    words = ""
    if plan.under_way or fence:
        words += f"; fencing {', '.join([*plan.under_way, *fence])}"
    if plan.refusals:
        words += f"; not fenced: {'; '.join(why for _, why in plan.refusals)}"
    return ProofSearch(
        verify,
        ping=_to_ping(state, seen, silent),
        fence=tuple(fence),
        not_fenced=tuple(plan.refusals),
        words=words,
        failed=plan.failed,
    )


def _is_known_stopped(candidate: Candidate) -> bool:
    """Was the group seen stopped there over the standing connection, or is the host proven off?

    This is enough to begin a fence, but not for a start. The new sample that a start needs is taken
    while the fence programs run."""
    at = candidate.at
    return at.is_proven_off or (at.ready and candidate.presence is Presence.STOPPED)


def _to_ping(
    state: ClusterState, seen: Sequence[Candidate], silent: Sequence[Candidate]
) -> tuple[HostId, ...]:
    """The hosts whose answer to a ping would show that they can take the group after the fence."""
    lost = [
        each.at
        for each in silent
        if each.at.lost_at is not None and each.at.fence_phase is not FencePhase.RUNNING
    ]
    able = candidates.able(state, seen) if lost else []
    return tuple(dict.fromkeys(h for at in lost for h in takers.awaiting_ping(able, at)))
