"""Is a group proven stopped (S1)? The gate of every start; what stands in the way of leaving."""

from __future__ import annotations

import pytest

from halo.core.cluster.host_state import FencePhase
from halo.core.groups import results
from halo.core.journal import fold
from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind, Remembered
from halo.core.outcomes import OperationResult, Outcome
from halo.core.peers.ocf import OcfCode
from halo.core.questions import proof
from tests.core.builders import (
    ERROR,
    PAIR,
    RUNNING,
    STOPPED,
    Step,
    World,
    make_group,
    then,
    world_of_three,
)

SINCE = 100.0


def lack(world: World, host: str = "h2", now: float = 101.0) -> str | None:
    return proof.lacks_proof(world.state, world.state.candidate(world.group(), host), SINCE, now)


def test_a_sample_of_all_resources_after_the_decision_is_proof() -> None:
    world = world_of_three()
    assert lack(world) is None


@pytest.mark.parametrize("only", [["g"], ["x"]])
def test_one_sample_from_before_the_decision_is_none(only: list[str]) -> None:
    world = World(make_group("g", ["h1", "h2"], PAIR))
    world.connect("h2")
    world.see("g", "h2", STOPPED, at=99.0)
    assert lack(world) is not None
    world.see("g", "h2", STOPPED, at=100.0, only=only)
    assert lack(world) is not None
    world.see("g", "h2", STOPPED, at=100.0)
    assert lack(world) is None


def test_nothing_else_than_stopped_is_proof() -> None:
    world = world_of_three()
    world.see("g", "h2", RUNNING, only=["x"], at=101.0)
    assert "seen running on h2" in (lack(world) or "")
    world.see("g", "h2", ERROR, only=["x"], at=102.0, reason="monitor: timed out")
    assert "x on h2: monitor: timed out" in (lack(world) or "")


def test_a_fence_is_advised_where_the_host_may_be_at_fault_and_not_where_a_script_is_missing() -> (
    None
):
    world = world_of_three()
    world.see("g", "h2", ERROR, only=["x"], at=102.0, reason="monitor: timed out")
    assert lack(world) == (
        "x on h2: monitor: timed out; remove the cause there, or run `halo fence h2`"
    )
    missing = "monitor: could not be run: cannot run /ocf/Y"
    world.see("g", "h2", ERROR, only=["x"], at=103.0, reason=missing, of_setup=True)
    assert lack(world) == f"x on h2: {missing}; remove the cause, and HALO goes on by itself"
    world.see("g", "h2", ERROR, only=["x"], at=104.0, reason="monitor: timed out")
    assert "halo fence h2" in (lack(world) or "")


@pytest.mark.parametrize(
    ("result", "is_of_setup"),
    [
        (OperationResult(Outcome.NOT_RUN, message="cannot run /ocf/Y"), True),
        (OperationResult(Outcome.COMPLETED, OcfCode.ERR_INSTALLED), True),
        (OperationResult(Outcome.COMPLETED, OcfCode.ERR_CONFIGURED), True),
        (OperationResult(Outcome.COMPLETED, OcfCode.ERR_GENERIC), False),
        (OperationResult(Outcome.COMPLETED, 77), False),
        (OperationResult(Outcome.TIMED_OUT), False),
    ],
)
def test_what_must_be_corrected_is_told_by_the_result(
    result: OperationResult, is_of_setup: bool
) -> None:
    assert results.is_of_setup(result) is is_of_setup


def test_a_sample_over_a_connection_that_is_gone_is_none() -> None:
    world = world_of_three()
    world.disconnect("h2")
    assert "disconnected" in (lack(world) or "")
    world.connect("h2")
    assert lack(world) is not None
    world.see("g", "h2", STOPPED, at=101.0, epoch=1)  # a late answer over the old connection
    assert lack(world) is not None
    world.see("g", "h2", STOPPED, at=101.0)
    assert lack(world) is None


def test_what_is_said_while_it_is_being_fenced_counts_for_nothing() -> None:
    world = World(make_group("g", ["h1", "h2"], PAIR))
    world.connect("h2")
    world.state.hosts["h2"].fence_phase = FencePhase.RUNNING
    world.see("g", "h2", STOPPED)
    world.state.hosts["h2"].fence_phase = FencePhase.IDLE
    assert lack(world) is not None


