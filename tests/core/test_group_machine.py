"""One group on one host: what is started, stopped and monitored, in which order; when it leaves."""

from __future__ import annotations

from typing import Any

import pytest

from halo.core.cluster.group_state import MakingRoom
from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.groups.actions import Left, Report, ReportMoved, ReportRestarted, ReportStartFailure
from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind
from halo.core.model import Operation, ResourceGroup, StartFailurePolicy
from halo.core.outcomes import OperationResult
from halo.core.reasons import Reason, host_capacity, unproven

from .builders import (
    ERROR,
    GENERIC_ERROR,
    NOT_RUN,
    NOT_RUNNING,
    OK,
    RUNNING,
    STOPPED,
    TIMED_OUT,
    World,
    exit_code,
    make_group,
)
from .machine import Driver

PAIR = {"g": ["x"], "x": []}
CHAIN = {"g": ["x"], "x": ["y"], "y": []}
TREE = {"g": ["a", "b"], "a": ["a1", "a2"], "b": [], "a1": [], "a2": []}
DIAMOND = {"g": ["a", "b"], "a": ["z"], "b": ["z"], "z": []}


def stopped(
    tree: dict[str, list[str]], hosts: tuple[str, ...] = ("h1", "h2"), **options: Any
) -> Driver:
    """All stopped on all hosts, token just arrived at h1."""
    world = World(make_group("g", hosts, tree, **options))
    world.up(*hosts)
    return Driver(world)


def running(
    tree: dict[str, list[str]], hosts: tuple[str, ...] = ("h1", "h2"), **options: Any
) -> Driver:
    """All running on h1, managed there."""
    world = World(make_group("g", hosts, tree, **options))
    world.up(*hosts)
    world.see("g", "h1", RUNNING)
    driver = Driver(world)
    driver.is_up(*world.group().by_id)
    assert driver.step() == []
    return driver


def monitors_say(driver: Driver, **found: OperationResult) -> list[str]:
    """A monitor period passes; these resources answer otherwise than running, first of all."""
    asked = driver.pass_time(5.0)
    assert sorted(asked) == [f"monitor {name}" for name in sorted(driver.machine.resources)]
    after: list[str] = []
    for name in [*found, *(n for n in driver.machine.resources if n not in found)]:
        after += driver.answer(f"monitor {name}", found.get(name, OK))
    return after


# --- starting ---------------------------------------------------------------------------------


def test_a_chain_starts_parent_by_parent() -> None:
    driver = stopped(CHAIN)
    assert driver.step() == ["start g"]
    assert driver.step() == []
    assert driver.answer("start g") == ["start x"]
    assert driver.answer("start x") == ["start y"]
    assert driver.answer("start y") == []
    assert driver.told == []


def test_siblings_start_side_by_side() -> None:
    driver = stopped(TREE)
    assert driver.step() == ["start g"]
    assert driver.answer("start g") == ["start a", "start b"]
    assert driver.answer("start a") == ["start a1", "start a2"]
    assert driver.answer("start a2") == []
    assert driver.running == ["start b", "start a1"]


def test_the_foot_of_a_diamond_waits_for_both_its_parents() -> None:
    driver = stopped(DIAMOND)
    driver.step()
    assert driver.answer("start g") == ["start a", "start b"]
    assert driver.answer("start a") == []
    assert driver.answer("start b") == ["start z"]


def test_what_is_running_already_is_adopted_without_a_word() -> None:
    assert running(TREE).settle() == []


def test_what_was_not_seen_over_this_connection_is_looked_at_first() -> None:
    world = World(make_group(tree=PAIR))
    world.up("h2")
    world.connect("h1")
    driver = Driver(world)
    assert driver.step() == ["monitor g", "monitor x"]
    assert driver.answer("monitor x", NOT_RUNNING) == []
    assert driver.answer("monitor g", OK) == ["start x"]


def test_a_missing_leaf_is_completed() -> None:
    driver = running(PAIR)
    driver.world.see("g", "h1", STOPPED, only=["x"], at=200.0)
    fresh = Driver(driver.world)
    assert fresh.settle() == ["start x"]


def test_a_leaf_that_runs_without_its_root_is_stopped_before_the_root_starts() -> None:
    world = World(make_group(tree=CHAIN))
    world.up("h1", "h2")
    world.see("g", "h1", RUNNING, only=["x", "y"])
    driver = Driver(world)
    driver.is_up("x", "y")
    assert driver.settle() == ["stop y", "stop x", "start g", "start x", "start y"]


def test_what_another_look_found_running_is_looked_at_and_not_started() -> None:
    driver = stopped(PAIR)
    driver.world.see("g", "h1", RUNNING, only=["g"], at=200.0)
    driver.is_up("g")
    assert driver.step() == ["monitor g"]
    assert driver.answer("monitor g") == ["start x"]


