"""The records of a fence's outcome, and the state after a failed or cancelled fence."""

from __future__ import annotations

from typing import Any

from halo.core.cluster.host_state import FencePhase, HostState
from halo.core.cluster.state import ClusterState
from halo.core.fencing import rules
from halo.core.fencing.attempt import Attempt
from halo.core.fencing.outcomes import Failed, Outcome
from halo.core.fencing.steps import Entry, Kind
from halo.core.journal.records import Event as Journaled
from halo.core.model import HostId


def entries(
    state: ClusterState, host: HostId, outcome: Outcome, attempt: Attempt
) -> tuple[Entry, ...]:
    """The records of an outcome."""
    if isinstance(outcome, Failed):
        failed = Entry(Journaled.FENCE_FAILED, outcome.why)
        if outcome.distrust is None:
            return (failed,)
        return failed, Entry(Journaled.DISTRUST, outcome.distrust)
    if attempt.kind is Kind.CONFIRM_OFF:
        return (Entry(Journaled.FENCE, attempt.comment, {"confirmed_by": "operator"}),)
    data: dict[str, Any] = {"automatic": attempt.automatic}
    if outcome.level is not None:
        devices = state.host_config(host).fence_levels[outcome.level - 1]
        data.update(level=outcome.level, agents=[device.agent for device in devices])
    if attempt.automatic and state.reboot_is_due(host):
        data["reboot"] = True
    return (Entry(Journaled.FENCE, attempt.comment, data),)


def note_failure(
    state: ClusterState, host: HostId, failed: Failed, attempt: Attempt, now: float
) -> None:
    """Note that the attempt failed, and when the next one may begin."""
    at, limits = state.hosts[host], state.settings
    if failed.called_off:  # no device failed, so the next attempt needs no pause
        at.fence_phase = attempt.before
        return
    at.fence_phase, at.fence_error = FencePhase.FAILED, failed.why
    at.fence_attempts += 1
    at.fence_retry_at = now + rules.retry_pause_s(
        at.fence_attempts, limits.fence_retry_min_s, limits.fence_retry_max_s
    )
    if attempt.kind is not Kind.AUTOMATIC and at.lost_at is None:
        at.fence_retry_at = float("inf")  # an administrator's fence is one attempt only


def note_cancelled(at: HostState, attempt: Attempt | None) -> None:
    """The administrator gave the fence up: no retry. `attempt` is the one under way, if any."""
    if at.fence_phase is FencePhase.IDLE:
        return  # the host answered, or the fence did not begin
    at.fence_error = "cancelled by the administrator"
    at.fence_retry_at = float("inf")
    if attempt is not None and attempt.kind is Kind.CONFIRM_OFF:
        attempt.before = FencePhase.FAILED  # the phase if the record cannot be written
    else:
        at.fence_phase = FencePhase.FAILED