@pytest.mark.parametrize(
    ("verified_at", "now", "proven"),
    [
        (100.0, 101.0, True),
        (100.0, 110.0, True),
        (100.0, 110.1, False),
        (float("-inf"), 0.0, False),
    ],
)
def test_a_confirmed_fence_is_proof_for_ten_seconds(
    verified_at: float, now: float, proven: bool
) -> None:
    world = world_of_three()
    world.fenced("h2", verified_at=verified_at)
    assert (lack(world, now=now) is None) == proven


def test_a_fence_remembered_over_a_restart_has_to_be_verified() -> None:
    before = world_of_three()
    before.fenced("h2")
    remembered = Remembered()
    fold.apply(remembered, before.state.remembered.snapshot(0.0))
    world = World(make_group("g", ["h1", "h2", "h3"], PAIR), remembered=remembered)
    assert "has to confirm" in (lack(world) or "")


def test_a_host_that_was_heard_of_since_its_fence_is_not_proven() -> None:
    world = world_of_three()
    world.fenced("h2")
    world.connect("h2")
    assert lack(world) is not None
    world.disconnect("h2")
    assert lack(world) is not None


def test_a_voided_power_proof_proves_nothing() -> None:
    world = world_of_three()
    world.fenced("h2")
    world.state.void_power_proof("h2", "powered on again")
    assert lack(world) is not None


def test_a_proof_is_as_old_as_the_answer_not_as_the_question() -> None:
    world = world_of_three()
    world.fenced("h2", verified_at=float("-inf"))
    assert world.state.renew_power_proof("h2", asked_at=100.0, answered_at=150.0)
    assert lack(world, now=160.0) is None
    assert lack(world, now=160.1) is not None


def test_what_the_device_said_last_stands_in_the_reason() -> None:
    world = world_of_three()
    world.fenced("h2", verified_at=0.0)
    world.state.hosts["h2"].verify_error = "bad credentials"
    assert "(last answer: bad credentials)" in (lack(world, now=100.0) or "")


# --- S1, S4: the gate of every start ------------------------------------------------------------


def refusal(world: World, since: float = SINCE, now: float = 101.0) -> str | None:
    epoch = world.state.hosts["h1"].epoch
    return proof.start_refusal(world.state, world.group(), "h1", epoch, since, now)


GATE: list[tuple[str, Step, str | None]] = [
    ("proven stopped on every other candidate", lambda w: None, None),
    ("one sample is older than the decision", lambda w: w.see("g", "h3", STOPPED, at=101.0), None),
    ("running elsewhere", lambda w: w.see("g", "h2", RUNNING, at=101.0), "seen running on h2"),
    ("a leaf runs elsewhere", lambda w: w.see("g", "h2", RUNNING, only=["x"], at=101.0), "h2"),
    ("unproven elsewhere", lambda w: w.see("g", "h3", ERROR, at=101.0), "not proven stopped"),
    ("another is disconnected", lambda w: w.disconnect("h3"), "not proven stopped"),
    ("another was fenced just now", lambda w: w.fenced("h3"), None),
    ("another was fenced long ago", lambda w: w.fenced("h3", 50.0), "not proven stopped"),
    ("this one is disconnected", lambda w: w.disconnect("h1"), "h1 is not connected any more"),
    (
        "this one connected anew",
        then(lambda w: w.disconnect("h1"), lambda w: w.connect("h1")),
        "h1 is not",
    ),
    (
        "this one is being fenced",
        lambda w: setattr(w.state.hosts["h1"], "fence_phase", FencePhase.RUNNING),
        "h1 is not connected any more",
    ),
    ("unmanaged", lambda w: w.unmanage("g"), "unmanaged"),
    ("frozen", lambda w: w.journal(Event.FREEZE, "c"), "frozen"),
    ("second copy", lambda w: w.error("g", ErrorKind.SECOND_COPY), "cleanup"),
]


@pytest.mark.parametrize(("story", "arrange", "said"), GATE)
def test_the_gate_of_every_start(story: str, arrange: Step, said: str | None) -> None:
    world = world_of_three()
    epoch = world.state.hosts["h1"].epoch
    arrange(world)
    told = proof.start_refusal(world.state, world.group(), "h1", epoch, SINCE, 101.0)
    assert (told is None) == (said is None), f"{story}: {told}"
    assert (said or "") in (told or "")


def test_where_the_root_runs_the_rest_is_completed_without_proof() -> None:
    world = world_of_three()
    world.see("g", "h1", RUNNING, only=["g"], at=101.0)
    world.disconnect("h2")
    assert refusal(world) is None
    world.see("g", "h1", STOPPED, at=102.0)  # it crashed, and may be restarted here
    assert refusal(world) is None