def test_the_dependents_of_what_another_look_found_running_stay_up() -> None:
    driver = running(CHAIN)
    driver.pass_time(5.0)
    driver.answer("monitor g", NOT_RUNNING)
    assert driver.running == ["monitor x", "monitor y"]
    driver.world.see("g", "h1", RUNNING, only=["g"], at=driver.world.now + 1.0)
    assert driver.answer("monitor y") == ["monitor g"]
    assert driver.answer("monitor x") == []
    assert driver.answer("monitor g") == []
    assert driver.machine.resources["g"].presence is RUNNING


def test_a_report_brings_nothing_back_that_a_monitor_found_stopped() -> None:
    """It may have been sampled before: the monitor that follows decides."""
    driver = running(PAIR)
    monitors_say(driver, g=NOT_RUNNING)
    assert driver.running == ["stop x"]
    assert driver.report("g", OK) == ["monitor g"]
    assert driver.answer("stop x") == ["monitor x"]
    assert driver.answer("monitor x", NOT_RUNNING) == []
    assert driver.answer("monitor g", NOT_RUNNING) == ["start g"]
    assert driver.answer("start g") == ["start x"]


@pytest.mark.parametrize("first", ["g", "x"])
def test_a_late_report_of_several_brings_nothing_back_either(first: str) -> None:
    """All of a batch is written down before the first of it is acted on."""
    driver = running(CHAIN)
    monitors_say(driver, g=NOT_RUNNING)
    assert driver.running == ["stop y"]
    driver.learn("x", OK)
    driver.learn("g", OK)
    for name in (first, "gx".replace(first, "")):
        driver.told_by_report(name, OK)
    assert driver.running == ["stop y", "monitor g"]
    driver.is_up("g", up=False)
    assert driver.answer("monitor g", NOT_RUNNING) in ([], ["monitor g"])
    assert driver.settle() == ["stop y", "stop x", "start g", "start x", "start y"]


def test_what_was_overtaken_while_the_group_waits_for_it_is_asked_for_at_once() -> None:
    driver = running(PAIR)
    monitors_say(driver, g=NOT_RUNNING)
    assert driver.pass_time(6.0) == ["monitor g"]
    assert driver.report("g", OK) == []
    assert driver.answer("monitor g", NOT_RUNNING) == ["monitor g"]


def test_a_crash_that_another_look_disproves_is_no_crash() -> None:
    driver = running(PAIR)
    for _ in range(7):  # more often than a resource may be restarted
        monitors_say(driver, x=NOT_RUNNING)
        assert driver.running == ["start x"]
        assert driver.withdraw("start x") == ["monitor x"]
        assert driver.answer("monitor x") == []
    assert driver.told == []


def test_a_start_that_was_withdrawn_is_followed_by_a_look() -> None:
    driver = stopped(PAIR)
    assert driver.step() == ["start g"]
    assert driver.withdraw("start g") == ["monitor g"]
    assert driver.answer("monitor g", NOT_RUNNING) == ["start g"]


def test_a_resource_of_unknown_state_is_never_started() -> None:
    world = World(make_group(tree=PAIR))
    world.connect("h1")
    driver = Driver(world)
    driver.step()
    driver.answer("monitor g", TIMED_OUT)
    driver.answer("monitor x", NOT_RUNNING)
    assert driver.pass_time(5.0) == ["monitor g", "monitor x"]


# --- monitoring -------------------------------------------------------------------------------


def test_it_monitors_by_its_period_and_tells_when_the_next_is_due() -> None:
    driver = running(PAIR)
    first = driver.machine.next_due()  # at a moment of the group's own, so that many are spread
    assert first is not None
    assert 100.0 < first <= 105.0
    assert driver.pass_time(first - 100.0 - 0.01) == []
    assert driver.pass_time(0.02) == ["monitor g", "monitor x"]
    driver.world.now = 106.0
    driver.answer("monitor g")
    assert driver.machine.next_due() == 111.0
    assert driver.pass_time(20.0) == ["monitor g"]  # x is still being monitored


@pytest.mark.parametrize("code", [0, 8, 190, 191])
def test_a_degraded_or_promoted_resource_runs(code: int) -> None:
    driver = running(PAIR)
    assert monitors_say(driver, x=exit_code(code, "one disk missing")) == []
    assert driver.machine.resources["x"].presence is RUNNING


# --- crashes ----------------------------------------------------------------------------------


def test_a_crashed_leaf_is_restarted_alone() -> None:
    driver = running(CHAIN)
    assert monitors_say(driver, y=NOT_RUNNING) == ["start y"]
    assert driver.told == []
    driver.answer("start y")
    text = "y was started again on h1: it had stopped by itself"
    assert driver.told == [ReportRestarted(text, "y")]


