"""Where a group without a home for its token goes: one pure function, asked again on every change.

Running somewhere: manage it there. Proven stopped everywhere, wanted and managed: start it on the
first candidate that can take it. Else wait, say why, and name what would bring the missing proof:
monitors to run, devices to ask, hosts to ping, and, last, hosts to fence.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.fencing import rules
from halo.core.model import HostId, ResourceGroup, StartFailurePolicy
from halo.core.questions import candidates, holds, proof

FIRST_LOOK_S = 3.0
"""How long a group that runs waits for the first look at its other candidates; one that hangs in a
monitor must not keep it from being managed."""

RECHECK_S = 1.0
"""How soon a decision is asked again that waits for time to pass (limits, pauses)."""


UNHURRIED_S = 60.0
"""How much later than usual a fence device that gave no answer is asked again, where nothing waits
to be started."""


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
    at_rest: bool = False  # it is to stay stopped, and is so on every candidate


def decide(state: ClusterState, group: ResourceGroup, since: float, now: float) -> Decision:
    """Decide on a group whose token is at the desk; `since`: when this decision began."""
    running = state.knowledge.running_on(group)
    if len(running) > 1:
        hosts = " and ".join(running)
        return Decision(
            f"running on {hosts} at once; see that no more than one copy runs, "
            f"then `halo cleanup {group.id}`",
            second_copy=tuple(running),
            failed=True,
        )
    if running:
        return _running(state, group, running[0], since, now)
    held = holds.hold_reason(state, group)
    if held is not None:
        return Decision(held, failed=state.memory_of(group).error is not None)
    if not state.memory_of(group).wanted:
        return _stopped_on_request(state, group, since, now)
    failures = state.memory_of(group).start_failures
    if failures and group.on_start_failure is StartFailurePolicy.STAY:
        return Decision(
            f"{'; '.join(failures.values())}; mend it, then `halo cleanup {group.id}`", failed=True
        )
    lacks = {
        host: lack
        for host in group.candidates
        if (lack := proof.lacks_proof(state, group, host, since, now)) is not None
    }
    takers = _in_order_of_preference(state, group)
    if lacks:
        return _seek_proof(state, group, lacks, since, now)
    if takers:
        return Decision(f"starting on {takers[0]}", start_on=takers[0])
    return _no_taker(state, group)


def _running(
    state: ClusterState, group: ResourceGroup, host: HostId, since: float, now: float
) -> Decision:
    """Seen running on one host: manage it there, once the others had their first look.

    Whoever manages a group may complete it in place (S1). After a cleanup, and when several hosts
    connect at once, the answer that tells of a second copy may be a few milliseconds behind."""
    if not state.hosts[host].ready:
        return Decision(f"{host} is being fenced")
    unseen = tuple(
        other
        for other in group.candidates
        if other != host and state.hosts[other].ready and not _was_looked_at(state, group, other)
    )
    if unseen and now - since < FIRST_LOOK_S:
        text = f"running on {host}; {', '.join(unseen)} has to be looked at first"
        return Decision(text, probe=unseen, recheck_s=RECHECK_S)
    return Decision(f"running on {host}", manage_on=host)


def _stopped_on_request(
    state: ClusterState, group: ResourceGroup, since: float, now: float
) -> Decision:
    """Nothing is to be started; but whether it is stopped has to be known, and said."""
    unknown = [
        host
        for host in group.candidates
        if state.knowledge.presence(group, host) is not Presence.STOPPED
    ]
    if not unknown:
        return Decision("stopped by the administrator", at_rest=True)
    proven_off = [host for host in unknown if _is_proven_off(state, host)]
    lacks = [proof.lacks_proof(state, group, host, since, now) for host in proven_off]
    text = f"wanted stopped, but may still run on {' and '.join(unknown)}"
    return Decision(
        "; ".join([text, *(lack for lack in lacks if lack)]),
        verify=tuple(h for h in proven_off if _may_verify(state, h, now - UNHURRIED_S)),
        recheck_s=RECHECK_S if proven_off else None,
    )


def _was_looked_at(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Did every exclusive resource get some answer over this connection since the last drop?"""
    epoch = state.hosts[host].epoch
    sightings = [state.knowledge.of(resource.id, host) for resource in group.exclusive]
    return all(
        s.epoch == epoch and (s.begun_at > float("-inf") or s.presence is not Presence.UNKNOWN)
        for s in sightings
    )


def _in_order_of_preference(state: ClusterState, group: ResourceGroup) -> list[HostId]:
    """The candidates that can take the group now; the target of a planned move first."""
    able = [host for host in group.candidates if candidates.unavailable(state, group, host) is None]
    target = state.memory_of(group).move_target
    if target in able:
        able.remove(target)
        able.insert(0, target)
    return able


def _no_taker(state: ClusterState, group: ResourceGroup) -> Decision:
    """Stopped everywhere, and nobody can take it: say why, of each candidate."""
    why = [candidates.unavailable(state, group, host) for host in group.candidates]
    failures = state.memory_of(group).start_failures
    text = "no host can take it: " + "; ".join(reason for reason in why if reason)
    if failures:
        text += f"; mend it, then `halo cleanup {group.id}`"
    return Decision(text, failed=bool(failures))


