"""What to do with a group whose token no host holds: one pure function, asked after every change.

If the group runs somewhere, manage it there. If it is proven stopped everywhere, wanted and
managed, start it on the first candidate that can take it. Otherwise wait, and say why.

The caller looks up once what is known of the candidates. Each subject in
:mod:`halo.core.questions` is then asked once, in this order, and only if the answers before it
have not decided. What could bring a proof that is missing is the next question:
:mod:`halo.core.groups.proof_search`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from halo.core import reasons
from halo.core.cluster.candidate import Candidate
from halo.core.cluster.group_state import MakingRoom
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup, StartFailurePolicy
from halo.core.questions import candidates, company, former, holds, proof, room
from halo.core.questions.preempting import giving_way, plan
from halo.core.questions.starts import order, turn
from halo.core.reasons import Reason

FIRST_LOOK_S = 3.0
"""How long a running group waits for the first probe of its other candidates. After that it is
managed, even if the monitor of a candidate hangs."""

RECHECK_S = 1.0
"""How soon to decide again if a decision waits for time to pass (limits, pauses)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a waiting group. At most one of `manage_on` and `start_on` is set.

    `waits` is set if the group should run, and HALO neither starts nor manages it now."""

    text: str
    waits: Reason | None = None
    manage_on: HostId | None = None
    start_on: HostId | None = None
    second_copy: tuple[HostId, ...] = ()
    probe: tuple[HostId, ...] = ()
    unproven: tuple[HostId, ...] = ()  # the group waits for proof that it is stopped there
    recheck_s: float | None = None
    failed: bool = False
    at_rest: bool = False  # it should stay stopped, and is stopped on every candidate
    crowded: bool = False  # another group that leaves a host, or was started, may end the wait
    makes_room: MakingRoom | None = None  # these groups give way to it, and no others


def decide(
    state: ClusterState,
    group: ResourceGroup,
    seen: Sequence[Candidate],
    since: float,
    now: float,
) -> Decision:
    """Decide on a group whose token waits at the placer. `seen` is what is known now of its
    candidates, in order of preference. `since` is when this decision began."""
    decision = _decide(state, group, seen, since, now)
    if decision.waits is not None and not state.memory_of(group).wanted:
        return replace(decision, waits=None)  # it should not run: there is nothing to wait for
    return decision


def _decide(
    state: ClusterState,
    group: ResourceGroup,
    seen: Sequence[Candidate],
    since: float,
    now: float,
) -> Decision:
    looked_for = [*seen, *state.former_of(group)]
    running = [each for each in looked_for if each.presence is Presence.RUNNING]
    if running:
        return _running(running, looked_for, since, now)

    memory = state.memory_of(group)
    held = holds.standing_hold(state, group)
    if held is not None:
        return _wait(held, failed=memory.error is not None)

    beyond_reach = former.beyond_reach(state, group)
    to_prove = [*seen, *former.to_ask(state, group)]
    lacks = proof.lacking(state, to_prove, since, now)
    if not memory.wanted:
        return _stopped_on_request(to_prove, lacks, beyond_reach)

    failures = memory.start_failures
    if failures and group.on_start_failure is StartFailurePolicy.STAY:
        text = f"{'; '.join(failures.values())}; {_remedy(group)}"
        return _wait(reasons.held_by_error(group.id, text, failures), failed=True)

    if beyond_reach is not None:
        gone = dict.fromkeys(former.gone(state, group), "it is not in the config any more")
        return _wait(reasons.unproven(group.id, beyond_reach, gone))
    if lacks:
        lacking = [each for each in to_prove if each.host in lacks]
        in_sight = [each for each in lacking if each.at.ready]
        return _wait(
            reasons.unproven(group.id, "; ".join(lacks.values()), lacks),
            probe=tuple([each.host for each in in_sight if each.answered_since < since]),
            unproven=tuple(lacks),
            recheck_s=RECHECK_S,
            makes_room=giving_way.kept_up(state, group, lacking, now),
        )

    too_early = order.lacking(state, group) or company.lacking(state, group)
    if too_early is not None:
        return _wait(too_early)
    return _choose(state, group, seen, now)


def _choose(
    state: ClusterState, group: ResourceGroup, seen: Sequence[Candidate], now: float
) -> Decision:
    """The group may be started: on which host?"""
    memory = state.memory_of(group)
    why_not = {each.host: candidates.out_of_service(state, each) for each in seen}
    in_service = [host for host, reason in why_not.items() if reason is None]
    lacks = {
        host: room.lacking(state, group, host)
        or giving_way.kept(state, group, host)
        or room.kept(state, group, host, now)
        for host in in_service
    }
    able = [host for host in in_service if lacks[host] is None]
    if able:
        first = company.preferred(state, group, able)[0]
        target = memory.move_target if memory.move_target in able else first
        others_first = turn.lacking(state, group, target, now)
        if others_first is not None:
            reason = reasons.turn(group.id, target, others_first)
            making = giving_way.kept_for_turn(state, group, target)
            return _wait(reason, crowded=True, recheck_s=RECHECK_S, makes_room=making)
        return Decision(f"starting on {target}", start_on=target)
    unable = {host: why for host, why in {**why_not, **lacks}.items() if why is not None}
    if in_service:
        found = plan.answer(state, group, company.preferred(state, group, in_service), now)
        turn_first = _turn_before_others_give_way(state, group, found.making, now)
        if turn_first is not None:
            return _wait(turn_first, crowded=True, recheck_s=RECHECK_S)
        reason = reasons.host_capacity(group.id, unable, found.groups).with_words(found.words)
        return _wait(reason, crowded=True, recheck_s=RECHECK_S, makes_room=found.making)
    failures = memory.start_failures
    text = "no host can take it: " + "; ".join(unable.values())
    if failures:
        text += f"; {_remedy(group)}"
    crowded = bool(group.company.all)
    return _wait(
        reasons.no_eligible_host(text, unable),
        failed=bool(failures),
        crowded=crowded,
        recheck_s=RECHECK_S if crowded else None,
    )


def _turn_before_others_give_way(
    state: ClusterState, group: ResourceGroup, making: MakingRoom | None, now: float
) -> Reason | None:
    """No group is stopped for one that could not be started then, because its host starts others
    first. It stands in the line meanwhile."""
    if making is None or state.groups[group.id].makes_room is not None:
        return None
    text = turn.lacking(state, group, making.host, now)
    return None if text is None else reasons.turn(group.id, making.host, text)


def _remedy(group: ResourceGroup) -> str:
    return f"remove the cause, then run `halo cleanup {group.id}`"


def _wait(reason: Reason, **more: Any) -> Decision:
    return Decision(reason.text, reason, **more)


def _stopped_on_request(
    to_prove: Sequence[Candidate], lacks: Mapping[HostId, str], beyond_reach: str | None
) -> Decision:
    """The group should be stopped. Find out whether it is, and say so."""
    doubtful = [each for each in to_prove if each.presence is not Presence.STOPPED]
    if not doubtful and beyond_reach is not None:
        return Decision(f"wanted stopped, but {beyond_reach}")
    if not doubtful:
        return Decision("stopped by the administrator", at_rest=True)
    hosts = tuple(each.host for each in doubtful)
    off = [each.host for each in doubtful if each.at.is_proven_off]
    text = f"wanted stopped, but may still run on {' and '.join(hosts)}"
    return Decision(
        "; ".join([text, *(lacks[host] for host in off if host in lacks)]),
        unproven=hosts,
        recheck_s=RECHECK_S if off else None,
    )


def _running(
    running: Sequence[Candidate], seen: Sequence[Candidate], since: float, now: float
) -> Decision:
    """The group is seen running on one host: manage it there after a first probe of the others.

    A host that manages the group may complete it in place (S1). After a cleanup, or when several
    hosts connect at once, the answer that shows a second copy may come some milliseconds later."""
    here = running[0]
    if len(running) > 1:
        copies = [copy.host for copy in running]
        remedy = f"; make sure that at most one copy runs, then run `halo cleanup {here.group.id}`"
        reason = holds.two_copies(here.group, copies).with_words(remedy)
        return _wait(reason, second_copy=tuple(copies), failed=True)
    if here.host not in here.group.candidates:
        return _wait(holds.runs_on_former_host(here.group, here.host), failed=True)
    if not here.at.ready:
        text = f"{here.host} is being fenced"
        return _wait(reasons.not_looked_at(here.host, text, {here.host: text}))
    if now - since < FIRST_LOOK_S:
        unseen = tuple(
            other.host
            for other in seen
            if other is not here and other.at.ready and not other.was_looked_at
        )
        if unseen:
            text = f"running on {here.host}; HALO has to probe {', '.join(unseen)} first"
            unknown = dict.fromkeys(unseen, "it has to be probed")
            reason = reasons.not_looked_at(here.host, text, unknown)
            return _wait(reason, probe=unseen, recheck_s=RECHECK_S)
    return Decision(f"running on {here.host}", manage_on=here.host)