@pytest.mark.parametrize(
    ("tree", "crashed", "expected"),
    [
        (CHAIN, "x", ["stop y", "start x", "start y"]),
        (CHAIN, "g", ["stop y", "stop x", "start g", "start x", "start y"]),
        (
            TREE,
            "g",
            [
                *["stop b", "stop a1", "stop a2", "stop a"],
                *["start g", "start a", "start b", "start a1", "start a2"],
            ],
        ),
        (TREE, "a", ["stop a1", "stop a2", "start a", "start a1", "start a2"]),
        (DIAMOND, "a", ["stop z", "start a", "start z"]),
    ],
)
def test_the_dependents_of_a_crashed_parent_stop_first_leaves_first(
    tree: dict[str, list[str]], crashed: str, expected: list[str]
) -> None:
    driver = running(tree)
    driver.is_up(crashed, up=False)
    driver.world.now += 5.0
    asked = driver.settle()
    assert sorted(asked) == sorted(expected)
    assert order_is_right(driver.group, asked)


def order_is_right(group: ResourceGroup, asked: list[str]) -> bool:
    """No stop before a dependent's stop, no start before a parent's start."""
    for resource in group.resources:
        for dependent in group.dependents_of(resource):
            for verb, first, then in (
                ("stop", dependent, resource),
                ("start", resource, dependent),
            ):
                if {f"{verb} {first.id}", f"{verb} {then.id}"} <= set(asked) and asked.index(
                    f"{verb} {first.id}"
                ) > asked.index(f"{verb} {then.id}"):
                    return False
    return True


def test_one_bad_monitor_is_no_reason_for_a_restart_two_in_a_row_are() -> None:
    driver = running(CHAIN)
    assert monitors_say(driver, x=GENERIC_ERROR) == []
    assert monitors_say(driver, x=OK) == []
    assert monitors_say(driver, x=GENERIC_ERROR) == []
    assert monitors_say(driver, x=GENERIC_ERROR) == ["stop y"]
    driver.is_up("x", "g")
    assert driver.settle() == ["stop y", "stop x", "start x", "start y"]
    # Of y, which was stopped for its sake, nothing is told.
    assert driver.words == (
        "x was started again on h1: its monitor failed 2 times in a row: "
        "generic error (exit 1): it does not work"
    )


def test_a_restart_that_fails_is_told_as_a_failed_start_alone() -> None:
    driver = running(CHAIN, on_start_failure=StartFailurePolicy.STAY)
    monitors_say(driver, y=NOT_RUNNING)
    driver.answer("start y", GENERIC_ERROR)
    assert [type(action) for action in driver.told] == [ReportStartFailure]


def test_what_was_started_as_it_was_told_to_is_no_restart() -> None:
    driver = stopped(CHAIN)
    assert driver.settle() == ["start g", "start x", "start y"]
    assert driver.told == []


def test_a_monitor_that_times_out_is_an_error_and_monitoring_goes_on() -> None:
    driver = running(PAIR)
    for result in (TIMED_OUT, NOT_RUN, TIMED_OUT):
        assert monitors_say(driver, x=result) == []
        assert driver.machine.resources["x"].presence is Presence.ERROR
    assert monitors_say(driver, x=OK) == []
    assert driver.machine.resources["x"].presence is RUNNING
    assert driver.told == []


def crash(driver: Driver, name: str = "g") -> list[str]:
    asked = monitors_say(driver, **{name: NOT_RUNNING})
    if f"start {name}" in asked:
        driver.answer(f"start {name}")
    return asked


def test_five_restarts_in_ten_minutes_are_an_error() -> None:
    driver = running({"g": []})
    for _ in range(5):
        assert crash(driver) == ["start g"]
    assert crash(driver) == []
    *restarts, report = driver.told
    assert [type(restart) for restart in restarts] == [ReportRestarted] * 5
    assert isinstance(report, Report)
    assert report.kind is ErrorKind.RESTART_LIMIT
    assert "g was restarted 5 times within 600 s on h1" in report.text
    assert driver.left is None
    assert monitors_say(driver, g=NOT_RUNNING) == []  # left alone, and looked at


def test_restarts_of_long_ago_do_not_count() -> None:
    driver = running({"g": []})
    for _ in range(12):
        driver.world.now += 145.0
        assert crash(driver) == ["start g"]
    assert not any(isinstance(action, Report) for action in driver.told)


def test_a_resource_that_hangs_before_it_dies_counts_as_crashed() -> None:
    driver = running({"g": []})
    for _ in range(5):
        monitors_say(driver, g=TIMED_OUT)
        assert crash(driver) == ["start g"]
    monitors_say(driver, g=TIMED_OUT)
    assert crash(driver) == []
    assert "restarted 5 times" in driver.words