def test_what_crashed_is_not_restarted_beside_a_copy_that_may_run_out_of_sight() -> None:
    world = world_of_three()
    world.see("g", "h2", RUNNING, at=101.0)
    world.disconnect("h2")
    world.see("g", "h1", RUNNING, at=102.0)  # somebody started it here, too
    assert "last seen running on h2" in (refusal(world) or "")
    world.see("g", "h1", STOPPED, at=103.0)
    assert "last seen running on h2" in (refusal(world) or "")
    world.fenced("h2")
    assert refusal(world) is None


def test_the_exception_ends_with_the_connection() -> None:
    world = world_of_three()
    world.see("g", "h1", RUNNING, only=["g"], at=101.0)
    world.disconnect("h1")
    world.disconnect("h2")
    world.up("h1")
    assert "not proven" in (refusal(world, now=world.now) or "")


def test_the_exception_ends_when_anything_of_it_is_seen_elsewhere() -> None:
    world = world_of_three()
    world.see("g", "h1", RUNNING, only=["g"], at=101.0)
    world.see("g", "h1", STOPPED, at=102.0)
    world.see("g", "h2", RUNNING, only=["x"], at=103.0)
    world.disconnect("h2")
    assert "not proven" in (refusal(world) or "")


def test_the_exception_ends_when_two_copies_were_seen_at_once() -> None:
    world = world_of_three()
    world.see("g", "h1", RUNNING, at=101.0)
    world.see("g", "h2", RUNNING, only=["x"], at=102.0)
    world.disconnect("h2")
    world.see("g", "h1", STOPPED, at=103.0)
    assert "not proven" in (refusal(world) or "")


def test_a_leaf_alone_gives_no_right_to_complete_the_group() -> None:
    world = world_of_three()
    world.see("g", "h1", RUNNING, only=["x"], at=101.0)
    world.disconnect("h2")
    assert "not proven" in (refusal(world) or "")


def test_a_slow_answer_to_an_older_question_gives_no_right_to_complete_the_group() -> None:
    world = world_of_three()
    root = world.group().resources[0]
    world.see("g", "h1", STOPPED, at=110.0)
    world.see("g", "h1", RUNNING, only=["g"], at=105.0)  # sent before, answered after
    assert world.state.knowledge.of(root.id, "h1").presence is STOPPED
    world.disconnect("h2")
    assert "not proven" in (refusal(world) or "")


def test_a_slow_answer_does_not_take_the_right_away_either() -> None:
    world = world_of_three()
    world.see("g", "h1", RUNNING, at=101.0)
    world.see("g", "h2", STOPPED, at=110.0)
    world.see("g", "h2", RUNNING, only=["x"], at=105.0)
    world.disconnect("h3")
    assert refusal(world) is None


# --- what stands in the way of leaving ----------------------------------------------------------

OBSTACLES: list[tuple[str, Step, str | None]] = [
    ("nothing", lambda w: None, None),
    ("out of sight", lambda w: w.disconnect("h3"), "bring the host back, or run `halo fence h3`"),
    ("reconnecting", lambda w: setattr(w.state.hosts["h3"], "accepted", False), "reconnecting"),
    (
        "being fenced",
        lambda w: setattr(w.state.hosts["h3"], "fence_phase", FencePhase.RUNNING),
        "h3 is being fenced",
    ),
    ("just connected", lambda w: w.connect("h3"), "h3 is being probed"),
    ("seen there", lambda w: w.see("g", "h3", RUNNING), "seen running on h3"),
    ("its monitor fails", lambda w: w.see("g", "h3", ERROR, reason="hangs"), "g on h3: hangs"),
    ("fenced just now", lambda w: w.fenced("h3"), None),
    ("fenced long ago, with a device to ask", lambda w: w.fenced("h3", verified_at=1.0), None),
    (
        "fenced long ago, by a device that is not trusted now",
        then(
            lambda w: w.journal(Event.DISTRUST, "h3", "it lies"),
            lambda w: w.fenced("h3", verified_at=1.0),
        ),
        "`halo fence h3 --confirm-off --reason ...` once more",
    ),
]


@pytest.mark.parametrize(("story", "arrange", "said"), OBSTACLES)
def test_what_stands_in_the_way_of_leaving_a_host(
    story: str, arrange: Step, said: str | None
) -> None:
    world = world_of_three()
    arrange(world)
    why = proof.obstacle(world.state, world.group(), "h1", world.now)
    assert (why is None) == (said is None), f"{story}: {why}"
    assert (said or "") in (why or "")
