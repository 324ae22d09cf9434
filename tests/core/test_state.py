"""The questions every decision asks: held? available? proven stopped? may this start be sent?"""

from __future__ import annotations

from typing import Any

import pytest

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import FencePhase
from halo.core.errors import Loss, LossKind
from halo.core.journal import fold
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import ErrorKind, Remembered
from halo.core.model import FenceDevice, LossPolicy
from halo.core.outcomes import AgentIdentity

from .builders import ERROR, RUNNING, STOPPED, Step, World, make_group, then

PAIR = {"g": ["x"], "x": []}


def a_world(**options: Any) -> World:
    """g may run on h1, h2, h3; all are connected and looked through; it is stopped."""
    world = World(make_group("g", ["h1", "h2", "h3"], PAIR), **options)
    world.up("h1", "h2", "h3")
    return world


# --- S4, S9: held -------------------------------------------------------------------------------

HOLDS: list[tuple[str, Step, str | None]] = [
    ("nothing", lambda w: None, None),
    ("unmanaged", lambda w: w.unmanage("g"), "unmanaged"),
    ("unmanaged with a reason", lambda w: w.unmanage("g", "disk swap"), "disk swap"),
    ("frozen", lambda w: w.journal(Event.FREEZE, "c", "migration"), "frozen: migration"),
    (
        "a second copy was reported",
        lambda w: w.error("g", ErrorKind.SECOND_COPY, "two"),
        "halo cleanup g",
    ),
    (
        "two copies are seen",
        then(lambda w: w.see("g", "h1", RUNNING), lambda w: w.see("g", "h3", RUNNING, only=["x"])),
        "h1 and h3",
    ),
    ("a failed stop holds no action in place", lambda w: w.error("g", ErrorKind.STOP_FAILED), None),
    ("so with too many restarts", lambda w: w.error("g", ErrorKind.RESTART_LIMIT), None),
    ("another group is unmanaged", lambda w: w.unmanage("other"), None),
]


@pytest.mark.parametrize(("story", "arrange", "said"), HOLDS)
def test_when_a_group_is_held(story: str, arrange: Step, said: str | None) -> None:
    world = a_world()
    arrange(world)
    held = world.state.hold_reason(world.group())
    if said is None:
        assert held is None, story
    else:
        assert held is not None, story
        assert said in held


def test_observe_mode_holds_everything() -> None:
    world = a_world(observe_only=True)
    assert "observe" in (world.state.hold_reason(world.group()) or "")


# --- who can take a group -----------------------------------------------------------------------

UNAVAILABLE: list[tuple[str, Step, str | None]] = [
    ("nothing", lambda w: None, None),
    ("disconnected", lambda w: w.disconnect("h2"), "h2 is disconnected (no answer"),
    ("deactivated", lambda w: w.journal(Event.DEACTIVATE, "h2"), "h2 is deactivated"),
    ("just connected", lambda w: w.connect("h2"), "not looked through yet"),
    (
        "being fenced",
        lambda w: setattr(w.state.hosts["h2"], "fence_phase", FencePhase.RUNNING),
        "h2 is being fenced",
    ),
    ("the start failed there", lambda w: w.start_failed("g", "h2", "exit 1"), "exit 1"),
    ("it failed elsewhere", lambda w: w.start_failed("g", "h1"), None),
    (
        "it was cleaned up",
        then(lambda w: w.start_failed("g", "h2"), lambda w: w.journal(Event.CLEANUP, "g")),
        None,
    ),
    (
        "its monitor fails there: that stands in the way of a proof",
        lambda w: w.see("g", "h2", ERROR),
        None,
    ),
]


@pytest.mark.parametrize(("story", "arrange", "said"), UNAVAILABLE)
def test_why_a_host_cannot_take_a_group(story: str, arrange: Step, said: str | None) -> None:
    world = a_world()
    if "disconnected" in story:
        world.state.host_disconnected("h2", Loss(LossKind.SILENT, "x"), world.now)
        said = "h2 is disconnected"
    else:
        arrange(world)
    reason = world.state.unavailable(world.group(), "h2")
    assert (reason is None) == (said is None), story
    assert (said or "") in (reason or "")
    others = ["h3"] if said else ["h2", "h3"]
    assert world.state.available_candidates(world.group(), besides="h1") == others


# --- S1: proof ----------------------------------------------------------------------------------

SINCE = 100.0


def lack(world: World, host: str = "h2", now: float = 101.0) -> str | None:
    return world.state.lacks_proof(world.group(), host, SINCE, now)


