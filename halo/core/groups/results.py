"""What the result of an operation means for its resource.

The machine decides what this means for the group, and what to do next.
"""

from __future__ import annotations

from collections.abc import Callable

from halo.core.cluster.knowledge import Presence
from halo.core.groups.actions import ResourceState, describe
from halo.core.outcomes import OperationResult, Outcome
from halo.core.peers import ocf
from halo.core.peers.ocf import OcfCode, is_present

BAD_MONITORS_BEFORE_RESTART = 2


def shows_present(result: OperationResult) -> bool:
    """Does a monitor, or a report, say that the resource is there?"""
    return result.outcome is Outcome.COMPLETED and is_present(result.code)


def is_of_setup(result: OperationResult) -> bool:
    """Does the result say that the script is missing on the host, or that something on the host or
    in the config must be corrected before it can work? Then the host itself is not at fault."""
    if result.outcome is Outcome.COMPLETED:
        return ocf.is_of_setup(result.code)
    return result.outcome is Outcome.NOT_RUN


def is_as_before(state: ResourceState, result: OperationResult) -> bool:
    """Did the resource run before, and does it run now? Nearly every monitor says so."""
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

    If the monitor shows that the stop before it failed, returns why; else None."""
    state.in_doubt = False
    if result.outcome is not Outcome.COMPLETED:
        # It proves nothing, and a restart may hang, too: Error, and monitoring continues.
        state.presence = Presence.ERROR
        return None
    if is_present(result.code):
        state.bad_monitors = 0
        if state.stopped_by_script:
            state.stopped_by_script = False
            return "the stop reported success, but the resource still runs"
        state.presence = Presence.RUNNING
        if not state.wants_restart:  # it had not stopped, or somebody else started it again
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
        # Another stop would not help. Without this, a broken monitor would cause endless stops.
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
    """Take in the result of a start. Returns why it failed; None if the resource runs."""
    if result.outcome is Outcome.COMPLETED and result.code == OcfCode.SUCCESS:
        state.presence = Presence.RUNNING
        state.bad_monitors = 0
        return None
    state.presence = Presence.ERROR
    state.wants_restart = True  # a failed start may have left something running
    return describe(result)


def stopped(state: ResourceState, result: OperationResult, now: float) -> str | None:
    """Take in the result of a stop. Returns why it failed; None: a monitor has to confirm it."""
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
    """A stop failed: the resource counts as running or in error. Do not touch it until cleanup."""
    state.failed = why
    state.wants_restart = False
    state.due_at = 0.0
    if state.presence is not Presence.ERROR:
        state.presence = Presence.RUNNING
