"""Room on a host: what counts, what is free, and for whom it is kept."""

from __future__ import annotations

from typing import Any

import pytest

from halo.core.groups.placement import Decision, decide
from halo.core.journal.records import Event
from halo.core.model import Company
from halo.core.questions import candidates, departures, room
from halo.core.reasons import Kind, Waiting, held, host_capacity, unproven
from tests.core.builders import ERROR, RUNNING, STOPPED, Step, World, amounts, make_group, then

GB = {"memory_gb": 100}


def needy(name: str, need: int = 60, **options: Any) -> Any:
    return make_group(name, ["h1", "h2"], needs=amounts({"memory_gb": need}), **options)


def crowded() -> World:
    """Two hosts with 100 GB each. other runs on h1 and needs 60; g is stopped and needs 60."""
    world = World(needy("g"), needy("other"), capacity={"h1": GB, "h2": GB})
    world.up("h1", running=["other"])
    world.up("h2")
    return world


def decided(world: World, name: str = "g") -> Decision:
    group = world.group(name)
    seen = world.state.candidates_of(group)
    return decide(world.state, group, seen, world.now, world.now)


def placed(world: World, name: str, host: str | None) -> None:
    world.state.groups[name].placed_on = host


COUNTED: list[tuple[str, Step, bool]] = [
    ("seen running", lambda w: None, True),
    ("seen stopped", lambda w: w.see("other", "h1", STOPPED, at=101.0), False),
    ("its monitor fails", lambda w: w.see("other", "h1", ERROR, at=101.0), True),
    ("nothing is known", lambda w: w.connect("h1"), True),
    (
        "stopped there, by a host that has still its token",
        then(lambda w: placed(w, "other", "h1"), lambda w: w.see("other", "h1", STOPPED, at=101.0)),
        True,
    ),
    (
        "on its way there",
        then(
            lambda w: w.see("other", "h1", STOPPED, at=101.0),
            lambda w: placed(w, "other", "h2"),
            lambda w: w.journal(Event.MOVE, "other", to="h1"),
        ),
        True,
    ),
    (
        "another host runs it, and a monitor fails here",
        then(lambda w: placed(w, "other", "h2"), lambda w: w.see("other", "h1", ERROR, at=101.0)),
        False,
    ),
]


@pytest.mark.parametrize(("what", "happens", "counts"), COUNTED, ids=[what for what, *_ in COUNTED])
def test_what_counts_on_a_host(what: str, happens: Step, counts: bool) -> None:
    world = crowded()
    happens(world)
    assert room.takes_room(world.state, world.group("other"), "h1") is counts
    assert room.used(world.state, "h1", "memory_gb", world.group()) == (60 if counts else 0)


def test_a_group_counts_once_while_it_moves() -> None:
    world = crowded()
    placed(world, "other", "h1")
    world.journal(Event.MOVE, "other", to="h1")
    assert room.used(world.state, "h1", "memory_gb") == 60


def test_a_host_without_room_is_no_candidate_and_says_what_is_free() -> None:
    world = crowded()
    why = candidates.unavailable(world.state, world.state.candidate(world.group(), "h1"))
    assert why == "h1 has 40 of 100 memory_gb free, and g needs 60"
    assert decided(world).start_on == "h2"


def test_without_room_anywhere_it_waits_for_room() -> None:
    world = crowded()
    world.disconnect("h2")
    world.fenced("h2")
    decision = decided(world)
    assert decision.start_on is None
    assert decision.waits is not None
    assert decision.waits.kind is Kind.HOST_CAPACITY
    assert dict(decision.waits.hosts) == {
        "h1": "h1 has 40 of 100 memory_gb free, and g needs 60",
        "h2": "h2 is disconnected (silent)",
    }
    assert decision.crowded
    world.see("other", "h1", STOPPED, at=101.0)
    assert decided(world).start_on == "h1"


def test_what_a_host_does_not_name_has_no_limit() -> None:
    world = World(needy("g"), needy("other"), capacity={"h1": {"cores": 1}})
    world.up("h1", running=["other"])
    world.up("h2")
    assert decided(world).start_on == "h1"


def test_exactly_enough_is_enough() -> None:
    world = World(needy("g", 40), needy("other"), capacity={"h1": GB, "h2": GB})
    world.up("h1", running=["other"])
    world.up("h2")
    assert decided(world).start_on == "h1"