def test_a_sample_of_all_resources_after_the_decision_is_proof() -> None:
    world = a_world()
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
    world = a_world()
    world.see("g", "h2", RUNNING, only=["x"], at=101.0)
    assert "seen running on h2" in (lack(world) or "")
    world.see("g", "h2", ERROR, only=["x"], at=102.0, reason="monitor: timed out")
    assert "x on h2: monitor: timed out" in (lack(world) or "")


def test_a_sample_over_a_connection_that_is_gone_is_none() -> None:
    world = a_world()
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
    world = a_world()
    world.fenced("h2", verified_at=verified_at)
    assert (lack(world, now=now) is None) == proven


def test_a_fence_remembered_over_a_restart_has_to_be_verified() -> None:
    before = a_world()
    before.fenced("h2")
    remembered = Remembered()
    fold.apply(remembered, before.state.remembered.snapshot(0.0))
    world = World(make_group("g", ["h1", "h2", "h3"], PAIR), remembered=remembered)
    assert "has to confirm" in (lack(world) or "")


def test_a_host_that_was_heard_of_since_its_fence_is_not_proven() -> None:
    world = a_world()
    world.fenced("h2")
    world.connect("h2")
    assert lack(world) is not None
    world.disconnect("h2")
    assert lack(world) is not None


def test_a_voided_power_proof_proves_nothing() -> None:
    world = a_world()
    world.fenced("h2")
    world.state.void_power_proof("h2", "powered on again")
    assert lack(world) is not None


def test_a_device_that_says_off_again_shows_what_was_forgotten() -> None:
    world = a_world()
    world.fenced("h2")
    world.state.knowledge.drop_group(world.group(), "afresh", now=world.now)
    assert world.state.knowledge.presence(world.group(), "h2") is Presence.UNKNOWN
    assert world.state.renew_power_proof("h2", asked_at=world.now, answered_at=world.now)
    assert world.state.knowledge.presence(world.group(), "h2") is STOPPED


def test_a_proof_is_as_old_as_the_answer_not_as_the_question() -> None:
    world = a_world()
    world.fenced("h2", verified_at=float("-inf"))
    assert world.state.renew_power_proof("h2", asked_at=100.0, answered_at=150.0)
    assert lack(world, now=160.0) is None
    assert lack(world, now=160.1) is not None


def test_what_the_device_said_last_stands_in_the_reason() -> None:
    world = a_world()
    world.fenced("h2", verified_at=0.0)
    world.state.hosts["h2"].verify_error = "bad credentials"
    assert "(last asked: bad credentials)" in (lack(world, now=100.0) or "")


@pytest.mark.parametrize(
    ("recorded", "level"),
    [
        ({"level": 2, "agents": ["pdu"]}, 2),
        ({"level": 2, "agents": ["bmc"]}, None),  # the config has another order now
        ({"level": 3, "agents": ["pdu"]}, None),  # or fewer levels
        ({"level": 0, "agents": ["pdu"]}, None),
        ({}, None),  # a person's word, or an older version's record
    ],
)
def test_the_level_that_confirmed_a_fence_is_remembered_over_a_restart(
    recorded: dict[str, Any], level: int | None
) -> None:
    levels = tuple((FenceDevice(agent, f"/{agent}", {}),) for agent in ("bmc", "pdu"))
    remembered = Remembered()
    fold.apply(remembered, Record(0.0, Event.FENCE, "h2", "", recorded))
    again = Remembered()
    fold.apply(again, remembered.snapshot(0.0))
    world = World(
        make_group("g", ["h1", "h2"], PAIR), remembered=again, fence_levels={"h2": levels}
    )
    proof = world.state.hosts["h2"].power_proof
    assert proof is not None
    assert proof.level == level


def test_a_device_that_was_asked_before_a_doubt_shows_nothing() -> None:
    world = a_world()
    world.fenced("h2")
    world.state.knowledge.drop_group(world.group(), "afresh", now=world.now)
    world.state.doubt_power_proof("h2", since=world.now + 1)
    assert not world.state.renew_power_proof("h2", asked_at=world.now, answered_at=world.now + 30.0)
    assert world.state.knowledge.presence(world.group(), "h2") is Presence.UNKNOWN


# --- S1, S4: the gate of every start ------------------------------------------------------------


def refusal(world: World, since: float = SINCE, now: float = 101.0) -> str | None:
    epoch = world.state.hosts["h1"].epoch
    return world.state.start_refusal(world.group(), "h1", epoch, since, now)


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
    world = a_world()
    epoch = world.state.hosts["h1"].epoch
    arrange(world)
    told = world.state.start_refusal(world.group(), "h1", epoch, SINCE, 101.0)
    assert (told is None) == (said is None), f"{story}: {told}"
    assert (said or "") in (told or "")