@pytest.mark.parametrize("tree", [{"g": []}, PAIR, CHAIN])
def test_monitors_that_are_broken_for_good_do_not_stop_their_resources_for_ever(
    tree: dict[str, list[str]],
) -> None:
    driver = running(tree)
    asked = []
    for _ in range(200):
        driver.pass_time(5.0)
        asked += driver.settle(lambda what: GENERIC_ERROR if "monitor" in what else OK)
    assert all(asked.count(f"stop {name}") <= 6 for name in tree)
    assert all(asked.count(f"start {name}") <= 6 for name in tree)
    assert any(isinstance(action, Report) for action in driver.told)


# --- failed starts ----------------------------------------------------------------------------


@pytest.mark.parametrize("result", [GENERIC_ERROR, TIMED_OUT, NOT_RUN, NOT_RUNNING, exit_code(8)])
def test_a_failed_start_is_proven_stopped_here_and_the_next_candidate_tried(
    result: OperationResult,
) -> None:
    driver = stopped(PAIR)
    driver.step()
    driver.answer("start g")
    driver.is_up("g")
    assert driver.answer("start x", result) == ["stop x"]
    [failure] = driver.told
    assert isinstance(failure, ReportStartFailure)
    assert "start of x on h1" in failure.text
    assert driver.settle() == ["stop x", "stop g"]
    assert driver.left is not None
    assert driver.left.why is Left.START_FAILED
    assert driver.left.detail == failure.text


def test_on_the_last_candidate_what_runs_is_left_running() -> None:
    driver = stopped({"g": ["x", "z"], "x": [], "z": []}, hosts=("h1",))
    driver.step()
    driver.answer("start g")
    assert driver.answer("start x", GENERIC_ERROR) == ["stop x"]
    driver.is_up("g")
    assert driver.settle() == ["start z", "stop x"]
    assert driver.left is None
    assert driver.machine.resources["g"].presence is RUNNING
    assert driver.machine.resources["z"].presence is RUNNING
    assert driver.machine.resources["x"].failed == driver.words


def test_a_root_that_cannot_start_on_the_last_candidate_goes_home() -> None:
    driver = stopped(PAIR, hosts=("h1",))
    driver.step()
    driver.answer("start g", GENERIC_ERROR)
    assert driver.settle() == ["stop g"]
    assert driver.left is not None
    assert driver.left.why is Left.START_FAILED


def test_policy_stay_leaves_running_what_runs() -> None:
    driver = stopped(PAIR, on_start_failure=StartFailurePolicy.STAY)
    driver.step()
    driver.answer("start g")
    driver.is_up("g")
    driver.answer("start x", GENERIC_ERROR)
    assert driver.settle() == ["stop x"]
    assert driver.left is None
    assert driver.machine.resources["g"].presence is RUNNING


def test_a_start_that_fails_after_the_connection_is_gone_is_not_held_against_the_host() -> None:
    driver = stopped(PAIR)
    driver.step()
    driver.machine.revoke("the host is lost")
    driver.answer("start g", TIMED_OUT)
    assert driver.told == []
    assert driver.left is not None
    assert driver.left.why is Left.REVOKED


# --- stopping ---------------------------------------------------------------------------------


def command_stop(driver: Driver) -> None:
    driver.world.journal(Event.STOP, "g")


def test_a_group_stops_leaves_first_and_leaves_when_monitors_say_so() -> None:
    driver = running(DIAMOND)
    command_stop(driver)
    assert driver.step() == ["stop z"]
    assert driver.answer("stop z") == ["monitor z"]
    assert driver.answer("monitor z", NOT_RUNNING) == ["stop b", "stop a"]
    assert driver.answer("stop a") == ["monitor a"]
    assert driver.answer("monitor a", NOT_RUNNING) == []
    assert driver.answer("stop b") == ["monitor b"]
    assert driver.answer("monitor b", NOT_RUNNING) == ["stop g"]
    driver.answer("stop g")
    assert driver.left is None
    driver.answer("monitor g", NOT_RUNNING)
    assert driver.left is not None
    assert driver.left.why is Left.STOPPED
    assert driver.left.detail == "stopped by the administrator"


def test_a_stop_commanded_while_monitors_are_on_their_way_begins_with_their_answers() -> None:
    driver = running(PAIR)
    assert driver.pass_time(5.0) == ["monitor g", "monitor x"]
    driver.world.journal(Event.STOP, "g")
    assert driver.step() == []
    assert driver.answer("monitor g") == []
    assert driver.answer("monitor x") == ["stop x"]


def test_a_stop_that_reports_not_running_is_a_stop() -> None:
    driver = running({"g": []})
    command_stop(driver)
    driver.step()
    assert driver.answer("stop g", NOT_RUNNING) == ["monitor g"]


