"""Golden scenarios: what is known of a waiting group, and what is done about it: the decision, and
what is done to get the proof that it lacks.

Each scenario reads from left to right: the candidates as they are (first the home host), what the
administrator said, and the decision. `up`: connected and seen stopped; `runs`: connected and seen
running; `fresh`: connected and not looked at; `errs`: connected, and its monitor fails; `gone`:
disconnected, no verdict; `lost`: declared lost; `refused`: its kernel answers for an agent that
is not there; `off`: fenced just now; `off, old`: fenced long ago; `never`: never seen at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from halo.core.cluster.host_state import FencePhase
from halo.core.errors import Loss, LossKind
from halo.core.groups.placement import decide
from halo.core.groups.proof_search import search
from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind
from halo.core.model import LossPolicy, StartFailurePolicy
from halo.core.reasons import Kind, Reason, Waiting

from .builders import ERROR, RUNNING, SILENT, STOPPED, Step, World, make_group


def arrange_host(world: World, host: str, condition: str) -> None:
    """Bring a host into one of the conditions named above."""
    match condition:
        case "up":
            world.up(host)
        case "runs":
            world.up(host, running=["g"])
        case "fresh":
            world.connect(host)
        case "errs":
            world.connect(host)
            world.see("g", host, ERROR, reason="monitor: timed out")
        case "gone":
            world.up(host)
            world.disconnect(host)
        case "refused":
            world.up(host)
            world.disconnect(host, Loss(LossKind.REFUSED))
        case "lost":
            world.up(host)
            world.lose(host)
        case "off":
            world.up(host)
            world.fenced(host)
        case "off, old":
            world.up(host)
            world.fenced(host, verified_at=0.0)
        case "never":
            pass
        case _:
            raise ValueError(condition)


def arrange(conditions: list[str], *steps: Step, **options: Any) -> World:
    """g on h1, h2, ... in these conditions; whoever is lost is lost after the others were heard."""
    hosts = [f"h{number}" for number in range(1, len(conditions) + 1)]
    group_options = {k: options.pop(k) for k in ("on_start_failure", "after") if k in options}
    groups = [make_group("g", hosts, **group_options), make_group("u", hosts[:1])]
    world = World(*groups, **options)
    late = {"lost", "off"}
    for host, condition in sorted(
        zip(hosts, conditions, strict=True), key=lambda pair: pair[1] in late
    ):
        arrange_host(world, host, condition)
    for host, condition in zip(hosts, conditions, strict=True):
        if condition in ("up", "errs", "fresh", "runs"):
            world.answers(host)
    for step in steps:
        step(world)
    return world


def set_last_seen_running(world: World) -> None:
    """The group u ran on h1 when it was last looked at."""
    world.up("h1", running=["u"])
    world.lose("h1")
    world.answers("h2")


def look_afresh(world: World) -> None:
    """A cleanup: what is known of g counts no more, and h2 was looked at since."""
    world.state.knowledge.drop_group(world.group(), "being looked at afresh", now=world.now)
    world.see("g", "h2", STOPPED)


@dataclass
class Decided:
    """What the placer does with a group: by the decision, and by the search for proof after it."""

    reason: str
    failed: bool
    start_on: str | None
    manage_on: str | None
    probe: tuple[str, ...]
    recheck_s: float | None
    verify: tuple[str, ...]
    ping: tuple[str, ...]
    fence: tuple[str, ...]
    not_fenced: tuple[tuple[str, str], ...]
    waits: Reason | None


def decided(world: World, since: float = 100.0) -> Decided:
    state, group, now = world.state, world.group(), world.now
    seen = state.candidates_of(group)
    decision = decide(state, group, seen, since, now)
    found = search(state, group, seen, decision.unproven, now)
    return Decided(
        decision.text + found.words,
        decision.failed or found.failed,
        decision.start_on,
        decision.manage_on,
        decision.probe,
        decision.recheck_s,
        found.verify,
        found.ping,
        found.fence,
        found.not_fenced,
        decision.waits.with_words(found.words) if decision.waits is not None else None,
    )


def says(event: Event, name: str = "g", comment: str = "", **data: Any) -> Step:
    return lambda world: world.journal(event, name, comment, **data)


@dataclass
class Scenario:
    """One line of the table."""

    name: str
    hosts: list[str]
    start: str | None = None
    manage: str | None = None
    fence: list[str] = field(default_factory=list)
    probe: list[str] = field(default_factory=list)
    verify: list[str] = field(default_factory=list)
    words: str = ""
    given: list[Step] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    failed: bool = False


S = Scenario
SCENARIOS = [
    # --- everything in sight
    S("both up, all stopped: home", ["up", "up"], start="h1", words="starting on h1"),
    S("a single candidate", ["up"], start="h1"),
    S("it runs at home: manage it there", ["runs", "up"], manage="h1"),
    S("it runs on the partner: adopt it there", ["up", "runs"], manage="h2", words="running on h2"),
    S(
        "it runs on the partner, and home is gone: adopt it all the same",
        ["lost", "runs"],
        manage="h2",
    ),
    S("it runs on the third of three", ["up", "up", "runs"], manage="h3"),
    S(
        "two copies: nothing is started, both are named",
        ["runs", "runs"],
        words="running on h1 and h2 at once",
        failed=True,
    ),
    S("two copies of four", ["up", "runs", "lost", "runs"], words="h2 and h4", failed=True),
    # --- what the administrator said
    S(
        "home is deactivated: the partner",
        ["up", "up"],
        start="h2",
        given=[says(Event.DEACTIVATE, "h1")],
    ),
    S(
        "the second of four is deactivated",
        ["off", "up", "up", "up"],
        start="h3",
        given=[says(Event.DEACTIVATE, "h2")],
    ),
    S(
        "all are deactivated",
        ["up", "up"],
        words="h1 is deactivated; h2 is deactivated",
        given=[says(Event.DEACTIVATE, "h1"), says(Event.DEACTIVATE, "h2")],
    ),
    S(
        "a move's target comes first",
        ["up", "up", "up"],
        start="h3",
        given=[says(Event.MOVE, to="h3")],
    ),
    S(
        "a target that cannot take it does not hold it up",
        ["up", "up", "off"],
        start="h1",
        given=[says(Event.MOVE, to="h3")],
    ),
    S(
        "a target of an older config is ignored",
        ["up", "up"],
        start="h1",
        given=[says(Event.MOVE, to="h9")],
    ),
    S(
        "stopped by the administrator",
        ["up", "up"],
        words="stopped by the administrator",
        given=[says(Event.STOP)],
    ),
    S(
        "stopped, and one is out of sight: it may run there, and nobody is fenced for it",
        ["lost", "up"],
        words="wanted stopped, but may still run on h1",
        given=[says(Event.STOP)],
    ),
    S(
        "stopped, and one was fenced: stopped there too",
        ["off, old", "up"],
        words="stopped by the administrator",
        given=[says(Event.STOP)],
    ),
    S(
        "stopped, and a cleanup forgot what a fence had shown: the device is asked again",
        ["off, old", "up"],
        verify=["h1"],
        words="wanted stopped, but may still run on h1; h1 was fenced; its fence device",
        given=[says(Event.STOP), look_afresh],
    ),
    S(
        "stopped, forgotten, and no device to ask: the operator is asked",
        ["off, old", "up"],
        words="`halo fence h1 --confirm-off --reason ...` once more",
        given=[says(Event.STOP), look_afresh],
        options={"no_device": ["h1"]},
    ),
    S(
        "stopped, and yet running: managed, so that it is stopped",
        ["up", "runs"],
        manage="h2",
        given=[says(Event.STOP)],
    ),
    S(
        "unmanaged: nothing, with the reason",
        ["up", "up"],
        words="unmanaged: disk swap",
        given=[says(Event.UNMANAGE, "g", "disk swap")],
    ),
    S(
        "unmanaged and running: watched there",
        ["runs", "up"],
        manage="h1",
        given=[says(Event.UNMANAGE)],
    ),
    S(
        "unmanaged, and its host is lost: not fenced",
        ["lost", "up"],
        words="unmanaged",
        given=[says(Event.UNMANAGE)],
    ),
    S(
        "frozen",
        ["up", "up"],
        words="frozen: migration",
        given=[says(Event.FREEZE, "test", "migration")],
    ),
    S(
        "frozen, and its host is lost: not fenced",
        ["lost", "up"],
        words="frozen",
        given=[says(Event.FREEZE, "test")],
    ),
    S("observing", ["up", "up"], words="observe", options={"observe_only": True}),
    S(
        "observing, and its host is lost",
        ["lost", "up"],
        words="observe",
        options={"observe_only": True},
    ),
    S(
        "a second copy was reported: until cleanup",
        ["up", "up"],
        words="halo cleanup g",
        failed=True,
        given=[lambda w: w.error("g", ErrorKind.SECOND_COPY)],
    ),
    # --- failed starts
    S(
        "the start failed at home: the partner",
        ["up", "up"],
        start="h2",
        given=[lambda w: w.start_failed("g", "h1")],
    ),
    S(
        "it failed on all: wait for cleanup",
        ["up", "up"],
        words="halo cleanup g",
        failed=True,
        given=[
            lambda w: w.start_failed("g", "h1", "exit 1"),
            lambda w: w.start_failed("g", "h2", "exit 5"),
        ],
    ),
    S(
        "policy stay: wait for cleanup",
        ["up", "up"],
        words="exit 1",
        failed=True,
        options={"on_start_failure": StartFailurePolicy.STAY},
        given=[lambda w: w.start_failed("g", "h1", "exit 1")],
    ),
    S(
        "after cleanup: home again",
        ["up", "up"],
        start="h1",
        given=[lambda w: w.start_failed("g", "h1"), says(Event.CLEANUP)],
    ),
    # --- the order of groups
    S(
        "a group before it does not run",
        ["up", "up"],
        words="g is started after u: u does not run completely yet",
        options={"after": ("u",)},
    ),
    S(
        "the group before it runs",
        ["up", "up"],
        start="h1",
        given=[lambda w: w.see("u", "h1", RUNNING)],
        options={"after": ("u",)},
    ),
    S(
        "a takeover waits for the order, too",
        ["off", "up"],
        words="g is started after u",
        options={"after": ("u",)},
    ),
    S(
        "proof comes first: its host is lost, and is fenced meanwhile",
        ["lost", "up"],
        fence=["h1"],
        words="h1 is disconnected",
        options={"after": ("u",)},
    ),
    S(
        "what runs is managed, whatever it is started after",
        ["runs", "up"],
        manage="h1",
        options={"after": ("u",)},
    ),
    S(
        "the order comes before the hosts",
        ["up", "up"],
        words="g is started after u",
        given=[says(Event.DEACTIVATE, "h1"), says(Event.DEACTIVATE, "h2")],
        options={"after": ("u",)},
    ),
    # --- proof is missing, and asking brings it
    S("just connected: look first", ["fresh", "up"], probe=["h1"]),
    S(
        "a monitor that fails proves nothing, and is not asked again at once",
        ["errs", "up"],
        words="g on h1: monitor: timed out",
    ),
    S("the partner's monitor fails", ["up", "errs"], words="g on h2: monitor: timed out"),
    S("one of four was not looked at", ["up", "up", "fresh", "up"], probe=["h3"]),
    # --- out of sight
    S("one out of sight, no verdict: Unknown, wait", ["up", "gone"], words="h2 is disconnected"),
    S("its agent is not running: wait", ["refused", "up"], words="h1"),
    S("both gone: wait", ["gone", "gone"], words="h1 is disconnected"),
    S("never seen since its reset: not fenced", ["up", "never"], words="since its last reset"),
    # --- lost
    S("home is lost: fenced", ["lost", "up"], fence=["h1"], words="fencing h1"),
    S("the idle partner is lost before the start: fenced", ["up", "lost"], fence=["h2"]),
    S(
        "two of three are lost: both are fenced",
        ["lost", "lost", "up"],
        fence=["h1", "h2"],
        options={"storm_hosts": 5},
    ),
    S("one of four is lost", ["lost", "up", "up", "up"], fence=["h1"]),
    S("both are lost: nobody could take it", ["lost", "lost"], words="no other host can take"),
    S(
        "a single candidate is lost: fencing would bring nothing",
        ["lost"],
        words="no other host can take",
    ),
    S(
        "a single candidate with on_loss: reboot",
        ["lost"],
        fence=["h1"],
        options={"on_loss": {"h1": LossPolicy.REBOOT}},
    ),
    S(
        "on_loss: wait",
        ["lost", "up"],
        words="on_loss: wait",
        options={"on_loss": {"h1": LossPolicy.WAIT}},
    ),
    S(
        "lost, and another's monitor fails: fencing alone would prove nothing",
        ["lost", "up", "errs"],
        words="h1 is disconnected",
    ),
    S(
        "lost, and another was never seen: fencing alone would prove nothing",
        ["lost", "up", "never"],
        words="has not answered since its last reset",
    ),
    S("lost, and another has no verdict yet", ["lost", "up", "gone"], words="h3"),
    S(
        "lost, and the only other is deactivated",
        ["lost", "up"],
        words="no other host can take",
        given=[says(Event.DEACTIVATE, "h2")],
    ),
    S(
        "lost, and the start failed on the only other",
        ["lost", "up"],
        words="no other host can take",
        given=[lambda w: w.start_failed("g", "h2")],
    ),
    S(
        "lost, without a fence agent: the operator is asked",
        ["lost", "up"],
        words="--confirm-off",
        options={"no_device": ["h1"]},
    ),
    S(
        "lost, fenced before and not reset",
        ["lost", "up"],
        words="halo reset h1",
        given=[says(Event.FENCE, "h1")],
    ),
    S(
        "lost, and its device lies",
        ["lost", "up"],
        words="not trusted",
        given=[says(Event.DISTRUST, "h1", "it lies")],
    ),
    S(
        "lost, and it may hold an unmanaged group",
        ["lost", "up"],
        words="unmanaged groups: u",
        given=[lambda w: w.unmanage("u"), set_last_seen_running],
    ),
    # --- fenced
    S("home was fenced just now: the partner", ["off", "up"], start="h2"),
    S(
        "home was fenced long ago: ask its device",
        ["off, old", "up"],
        verify=["h1"],
        words="confirm that the host is still off",
    ),
    S("both were fenced just now", ["off", "off"], words="no host can take it"),
    S("one fenced, one lost: the lost one too", ["off", "lost", "up"], fence=["h2"]),
    S(
        "one fenced long ago, one lost: both are looked after",
        ["off, old", "lost", "up"],
        verify=["h1"],
        fence=["h2"],
    ),
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_scenario(scenario: Scenario) -> None:
    world = arrange_with_unmanaged(scenario)
    decision = decided(world)
    assert (decision.start_on, decision.manage_on) == (scenario.start, scenario.manage)
    assert list(decision.fence) == scenario.fence, decision.reason
    assert list(decision.probe) == scenario.probe
    assert list(decision.verify) == scenario.verify
    assert scenario.words in decision.reason
    assert decision.failed == scenario.failed
    assert_one_reason(world, decision)


def assert_one_reason(world: World, decision: Decided) -> None:
    """A group that should run is started, or managed, or has one reason, which is what is shown."""
    is_placed = decision.start_on is not None or decision.manage_on is not None
    if is_placed or not world.state.memory_of(world.group()).wanted:
        assert decision.waits is None
    else:
        assert decision.waits is not None
        assert decision.waits.text == decision.reason
        assert decision.waits.ends_when


KINDS: list[tuple[str, Kind, str]] = [
    ("unmanaged: nothing, with the reason", Kind.HELD, "`halo manage g`"),
    ("unmanaged, and its host is lost: not fenced", Kind.HELD, "`halo manage g`"),
    ("frozen, and its host is lost: not fenced", Kind.HELD, "`halo thaw`"),
    ("observing, and its host is lost", Kind.HELD, "--manage-resources"),
    ("a second copy was reported: until cleanup", Kind.HELD, "at most one copy runs"),
    ("two copies: nothing is started, both are named", Kind.HELD, "at most one copy runs"),
    ("policy stay: wait for cleanup", Kind.HELD, "`halo cleanup g`"),
    ("just connected: look first", Kind.PROOF, "g is proven stopped on h1"),
    ("one out of sight, no verdict: Unknown, wait", Kind.PROOF, "g is proven stopped on h2"),
    ("one fenced, one lost: the lost one too", Kind.PROOF, "g is proven stopped on h2"),
    ("a group before it does not run", Kind.DEPENDENCY, "u runs"),
    ("all are deactivated", Kind.NO_ELIGIBLE_HOST, "one of h1, h2 can take it"),
    ("it failed on all: wait for cleanup", Kind.NO_ELIGIBLE_HOST, "one of h1, h2 can take it"),
]
"""What a scenario waits for, and what ends the wait. The first kind that holds is the reason."""


@pytest.mark.parametrize(("name", "kind", "ends_when"), KINDS, ids=lambda value: str(value))
def test_a_wait_has_the_first_kind_that_holds(name: str, kind: Kind, ends_when: str) -> None:
    scenario = next(found for found in SCENARIOS if found.name == name)
    waits = decided(arrange_with_unmanaged(scenario)).waits
    assert waits is not None
    assert waits.kind is kind
    assert ends_when in waits.ends_when


def test_every_kind_of_reason_has_an_example_here() -> None:
    elsewhere = {Kind.HOST_CAPACITY, Kind.TURN}  # tests/core/questions/test_room.py, test_turn.py
    assert {kind for _, kind, _ in KINDS} | elsewhere == set(Kind)


def test_a_wait_goes_on_while_its_words_change_and_begins_anew_with_another_reason() -> None:
    world = arrange(["up", "gone"])
    at = world.state.groups["g"]

    def at_time(now: float) -> Waiting | None:
        found = decided(world)
        at.decided(found.reason, found.waits, now, failed=found.failed)
        return at.waiting

    first = at_time(101.0)
    assert first is not None
    world.lose("h2")
    second = at_time(102.0)
    assert second is not None
    assert (second.reason.kind, second.since) == (Kind.PROOF, 101.0)
    assert second.reason.text != first.reason.text
    world.unmanage("g")
    third = at_time(103.0)
    assert third is not None
    assert (third.reason.kind, third.since) == (Kind.HELD, 103.0)
    world.journal(Event.MANAGE, "g")
    world.journal(Event.FREEZE, "test")
    fourth = at_time(104.0)
    assert fourth is not None
    assert (fourth.reason.kind, fourth.since) == (Kind.HELD, 104.0)
    world.journal(Event.STOP, "g")
    assert at_time(105.0) is None


def arrange_with_unmanaged(scenario: Scenario) -> World:
    return arrange(scenario.hosts, *scenario.given, **scenario.options)


# --- what the table cannot show -----------------------------------------------------------------


def test_it_waits_with_a_verdict_for_candidates_that_answer_a_ping_sent_after_it() -> None:
    world = arrange(["lost", "up", "up"])
    for host in ("h2", "h3"):
        world.state.hosts[host].answered_at = world.now - 0.1
    decision = decided(world)
    assert decision.ping == ("h2", "h3")
    assert decision.fence == ()
    assert "waiting for an answer from h2, h3" in decision.reason
    world.answers("h3")  # one that can take it is enough
    assert decided(world).fence == ("h1",)


def test_a_decision_that_waits_is_asked_again_by_the_clock() -> None:
    assert decided(arrange(["lost", "up"])).recheck_s is not None
    assert decided(arrange(["up", "gone"])).recheck_s is not None
    assert decided(arrange(["errs", "up"])).recheck_s is not None


def test_a_sample_from_before_the_decision_is_taken_again() -> None:
    world = arrange(["up", "up"])
    decision = decided(world, since=100.5)
    assert decision.start_on is None
    assert decision.probe == ("h1", "h2")


def test_an_older_sample_of_the_taker_is_enough_to_begin_the_fence_and_not_to_start() -> None:
    world = arrange(["lost", "up"])
    decision = decided(world, since=100.5)
    assert decision.fence == ("h1",)
    assert decision.probe == ("h2",)
    world.fenced("h1")
    assert decided(world, since=100.5).start_on is None


def test_while_it_is_being_fenced_nothing_else_is_begun() -> None:
    world = arrange(["lost", "up"])
    world.state.hosts["h1"].fence_phase = FencePhase.RUNNING
    decision = decided(world)
    assert (decision.fence, decision.start_on, decision.not_fenced) == ((), None, ())
    assert "fencing h1" in decision.reason


def test_a_group_seen_on_a_host_that_is_being_fenced_is_not_managed_there() -> None:
    world = arrange(["runs", "up"])
    world.state.hosts["h1"].fence_phase = FencePhase.RUNNING
    decision = decided(world)
    assert (decision.manage_on, decision.start_on) == (None, None)
    assert "h1 is being fenced" in decision.reason


def test_after_a_failed_fence_it_waits_in_error_and_tries_again_later() -> None:
    world = arrange(["lost", "up"])
    at = world.state.hosts["h1"]
    at.fence_phase, at.fence_error, at.fence_retry_at = FencePhase.FAILED, "no answer", 130.0
    decision = decided(world)
    assert decision.failed
    assert decision.fence == ()
    assert "no answer" in decision.reason
    assert "30 s" in decision.reason
    world.now = 130.0
    assert decided(world).fence == ("h1",)


def test_a_verification_under_way_or_just_failed_is_not_asked_again() -> None:
    world = arrange(["off, old", "up"])
    world.state.hosts["h1"].verifying_since = 99.0
    assert decided(world).verify == ()
    world.state.hosts["h1"].verifying_since = None
    world.state.hosts["h1"].verify_retry_at = 105.0
    assert decided(world).verify == ()
    world.now = 105.0
    assert decided(world).verify == ("h1",)


def test_the_device_of_a_host_that_nobody_tried_to_reach_yet_is_no_witness() -> None:
    """The host may have booted while no manager ran, and its device may be wired to another."""
    world = arrange(["off, old", "up"])
    world.state.hosts["h1"].loss = None
    assert decided(world).verify == ()
    world.state.hosts["h1"].loss = SILENT
    assert decided(world).verify == ("h1",)


def test_devices_of_several_hosts_are_asked_so_that_their_answers_come_together() -> None:
    """An answer holds for ten seconds: asked at once, one of 50 s and one of 30 s would never be
    proof together."""
    world = arrange(["off, old", "off, old", "up"])
    slow, quicker = world.state.hosts["h1"], world.state.hosts["h2"]
    slow.verify_took_s, quicker.verify_took_s = 50.0, 30.0
    assert decided(world).verify == ("h1",)
    slow.verifying_since = world.now
    assert decided(world).verify == ()
    world.now += 19.5
    assert decided(world).verify == ("h2",)


def test_a_device_that_is_overdue_holds_no_other_question_up() -> None:
    world = arrange(["off, old", "off, old", "up"])
    world.state.hosts["h1"].verifying_since = world.now - 20.0
    world.state.hosts["h1"].verify_took_s = 1.0
    assert decided(world).verify == ("h2",)


def test_the_refusals_are_told_host_by_host() -> None:
    world = arrange(["lost", "lost", "up"], on_loss={"h1": LossPolicy.WAIT}, storm_hosts=5)
    decision = decided(world)
    assert decision.fence == ()
    [(host, why)] = decision.not_fenced
    assert host == "h1"
    assert "on_loss: wait" in why
    assert "not fenced: " in decision.reason


def test_a_decision_never_asks_to_start_and_to_fence_at_once() -> None:
    for scenario in SCENARIOS:
        decision = decided(arrange_with_unmanaged(scenario))
        doing = [bool(decision.start_on), bool(decision.manage_on), bool(decision.fence)]
        assert sum(doing) <= 1, scenario.name


def test_no_scenario_starts_over_a_copy_that_runs() -> None:
    for scenario in SCENARIOS:
        world = arrange_with_unmanaged(scenario)
        if decided(world).start_on:
            assert RUNNING not in [
                world.state.knowledge.presence(world.group(), host)
                for host in world.group().candidates
            ], scenario.name