def test_where_the_root_runs_the_rest_is_completed_without_proof() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING, only=["g"], at=101.0)
    world.disconnect("h2")
    assert refusal(world) is None
    world.see("g", "h1", STOPPED, at=102.0)  # it crashed, and may be restarted here
    assert refusal(world) is None


def test_what_crashed_is_not_restarted_beside_a_copy_that_may_run_out_of_sight() -> None:
    world = a_world()
    world.see("g", "h2", RUNNING, at=101.0)
    world.disconnect("h2")
    world.see("g", "h1", RUNNING, at=102.0)  # somebody started it here, too
    assert "last seen running on h2" in (refusal(world) or "")
    world.see("g", "h1", STOPPED, at=103.0)
    assert "last seen running on h2" in (refusal(world) or "")
    world.fenced("h2")
    assert refusal(world) is None


def test_the_exception_ends_with_the_connection() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING, only=["g"], at=101.0)
    world.disconnect("h1")
    world.disconnect("h2")
    world.up("h1")
    assert "not proven" in (refusal(world, now=world.now) or "")


def test_the_exception_ends_when_anything_of_it_is_seen_elsewhere() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING, only=["g"], at=101.0)
    world.see("g", "h1", STOPPED, at=102.0)
    world.see("g", "h2", RUNNING, only=["x"], at=103.0)
    world.disconnect("h2")
    assert "not proven" in (refusal(world) or "")


def test_the_exception_ends_when_two_copies_were_seen_at_once() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING, at=101.0)
    world.see("g", "h2", RUNNING, only=["x"], at=102.0)
    world.disconnect("h2")
    world.see("g", "h1", STOPPED, at=103.0)
    assert "not proven" in (refusal(world) or "")


def test_a_leaf_alone_gives_no_right_to_complete_the_group() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING, only=["x"], at=101.0)
    world.disconnect("h2")
    assert "not proven" in (refusal(world) or "")


def test_a_slow_answer_to_an_older_question_gives_no_right_to_complete_the_group() -> None:
    world = a_world()
    root = world.group().resources[0]
    world.see("g", "h1", STOPPED, at=110.0)
    world.see("g", "h1", RUNNING, only=["g"], at=105.0)  # sent before, answered after
    assert world.state.knowledge.of(root.id, "h1").presence is STOPPED
    world.disconnect("h2")
    assert "not proven" in (refusal(world) or "")


def test_a_slow_answer_does_not_take_the_right_away_either() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING, at=101.0)
    world.see("g", "h2", STOPPED, at=110.0)
    world.see("g", "h2", RUNNING, only=["x"], at=105.0)
    world.disconnect("h3")
    assert refusal(world) is None


# --- departures ---------------------------------------------------------------------------------

DEPARTURES: list[tuple[str, Step, str | None]] = [
    ("nothing", lambda w: None, None),
    ("stopped", lambda w: w.journal(Event.STOP, "g"), "stopped by the administrator"),
    ("moving", lambda w: w.journal(Event.MOVE, "g", to="h3"), "moving to h3"),
    ("arrived", lambda w: w.journal(Event.MOVE, "g", to="h1"), None),
    (
        "a target that is gone",
        then(lambda w: w.journal(Event.MOVE, "g", to="h3"), lambda w: w.disconnect("h3")),
        None,
    ),
    ("a target of an older config", lambda w: w.journal(Event.MOVE, "g", to="h9"), None),
    ("deactivated", lambda w: w.journal(Event.DEACTIVATE, "h1"), "moving to h2"),
    (
        "deactivated, and no other can take it",
        then(*(lambda w, h=h: w.journal(Event.DEACTIVATE, h) for h in ("h1", "h2", "h3"))),
        None,
    ),
    (
        "an error holds it here",
        then(
            lambda w: w.journal(Event.MOVE, "g", to="h3"),
            lambda w: w.error("g", ErrorKind.STOP_FAILED),
        ),
        None,
    ),
    (
        "nor one while a third candidate is out of sight: it could start nowhere",
        then(lambda w: w.journal(Event.MOVE, "g", to="h3"), lambda w: w.disconnect("h2")),
        None,
    ),
    (
        "nor does a deactivated host give up what could start nowhere",
        then(
            lambda w: w.journal(Event.DEACTIVATE, "h1"),
            lambda w: w.see("g", "h2", ERROR, reason="hangs"),
        ),
        None,
    ),
    (
        "but a stop is a stop",
        then(lambda w: w.journal(Event.STOP, "g"), lambda w: w.error("g", ErrorKind.STOP_FAILED)),
        "stopped",
    ),
]


