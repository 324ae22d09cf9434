"""Starts at a time on one host: whose turn it is."""

from __future__ import annotations

from typing import Any

import pytest

from halo.core.groups.placement import Decision, decide
from halo.core.journal.records import Event
from halo.core.questions import departures, room
from halo.core.reasons import Kind, held, unproven
from tests.core.builders import RUNNING, STOPPED, Step, World, make_group, then


def pair(name: str, **options: Any) -> Any:
    return make_group(name, ["h1", "h2"], **options)


def three(most: int = 1, **priorities: int) -> World:
    """g, a and b are stopped on both hosts. h1 starts `most` groups at a time."""
    groups = [pair(name, priority=priorities.get(name, 0)) for name in ("g", "a", "b")]
    world = World(*groups, max_starts={"h1": most})
    world.up("h1", "h2")
    return world


def decided(world: World, name: str = "g") -> Decision:
    """Decide on a group, and note it, as the placer does."""
    group = world.group(name)
    seen, since = world.state.candidates_of(group), 100.0
    decision = decide(world.state, group, seen, since, world.now)
    world.state.groups[name].decided(decision.text, decision.waits, world.now, failed=False)
    return decision


def start(world: World, name: str, host: str = "h1") -> None:
    at = world.state.groups[name]
    at.placed_on, at.starting = host, True


def started(world: World, name: str) -> None:
    world.state.groups[name].starting = False


def waits(world: World, name: str = "g") -> str | None:
    """The words of a wait for a turn; None if the group is started on h1."""
    decision = decided(world, name)
    if decision.waits is None:
        assert decision.start_on == "h1"
        return None
    assert decision.waits.kind is Kind.TURN
    assert list(decision.waits.hosts) == ["h1"]
    assert decision.crowded
    return decision.waits.text


def test_a_host_starts_so_many_groups_at_a_time_and_the_next_one_waits_there() -> None:
    world = three(most=2)
    assert waits(world) is None
    start(world, "a")
    assert waits(world) is None
    start(world, "b")
    assert waits(world) == "h1 starts 2 groups at a time, and starts a, b now"
    started(world, "a")
    assert waits(world) is None


def test_a_start_on_another_host_does_not_count() -> None:
    world = three()
    start(world, "a", "h2")
    assert waits(world) is None


def test_a_host_without_a_limit_starts_all() -> None:
    world = World(pair("g"), pair("a"))
    world.up("h1", "h2")
    start(world, "a")
    assert decided(world).start_on == "h1"


def test_the_first_that_waits_comes_first_and_among_them_the_highest_priority() -> None:
    world = three(b=1)
    start(world, "g")
    assert waits(world, "a") is not None
    world.now += 1
    assert waits(world, "b") is not None
    started(world, "g")
    assert waits(world, "a") == "h1 starts one group at a time, and starts b first"
    assert waits(world, "b") is None


def test_among_equals_the_longest_wait_comes_first() -> None:
    world = three()
    start(world, "g")
    assert waits(world, "b") is not None
    world.now += 1
    assert waits(world, "a") is not None
    started(world, "g")
    assert waits(world, "a") == "h1 starts one group at a time, and starts b first"
    assert waits(world, "b") is None


def test_a_proof_that_becomes_too_old_costs_no_place_in_the_line() -> None:
    world = three()
    start(world, "g")
    waits(world, "b")
    world.now += 1
    waits(world, "a")
    at = world.state.groups["b"]
    at.decided("", unproven("b", "too old", {"h2": "too old"}), world.now + 1, failed=False)
    waits(world, "b")
    started(world, "g")
    assert waits(world, "a") == "h1 starts one group at a time, and starts b first"


def lacks_proof(world: World, name: str) -> None:
    at = world.state.groups[name]
    at.decided("", unproven(name, "no proof", {"h2": "no proof"}), world.now, failed=False)


def test_a_higher_priority_that_lacks_only_proof_comes_first_for_some_seconds() -> None:
    world = three(b=1)
    lacks_proof(world, "b")
    assert waits(world) == "h1 starts one group at a time, and starts b first"
    world.now += room.KEPT_S - 0.1
    lacks_proof(world, "b")
    assert waits(world) is not None
    world.now += 0.1
    assert waits(world) is None


DOES_NOT_COME: list[tuple[str, Step]] = [
    ("it is held", lambda w: w.state.groups["b"].decided("", held("x", "y"), 1.0, failed=False)),
    ("it should not run", lambda w: w.journal(Event.STOP, "b")),
    ("it would be started elsewhere", lambda w: w.start_failed("b", "h1")),
    ("it is on its way already", lambda w: start(w, "b", "h2")),
]


@pytest.mark.parametrize(("why", "happens"), DOES_NOT_COME, ids=[why for why, _ in DOES_NOT_COME])
def test_nobody_waits_for_a_group_that_does_not_come(why: str, happens: Step) -> None:
    world = three(b=1)
    happens(world)
    assert waits(world) is None


def test_nobody_waits_for_an_equal_that_lacks_proof() -> None:
    world = three()
    lacks_proof(world, "b")
    assert waits(world) is None


# --- moves --------------------------------------------------------------------------------------


def both_move() -> World:
    """g and a run on h2, and are to be moved to h1, which starts one group at a time."""
    world = three()
    for name in ("g", "a"):
        world.see(name, "h2", RUNNING)
        world.state.groups[name].placed_on = world.state.groups[name].managed_on = "h2"
        world.journal(Event.MOVE, name, to="h1")
    return world


def leaves(world: World, *, begun: bool = False) -> bool:
    group = world.group()
    return departures.departure_reason(world.state, group, "h2", begun=begun) is not None


def test_a_group_that_runs_is_not_stopped_before_its_turn() -> None:
    world = both_move()
    assert leaves(world)
    world.state.groups["a"].departing = True
    assert not leaves(world)
    world.see("a", "h2", STOPPED, at=101.0)
    at = world.state.groups["a"]
    at.departing, at.moving, at.placed_on = False, True, None
    assert not leaves(world)
    start(world, "a")
    assert not leaves(world)
    started(world, "a")
    assert leaves(world)


def test_a_departure_that_has_begun_goes_on() -> None:
    world = both_move()
    start(world, "a")
    assert not leaves(world)
    assert leaves(world, begun=True)


def test_a_group_that_moves_elsewhere_holds_nobody_up() -> None:
    world = both_move()
    then(
        lambda w: w.journal(Event.MOVE, "a", to="h2"),
        lambda w: setattr(w.state.groups["a"], "departing", True),
    )(world)
    assert leaves(world)


def test_a_group_that_runs_is_not_stopped_while_others_wait_for_their_turn_there() -> None:
    """It would stand behind them, and be down meanwhile."""
    world = both_move()
    at = world.state.groups["a"]
    world.see("a", "h2", STOPPED, at=101.0)
    world.journal(Event.MOVE_FAILED, "a")
    at.managed_on = at.placed_on = None
    assert leaves(world)
    start(world, "b")
    assert waits(world, "a") is not None
    started(world, "b")
    assert not leaves(world)


def test_a_move_whose_start_failed_there_holds_up_no_other() -> None:
    world = both_move()
    at = world.state.groups["a"]
    world.see("a", "h2", STOPPED, at=101.0)
    at.moving, at.managed_on, at.placed_on = True, None, None
    assert not leaves(world)
    world.start_failed("a", "h1")
    assert leaves(world)