def _seek_proof(
    state: ClusterState,
    group: ResourceGroup,
    lacks: dict[HostId, str],
    since: float,
    now: float,
) -> Decision:
    """What would bring the proof that is missing, and the words for the wait."""
    probe = tuple(host for host in lacks if _should_probe(state, group, host, since))
    verify = _to_verify(state, group, lacks, now)
    silent = [host for host in lacks if _is_out_of_sight(state, host)]
    reason = "; ".join(lacks.values())
    if not silent:
        return Decision(reason, probe=probe, verify=verify, recheck_s=RECHECK_S)

    fence: list[HostId] = []
    under_way: list[HostId] = []
    ping: list[HostId] = []
    refusals: list[tuple[HostId, str]] = []
    failed = False
    others_proven = all(host in silent or _known_stopped(state, group, host) for host in lacks)
    for host in silent:
        at = state.hosts[host]
        if at.fence_phase is FencePhase.RUNNING:
            under_way.append(host)
            continue
        if at.lost_at is not None:
            ping.extend(h for h in candidates.awaiting_ping(state, group, host) if h not in ping)
        refusal = rules.automatic_refusal(state, host, now, planned=len(fence))
        if refusal is None:
            fence.append(host)
        else:
            refusals.append((host, refusal))
            failed = failed or at.fence_phase is FencePhase.FAILED
    if refusals or under_way or not others_proven:
        # Powering off one host proves nothing while another stays unproven.
        fence = []
    text = reason
    if under_way or fence:
        text += f"; fencing {', '.join([*under_way, *fence])}"
    if refusals:
        text += f"; not fenced: {'; '.join(why for _, why in refusals)}"
    return Decision(
        text,
        probe=probe,
        verify=verify,
        ping=tuple(ping),
        fence=tuple(fence),
        not_fenced=tuple(refusals),
        recheck_s=RECHECK_S,
        failed=failed,
    )


def _should_probe(state: ClusterState, group: ResourceGroup, host: HostId, since: float) -> bool:
    """Would asking the agent now tell more? Not when it answered since, however badly."""
    at = state.hosts[host]
    if not at.ready:
        return False
    sightings = [state.knowledge.of(resource.id, host) for resource in group.exclusive]
    return any(sighting.begun_at < since for sighting in sightings)


def _to_verify(
    state: ClusterState, group: ResourceGroup, lacks: Container[HostId], now: float
) -> tuple[HostId, ...]:
    """Which fenced hosts' devices are to be asked now whether these are still off.

    An answer holds for some seconds only, and a device may take a minute. So where several hosts
    are off the answers are to come together: whose answer would be too old at the end is asked in
    the same round, the quicker ones later, and no round begins beside another."""
    age_s = state.settings.power_proof_age_s
    off = [host for host in group.candidates if _may_be_asked(state, host)]
    needed = [host for host in off if host in lacks]
    ends = [at.verifying_since + at.verify_took_s for at in map(state.hosts.__getitem__, off)
            if at.verifying_since is not None]  # fmt: skip
    begins = not ends
    end = max([now, *(ends or (now + state.hosts[host].verify_took_s for host in needed))])
    round_ = [host for host in off if host in needed or _verified_at(state, host) + age_s < end]
    if begins and any(now < state.hosts[host].verify_retry_at for host in round_):
        return ()
    if begins:
        end = max([now, *(now + state.hosts[host].verify_took_s for host in round_)])
    return tuple(
        host
        for host in round_
        if _may_verify(state, host, now)
        and end - RECHECK_S <= now + state.hosts[host].verify_took_s <= end + age_s / 2
    )


def _verified_at(state: ClusterState, host: HostId) -> float:
    proof = state.hosts[host].power_proof
    return proof.verified_at if proof is not None else float("-inf")


def _may_be_asked(state: ClusterState, host: HostId) -> bool:
    """Is it proven off by a fence that is over, with a device that could say so again?"""
    is_being_fenced = state.hosts[host].fence_phase is FencePhase.RUNNING
    return _is_proven_off(state, host) and not is_being_fenced and proof.may_ask_device(state, host)


def _may_verify(state: ClusterState, host: HostId, now: float) -> bool:
    """Is it time to ask a fenced host's device again?"""
    at = state.hosts[host]
    is_due = at.verifying_since is None and now >= at.verify_retry_at
    return is_due and _may_be_asked(state, host)


def _is_proven_off(state: ClusterState, host: HostId) -> bool:
    """Was it fenced, without a sign of life since? The device may have to be asked again."""
    at = state.hosts[host]
    return at.power_proof is not None and not at.connected


def _is_out_of_sight(state: ClusterState, host: HostId) -> bool:
    """Neither connected nor proven off: nothing but a fence can bring proof."""
    at = state.hosts[host]
    return not at.connected and at.power_proof is None


def _known_stopped(state: ClusterState, group: ResourceGroup, host: HostId) -> bool:
    """Enough to begin a fence, not to start: seen stopped over the standing connection.

    The fresh sample that a start needs is taken while the fence programs run."""
    if _is_proven_off(state, host):
        return True
    return state.hosts[host].ready and state.knowledge.presence(group, host) is Presence.STOPPED