@pytest.mark.parametrize(("story", "arrange", "said"), DEPARTURES)
def test_why_a_group_has_to_leave(story: str, arrange: Step, said: str | None) -> None:
    world = a_world()
    arrange(world)
    why = world.state.departure_reason(world.group(), "h1")
    assert (why is None) == (said is None), f"{story}: {why}"
    assert (said or "") in (why or "")


# --- suspicion ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("onsets", "together"),
    [
        ({"h1": 0.0}, 1),
        ({"h1": 0.0, "h2": 60.0}, 2),
        ({"h1": 0.0, "h2": 60.1}, 1),
        ({"h1": 50.0, "h2": 0.0, "h3": 100.0}, 2),  # no single minute holds all three
        ({"h1": 50.0, "h2": 0.0, "h3": 60.0}, 3),
        ({"h2": 0.0, "h3": 0.0}, 0),  # h1 itself is not suspect
    ],
)
def test_hosts_are_suspect_together_within_one_sliding_minute(
    onsets: dict[str, float], together: int
) -> None:
    world = a_world()
    for host, onset in onsets.items():
        world.suspect(host, since=onset)
    assert len(world.state.suspects_with("h1")) == together


def test_a_host_that_answered_again_is_not_suspect() -> None:
    world = a_world()
    for host in ("h1", "h2", "h3"):
        world.suspect(host)
    world.state.host_alive("h2")
    assert world.state.suspects_with("h1") == ["h1", "h3"]


def test_a_host_that_was_fenced_meanwhile_is() -> None:
    world = a_world()
    world.suspect("h1")
    world.suspect("h2")
    world.fenced("h2")
    assert world.state.suspects_with("h1") == ["h1", "h2"]


# --- connections --------------------------------------------------------------------------------


def test_a_new_connection_begins_a_new_epoch_and_forgets() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING)
    before = world.state.hosts["h1"].epoch
    world.lose("h1")
    at = world.state.hosts["h1"]
    at.fence_phase, at.fence_error, at.fence_attempts = FencePhase.FAILED, "no power", 3
    epoch = world.state.host_connected("h1", AgentIdentity(), 200.0)
    assert epoch == before + 1
    assert (at.lost_at, at.suspect_at, at.loss) == (None, None, None)
    assert (at.fence_phase, at.fence_error, at.fence_attempts) == (FencePhase.IDLE, "", 0)
    assert world.state.knowledge.presence(world.group(), "h1") not in (RUNNING, STOPPED)


def test_a_connection_during_a_fence_does_not_end_the_fence() -> None:
    world = a_world()
    world.state.hosts["h1"].fence_phase = FencePhase.RUNNING
    world.connect("h1")
    assert world.state.hosts["h1"].fence_phase is FencePhase.RUNNING
    assert not world.state.hosts["h1"].ready


def test_a_fence_ends_the_needs_of_shared_resources_there() -> None:
    world = World(make_group("g", ["h1", "h2"], {"g": ["net"], "net": []}, shared=["net"]))
    world.up("h1", "h2")
    for host in ("h1", "h2"):
        world.state.needs.need("net", host, "g")
    world.fenced("h1")
    assert world.state.needs.needed_by("net", "h1") == frozenset()
    assert world.state.needs.needed_by("net", "h2") == {"g"}


def test_a_reboot_by_policy_is_due_once() -> None:
    world = World(make_group("g"), on_loss={"h1": LossPolicy.REBOOT})
    assert world.state.reboot_is_due("h1")
    assert not world.state.reboot_is_due("h2")
    world.journal(Event.POWER_ON, "h1", policy="reboot")
    assert not world.state.reboot_is_due("h1")


# --- what stands in the way of leaving ----------------------------------------------------------

OBSTACLES: list[tuple[str, Step, str | None]] = [
    ("nothing", lambda w: None, None),
    ("out of sight", lambda w: w.disconnect("h3"), "bring it back, or `halo fence h3`"),
    ("reconnecting", lambda w: setattr(w.state.hosts["h3"], "accepted", False), "reconnecting"),
    (
        "being fenced",
        lambda w: setattr(w.state.hosts["h3"], "fence_phase", FencePhase.RUNNING),
        "h3 is being fenced",
    ),
    ("just connected", lambda w: w.connect("h3"), "h3 is being looked at"),
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
    world = a_world()
    arrange(world)
    why = world.state.obstacle(world.group(), "h1", world.now)
    assert (why is None) == (said is None), f"{story}: {why}"
    assert (said or "") in (why or "")
