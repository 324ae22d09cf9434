"""What is known of hosts, and of groups on them: when it was learnt, and how."""

from __future__ import annotations

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.host_state import FencePhase, HostState
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.journal.records import Record
from halo.core.why.answer import Answer, Clock

NEVER = float("-inf")

BY_CONNECTION = "the connection"
BY_MONITOR = "monitors"
BY_REPORT = "reports of the watching agent"
BY_FENCE = "a confirmed fence"
BY_JOURNAL = "the journal"
NOT_KNOWN = "not known"


def tell_host(answer: Answer, state: ClusterState, at: HostState, clock: Clock) -> None:
    """The facts about one host as such: is it in sight, off, trusted, active?"""
    memory = state.memory_of_host(at.id)
    if at.connected:
        silent = at.suspect_at is not None
        text = "connected, but a heartbeat is overdue" if silent else "connected"
        answer.fact(at.id, text, BY_CONNECTION, clock.at(at.since))
    else:
        loss = f": {at.loss}" if at.loss is not None else ""
        answer.fact(at.id, f"disconnected{loss}", BY_CONNECTION, clock.at(at.since))
    if at.lost_at is not None:
        answer.fact(at.id, "declared lost", BY_CONNECTION, clock.at(at.lost_at))
    if at.fence_phase is FencePhase.RUNNING:
        answer.fact(at.id, "it is being fenced now", BY_JOURNAL, None)
    if at.fence_phase is FencePhase.FAILED:
        answer.fact(at.id, f"its fence failed: {at.fence_error}", BY_FENCE, None)
    if at.is_proven_off:
        answer.fact(at.id, _off(at), BY_FENCE, clock.at(at.verified_at))
    if memory.fenced:
        answer.fact(at.id, "fenced, and not reset since", BY_JOURNAL, memory.fenced_at)
    if memory.distrusted:
        text = f"its fence device is not trusted: {memory.distrusted}"
        answer.fact(at.id, text, BY_JOURNAL, None)
    if not memory.active:
        answer.fact(at.id, "deactivated", BY_JOURNAL, None)


def _off(at: HostState) -> str:
    proof = at.power_proof
    if at.verified_at == NEVER:
        return "fenced; its fence device has to say again that the host is off"
    if proof is not None and proof.level is None:
        return "off, as was confirmed"  # by a person, or by devices that the config has no more
    return "off, as its fence device said"


def tell_record(answer: Answer, record: Record) -> None:
    """Something that was written down."""
    comment = f": {record.comment}" if record.comment else ""
    answer.fact(record.object, f"{record.event.value}{comment}", BY_JOURNAL, record.at)


def tell_group_there(answer: Answer, candidate: Candidate, clock: Clock) -> None:
    """What is known of a group on one host."""
    text, how, moment = _known(candidate)
    answer.fact(candidate.host, text, how, clock.at(moment))


def _known(candidate: Candidate) -> tuple[str, str, float]:
    name, at = candidate.group.id, candidate.at
    found = [candidate.sightings.get(resource.id) for resource in candidate.group.exclusive]
    oldest = min((each.begun_at for each in found if each is not None), default=NEVER)
    how = BY_MONITOR if oldest > NEVER else BY_REPORT
    presence = candidate.presence
    if presence is Presence.RUNNING:
        return f"{name} is seen running", how, oldest
    if presence is Presence.STOPPED:
        if at.is_proven_off:
            return f"{name} is stopped, because the host is off", BY_FENCE, at.verified_at
        return f"{name} is stopped", how, oldest
    seen = candidate.last_seen
    last = f"; it was last seen {seen.value.lower()}" if seen is not Presence.UNKNOWN else ""
    if not at.connected:
        return f"it is not known whether {name} runs{last}", NOT_KNOWN, NEVER
    if candidate.error is not None:
        return f"it is not known whether {name} runs: {candidate.error}{last}", how, oldest
    why = f": {candidate.unknown}" if candidate.unknown else ""
    return f"it is not known whether {name} runs{why}{last}", NOT_KNOWN, NEVER
