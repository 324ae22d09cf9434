"""The machine that fences one host: what it tells its caller to do, and what may never happen."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from halo.core.cluster.host_state import FencePhase
from halo.core.errors import CommandFailed, CommandRefused, InvariantError, RecordError
from halo.core.fencing import inquiry, machine, reboot, steps
from halo.core.fencing.answers import OffWord, ProbeAnswer
from halo.core.fencing.machine import FenceMachine
from halo.core.fencing.steps import Kind, Stage
from halo.core.journal.records import Event
from halo.core.model import FenceDevice, LossPolicy
from halo.core.outcomes import FenceResult, PowerState

from .builders import World, make_group

DID = FenceResult(True, PowerState.UNKNOWN)
DID_NOT = FenceResult(False, PowerState.UNKNOWN, "no")
ONE, TWO, THREE = (FenceDevice(name, f"/sbin/{name}", {}) for name in ("one", "two", "three"))
LEVELS = {"h1": ((ONE,), (TWO, THREE))}
CLOSED_PORT = list(ProbeAnswer).index(ProbeAnswer.CLOSED_PORT)


def probed(answer: ProbeAnswer, run: int) -> steps.Result:
    return steps.Probed(run, answer)


def agent_answered(number: int, run: int) -> steps.Result:
    return steps.AgentAnswered(run, number)


def not_written(run: int) -> steps.Result:
    return steps.NotWritten(run, RecordError("disk full"))


RESULT_OF: dict[type[Any], tuple[Callable[[int], steps.Result], ...]] = {
    steps.GatherTokens: (steps.TokensHome,),
    steps.Sleep: (steps.TimeUp,),
    steps.Probe: tuple(partial(probed, answer) for answer in ProbeAnswer),
    steps.Listen: (partial(agent_answered, 1), partial(agent_answered, 2)),
    steps.Ask: (
        lambda run: steps.DevicesSaid(run, OffWord(1, "", False, 0.0, 0.0)),
        lambda run: steps.DevicesSaid(run, OffWord(1, "it says on", says_on=True)),
    ),
}
"""How each work may end. Of programs: see :func:`results_of`."""


def results_of(work: steps.Work) -> tuple[Callable[[int], steps.Result], ...]:
    """Every way in which this work may end."""
    match work:
        case steps.Write(must=must):
            return (steps.Written, not_written) if must else (steps.Written,)
        case steps.SwitchOff(level):
            count = len(LEVELS["h1"][level - 1])
        case steps.SwitchOn():
            count = sum(map(len, LEVELS["h1"]))
        case _:
            return RESULT_OF[type(work)]
    return (
        lambda run: steps.ProgramsEnded(run, [DID] * count),
        lambda run: steps.ProgramsEnded(run, [DID] * (count - 1) + [DID_NOT]),
    )


class Bench:
    """The machine of h1, which was lost while g waits for it, and what it has under way."""

    def __init__(self, **cluster: Any) -> None:
        self.world = World(make_group("g"), **{"fence_levels": LEVELS, **cluster})
        self.world.up("h1", "h2")
        self.world.lose("h1")
        self.world.answers("h2")
        self.machine = FenceMachine(self.world.state, "h1")
        self.works: dict[int, steps.Work] = {}
        self.stopping: set[int] = set()
        self.did: list[steps.Action] = []
        self.answers: dict[int, Exception | None] = {}
        self.tickets = 0

    @property
    def at(self) -> Any:
        return self.world.state.hosts["h1"]

    @property
    def phase(self) -> Any:
        return self.at.fence_phase

    def feed(self, event: steps.Event) -> list[str]:
        """One event; the names of the actions that it leads to."""
        actions = self.machine.handle(event, self.world.now)
        return self.take(actions)

    def take(self, actions: list[steps.Action]) -> list[str]:
        names = []
        for action in actions:
            self.did.append(action)
            match action:
                case steps.Do(run, work):
                    assert run not in self.works
                    self.works[run] = work
                    names.append(type(work).__name__)
                case steps.Stop(run):
                    self.stopping.add(run)
                    names.append(f"Stop {type(self.works[run]).__name__}")
                case steps.Answer(ticket, error):
                    assert ticket not in self.answers
                    self.answers[ticket] = error
                    names.append("Answer")
                case _:
                    names.append(type(action).__name__)
        return names

    def begin(self, kind: Kind = Kind.AUTOMATIC) -> list[str]:
        by_command = kind in (Kind.COMMAND, Kind.CONFIRM_OFF)
        return self.feed(steps.Begin(kind, "why", self.ticket() if by_command else None))

    def ticket(self) -> int:
        self.tickets += 1
        return self.tickets

    def cancel(self) -> list[str]:
        return self.feed(steps.Cancel("enough", self.ticket()))

    def end(self, work: type[Any], way: int = 0) -> list[str]:
        """The oldest work of this kind ends, in one of its ways."""
        run = next(run for run, found in self.works.items() if isinstance(found, work))
        return self.feed(self.result(run, way))

    def result(self, run: int, way: int = 0) -> steps.Result:
        """A work ends so. What is written is remembered."""
        work = self.works.pop(run)
        result = results_of(work)[way](run)
        if isinstance(work, steps.Write) and isinstance(result, steps.Written):
            for entry in work.entries:
                self.world.journal(entry.event, "h1", entry.comment, **entry.data)
        return result

    def killed(self) -> list[str]:
        """All that was stopped has ended."""
        names = []
        for run in sorted(self.stopping):
            del self.works[run]
            names += self.feed(steps.Stopped(run))
        self.stopping.clear()
        return names

    def reach(self, stage: Stage, kind: Kind = Kind.AUTOMATIC) -> None:
        """Bring the machine into a stage."""
        if stage is not Stage.AT_REST:
            self.begin(kind)
        if stage is Stage.QUEUED:
            raise AssertionError("see the tests of reboots")
        way: dict[Stage, list[type[Any]]] = {
            Stage.AT_REST: [],
            Stage.RECORDING: [],
            Stage.GATHERING: [steps.Write],
            Stage.SWITCHING: [steps.Write, steps.GatherTokens],
            Stage.INQUIRING: [steps.Write, steps.GatherTokens, steps.SwitchOff],
            Stage.LOOKING: [steps.Write, steps.GatherTokens],
            Stage.SETTLING: [
                *(steps.Write, steps.GatherTokens, steps.SwitchOff, steps.Ask, steps.Sleep)
            ],
            Stage.HELD: [],
            Stage.ENDING: [steps.Write, steps.GatherTokens],
        }
        for work in way[stage]:
            self.end(work)
        if stage is Stage.LOOKING:
            self.end(steps.SwitchOff, way=1)
        if stage is Stage.HELD:
            self.reach_held()
        if stage is Stage.ENDING:
            self.cancel()
            self.end(steps.Write)
        assert self.machine.stage is stage

    def reach_held(self) -> None:
        self.end(steps.Write)
        self.end(steps.GatherTokens)
        self.end(steps.SwitchOff)
        self.cancel()
        self.end(steps.Ask)
        self.end(steps.Sleep)


# --- one attempt after the other ----------------------------------------------------------------


def test_a_fence_goes_from_the_intent_to_the_outcome() -> None:
    bench = Bench()
    assert bench.begin() == ["Tell", "Write"]
    assert bench.phase == FencePhase.RUNNING
    assert bench.end(steps.Write) == ["GatherTokens"]
    assert bench.end(steps.GatherTokens) == ["StandDown", "SwitchOff"]
    assert bench.end(steps.SwitchOff) == ["Ask", "Listen"]
    assert bench.end(steps.Ask) == ["Sleep"]
    assert bench.end(steps.Sleep) == ["Stop Listen", "Write"]
    assert bench.end(steps.Write) == ["Tell", "StandDown", "Resume", "Learnt"]
    assert bench.at.power_proof is not None
    assert bench.phase == FencePhase.IDLE


def test_a_level_that_fails_is_followed_by_the_next_one() -> None:
    bench = Bench()
    bench.reach(Stage.SWITCHING)
    assert bench.end(steps.SwitchOff, way=1) == ["StandDown", "Probe"]
    assert bench.end(steps.Probe, way=1) == ["StandDown", "SwitchOff"]
    assert bench.end(steps.SwitchOff, way=1) == ["Tell", "Write"]
    bench.end(steps.Write)
    assert bench.phase is FencePhase.FAILED
    left_off = "these devices switched off, but the host is not proven off: two"
    assert f"level 1: no; level 2: no; {left_off}" in bench.at.fence_error


def test_no_second_level_for_a_host_that_answers_again() -> None:
    bench = Bench()
    bench.reach(Stage.LOOKING)
    assert bench.end(steps.Probe, way=0) == ["Tell", "Write"]
    bench.end(steps.Write)
    assert "it answers again" in bench.at.fence_error


def test_a_standstill_before_the_off_is_followed_by_a_look() -> None:
    bench = Bench()
    bench.begin()
    bench.end(steps.Write)
    bench.world.now += 77
    assert bench.end(steps.GatherTokens) == ["StandDown", "Probe"]
    bench.world.now += 40  # once more: the answer lies unread
    assert bench.end(steps.Probe, way=1) == ["Tell", "StandDown", "Probe"]
    bench.world.now += 1
    assert bench.end(steps.Probe, way=0) == ["Tell", "Write"]
    bench.end(steps.Write)
    assert bench.phase is FencePhase.IDLE, "called off"


def test_a_host_that_is_silent_after_a_standstill_is_switched_off() -> None:
    bench = Bench()
    bench.begin()
    bench.world.now += 77
    bench.end(steps.Write)
    assert bench.end(steps.GatherTokens) == ["StandDown", "Probe"]
    bench.world.now += 1
    assert bench.end(steps.Probe, way=1) == ["StandDown", "SwitchOff"]


def test_a_closed_port_calls_a_fence_off_before_the_first_off_alone() -> None:
    bench = Bench()
    bench.begin()
    bench.world.now += 77
    bench.end(steps.Write)
    assert bench.end(steps.GatherTokens) == ["StandDown", "Probe"]
    bench.world.now += 0.1
    assert bench.end(steps.Probe, way=CLOSED_PORT) == ["Tell", "Write"]
    assert bench.end(steps.Write) == ["StandDown", "Resume", "Learnt"]
    assert bench.phase is FencePhase.IDLE, "called off"
    assert bench.at.lost_at is None, "else it would be decided at once again"
    bench = Bench()
    bench.reach(Stage.LOOKING)  # a level has switched something off
    assert bench.end(steps.Probe, way=CLOSED_PORT) == ["StandDown", "SwitchOff"]


def test_an_order_is_not_forgotten_over_a_standstill() -> None:
    bench = Bench()
    bench.begin(Kind.COMMAND)
    bench.world.now += 77
    bench.end(steps.Write)
    assert bench.end(steps.GatherTokens) == ["StandDown", "SwitchOff"]


def test_an_administrators_attempt_begins_when_its_intent_is_on_disk() -> None:
    bench = Bench()
    assert bench.begin(Kind.COMMAND) == ["Tell", "Write"]
    assert bench.end(steps.Write, way=1) == ["Poke", "Answer"]
    assert isinstance(bench.answers[1], CommandFailed)
    assert bench.phase is FencePhase.IDLE
    assert bench.begin(Kind.COMMAND) == ["Tell", "Write"]
    assert bench.end(steps.Write) == ["StandDown", "GatherTokens"]


def test_a_second_command_is_refused_while_the_first_is_under_way() -> None:
    bench = Bench()
    bench.reach(Stage.SWITCHING, Kind.COMMAND)
    assert bench.begin(Kind.COMMAND) == ["Answer"]
    assert isinstance(bench.answers[2], CommandRefused)
    assert bench.begin() == []
    assert bench.machine.stage is Stage.SWITCHING


def test_what_a_person_saw_dark_is_confirmed_without_a_device() -> None:
    bench = Bench()
    assert bench.begin(Kind.CONFIRM_OFF) == ["StandDown", "GatherTokens"]
    assert bench.end(steps.GatherTokens) == ["Write"]
    assert bench.end(steps.Write) == ["Tell", "Resume", "Learnt", "Answer"]
    assert bench.answers == {1: None}
    assert bench.at.power_proof is not None


def test_an_open_intent_is_confirmed_by_an_off_and_silence() -> None:
    bench = Bench()
    assert bench.begin(Kind.OPEN_INTENT) == ["StandDown", "Ask", "Listen"]
    bench.end(steps.Ask)
    assert bench.end(steps.Sleep) == ["Stop Listen", "Probe"]
    assert bench.end(steps.Probe, way=1) == ["Write"]
    bench.end(steps.Write)
    assert bench.at.power_proof is not None


@pytest.mark.parametrize("ways", [(0, 0), (0, 3), (1, None)])
def test_an_open_intent_is_decided_afresh_where_a_witness_is_missing(
    ways: tuple[int, int | None],
) -> None:
    device, agent = ways
    bench = Bench()
    bench.begin(Kind.OPEN_INTENT)
    bench.end(steps.Ask, way=device)
    if agent is not None:
        bench.end(steps.Sleep)
        bench.end(steps.Probe, way=agent)
    bench.end(steps.Write)
    assert bench.at.power_proof is None
    assert bench.phase is FencePhase.IDLE
    assert any(
        isinstance(a, steps.Do)
        and isinstance(a.work, steps.Write)
        and "HALO decides again" in a.work.entries[0].comment
        for a in bench.did
    )


# --- the two witnesses --------------------------------------------------------------------------


def test_an_answer_of_the_agent_ends_the_question_to_a_slow_device() -> None:
    bench = Bench(fence_levels={"h1": LEVELS["h1"][:1]})
    bench.reach(Stage.INQUIRING)
    assert bench.end(steps.Listen, way=1) == ["Stop Ask"]
    assert bench.killed() == ["Tell", "Write"]
    bench.end(steps.Write)
    assert bench.at.power_proof is None
    assert "answers again" in bench.at.fence_error


def test_a_device_that_says_off_after_the_first_probe_was_answered_is_distrusted() -> None:
    bench = Bench()
    bench.reach(Stage.INQUIRING)
    assert bench.end(steps.Listen, way=0) == []
    assert bench.end(steps.Ask) == ["Tell", "Write"]
    [write] = [w for w in bench.works.values() if isinstance(w, steps.Write)]
    assert [entry.event for entry in write.entries] == [Event.FENCE_FAILED, Event.DISTRUST]


def test_an_agent_that_answers_right_after_the_devices_word_is_heard() -> None:
    bench = Bench()
    bench.reach(Stage.INQUIRING)
    bench.end(steps.Ask)
    assert bench.end(steps.Listen, way=0) == ["Stop Sleep", "Tell", "Write"]
    bench.end(steps.Write)
    assert bench.at.power_proof is None


def test_a_port_closed_since_the_question_leaves_the_confirmation_in_doubt() -> None:
    bench = Bench()
    bench.reach(Stage.INQUIRING)
    bench.world.state.note_closed_port("h1", bench.world.now)
    bench.end(steps.Ask)
    bench.end(steps.Sleep)
    bench.end(steps.Write)
    assert bench.at.power_proof.verified_at == float("-inf")


# --- cancelling ---------------------------------------------------------------------------------

UNDER_WAY = [
    *(Stage.RECORDING, Stage.GATHERING, Stage.SWITCHING, Stage.LOOKING, Stage.INQUIRING, Stage.HELD)
]


@pytest.mark.parametrize("stage", UNDER_WAY)
def test_a_cancelled_fence_ends_its_work_and_confirms_nothing(stage: Stage) -> None:
    bench = Bench()
    bench.reach(stage)
    if stage is not Stage.HELD:
        bench.cancel()
    [cancel] = [
        run
        for run, work in bench.works.items()
        if isinstance(work, steps.Write) and work.entries[0].event is Event.FENCE_CANCEL
    ]
    bench.feed(bench.result(cancel))
    bench.killed()
    assert bench.answers == {1: None}
    assert bench.machine.stage is Stage.AT_REST
    assert bench.works == {}
    assert bench.at.power_proof is None
    assert (bench.phase, bench.at.fence_retry_at) == (FencePhase.FAILED, float("inf"))


def test_a_confirmation_by_hand_outlives_the_cancellation_that_was_said_before_it() -> None:
    bench = Bench()
    bench.reach(Stage.SWITCHING)
    for work in (steps.SwitchOff, steps.Probe):
        bench.end(work, way=1)
    bench.end(steps.SwitchOff, way=1)
    bench.end(steps.Write)
    assert bench.phase is FencePhase.FAILED
    bench.cancel()
    bench.begin(Kind.CONFIRM_OFF)
    bench.end(steps.GatherTokens)
    assert bench.machine.stage is Stage.HELD
    bench.end(steps.Write)
    bench.end(steps.Write)
    assert bench.answers == {1: None, 2: None}
    assert bench.at.power_proof is not None


def test_an_outcome_that_was_held_back_is_written_where_the_cancellation_fails() -> None:
    bench = Bench()
    bench.reach(Stage.HELD)
    bench.end(steps.Write, way=1)
    assert isinstance(bench.answers[1], RecordError)
    assert bench.machine.stage is Stage.SETTLING
    bench.end(steps.Write)
    assert bench.at.power_proof is not None


def test_a_cancellation_that_comes_while_the_outcome_is_written_comes_too_late() -> None:
    bench = Bench()
    bench.reach(Stage.SETTLING)
    assert bench.cancel() == []
    bench.end(steps.Write)
    assert isinstance(bench.answers[1], CommandRefused)
    assert bench.at.power_proof is not None


def test_a_result_that_nobody_waits_for_changes_nothing() -> None:
    bench = Bench()
    bench.reach(Stage.SETTLING)
    late = [run for run in bench.works if run in bench.stopping]
    assert late
    for run in late:
        assert bench.feed(steps.AgentAnswered(run, 2)) == []
    assert bench.machine.stage is Stage.SETTLING


# --- every pair of stage and event --------------------------------------------------------------

EXAMPLES: dict[type[Any], Callable[[int], steps.Result]] = {
    steps.Written: steps.Written,
    steps.NotWritten: not_written,
    steps.TokensHome: steps.TokensHome,
    steps.Probed: lambda run: steps.Probed(run, ProbeAnswer.NONE),
    steps.AgentAnswered: lambda run: steps.AgentAnswered(run, 2),
    steps.ProgramsEnded: lambda run: steps.ProgramsEnded(run, [DID]),
    steps.DevicesSaid: lambda run: steps.DevicesSaid(run, OffWord(1)),
    steps.TimeUp: steps.TimeUp,
    steps.Stopped: steps.Stopped,
}


def test_there_is_an_example_of_every_result() -> None:
    assert set(EXAMPLES) == set(steps.RESULTS)


@pytest.mark.parametrize("result", steps.RESULTS)
@pytest.mark.parametrize("stage", [s for s in Stage if s is not Stage.QUEUED])
def test_each_pair_of_stage_and_result_is_handled_or_raises(
    stage: Stage, result: type[steps.Result]
) -> None:
    """Of a work that is waited for. What is not in the table is a defect of the caller."""
    bench = Bench()
    bench.reach(stage)
    waited_for = [run for run in bench.works if run not in bench.stopping] or list(bench.stopping)
    if stage in (Stage.AT_REST, Stage.HELD):
        run = 999  # nothing of the attempt is waited for
        assert bench.feed(EXAMPLES[result](run)) == []
        return
    event = EXAMPLES[result](waited_for[0])
    handled = (stage, result) in machine.TABLE
    if stage is Stage.INQUIRING:
        handled = (inquiry.Stage.ASKING, result) in inquiry.TABLE
    if handled:
        bench.feed(event)
    else:
        with pytest.raises(InvariantError, match="h1"):
            bench.feed(event)


# --- whatever happens ---------------------------------------------------------------------------


class NoOrderOfEventsBreaksAFence(RuleBasedStateMachine):
    """Works end in any order and way; commands come at any time; the host answers and dies."""

    @initialize(
        on_loss=st.sampled_from([LossPolicy.FENCE, LossPolicy.REBOOT]), seed=st.integers(0, 3)
    )
    def begin(self, on_loss: LossPolicy, seed: int) -> None:
        self.bench = Bench(on_loss={"h1": on_loss})
        self.commands: set[int] = set()
        self.seen = 0

    @rule(kind=st.sampled_from([Kind.AUTOMATIC, Kind.COMMAND, Kind.CONFIRM_OFF, Kind.SECOND_COPY]))
    def fence(self, kind: Kind) -> None:
        self.bench.begin(kind)

    @rule()
    def cancel(self) -> None:
        self.bench.cancel()

    @precondition(lambda self: bool(self.bench.works))
    @rule(data=st.data())
    def a_work_ends(self, data: st.DataObject) -> None:
        bench = self.bench
        run = data.draw(st.sampled_from(sorted(bench.works)))
        bench.world.now += 0.1
        if run in bench.stopping:
            bench.stopping.discard(run)
            del bench.works[run]
            bench.feed(steps.Stopped(run))
            return
        ways = len(results_of(bench.works[run]))
        bench.feed(bench.result(run, data.draw(st.integers(0, ways - 1))))

    @rule(seconds=st.sampled_from([1.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.world.now += seconds

    @rule()
    def the_host_answers(self) -> None:
        self.bench.world.state.host_alive("h1")

    @rule()
    def the_host_is_lost_again(self) -> None:
        if not self.bench.at.connected:
            self.bench.world.lose("h1")

    @invariant()
    def programs_of_one_action_at_a_time(self) -> None:
        switching = [
            work
            for work in self.bench.works.values()
            if isinstance(work, steps.SwitchOff | steps.SwitchOn)
        ]
        assert len(switching) <= 1

    @invariant()
    def an_attempt_and_the_phase_agree(self) -> None:
        bench = self.bench
        under_way = bench.machine.attempt is not None
        assert under_way or bench.phase is not FencePhase.RUNNING
        assert under_way == (bench.machine.stage is not Stage.AT_REST)

    @invariant()
    def no_off_before_the_tokens_are_home_and_the_link_is_down(self) -> None:
        new, self.seen = self.bench.did[self.seen :], len(self.bench.did)
        for index, action in enumerate(new):
            if isinstance(action, steps.Do) and isinstance(action.work, steps.SwitchOff):
                assert isinstance(new[index - 1], steps.StandDown)
                assert self.home
            match action:
                case steps.Do(_, steps.GatherTokens()):
                    self.home = True  # no off in the same step: it is told that they are home
                case steps.Resume():
                    self.home = False

    home = False

    def teardown(self) -> None:
        """When everything that is under way ends well, every command has its answer."""
        bench = self.bench
        for _ in range(200):
            left = [run for run in bench.works if run in bench.stopping]
            left = left or [r for r, w in bench.works.items() if not isinstance(w, steps.Listen)]
            if bench.machine.attempt is None and len(bench.answers) == bench.tickets:
                break
            assert left, "the machine waits for nothing"
            run = left[0]
            if run in bench.stopping:
                bench.stopping.discard(run)
                del bench.works[run]
                bench.feed(steps.Stopped(run))
            else:
                bench.feed(bench.result(run))
        assert set(bench.answers) == set(range(1, bench.tickets + 1))
        assert bench.phase is not FencePhase.RUNNING


TestNoOrderOfEvents = NoOrderOfEventsBreaksAFence.TestCase


# --- on_loss: reboot ----------------------------------------------------------------------------


def rebooting() -> Bench:
    """h1 was fenced by itself, and is to be powered on again."""
    bench = Bench(on_loss={"h1": LossPolicy.REBOOT})
    bench.reach(Stage.SETTLING)
    bench.end(steps.Write)
    bench.works = {
        run: work for run, work in bench.works.items() if not isinstance(work, steps.Listen)
    }
    bench.stopping.clear()
    return bench


def test_a_host_is_powered_on_once_nothing_rests_on_its_being_off() -> None:
    bench = rebooting()
    bench.at.power_proof.verified_at = bench.world.now
    assert bench.end(steps.Sleep) == ["Sleep"]  # a start may still rest on it
    bench.world.now += 60.0
    assert bench.end(steps.Sleep) == ["Learnt", "SwitchOn"]
    assert bench.at.power_proof is None
    assert bench.end(steps.SwitchOn, way=1) == ["Tell", "Sleep"]
    assert bench.end(steps.Sleep) == ["Learnt", "SwitchOn"]
    assert bench.end(steps.SwitchOn) == ["Write"]
    assert bench.end(steps.Write) == []


def test_an_off_waits_for_the_end_of_an_on() -> None:
    bench = rebooting()
    bench.world.now += 60.0
    bench.end(steps.Sleep)
    bench.begin(Kind.COMMAND)
    bench.end(steps.Write)
    assert bench.end(steps.GatherTokens) == []
    assert bench.machine.stage is Stage.QUEUED
    assert bench.end(steps.SwitchOn) == ["Write"]
    assert bench.end(steps.Write) == ["StandDown", "SwitchOff"]


def test_an_on_waits_for_the_end_of_an_off_that_is_being_killed() -> None:
    bench = rebooting()
    bench.world.now += 60.0
    bench.end(steps.Sleep)
    bench.end(steps.SwitchOn, way=1)
    bench.reach(Stage.SWITCHING, Kind.COMMAND)
    bench.cancel()
    bench.end(steps.Write)
    assert bench.machine.stage is Stage.ENDING
    assert bench.end(steps.Sleep) == ["Sleep"]
    bench.killed()
    assert bench.end(steps.Sleep) == ["Learnt", "SwitchOn"]


def test_a_host_that_answered_is_not_powered_on() -> None:
    bench = rebooting()
    bench.world.now += 60.0
    bench.world.up("h1")
    assert bench.end(steps.Sleep) == []


def test_a_host_that_answered_between_two_tries_is_not_powered_on_again() -> None:
    """One device failed, and the other one switched it on. Then somebody switched it off."""
    bench = rebooting()
    bench.world.now += 60.0
    bench.end(steps.Sleep)
    assert bench.end(steps.SwitchOn, way=1) == ["Tell", "Sleep"]
    bench.world.up("h1")
    bench.world.lose("h1")
    assert bench.end(steps.Sleep) == []


def test_the_power_on_refuses_an_event_that_makes_no_sense() -> None:
    bench = rebooting()
    [run] = bench.works
    assert isinstance(bench.works[run], steps.Sleep)
    with pytest.raises(InvariantError, match=reboot.Stage.OWED.value):
        bench.feed(steps.Written(run))
