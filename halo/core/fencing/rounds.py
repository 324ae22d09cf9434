"""When the devices of fenced hosts are asked again whether the hosts are still off (S1).

An answer is valid for some seconds only, and a device may take a minute to answer. If several hosts
of a group are off, their devices are therefore asked so that the answers come together.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from halo.core.cluster.host_state import FencePhase, HostState
from halo.core.cluster.state import ClusterState
from halo.core.model import HostId
from halo.core.questions import proof

TOGETHER_S = 1.0
"""Answers that are at most this far apart count as coming together."""

UNHURRIED_S = 60.0
"""How much later than usual a fence device that gave no answer is asked again, if no group waits to
be started."""


def to_ask(
    state: ClusterState, hosts: Iterable[HostState], needed: Container[HostId], now: float
) -> tuple[HostId, ...]:
    """The group's candidates whose devices to ask now. The group waits for the proof of `needed`.

    A candidate whose answer would be too old at the end of the round is asked in the same round,
    too. Quick devices are asked later than slow ones. Only one round runs at a time."""
    age_s = state.settings.power_proof_age_s
    off = [at for at in hosts if _may_be_asked(state, at)]
    if not off:
        return ()
    ends = [at.verifying_since + at.verify_took_s for at in off if at.verifying_since is not None]
    begins = not ends
    end = max([now, *(ends or (now + at.verify_took_s for at in off if at.id in needed))])
    round_ = [at for at in off if at.id in needed or at.verified_at + age_s < end]
    if begins and any(now < at.verify_retry_at for at in round_):
        return ()
    if begins:
        end = max([now, *(now + at.verify_took_s for at in round_)])
    return tuple(
        at.id
        for at in round_
        if _is_due(at, now) and end - TOGETHER_S <= now + at.verify_took_s <= end + age_s / 2
    )


def to_ask_unhurried(
    state: ClusterState, hosts: Iterable[HostState], now: float
) -> tuple[HostId, ...]:
    """Which of these to ask now, if no group waits to be started."""
    return tuple(
        at.id for at in hosts if _is_due(at, now - UNHURRIED_S) and _may_be_asked(state, at)
    )


def _may_be_asked(state: ClusterState, at: HostState) -> bool:
    """Is the host proven off, is its fence over, and can a trusted device confirm it again?

    A manager that has just started first tries to connect. The host may have booted since its
    fence, and a device that is wired to another host must not speak for it (S3)."""
    was_tried = at.loss is not None
    is_being_fenced = at.fence_phase is FencePhase.RUNNING
    return (
        at.is_proven_off
        and was_tried
        and not is_being_fenced
        and proof.may_ask_device(state, at.id)
    )


def _is_due(at: HostState, now: float) -> bool:
    return at.verifying_since is None and now >= at.verify_retry_at
