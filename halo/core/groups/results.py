"""What the result of an operation means for its resource.

What follows from that for the group, and what is done next, is the machine's to say.
"""

from __future__ import annotations

from collections.abc import Callable

from halo.core.cluster.knowledge import Presence
from halo.core.groups.actions import ResourceState, describe
from halo.core.outcomes import OperationResult, Outcome
from halo.core.peers.ocf import OcfCode, is_present

BAD_MONITORS_BEFORE_RESTART = 2


def shows_present(result: OperationResult) -> bool:
    """Does a monitor, or a report, say that the resource is there?"""
    return result.outcome is Outcome.COMPLETED and is_present(result.code)


def is_as_before(state: ResourceState, result: OperationResult) -> bool:
    """It ran and it runs: nearly every monitor."""
    return (
        state.presence is Presence.RUNNING
        and state.bad_monitors == 0
        and not state.stopped_by_script
        and shows_present(result)
    )


def monitored(
    state: ResourceState,
    result: OperationResult,
    is_needed_by_others: Callable[[ResourceState], bool],
) -> str | None:
    """Take in the result of a monitor, or a report.

    Returns why the stop before it has failed, where the monitor shows that it has."""
    state.in_doubt = False
    if result.outcome is not Outcome.COMPLETED:
        # It proves nothing and a restart may hang as well: Error, and monitoring goes on.
        state.presence = Presence.ERROR
        return None
    if is_present(result.code):
        state.bad_monitors = 0
        if state.stopped_by_script:
            state.stopped_by_script = False
            return "the stop reported success, but the resource still runs"
        state.presence = Presence.RUNNING
        if not state.wants_restart:  # it had not stopped, or somebody else started it
            state.crashed, state.crash = False, ""
        return None
    if result.code == OcfCode.NOT_RUNNING:
        _found_stopped(state)
        return None
    state.bad_monitors += 1
    if state.presence is not Presence.RUNNING:
        state.presence = Presence.ERROR
    if state.bad_monitors < BAD_MONITORS_BEFORE_RESTART or state.failed is not None:
        return None
    if state.stopped_by_script:
        # Another stop would tell no more: without this, a broken monitor stops it for ever.
        return f"the stop reported success, but the monitor failed: {describe(result)}"
    if not is_needed_by_others(state):
        state.wants_restart = True
        _note_crash(
            state, f"its monitor failed {state.bad_monitors} times in a row: {describe(result)}"
        )
    return None


def _found_stopped(state: ResourceState) -> None:
    state.bad_monitors = 0
    if state.presence in (Presence.RUNNING, Presence.ERROR):
        _note_crash(state, "it had stopped by itself")
    state.presence = Presence.STOPPED
    state.stopped_by_script = False
    state.wants_restart = False


def _note_crash(state: ResourceState, how: str) -> None:
    if not state.crashed:
        state.crashed, state.crash = True, how


def started(state: ResourceState, result: OperationResult) -> str | None:
    """Take in the result of a start. Returns why it failed; None: it runs."""
    if result.outcome is Outcome.COMPLETED and result.code == OcfCode.SUCCESS:
        state.presence = Presence.RUNNING
        state.bad_monitors = 0
        return None
    state.presence = Presence.ERROR
    state.wants_restart = True  # what a failed start left behind has to go
    return describe(result)


def stopped(state: ResourceState, result: OperationResult, now: float) -> str | None:
    """Take in the result of a stop. Returns why it failed; None: a monitor has to bear it out."""
    if result.outcome is Outcome.COMPLETED and result.code in (
        OcfCode.SUCCESS,
        OcfCode.NOT_RUNNING,
    ):
        state.presence = Presence.UNKNOWN
        state.stopped_by_script = True
        state.wants_restart = False
        state.bad_monitors = 0
        state.due_at = now
        return None
    state.presence = Presence.ERROR
    return describe(result)


def left_alone(state: ResourceState, why: str) -> None:
    """Its stop failed: it counts as what it is, and is left alone until cleanup."""
    state.failed = why
    state.wants_restart = False
    state.due_at = 0.0
    if state.presence is not Presence.ERROR:
        state.presence = Presence.RUNNING
