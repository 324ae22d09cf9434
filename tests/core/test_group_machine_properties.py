"""What GroupMachine never does, whatever the answers, commands and losses, and that it gets there.

The test keeps a model of its own: what each resource was last *told* to be. The machine is judged
by it, not by its own word.
"""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from halo.core.cluster.knowledge import Presence
from halo.core.groups.actions import Left
from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind
from halo.core.model import StartFailurePolicy
from halo.core.outcomes import OperationResult, Outcome
from halo.core.questions import holds

from .builders import GENERIC_ERROR, NOT_RUNNING, OK, TIMED_OUT, World, exit_code, make_group
from .machine import Driver

SHAPES: list[dict[str, list[str]]] = [
    {"g": []},
    {"g": ["x"], "x": ["y"], "y": []},
    {"g": ["a", "b"], "a": [], "b": []},
    {"g": ["a", "b"], "a": ["a1", "a2"], "b": [], "a1": [], "a2": []},
    {"g": ["a", "b"], "a": ["z"], "b": ["z"], "z": []},
]
RESULTS = [OK, OK, OK, NOT_RUNNING, GENERIC_ERROR, TIMED_OUT, exit_code(190)]
UP, DOWN, UNSURE = "up", "down", "unsure"


class Told:
    """What each resource was last told to be, from answers alone."""

    def __init__(self, driver: Driver) -> None:
        known = {Presence.RUNNING: UP, Presence.STOPPED: DOWN}
        self.of = {
            name: known.get(state.presence, UNSURE)
            for name, state in driver.machine.resources.items()
        }

    def take(self, what: str, result: OperationResult) -> None:
        verb, name = what.split(" ", 1)
        done = result.outcome is Outcome.COMPLETED
        if verb == "start":
            self.of[name] = UP if result == OK else UNSURE
        elif verb == "stop":
            self.of[name] = DOWN if done and result.code in (0, 7) else UNSURE
        elif done and result.code in (0, 8, 190, 191):
            self.of[name] = UP
        elif result == NOT_RUNNING:
            self.of[name] = DOWN
        elif not done and self.of[name] == UP:
            self.of[name] = UNSURE


