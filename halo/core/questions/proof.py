"""Is a group proven stopped, so that it may be started elsewhere (S1)? If not, what is missing?

Every start must pass :func:`start_refusal`.
"""

from __future__ import annotations

from collections.abc import Iterable

from halo.core.cluster.candidate import Candidate
from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId, ResourceGroup
from halo.core.questions import company, former, holds
from halo.core.questions.starts import order

SLOW_DEVICE_S = 5.0
"""If a fence device took longer than this to answer, the reason for the wait says so."""


def obstacle(
    state: ClusterState, group: ResourceGroup, leaving: HostId, now: float = 0.0
) -> str | None:
    """Why the group could not start anywhere after it has stopped on `leaving`: it could not be
    proven stopped on another candidate (S1). None if there is no obstacle.

    With `now`, an old power proof that nobody can renew is an obstacle, too."""
    for candidate in [*state.candidates_of(group), *former.to_ask(state, group)]:
        host, at = candidate.host, candidate.at
        if host == leaving:
            continue
        if at.is_proven_off:
            too_old = now - at.verified_at > state.settings.power_proof_age_s
            if too_old and now > 0 and not may_ask_device(state, host):
                return _needs_vouching(host)
            continue
        if at.fence_phase is FencePhase.RUNNING:
            return f"{host} is being fenced"
        if not at.connected:
            return (
                f"{host} is disconnected, so HALO cannot prove that {group.id} is stopped there; "
                f"bring the host back, or run `halo fence {host}`"
            )
        if not at.ready:
            return f"{host} is reconnecting"
        presence = candidate.presence
        if presence is Presence.RUNNING:
            return f"the group is seen running on {host}"
        if presence is not Presence.STOPPED:
            error = candidate.error
            return f"{error}; remove the cause there" if error else f"{host} is being probed"
    return former.beyond_reach(state, group)


def _needs_vouching(host: HostId) -> str:
    return (
        f"{host} was confirmed off, but no trusted fence device can confirm it again; run "
        f"`halo fence {host} --confirm-off --reason ...` once more"
    )


def lacking(
    state: ClusterState, seen: Iterable[Candidate], since: float, now: float
) -> dict[HostId, str]:
    """The candidates on which the group is not proven stopped, and what is missing."""
    return {
        candidate.host: lack
        for candidate in seen
        if (lack := lacks_proof(state, candidate, since, now)) is not None
    }


def lacks_proof(state: ClusterState, candidate: Candidate, since: float, now: float) -> str | None:
    """What is missing to prove the group stopped on this candidate; None if it is proven.

    `since` is when the decision to start began. Only later monitors are proof (S1)."""
    host, at = candidate.host, candidate.at
    if at.fence_phase is FencePhase.RUNNING:
        return f"{host} is being fenced"
    if at.is_proven_off:
        age = now - at.verified_at
        if age > state.settings.power_proof_age_s:
            if not may_ask_device(state, host):
                return _needs_vouching(host)
            said = f" (last answer: {at.verify_error})" if at.verify_error else ""
            if at.verifying_since is not None and at.verify_took_s > SLOW_DEVICE_S:
                said += f" (HALO is asking it; the last answer took {at.verify_took_s:.0f} s)"
            return (
                f"{host} was fenced; its fence device has to confirm that the host is still "
                f"off{said}, or you confirm it: `halo fence {host} --confirm-off --reason ...`"
            )
        return None
    if not at.connected:
        return f"{host} is disconnected" + (f" ({at.loss})" if at.loss else "")
    if not at.ready:
        return f"{host} is reconnecting"
    sampled = candidate.stopped_since
    if sampled is not None and sampled >= since:
        return None
    if candidate.presence is Presence.RUNNING:
        return f"the group is seen running on {host}"
    error = candidate.error
    if error is not None and candidate.error_is_of_setup:
        # A fence would take the other groups of a healthy host away, and mend nothing.
        return f"{error}; remove the cause, and HALO goes on by itself"
    if error is not None:
        return f"{error}; remove the cause there, or run `halo fence {host}`"
    return candidate.unknown or f"{host} has to be probed again"


def may_ask_device(state: ClusterState, host: HostId) -> bool:
    """Does the host have a fence device that HALO trusts?"""
    has_device = bool(state.host_config(host).fence_levels)
    return has_device and state.memory_of_host(host).distrusted is None


def start_refusal(
    state: ClusterState, group: ResourceGroup, host: HostId, epoch: int, since: float, now: float
) -> str | None:
    """Why this start is refused (S1, S4); None if it may be sent. Ask in the step that sends it."""
    at = state.hosts[host]
    if not at.ready or at.epoch != epoch:
        return f"{host} is not connected any more"
    held = holds.hold_reason(state, group)
    if held is not None:
        return held
    elsewhere = [h for h in state.knowledge.running_on(group) if h != host]
    if elsewhere:
        return f"the group is seen running on {', '.join(elsewhere)}"
    if state.knowledge.root_seen(group, host, epoch):
        # The group may have stopped since. A hold that was valid while it ran is still valid.
        return holds.second_copy_out_of_sight(state, group, host) or former.gained_elsewhere(
            state, group, host
        )
    too_early = order.lacking(state, group) or company.lacking(state, group)
    unsuitable = company.conflict(state, group, host) if too_early is None else too_early.text
    if unsuitable is not None:
        return unsuitable
    if host in state.memory_of(group).stopped_on:
        return f"the journal does not have it yet that {group.id} may run on {host}"
    beyond_reach = former.beyond_reach(state, group)
    if beyond_reach is not None:
        return beyond_reach
    for other in [*state.candidates_of(group), *former.to_ask(state, group)]:
        if other.host != host:
            lack = lacks_proof(state, other, since, now)
            if lack is not None:
                return f"not proven stopped elsewhere: {lack}"
    return None