@pytest.mark.parametrize("result", [GENERIC_ERROR, TIMED_OUT, NOT_RUN])
def test_a_stop_that_fails_is_an_error_and_the_group_stays(result: OperationResult) -> None:
    driver = running(CHAIN)
    driver.world.journal(Event.MOVE, "g", to="h2")
    assert driver.step() == ["stop y"]
    driver.is_up("y", up=False)
    driver.answer("stop y")
    assert driver.answer("monitor y", NOT_RUNNING) == ["stop x"]
    driver.answer("stop x", result)
    [report] = driver.told
    assert isinstance(report, Report)
    assert report.kind is ErrorKind.STOP_FAILED
    assert "stop of x on h1" in report.text
    assert driver.settle() == ["start y"]  # what was stopped on the way is started again
    assert driver.left is None


def test_a_stop_that_reports_success_while_it_still_runs_is_a_failed_stop() -> None:
    driver = running(PAIR)
    driver.world.journal(Event.MOVE, "g", to="h2")
    driver.step()
    assert "monitor x" in driver.answer("stop x")
    driver.answer("monitor x", OK)
    assert "stop reported success, but the resource still runs" in driver.words
    assert driver.machine.resources["x"].presence is RUNNING


def test_after_a_failed_stop_nothing_moves_until_cleanup() -> None:
    driver = running(PAIR)
    driver.world.journal(Event.MOVE, "g", to="h2")
    driver.step()
    driver.answer("stop x", GENERIC_ERROR)
    driver.settle()
    driver.world.journal(Event.MOVE, "g", to="h2")
    driver.settle()
    assert driver.machine.in_flight == []
    assert driver.left is None


# --- moving -----------------------------------------------------------------------------------


def test_a_move_stops_here_and_goes_home() -> None:
    driver = running(PAIR)
    driver.world.journal(Event.MOVE, "g", to="h2")
    assert driver.settle() == ["stop x", "stop g"]
    assert driver.left is not None
    assert driver.left.detail == "moving to h2"
    assert driver.left.why is Left.MOVING


def test_a_group_that_never_ran_here_is_not_moving() -> None:
    """It has its turn no earlier elsewhere."""
    driver = stopped(PAIR)
    driver.world.journal(Event.MOVE, "g", to="h2")
    assert driver.settle() == []
    assert driver.left is not None
    assert driver.left.why is Left.STOPPED


def test_a_move_whose_target_is_gone_is_turned_around() -> None:
    driver = running(PAIR)
    driver.world.journal(Event.MOVE, "g", to="h2")
    assert driver.step() == ["stop x"]
    assert driver.world.state.groups["g"].departing
    driver.is_up("x", up=False)
    driver.world.disconnect("h2")
    driver.answer("stop x")
    assert driver.settle() == ["start x"]
    assert driver.left is None
    assert not driver.world.state.groups["g"].departing


def gives_way() -> Driver:
    """g runs on h1, and has to make room there for another group."""
    other = make_group("other", ["h1"], priority=2, preempt=True)
    world = World(make_group("g", ("h1", "h2"), PAIR), other)
    world.up("h1", "h2")
    world.see("g", "h1", RUNNING)
    driver = Driver(world)
    driver.is_up("g", "x")
    assert driver.step() == []
    waits_for(world, "other", host_capacity("other", {"h1": "it is full"}))
    world.state.make_room("other", MakingRoom("h1", ("g",), world.now))
    return driver


def waits_for(world: World, name: str, reason: Reason) -> None:
    world.state.groups[name].decided(reason.text, reason, world.now, failed=False)


def test_a_group_that_gives_way_stops_and_is_not_on_its_way_to_another_host() -> None:
    driver = gives_way()
    assert driver.step() == ["stop x"]
    at = driver.world.state.groups["g"]
    assert (at.departing, at.stop_begun) == (False, True)
    driver.answer("stop x")
    assert driver.settle(lambda what: NOT_RUNNING if "monitor" in what else OK) == ["stop g"]
    assert driver.left is not None
    assert driver.left.detail == "gives way to other, which has priority 2"
    assert driver.left.why is Left.STOPPED


def test_a_group_that_need_not_give_way_any_more_is_completed_in_place() -> None:
    driver = gives_way()
    assert driver.step() == ["stop x"]
    driver.is_up("x", up=False)
    driver.world.state.make_room("other", None)
    driver.answer("stop x")
    assert driver.settle() == ["start x"]
    assert driver.left is None
    assert not driver.world.state.groups["g"].stop_begun


def test_a_group_does_not_begin_to_give_way_while_the_other_one_lacks_proof() -> None:
    driver = gives_way()
    waits_for(driver.world, "other", unproven("other", "no proof", {"h2": "no proof"}))
    assert driver.step() == []
    waits_for(driver.world, "other", host_capacity("other", {"h1": "it is full"}))
    assert driver.step() == ["stop x"]
    waits_for(driver.world, "other", unproven("other", "no proof", {"h2": "no proof"}))
    driver.is_up("x", up=False)
    driver.answer("stop x")
    assert driver.settle() == ["stop g"]


