"""Why was a host fenced, or why is it not fenced?"""

from __future__ import annotations

from typing import Any

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.state import ClusterState
from halo.core.fencing import rules
from halo.core.journal.records import Event, Record
from halo.core.model import HostId
from halo.core.why import facts
from halo.core.why.answer import Answer, Clock

TOLD = frozenset((Event.FENCE, Event.FENCE_FAILED, Event.FENCE_CANCEL, Event.RESET))
"""The events of a host that tell why it is fenced, or is not."""


def why_host(state: ClusterState, host: HostId, now: float, wall_now: float) -> dict[str, Any]:
    """The whole answer for a host. `now` is monotonic, `wall_now` seconds since the epoch."""
    clock, at, memory = Clock(now, wall_now), state.hosts[host], state.memory_of_host(host)
    answer = Answer("host", host, "")
    facts.tell_host(answer, state, at, clock)
    last = None
    for record in state.remembered.events:
        if record.object == host and record.event in TOLD:
            facts.tell_record(answer, record)
            last = record
    for group in state.groups_of(host):
        if state.groups[group.id].managed_on == host:
            answer.fact(group.id, f"HALO manages it on {host}", "a decision", None)
        elif not at.ready:
            facts.tell_group_there(answer, state.candidate(group, host), clock)
    if at.fence_phase is FencePhase.RUNNING:
        answer.text = f"{host} is being fenced: {memory.fence_intent or 'by command'}"
        answer.halo_does.append("HALO starts nothing of its groups before the fence is confirmed")
        answer.you_can.append(f"`halo fence {host} --cancel`")
    elif memory.fenced:
        _tell_fenced(answer, state, host, last)
    elif at.connected:
        answer.text = f"{host} is not fenced: it is connected, and answers"
        answer.halo_does.append("HALO fences it only if it falls silent, and a group needs that")
    else:
        _tell_not_fenced(answer, state, host, now)
    return answer.to_json()


def _tell_fenced(answer: Answer, state: ClusterState, host: HostId, last: Record | None) -> None:
    at = state.hosts[host]
    why = f": {last.comment}" if last is not None and last.event is Event.FENCE else ""
    answer.text = f"{host} was fenced, and not reset since{why}"
    if at.is_proven_off:
        answer.halo_does.append(
            "HALO takes its groups as stopped there until it gives a sign of life"
        )
        answer.you_can.append(f"repair {host}, then `halo power on {host}`")
    answer.halo_does.append("HALO does not fence it again by itself before the reset")
    answer.you_can.append(f"after the repair: `halo reset {host}`")


def _tell_not_fenced(answer: Answer, state: ClusterState, host: HostId, now: float) -> None:
    waits = [group.id for group in rules.bereft(state, host)]
    refusal = rules.automatic_refusal(state, host, now)
    if not waits and not state.reboot_is_due(host):
        answer.text = f"{host} is not fenced: no group that should run waits for it"
        answer.halo_does.append("HALO tries to connect to it")
    elif refusal is None:
        answer.text = f"{host} is not fenced yet, and HALO may fence it now"
        whom = ", ".join(waits) or "its reboot (`on_loss: reboot`)"
        answer.halo_does.append(f"HALO fences it as soon as only that helps: {whom}")
    else:
        answer.text = f"{host} is not fenced: {refusal}"
        answer.halo_does.append("HALO tries to connect to it, and asks again whether to fence it")
    answer.you_can.append(f"bring {host} back, or power it off with `halo fence {host}`")
    if state.hosts[host].is_out_of_sight:
        answer.you_can.append(
            f"if you saw that it is off: `halo fence {host} --confirm-off --reason ...`"
        )