class Rules(RuleBasedStateMachine):
    """Any answer to anything in flight, any command, any loss, in any order."""

    @initialize(
        shape=st.sampled_from(SHAPES),
        policy=st.sampled_from(StartFailurePolicy),
        up=st.sets(st.sampled_from(["g", "x", "y", "z", "a", "b", "a1", "a2"])),
        seen=st.booleans(),
    )
    def begin(
        self, shape: dict[str, list[str]], policy: StartFailurePolicy, up: set[str], seen: bool
    ) -> None:
        self.world = World(make_group("g", ("h1", "h2"), shape, on_start_failure=policy))
        self.world.up("h2")
        if seen:
            self.world.up("h1")
            self.world.see("g", "h1", Presence.RUNNING, only=up)
        else:
            self.world.connect("h1")
        self.adopt()

    def adopt(self) -> None:
        self.driver = Driver(self.world)
        self.told = Told(self.driver)
        self.revoked = False
        self.ask(self.driver.step)

    # --- judging -------------------------------------------------------------------------------

    def ask(self, action: object, *args: object) -> None:
        """Make one call, and judge every operation it asks for."""
        in_flight_before = list(self.driver.running)
        left_before = self.driver.left is not None
        answered = args[0] if args else None
        asked = action(*args)  # type: ignore[operator]  # any method of the driver
        held = holds.hold_reason(self.world.state, self.driver.group)
        busy = [what.split(" ", 1)[1] for what in in_flight_before if what != answered]
        for what in asked:
            verb, name = what.split(" ", 1)
            assert not left_before, f"{what} after it left"
            assert not self.revoked, f"{what} after it was revoked"
            assert name not in busy, f"{what} while {in_flight_before} are in flight"
            busy.append(name)
            if verb != "monitor":
                assert held is None, f"{what} while held: {held}"
                self.judge(verb, name)
        if self.driver.left is not None:
            assert self.driver.running == [], "it left with operations in flight"

    def judge(self, verb: str, name: str) -> None:
        group = self.driver.group
        resource = group.by_id[name]
        moving = {
            what.split(" ", 1)[1] for what in self.driver.running if not what.startswith("monitor")
        } - {name}
        for dependent in group.dependents_of(resource):
            assert self.told.of[dependent.id] == DOWN, f"{verb} {name} over a {dependent.id} up"
            assert dependent.id not in moving, f"{verb} {name} while {dependent.id} moves"
        if verb == "start":
            assert self.told.of[name] == DOWN, f"start of {name} that may be running"
            for parent in group.parents_of(resource):
                assert self.told.of[parent.id] == UP, f"start {name} without {parent.id}"
                assert parent.id not in moving, f"start {name} while {parent.id} moves"

    # --- what can happen -----------------------------------------------------------------------

    @precondition(lambda self: self.driver.running)
    @rule(which=st.integers(0, 9), result=st.sampled_from(RESULTS))
    def answer(self, which: int, result: OperationResult) -> None:
        what = self.driver.running[which % len(self.driver.running)]
        self.told.take(what, result)
        self.ask(self.driver.answer, what, result)

    @rule(seconds=st.sampled_from([0.0, 5.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        self.ask(self.driver.pass_time, seconds)

    @precondition(lambda self: any(what.startswith("start") for what in self.driver.running))
    @rule()
    def a_start_is_refused(self) -> None:
        what = next(what for what in self.driver.running if what.startswith("start"))
        self.ask(self.driver.refuse, what)

    @precondition(lambda self: self.driver.running)
    @rule()
    def the_connection_ends(self) -> None:
        self.revoked = True
        while self.driver.running:
            what = self.driver.running[0]
            self.told.of[what.split(" ", 1)[1]] = UNSURE
            self.ask(self.driver.interrupt, what)
        assert self.driver.left is not None

    @rule()
    def it_is_recalled(self) -> None:
        self.driver.machine.revoke("recalled")
        self.revoked = True
        self.ask(self.driver.step)

    @rule(
        event=st.sampled_from(
            [Event.MANAGE, Event.UNMANAGE, Event.START, Event.STOP, Event.MOVE_FAILED]
        )
    )
    def a_command(self, event: Event) -> None:
        self.world.journal(event, "g")
        self.ask(self.driver.step)

    @rule(frozen=st.booleans())
    def freeze_or_thaw(self, frozen: bool) -> None:
        self.world.journal(Event.FREEZE if frozen else Event.THAW, "test")
        self.ask(self.driver.step)

    @rule(to=st.sampled_from(["h1", "h2"]))
    def a_move(self, to: str) -> None:
        self.world.journal(Event.MOVE, "g", to=to)
        self.ask(self.driver.step)

    @rule(active=st.booleans())
    def activation(self, active: bool) -> None:
        self.world.journal(Event.ACTIVATE if active else Event.DEACTIVATE, "h1")
        self.ask(self.driver.step)

    @rule()
    def the_partner_comes_or_goes(self) -> None:
        if self.world.state.hosts["h2"].connected:
            self.world.disconnect("h2")
        else:
            self.world.up("h2")
        self.ask(self.driver.step)

    @rule()
    def a_second_copy_is_reported(self) -> None:
        self.world.error("g", ErrorKind.SECOND_COPY)
        self.ask(self.driver.step)

    @rule()
    def cleanup(self) -> None:
        self.world.journal(Event.CLEANUP, "g")
        self.ask(self.driver.step)

    @precondition(lambda self: self.driver.left is not None)
    @rule()
    def it_comes_again(self) -> None:
        self.adopt()

    @invariant()
    def it_does_not_spin(self) -> None:
        """With nothing to do now, the next time to look is later than now."""
        if not hasattr(self, "driver"):
            return
        due = self.driver.machine.next_due()
        if due is not None and due <= self.world.now:
            self.ask(self.driver.step)
            due = self.driver.machine.next_due()
            assert due is None or due > self.world.now, "it spins"


Rules.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestItNeverDoesWhatItMustNot = Rules.TestCase


# --- it gets there ------------------------------------------------------------------------------


class RealWorld:
    """Resources that are up or down, and operations that fail at first and then work."""

    def __init__(self, up: set[str], faults: list[OperationResult]) -> None:
        self.up = set(up)
        self.faults = faults

    def run(self, what: str) -> OperationResult:
        verb, name = what.split(" ", 1)
        if self.faults:
            fault = self.faults.pop()
            if fault != OK:
                return fault
        if verb == "start":
            self.up.add(name)
        elif verb == "stop":
            self.up.discard(name)
        return OK if verb != "monitor" or name in self.up else NOT_RUNNING


@settings(max_examples=300, deadline=None)
@given(
    shape=st.sampled_from(SHAPES),
    up=st.sets(st.sampled_from(["g", "x", "y", "z", "a", "b", "a1", "a2"])),
    faults=st.lists(st.sampled_from([OK, GENERIC_ERROR, TIMED_OUT]), max_size=12),
    order=st.randoms(use_true_random=False),
    wanted=st.booleans(),
)
def test_with_a_world_that_behaves_it_gets_where_it_was_told(
    shape: dict[str, list[str]],
    up: set[str],
    faults: list[OperationResult],
    order: object,
    wanted: bool,
) -> None:
    world = World(make_group("g", ("h1",), shape))
    real = RealWorld(up & set(shape), faults)
    world.connect("h1")
    world.journal(Event.START if wanted else Event.STOP, "g")
    driver = Driver(world)
    goal = set(shape) if wanted else set()
    for _ in range(60):
        driver.pass_time(5.0)
        while driver.running:
            what = order.choice(driver.running)  # type: ignore[attr-defined]  # a random.Random
            driver.answer(what, real.run(what))
        given_up = any(state.failed for state in driver.machine.resources.values())
        if driver.left is not None and not wanted and driver.left.why is Left.STOPPED:
            break
        if driver.left is not None or given_up:
            # What an operator does: mend it, then cleanup; it is looked at afresh.
            real.faults.clear()
            world.journal(Event.CLEANUP, "g")
            world.state.knowledge.drop_group(driver.group, "afresh", now=world.now)
            driver = Driver(world)
    assert real.up == goal
    if wanted:
        assert driver.left is None
        assert all(s.presence is Presence.RUNNING for s in driver.machine.resources.values())
    else:
        assert driver.left is not None