def test_a_group_that_need_not_give_way_before_it_has_begun_to_is_left_alone() -> None:
    driver = gives_way()
    driver.world.state.make_room("other", None)
    assert driver.settle() == []
    assert driver.left is None


def test_a_group_whose_stop_fails_does_not_give_way() -> None:
    driver = gives_way()
    driver.step()
    driver.answer("stop x", GENERIC_ERROR)
    assert driver.settle() == []
    assert driver.left is None
    assert driver.words == "stop of x on h1: generic error (exit 1): it does not work"
    driver.world.state.make_room("other", None)
    assert driver.world.state.groups["other"].resisted == "g"


def test_the_target_says_when_everything_runs() -> None:
    driver = stopped(PAIR)
    driver.world.journal(Event.MOVE, "g", to="h1")
    driver.step()
    driver.answer("start g")
    assert driver.told == []
    driver.answer("start x")
    assert driver.told == [ReportMoved()]


def test_a_deactivated_host_is_left_as_soon_as_another_can_take_over() -> None:
    driver = running(PAIR)
    driver.world.disconnect("h2")
    driver.world.journal(Event.DEACTIVATE, "h1")
    assert driver.step() == []
    driver.world.up("h2")
    assert driver.settle() == ["stop x", "stop g"]
    assert driver.left is not None


@pytest.mark.parametrize("why", ["a move", "a deactivated host"])
def test_a_departure_is_not_begun_while_its_partner_cannot_be_proven_stopped(why: str) -> None:
    driver = running(PAIR)
    driver.world.see("g", "h2", ERROR, reason="hangs")
    order_away(driver, why)
    assert driver.step() == []
    driver.world.see("g", "h2", STOPPED)
    assert driver.settle() == ["stop x", "stop g"]
    assert driver.left is not None


@pytest.mark.parametrize("why", ["a move", "a deactivated host"])
def test_a_departure_that_is_begun_minds_no_monitor_that_fails(why: str) -> None:
    driver = running(CHAIN)
    order_away(driver, why)
    assert driver.step() == ["stop y"]
    driver.is_up("y", up=False)
    driver.world.see("g", "h2", ERROR, reason="hangs now and then")
    driver.answer("stop y")
    assert driver.settle() == ["stop x", "stop g"]
    assert driver.left is not None


def order_away(driver: Driver, why: str) -> None:
    if why == "a move":
        driver.world.journal(Event.MOVE, "g", to="h2")
    else:
        driver.world.journal(Event.DEACTIVATE, "h1")


def test_a_start_that_failed_is_tried_elsewhere_though_a_monitor_failed_there_just_now() -> None:
    driver = stopped(PAIR)
    driver.step()
    driver.answer("start g")
    driver.world.see("g", "h2", ERROR, reason="timed out once")
    driver.answer("start x", GENERIC_ERROR)
    driver.settle()
    assert driver.left is not None
    assert driver.left.why is Left.START_FAILED


# --- left alone, revoked, interrupted ---------------------------------------------------------


@pytest.mark.parametrize("hold", ["unmanage", "freeze", "second copy"])
def test_a_held_group_is_looked_at_and_nothing_else(hold: str) -> None:
    driver = running(CHAIN)
    world = driver.world
    if hold == "unmanage":
        world.unmanage("g")
    elif hold == "freeze":
        world.journal(Event.FREEZE, "test")
    else:
        world.error("g", ErrorKind.SECOND_COPY)
    command_stop(driver)
    for result in (NOT_RUNNING, GENERIC_ERROR, GENERIC_ERROR, TIMED_OUT):
        assert monitors_say(driver, g=result, x=result, y=result) == []
    assert driver.told == []
    assert driver.left is None


def test_a_copy_seen_elsewhere_holds_it_until_one_is_gone() -> None:
    driver = running(PAIR)
    driver.world.see("g", "h2", RUNNING, only=["x"])
    assert monitors_say(driver, x=NOT_RUNNING) == []
    driver.world.see("g", "h2", STOPPED, at=110.0)
    assert driver.step() == ["start x"]


def test_observe_mode_looks_and_does_nothing() -> None:
    world = World(make_group(tree=PAIR), observe_only=True)
    world.up("h1", "h2")
    driver = Driver(world)
    assert driver.step() == []
    assert driver.pass_time(5.0) == ["monitor g", "monitor x"]
    driver.answer("monitor g", NOT_RUNNING)
    assert driver.answer("monitor x", NOT_RUNNING) == []


def test_a_start_in_flight_ends_and_nothing_follows_it_when_the_group_is_unmanaged() -> None:
    driver = stopped(PAIR)
    driver.step()
    assert driver.machine.in_flight == ["start of g on h1"]
    driver.world.unmanage("g")
    assert driver.answer("start g") == []


