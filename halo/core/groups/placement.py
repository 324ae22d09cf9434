"""What to do with a group whose token no host holds: one pure function, asked after every change.

If the group runs somewhere, manage it there. If it is proven stopped everywhere, wanted and
managed, start it on the first candidate that can take it. Otherwise wait, say why, and name what
would bring the missing proof: monitors to run, devices to ask, hosts to ping, and last, hosts to
fence.

What is known of the candidates is looked up once, at the beginning, and passed on as `seen`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.fencing import rounds, rules
from halo.core.model import HostId, ResourceGroup, StartFailurePolicy
from halo.core.questions import candidates, former, holds, proof, takers

FIRST_LOOK_S = 3.0
"""How long a running group waits for the first probe of its other candidates. After that it is
managed, even if the monitor of a candidate hangs."""

RECHECK_S = 1.0
"""How soon to decide again if a decision waits for time to pass (limits, pauses)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a waiting group. At most one of `manage_on` and `start_on` is set."""

    reason: str = ""
    manage_on: HostId | None = None
    start_on: HostId | None = None
    second_copy: tuple[HostId, ...] = ()
    probe: tuple[HostId, ...] = ()
    verify: tuple[HostId, ...] = ()
    ping: tuple[HostId, ...] = ()
    fence: tuple[HostId, ...] = ()
    not_fenced: tuple[tuple[HostId, str], ...] = ()
    recheck_s: float | None = None
    failed: bool = False
    at_rest: bool = False  # it should stay stopped, and is stopped on every candidate


def decide(state: ClusterState, group: ResourceGroup, since: float, now: float) -> Decision:
    """Decide on a group whose token is at the desk. `since` is when this decision began."""
    seen = state.candidates_of(group)
    looked_for = [*seen, *state.former_of(group)]
    running = [candidate for candidate in looked_for if candidate.presence is Presence.RUNNING]
    if running:
        return _running(looked_for, running, since, now)
    memory = state.memory_of(group)
    held = holds.standing_hold(state, group)
    if held is not None:
        return Decision(held, failed=memory.error is not None)
    beyond_reach = former.beyond_reach(state, group)
    to_prove = [*seen, *former.to_ask(state, group)]
    if not memory.wanted:
        return _stopped_on_request(state, to_prove, since, now, beyond_reach)
    failures = memory.start_failures
    if failures and group.on_start_failure is StartFailurePolicy.STAY:
        return Decision(
            f"{'; '.join(failures.values())}; remove the cause, then run `halo cleanup {group.id}`",
            failed=True,
        )
    if beyond_reach is not None:
        return Decision(beyond_reach)
    lacks = proof.lacking(state, to_prove, since, now)
    if lacks:
        return _seek_proof(state, to_prove, lacks, since, now)
    why_not = {candidate.host: candidates.unavailable(state, candidate) for candidate in seen}
    return _start(group, why_not, memory.move_target, failed=bool(failures))


def _running(
    seen: Sequence[Candidate], running: Sequence[Candidate], since: float, now: float
) -> Decision:
    """The group is seen running on one host: manage it there after a first probe of the others.

    A host that manages the group may complete it in place (S1). After a cleanup, or when several
    hosts connect at once, the answer that shows a second copy may come some milliseconds later."""
    here = running[0]
    if len(running) > 1:
        copies = tuple(copy.host for copy in running)
        return Decision(
            f"running on {' and '.join(copies)} at once; make sure that at most one copy runs, "
            f"then run `halo cleanup {here.group.id}`",
            second_copy=copies,
            failed=True,
        )
    if here.host not in here.group.candidates:
        return Decision(former.runs_there(here.group, here.host), failed=True)
    if not here.at.ready:
        return Decision(f"{here.host} is being fenced")
    if now - since < FIRST_LOOK_S:
        unseen = tuple(
            other.host
            for other in seen
            if other is not here and other.at.ready and not other.was_looked_at
        )
        if unseen:
            text = f"running on {here.host}; HALO has to probe {', '.join(unseen)} first"
            return Decision(text, probe=unseen, recheck_s=RECHECK_S)
    return Decision(f"running on {here.host}", manage_on=here.host)


def _stopped_on_request(
    state: ClusterState,
    seen: Sequence[Candidate],
    since: float,
    now: float,
    beyond_reach: str | None,
) -> Decision:
    """The group should be stopped. Find out whether it is, and say so."""
    unknown = [each for each in seen if each.presence is not Presence.STOPPED]
    if not unknown and beyond_reach is not None:
        return Decision(f"wanted stopped, but {beyond_reach}")
    if not unknown:
        return Decision("stopped by the administrator", at_rest=True)
    proven_off = [each for each in unknown if each.at.is_proven_off]
    lacks = proof.lacking(state, proven_off, since, now)
    text = f"wanted stopped, but may still run on {' and '.join(each.host for each in unknown)}"
    return Decision(
        "; ".join([text, *lacks.values()]),
        verify=rounds.to_ask_unhurried(state, [each.at for each in proven_off], now),
        recheck_s=RECHECK_S if proven_off else None,
    )


def _start(
    group: ResourceGroup,
    why_not: Mapping[HostId, str | None],
    move_target: HostId | None,
    *,
    failed: bool,
) -> Decision:
    """The group is stopped everywhere: start it on the target of a planned move, or else on the
    first candidate that can take it. If no candidate can, give the reason for each."""
    able = [host for host, reason in why_not.items() if reason is None]
    if able:
        host = move_target if move_target in able else able[0]
        return Decision(f"starting on {host}", start_on=host)
    text = "no host can take it: " + "; ".join(filter(None, why_not.values()))
    if failed:
        text += f"; remove the cause, then run `halo cleanup {group.id}`"
    return Decision(text, failed=failed)


# --- what would bring the missing proof -----------------------------------------------------------


def _seek_proof(
    state: ClusterState,
    seen: Sequence[Candidate],
    lacks: Mapping[HostId, str],
    since: float,
    now: float,
) -> Decision:
    """What would bring the missing proof, and why the group waits, in words."""
    lacking = [each for each in seen if each.host in lacks]
    probe = tuple(each.host for each in lacking if _should_probe(each, since))
    verify = rounds.to_ask(state, [each.at for each in seen], lacks, now)
    reason = "; ".join(lacks.values())
    silent = [each for each in lacking if each.at.is_out_of_sight]
    if not silent:
        return Decision(reason, probe=probe, verify=verify, recheck_s=RECHECK_S)
    plan = rules.plan_step(state, [each.host for each in silent], now)
    # One power-off proves nothing while another host is not proven.
    others_proven = all(each.at.is_out_of_sight or _is_known_stopped(each) for each in lacking)
    fence = plan.fence if others_proven and not plan.refusals and not plan.under_way else []
    text = reason
    if plan.under_way or fence:
        text += f"; fencing {', '.join([*plan.under_way, *fence])}"
    if plan.refusals:
        text += f"; not fenced: {'; '.join(why for _, why in plan.refusals)}"
    return Decision(
        text,
        probe=probe,
        verify=verify,
        ping=_to_ping(state, seen, silent),
        fence=tuple(fence),
        not_fenced=tuple(plan.refusals),
        recheck_s=RECHECK_S,
        failed=plan.failed,
    )


def _should_probe(candidate: Candidate, since: float) -> bool:
    """Should the agent be asked now? Not if it has answered since then, however badly."""
    return candidate.at.ready and not candidate.answered_since(since)


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