# --- priority -----------------------------------------------------------------------------------


def both_down(**first: Any) -> World:
    """Only h1 is there, with room for one of g and first. Both are down."""
    world = World(needy("g", priority=1), needy("first", **first), capacity={"h1": GB, "h2": GB})
    world.up("h1", "h2")
    world.fenced("h2")
    return world


def test_room_is_kept_for_a_group_of_a_higher_priority() -> None:
    world = both_down(priority=2)
    decision = decided(world)
    assert decision.waits is not None
    assert decision.waits.kind is Kind.HOST_CAPACITY
    assert "the room on h1 is kept for first, which has a higher priority" in decision.text
    assert decision.recheck_s is not None
    assert decided(world, "first").start_on == "h1"


NOT_KEPT: list[tuple[str, Step]] = [
    ("it runs", lambda w: placed(w, "first", "h2")),
    ("it is to be stopped", lambda w: w.journal(Event.STOP, "first")),
    ("it is unmanaged", lambda w: w.unmanage("first")),
]


@pytest.mark.parametrize(("why", "happens"), NOT_KEPT, ids=[why for why, _ in NOT_KEPT])
def test_it_is_not_kept_for_a_group_that_does_not_come(why: str, happens: Step) -> None:
    world = both_down(priority=2)
    happens(world)
    assert decided(world).start_on == "h1"


def waited(world: World, for_s: float) -> None:
    """g has waited for room so long."""
    at = world.state.groups["g"]
    at.decided("", None, 0.0, failed=False)
    at.decided("", host_capacity("g", {"h1": "none"}), world.now - for_s, failed=False)


def test_a_group_waits_for_one_of_a_higher_priority_for_some_seconds() -> None:
    world = both_down(priority=2)
    reason = unproven("first", "no proof", {"h2": "no proof"})
    world.state.groups["first"].waiting = Waiting(reason, 0.0)  # a slow fence
    waited(world, room.KEPT_S - 0.1)
    assert decided(world).start_on is None
    waited(world, room.KEPT_S)
    assert decided(world).start_on == "h1"


def test_a_proof_that_becomes_too_old_costs_no_place_in_the_line() -> None:
    world = both_down(priority=2)
    reason = unproven("first", "no proof", {"h2": "no proof"})
    world.state.groups["first"].waiting = Waiting(reason, 0.0)  # nobody can give this proof
    waited(world, room.KEPT_S)
    at = world.state.groups["g"]
    at.decided("", unproven("g", "too old", {"h2": "too old"}), world.now, failed=False)
    assert decided(world).start_on == "h1"
    at.decided("", host_capacity("g", {"h1": "none"}), world.now, failed=False)
    assert decided(world).start_on == "h1"
    at.decided("", held("frozen", "thaw"), world.now, failed=False)
    at.decided("", host_capacity("g", {"h1": "none"}), world.now, failed=False)
    assert decided(world).start_on is None  # its wait began anew


def test_it_is_not_kept_for_a_group_that_has_no_room_in_any_case() -> None:
    world = World(
        needy("g"), needy("first", 90, priority=9), needy("third", 20), capacity={"h1": GB}
    )
    world.up("h1", running=["third"])
    world.up("h2")
    world.fenced("h2")
    assert decided(world).start_on == "h1"


@pytest.mark.parametrize("priority", [0, 1])
def test_it_is_not_kept_for_an_equal_or_a_lower_one(priority: int) -> None:
    assert decided(both_down(priority=priority)).start_on == "h1"


def test_it_is_not_kept_when_there_is_room_for_both() -> None:
    world = World(
        needy("g", 40, priority=1), needy("first", 60, priority=2), capacity={"h1": GB, "h2": GB}
    )
    world.up("h1", "h2")
    assert decided(world).start_on == "h1"
    world.see("g", "h1", RUNNING, at=101.0)
    assert decided(world, "first").start_on == "h1"


# --- moves --------------------------------------------------------------------------------------