def test_a_revoked_task_leaves_when_what_is_in_flight_has_ended() -> None:
    driver = stopped({"g": ["a", "b"], "a": [], "b": []})
    driver.step()
    driver.answer("start g")
    driver.machine.revoke("recalled")
    driver.machine.revoke("recalled again")
    assert driver.step() == []
    assert driver.answer("start a") == []
    assert driver.left is None
    assert driver.machine.next_due() is None
    assert driver.answer("start b") == []
    assert driver.left is not None
    assert [driver.left.why, driver.left.detail] == [Left.REVOKED, "recalled"]
    assert driver.step() == []


def test_a_lost_connection_ends_it_when_the_last_operation_is_interrupted() -> None:
    driver = stopped({"g": ["a", "b"], "a": [], "b": []})
    driver.step()
    driver.answer("start g")
    assert driver.interrupt("start a") == []
    assert driver.left is None
    assert driver.interrupt("start b") == []
    assert driver.left is not None
    assert driver.left.why is Left.REVOKED


def test_a_start_without_proof_takes_down_what_runs_and_goes_home() -> None:
    world = World(make_group(tree=PAIR))
    world.up("h1", "h2")
    world.see("g", "h1", RUNNING, only=["x"])
    driver = Driver(world)
    driver.is_up("x")
    driver.step()
    driver.answer("stop x")
    driver.answer("monitor x", NOT_RUNNING)
    assert driver.running == ["start g"]
    driver.refuse("start g")
    assert driver.left is not None
    assert driver.left.why is Left.NO_PROOF


def test_a_start_refused_because_the_group_is_held_waits_for_the_hold_to_end() -> None:
    driver = stopped(PAIR)
    driver.step()
    driver.world.unmanage("g")
    assert driver.refuse("start g") == []
    assert driver.left is None
    driver.world.journal(Event.MANAGE, "g")
    assert driver.step() == ["start g"]


def test_a_gained_service_that_may_run_elsewhere_waits_and_what_runs_here_goes_on() -> None:
    driver = running(CHAIN)
    driver.world.state.remembered.group("g").former = {"h2": "k"}
    driver.is_up("y", up=False)
    assert monitors_say(driver, y=NOT_RUNNING) == []
    assert (driver.step(), driver.running, driver.left) == ([], [], None)
    assert sorted(driver.pass_time(5.0)) == ["monitor g", "monitor x", "monitor y"]
    for name in ("g", "x"):
        driver.answer(f"monitor {name}")
    assert driver.answer("monitor y", NOT_RUNNING) == []
    driver.world.journal(Event.SEEN_STOPPED, "c", on={"g": ["h2"]})
    assert driver.step() == ["start y"]


# --- it never spins ---------------------------------------------------------------------------


def test_a_long_stop_of_a_leaf_does_not_make_its_parent_spin() -> None:
    driver = running(PAIR)
    driver.is_up("g", up=False)
    assert "stop x" in monitors_say(driver, g=NOT_RUNNING)
    driver.world.now += 30.0
    if "monitor x" in driver.running:
        driver.answer("monitor x")
    for _ in range(10):
        asked = driver.pass_time(0.0)
        due = driver.machine.next_due()
        assert asked or due is None or due > driver.world.now
        for what in asked:
            driver.answer(what, NOT_RUNNING)


# --- shared resources -------------------------------------------------------------------------


def two_groups() -> World:
    """g and f each need the shared `net` on their host; both run on h1."""
    world = World(
        make_group("g", tree={"g": ["net"], "net": []}, shared=["net"]),
        make_group("f", tree={"f": ["net"], "net": []}, shared=["net"]),
    )
    world.up("h1", "h2")
    world.see("g", "h1", RUNNING)
    world.see("f", "h1", RUNNING)
    return world


def test_a_shared_resource_is_left_running_while_another_group_needs_it() -> None:
    world = two_groups()
    g, f = Driver(world, "g"), Driver(world, "f")
    g.is_up("g", "net")
    f.is_up("f", "net")
    world.journal(Event.STOP, "g")
    assert g.settle() == ["stop g"]
    assert g.left is not None
    world.journal(Event.STOP, "f")
    assert f.settle() == ["stop net", "stop f"]


def test_a_shared_resource_is_stopped_if_the_other_group_is_found_elsewhere_meanwhile() -> None:
    world = World(
        make_group("g", tree={"g": ["net", "x"], "net": [], "x": []}, shared=["net"]),
        make_group("f", tree={"f": ["net"], "net": []}, shared=["net"]),
    )
    world.up("h1", "h2")
    world.see("g", "h1", RUNNING)
    g = Driver(world, "g")
    g.is_up("g", "net", "x")
    world.state.needs.need("net", "h1", "f")  # of a task that lost sight of it
    world.see("f", "h1", STOPPED, only=["f"])
    world.journal(Event.STOP, "g")
    assert g.step() == ["stop x"]
    world.state.needs.drop_group("f", "h1")  # it starts on h2
    assert g.answer("stop x") == ["monitor x", "stop net"]
    assert g.answer("monitor x", NOT_RUNNING) == []
    g.answer("stop net")
    assert g.answer("monitor net", NOT_RUNNING) == ["stop g"]


