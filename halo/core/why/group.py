"""Why does a group run where it runs, or why does it not run?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.groups.proof_search import search
from halo.core.journal.records import Event
from halo.core.model import HostId, ResourceGroup, in_words
from halo.core.questions import candidates, departures, former, holds, proof, room, unfinished
from halo.core.questions.preempting import giving_way
from halo.core.questions.starts import order
from halo.core.reasons import Kind, Reason
from halo.core.status.groups import under_way, waiting
from halo.core.why import facts
from halo.core.why.answer import Answer, Clock

TOLD = frozenset(
    (Event.START, Event.STOP, Event.MOVE, Event.MOVE_FAILED, Event.MANAGE, Event.UNMANAGE)
) | {Event.CLEANUP, Event.RESTARTED}
"""The events of a group that tell why it is where it is. Errors are told as long as they hold."""

EVENTS_TOLD = 3


def why_group(
    state: ClusterState, group: ResourceGroup, now: float, wall_now: float
) -> dict[str, Any]:
    """The whole answer for a group. `now` is monotonic, `wall_now` seconds since the epoch."""
    clock, at = Clock(now, wall_now), state.groups[group.id]
    answer = Answer("group", group.id, "", waiting(state, group, now, wall_now))
    _tell_orders(answer, state, group)
    _tell_order(answer, state, group)
    for candidate in [*state.candidates_of(group), *former.to_ask(state, group)]:
        facts.tell_host(answer, state, candidate.at, clock)
        facts.tell_group_there(answer, candidate, clock)
        unable = candidates.unavailable(state, candidate)
        if unable is not None and candidate.host != at.managed_on:
            answer.fact(candidate.host, f"it cannot take {group.id}: {unable}", "a decision", None)
    host = at.managed_on
    reason = at.waiting.reason if host is None and at.waiting is not None else None
    if host is not None:
        reason = unfinished.reason(state, group, host)
    if reason is not None:
        answer.text = f"{group.id} should run, and waits: {reason.text}"
        _tell_wait(answer, state, group, reason, clock)
    elif host is None:
        _tell_without_host(answer, state, group)
    else:
        _tell_on_host(answer, state, group, host)
    return answer.to_json()


def _tell_orders(answer: Answer, state: ClusterState, group: ResourceGroup) -> None:
    memory = state.memory_of(group)
    if state.observe_only:
        answer.fact(group.id, "the manager only observes", "its flags", None)
    if state.remembered.frozen is not None:
        text = f"the cluster is frozen: {state.remembered.frozen}"
        answer.fact(group.id, text, facts.BY_JOURNAL, None)
    ordered = "it should run" if memory.wanted else "it should be stopped"
    if not memory.managed:
        ordered += ", but it is unmanaged"
    answer.fact(group.id, ordered, facts.BY_JOURNAL, None)
    found = [r for r in state.remembered.events if r.object == group.id and r.event in TOLD]
    for record in found[-EVENTS_TOLD:]:
        facts.tell_record(answer, record)
    if memory.error is not None:
        answer.fact(group.id, f"error: {memory.error}", facts.BY_JOURNAL, None)
    for host, failure in memory.start_failures.items():
        answer.fact(group.id, f"its start failed on {host}: {failure}", facts.BY_JOURNAL, None)


def _tell_order(answer: Answer, state: ClusterState, group: ResourceGroup) -> None:
    for name in group.after:
        does = "runs" if order.runs(state, state.cluster.groups[name]) else "does not run"
        text = f"{group.id} is started after it, and it {does}"
        answer.fact(name, text, "the config, and monitors", None)
    for key, names in vars(group.company).items():
        if names:
            text = f"{key.replace('_', ' ')} {', '.join(names)}"
            answer.fact(group.id, text, "the config", None)
    if group.needs:
        text = f"it needs {in_words(group.needs)} (priority {group.priority})"
        text += "; groups of a lower priority give way to it" if group.preempt else ""
        answer.fact(group.id, text, "the config", None)


# --- it should run, and does not ------------------------------------------------------------------


def _tell_wait(
    answer: Answer, state: ClusterState, group: ResourceGroup, reason: Reason, clock: Clock
) -> None:
    if reason.kind is Kind.HELD:
        answer.halo_does.append("HALO only monitors the group, and starts nothing of it")
        answer.you_can.append(f"bring this about, when it is safe: {reason.ends_when}")
    elif reason.kind is Kind.PROOF:
        _tell_search(answer, state, group, tuple(reason.hosts), clock)
    elif reason.kind is Kind.DEPENDENCY:
        answer.halo_does.append(f"when {reason.ends_when}, HALO starts the group at once")
        _tell_first(answer, state, reason)
    elif reason.kind is Kind.NO_ELIGIBLE_HOST:
        able = f"when {reason.ends_when}, HALO starts the group there at once"
        answer.halo_does.append(able)
        answer.you_can += _ways_to_make_able(state, group)
    elif reason.kind is Kind.HOST_CAPACITY:
        making = state.groups[group.id].makes_room
        for giver in making.givers if making is not None else ():
            answer.halo_does.append(f"HALO stops {giver} to make room for it")
        answer.halo_does.append(f"when {reason.ends_when}, HALO starts the group there at once")
        answer.you_can += _ways_to_make_room(state, group)
        answer.you_can += _ways_to_make_able(state, group)
    elif reason.kind is Kind.TURN:
        answer.halo_does.append(f"when {reason.ends_when}, HALO starts the group there at once")
        answer.you_can.append("wait: each start ends, or is ended at its deadline")


def _tell_search(
    answer: Answer,
    state: ClusterState,
    group: ResourceGroup,
    unproven: tuple[HostId, ...],
    clock: Clock,
) -> None:
    """What is done for the proof that is missing, and who can help."""
    seen = state.candidates_of(group)
    found = search(state, group, seen, unproven, clock.now)
    for each in [*seen, *former.to_ask(state, group)]:
        if each.host not in unproven:
            continue
        host, at = each.host, each.at
        if at.ready:
            answer.halo_does.append(f"HALO probes {group.id} on {host} again")
            if each.error is not None:
                answer.you_can.append(f"remove the cause on {host}: {each.error}")
        elif at.is_proven_off and proof.may_ask_device(state, host):
            answer.halo_does.append(f"HALO asks the fence device of {host} whether it is still off")
        elif at.is_out_of_sight:
            answer.you_can.append(f"bring {host} back, or power it off with `halo fence {host}`")
            answer.you_can.append(
                f"if you saw that {host} is off: `halo fence {host} --confirm-off --reason ...`"
            )
    answer.halo_does += [f"HALO fences {host}" for host in found.fence]
    for host, refusal in found.not_fenced:
        answer.halo_does.append(f"HALO does not fence {host} by itself: {refusal}")
    answer.halo_does.append("when the proof is there, HALO starts the group at once")
    gone = former.beyond_reach(state, group)
    if gone is not None:
        answer.you_can.append(gone)


def _tell_first(answer: Answer, state: ClusterState, reason: Reason) -> None:
    """What holds the groups that have to run first, and how to help them."""
    for name in reason.groups:
        memory = state.memory_of(state.cluster.groups[name])
        if not memory.wanted:
            answer.you_can.append(f"`halo start {name}`")
        elif memory.error is not None or memory.start_failures:
            answer.you_can.append(f"remove the cause, then `halo cleanup {name}`")
        else:
            answer.you_can.append(f"see why {name} does not run: `halo why {name}`")


def _ways_to_make_able(state: ClusterState, group: ResourceGroup) -> Iterable[str]:
    for candidate in state.candidates_of(group):
        host = candidate.host
        if not candidate.at.connected:
            yield f"bring {host} back"
        elif not state.memory_of_host(host).active:
            yield f"`halo activate {host}`"
    if state.memory_of(group).start_failures:
        yield f"remove the cause of the failed starts, then `halo cleanup {group.id}`"


def _ways_to_make_room(state: ClusterState, group: ResourceGroup) -> Iterable[str]:
    """Name what is in the way, the least important first."""
    for host in group.candidates:
        if state.hosts[host].ready and room.lacking(state, group, host) is not None:
            others = [
                other
                for other in state.groups_of(host)
                if other is not group
                and not group.needs.keys().isdisjoint(other.needs)
                and room.takes_room(state, other, host)
            ]
            names = [other.id for other in sorted(others, key=lambda each: each.priority)]
            if names:
                yield f"move or stop a group that takes room on {host}: {', '.join(names[:8])}"


# --- it runs, or should not -----------------------------------------------------------------------


def _tell_without_host(answer: Answer, state: ClusterState, group: ResourceGroup) -> None:
    memory, comment = state.memory_of(group), state.groups[group.id].comment
    told = f": {comment}" if comment else ""
    if memory.wanted:
        answer.text = f"{group.id} is about to be started or managed{told}"
        return
    answer.text = f"{group.id} should be stopped{told}"
    answer.halo_does.append("HALO starts it nowhere, and stops it where it is seen running")
    answer.you_can.append(f"`halo start {group.id}`")


def _tell_on_host(answer: Answer, state: ClusterState, group: ResourceGroup, host: HostId) -> None:
    if not state.memory_of(group).wanted:
        answer.text = f"{group.id} should be stopped, and is being stopped on {host}"
        held = holds.hold_reason(state, group)
        if held is not None:
            answer.text = f"{group.id} should be stopped, but is held on {host}: {held}"
        return
    leaves = departures.departure_reason(state, group, host)
    if leaves is not None:
        answer.text = f"{group.id} leaves {host}: {leaves}"
        then = "then starts it on the other host"
        if giving_way.gives_way_to(state, group, host) is not None:
            then = "starts it again as soon as a host has room for it"
        answer.halo_does.append(f"HALO stops it on {host}, and {then}")
        return
    if not order.runs_whole(state, group, host):
        work = under_way(state, group)
        what = f": {', '.join(work)}" if work else ""
        answer.text = f"{group.id} is being started on {host}{what}"
        return
    answer.text = f"{group.id} runs on {host}: {_why_here(state, group, host)}"
    answer.halo_does.append("HALO monitors it, and starts again what stops by itself")
    able = candidates.available(state, group, besides=host)
    if able:
        answer.halo_does.append(f"if {host} is lost, {able[0].host} takes it")
    elif len(group.candidates) > 1:
        answer.halo_does.append(f"if {host} is lost, no other host can take it now")
        answer.you_can += _ways_to_make_able(state, group)
    if host != group.home_host:
        home = state.candidate(group, group.home_host)
        if candidates.unavailable(state, home) is None:
            answer.you_can.append(f"`halo failback --onto {group.home_host}` moves it home")


def _why_here(state: ClusterState, group: ResourceGroup, host: HostId) -> str:
    if host == group.home_host:
        return "this is its home host"
    if host not in group.candidates:
        return former.runs_there(group, host)
    preferred = group.candidates[: group.candidates.index(host)]
    told = [_passed_over(state, state.candidate(group, other)) for other in preferred]
    return f"{'; '.join(told)}; HALO moves no running group back by itself"


def _passed_over(state: ClusterState, candidate: Candidate) -> str:
    unable = candidates.unavailable(state, candidate)
    if unable is not None:
        return unable
    lacks = "" if candidate.presence is Presence.STOPPED else ", but is being probed"
    return f"{candidate.host} is preferred, and could take it now{lacks}"