def moving() -> World:
    """other is being moved from h1 to h2 by the deactivation of h1. h2 has room for one group."""
    world = World(
        make_group("g", ["h2", "h3"], needs=amounts({"memory_gb": 60}), priority=9),
        needy("other"),
        capacity={"h1": GB, "h2": GB},
    )
    world.up("h1", running=["other"])
    world.up("h2")
    world.connect("h3")
    world.see("g", "h3", STOPPED)
    world.journal(Event.DEACTIVATE, "h3")
    placed(world, "other", "h1")
    world.state.groups["other"].departing = True
    return world


def home(world: World) -> None:
    """The group that moves was stopped on h1, and its token came home."""
    at = world.state.groups["other"]
    at.placed_on, at.departing, at.moving = None, False, True
    world.see("other", "h1", STOPPED, at=101.0)


def test_room_is_kept_for_a_group_that_is_being_moved() -> None:
    world = moving()
    assert "the room on h2 is kept for other, which is being moved" in decided(world).text
    home(world)
    assert "the room on h2 is kept for other, which is being moved" in decided(world).text
    world.journal(Event.DEACTIVATE, "h1")
    assert decided(world, "other").start_on == "h2"
    waited(world, room.KEPT_S)
    assert decided(world).start_on == "h2"


def test_a_group_with_a_target_counts_there_once() -> None:
    world = World(
        make_group("g", ["h2", "h3"], needs=amounts({"memory_gb": 40})),
        needy("other"),
        capacity={"h1": GB, "h2": GB},
    )
    world.up("h1", running=["other"])
    world.up("h2", "h3")
    placed(world, "other", "h1")
    world.state.groups["other"].departing = True
    world.journal(Event.MOVE, "other", to="h2")
    assert decided(world).start_on == "h2"


NOT_MOVED: list[tuple[str, Step]] = [
    ("it stays", lambda w: setattr(w.state.groups["other"], "departing", False)),
    ("it was told to stop", then(home, lambda w: w.journal(Event.STOP, "other"))),
]


@pytest.mark.parametrize(("why", "happens"), NOT_MOVED, ids=[why for why, _ in NOT_MOVED])
def test_it_is_not_kept_if_no_group_moves_there(why: str, happens: Step) -> None:
    world = moving()
    happens(world)
    assert decided(world).start_on == "h2"


def leaving(world: World, name: str) -> str | None:
    return departures.departure_reason(world.state, world.group(name), "h1")


def test_of_two_groups_that_leave_a_host_the_second_stays_until_the_first_has_its_place() -> None:
    world = World(needy("a"), needy("b"), capacity={"h2": GB})
    world.up("h1", running=["a", "b"])
    world.up("h2")
    for name in ("a", "b"):
        placed(world, name, "h1")
    world.journal(Event.DEACTIVATE, "h1")
    assert leaving(world, "a") == "h1 is deactivated; moving to h2"
    world.state.groups["a"].departing = True
    assert leaving(world, "b") is None
    world.state.groups["a"].departing = False  # it was turned around
    assert leaving(world, "b") == "h1 is deactivated; moving to h2"


def test_groups_that_move_to_one_host_do_not_wait_for_each_other() -> None:
    world = World(needy("a"), needy("b"), needy("c", priority=1), capacity={"h2": GB})
    world.up("h1", running=["a", "b", "c"])
    world.up("h2")
    for name in ("a", "b", "c"):
        placed(world, name, "h1")
        world.journal(Event.MOVE, name, to="h2")
    assert [leaving(world, name) for name in ("a", "b", "c")] == [None, None, "moving to h2"]


def test_the_target_of_a_group_that_halo_may_not_touch_does_not_count() -> None:
    world = crowded()
    world.journal(Event.MOVE, "other", to="h2")
    assert room.takes_room(world.state, world.group("other"), "h2")
    world.unmanage("other")
    assert not room.takes_room(world.state, world.group("other"), "h2")


def test_a_group_that_runs_elsewhere_than_its_task_counts_there() -> None:
    world = crowded()
    placed(world, "other", "h2")  # unmanaged, and moved by hand
    assert room.takes_room(world.state, world.group("other"), "h1")


def test_only_where_groups_need_room_or_company_do_places_matter() -> None:
    assert not World(make_group("g"), make_group("other")).cluster.places_matter
    assert World(make_group("g"), needy("other")).cluster.places_matter
    apart = make_group("g", company=Company(apart_from=("other",)))
    assert World(apart, make_group("other")).cluster.places_matter