@pytest.mark.parametrize("runs", [True, False])
def test_a_shared_resource_is_not_stopped_before_the_other_group_was_looked_at(runs: bool) -> None:
    """A manager that has just started finds g first; the first monitor of f is under way."""
    world = two_groups()
    world.state.knowledge.drop_group(world.group("f"), "not probed yet", now=world.now)
    world.see("g", "h1", RUNNING)
    world.journal(Event.STOP, "g")
    g = Driver(world, "g")
    assert g.step() == []
    due = g.machine.next_due()
    assert due is not None
    assert due <= world.now + 1.0
    world.see("f", "h1", RUNNING if runs else STOPPED, only=["f"])
    assert g.settle() == (["stop g"] if runs else ["stop net", "stop g"])
    assert g.left is not None


def test_a_start_waits_for_another_groups_stop_of_a_shared_resource() -> None:
    world = two_groups()
    f = Driver(world, "f")
    f.is_up("f", "net")
    world.journal(Event.STOP, "f")
    world.see("g", "h1", STOPPED, only=["g"])
    assert f.step() == ["stop net"]
    g = Driver(world, "g")
    assert g.step() == []
    due = g.machine.next_due()
    assert due is not None
    assert due > world.now
    f.answer("stop net")
    assert g.step() == ["monitor net"]
    assert g.answer("monitor net", NOT_RUNNING) == ["start g"]
    assert g.answer("start g") == ["start net"]


def test_a_crash_of_one_groups_root_leaves_what_another_group_shares() -> None:
    world = two_groups()
    g, f = Driver(world, "g"), Driver(world, "f")
    f.is_up("f", "net")
    g.is_up("net")
    world.now += 5.0
    assert g.settle() == ["start g"]
    assert f.settle() == []


def test_a_group_that_is_found_where_it_must_leave_needs_what_it_shares_until_it_has_left() -> None:
    world = two_groups()
    world.journal(Event.DEACTIVATE, "h1")
    g, f = Driver(world, "g"), Driver(world, "f")
    world.journal(Event.ACTIVATE, "h1")  # before the first step of g
    world.journal(Event.STOP, "f")
    assert f.settle() == ["stop f"]
    assert g.settle() == []


def test_a_shared_resource_of_one_group_alone_is_restarted_like_any_other() -> None:
    driver = running({"g": ["net"], "net": []}, shared=["net"])
    driver.is_up("g", up=False)
    driver.world.now += 5.0
    assert driver.settle() == ["stop net", "start g", "start net"]
    assert not driver.world.state.needs.is_stopping("net", "h1")


def test_a_stop_of_a_shared_resource_that_is_cut_off_does_not_block_it_for_ever() -> None:
    driver = running({"g": ["net"], "net": []}, shared=["net"])
    command_stop(driver)
    assert driver.step() == ["stop net"]
    driver.interrupt("stop net")
    assert driver.left is not None
    driver.world.disconnect("h1")
    driver.world.journal(Event.START, "g")
    driver.world.up("h1")
    fresh = Driver(driver.world)
    assert fresh.settle() == ["start g", "start net"]


def test_while_a_fence_command_waits_for_the_disk_nothing_is_started_or_stopped() -> None:
    """It may end in "nothing was changed": what else of the group runs must not be stopped."""
    driver = running(PAIR)
    driver.pass_time(5.0)
    at = driver.world.state.hosts["h1"]
    at.fence_phase = FencePhase.RUNNING
    driver.is_up("x", up=False)
    assert driver.answer("monitor g") == []
    assert driver.answer("monitor x", NOT_RUNNING) == []
    assert driver.step() == []
    at.fence_phase = FencePhase.IDLE
    assert driver.step() == ["monitor x"]  # what was answered meanwhile was not written down
    assert driver.answer("monitor x", NOT_RUNNING) == ["start x"]


# --- its start, for which others wait -------------------------------------------------------------


def test_a_start_is_over_although_resources_in_error_are_monitored_for_ever() -> None:
    world = World(make_group(tree=PAIR))
    world.up("h1", "h2")
    driver = Driver(world)
    driver.step()
    driver.answer("start g")
    assert driver.machine.is_starting
    driver.answer("start x")
    assert not driver.machine.is_starting
    for state in driver.machine.resources.values():
        state.busy, state.presence = Operation.MONITOR, Presence.ERROR
    assert not driver.machine.is_starting
    for state in driver.machine.resources.values():
        state.presence, state.failed = Presence.UNKNOWN, "its stop failed"
    assert not driver.machine.is_starting
    state.failed = None  # the first look at a resource that may be started next
    assert driver.machine.is_starting
