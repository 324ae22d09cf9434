"""Groups that give way to one with `preempt: true`: which, for how long, and what then."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from halo.core.cluster.group_state import MakingRoom
from halo.core.groups.placement import Decision, decide
from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind
from halo.core.model import Company, ResourceGroup
from halo.core.questions import departures, room
from halo.core.questions.preempting import giving_way, plan
from halo.core.reasons import Kind, Waiting, host_capacity, unproven
from tests.core.builders import ERROR, RUNNING, STOPPED, Step, World, amounts, make_group, then

GB = {"memory_gb": 100}


def needy(name: str, need: int = 60, hosts: tuple[str, ...] = ("h1", "h2"), **options: Any) -> Any:
    return make_group(name, hosts, needs=amounts({"memory_gb": need}), **options)


def placed(world: World, *names: str, on: str | None = "h1") -> None:
    """A task of the host manages these groups, and they run there. None: their tokens wait."""
    for name in names:
        at = world.state.groups[name]
        at.placed_on = at.managed_on = on
        if on is not None:
            world.see(name, on, RUNNING)


LOW = needy("low", priority=10)


def full(*further: ResourceGroup, low: ResourceGroup = LOW, **options: Any) -> World:
    """g is down, and lacks only room: h1 is full of low, and h2 is off."""
    g = needy("g", priority=20, **{"preempt": True, **options})
    world = World(g, low, *further, capacity={"h1": GB, "h2": GB})
    world.up(*world.cluster.hosts)
    world.fenced("h2")
    placed(world, "low")
    return world


def waits_for_room(world: World, *names: str, since: float = 100.0) -> None:
    for name in names:
        at = world.state.groups[name]
        at.decided("", None, since, failed=False)
        at.decided("", host_capacity(name, {"h1": "none"}), since, failed=False)


def decided(world: World, name: str = "g", since: float | None = None) -> Decision:
    """The decision, which the placer keeps and carries out as far as others give way."""
    group, now = world.group(name), world.now
    seen = world.state.candidates_of(group)
    found = decide(world.state, group, seen, now if since is None else since, now)
    world.state.make_room(name, found.makes_room)
    world.state.groups[name].decided(found.text, found.waits, now, failed=found.failed)
    return found


def gone(world: World, *names: str, at: float | None = None) -> None:
    """They were stopped, and their tokens came home."""
    for name in names:
        world.see(name, "h1", STOPPED, at=world.now if at is None else at)
        state = world.state.groups[name]
        state.gave_way_to = state.gives_way_to
    placed(world, *names, on=None)


def looked_at(world: World, *names: str) -> None:
    """What is known of them on h1 is of now."""
    for name in names:
        world.see(name, "h1", STOPPED)


# --- who gives way ------------------------------------------------------------------------------


def test_a_group_of_a_lower_priority_gives_way() -> None:
    world = full()
    decision = decided(world)
    assert decision.makes_room == MakingRoom("h1", ("low",), world.now)
    assert decision.waits is not None
    assert decision.waits.kind is Kind.HOST_CAPACITY
    assert decision.text.endswith("; low gives way to it on h1")
    assert decision.waits.groups == {"low": "it gives way to g, which has priority 20"}
    assert decision.recheck_s is not None


ELSEWHERE = needy("low", hosts=("h1", "h3"), priority=10)

NOT: list[tuple[str, ResourceGroup, Step]] = [
    ("its priority is equal", needy("low", priority=20), lambda w: None),
    ("it is unmanaged", LOW, lambda w: w.unmanage("low")),
    ("it is in error", LOW, lambda w: w.error("low", ErrorKind.RESTART_LIMIT)),
    ("it has two copies", ELSEWHERE, lambda w: w.see("low", "h3", RUNNING)),
    (
        "it could not be proven stopped afterwards",
        ELSEWHERE,
        lambda w: w.see("low", "h3", ERROR, reason="hangs"),
    ),
    ("it is to be stopped", LOW, lambda w: w.journal(Event.STOP, "low")),
    ("it is being moved by command", ELSEWHERE, lambda w: w.journal(Event.MOVE, "low", to="h3")),
    ("it leaves its host", LOW, lambda w: setattr(w.state.groups["low"], "departing", True)),
    ("it gives way already", LOW, lambda w: setattr(w.state.groups["low"], "gives_way_to", "x")),
    ("no task manages it", LOW, lambda w: setattr(w.state.groups["low"], "managed_on", None)),
    ("it does not run", LOW, lambda w: w.see("low", "h1", STOPPED, at=101.0)),
    ("its monitor fails", LOW, lambda w: w.see("low", "h1", ERROR, at=101.0)),
    (
        "something of it is started or stopped",
        LOW,
        lambda w: setattr(w.state.hosts["h1"].operation_count("low"), "sent", 1),
    ),
    ("the other group lacks proof", LOW, lambda w: w.state.void_power_proof("h2", "it answers")),
    ("the other group is not to run", LOW, lambda w: w.journal(Event.STOP, "g")),
    ("the cluster is frozen", LOW, lambda w: w.journal(Event.FREEZE, "test", "x")),
]


@pytest.mark.parametrize(("why", "low", "happens"), NOT, ids=[why for why, *_ in NOT])
def test_it_does_not_give_way_if(why: str, low: ResourceGroup, happens: Step) -> None:
    further = make_group("x", ["h1"])
    if low.priority < 20:
        assert decided(full(further, low=low)).makes_room is not None
    world = full(further, low=low)
    happens(world)
    assert decided(world).makes_room is None


CONFIGS: list[tuple[str, dict[str, Any], tuple[ResourceGroup, ...]]] = [
    ("the other one has no preempt", {"preempt": False}, ()),
    ("another group is started after it", {}, (make_group("y", ["h1"], after=("low",)),)),
    (
        "another group is together with it",
        {},
        (make_group("y", ["h1"], company=Company(together_with=("low",))),),
    ),
]


@pytest.mark.parametrize(("why", "options", "further"), CONFIGS, ids=[why for why, *_ in CONFIGS])
def test_by_the_config_it_does_not_give_way_if(
    why: str, options: dict[str, Any], further: tuple[ResourceGroup, ...]
) -> None:
    world = full(*further, **options)
    for group in further:
        placed(world, group.id)
    decision = decided(world)
    assert decision.makes_room is None
    assert decision.waits is not None
    assert decision.waits.kind is Kind.HOST_CAPACITY
    told = "no group of a lower priority gives way to it now" in decision.text
    assert told is world.group().preempt


def test_nothing_is_stopped_if_that_would_not_be_enough() -> None:
    world = full(needy("high", 50, priority=30))
    world.see("low", "h1", STOPPED, at=101.0)
    placed(world, "low", on=None)
    placed(world, "high")
    assert decided(world).makes_room is None


def test_the_first_host_is_taken_on_which_enough_can_give_way() -> None:
    world = World(
        needy("g", priority=20, preempt=True),
        needy("same", priority=20, hosts=("h1",)),
        needy("low", priority=10, hosts=("h2",)),
        capacity={"h1": GB, "h2": GB},
    )
    world.up("h1", "h2")
    placed(world, "same")
    placed(world, "low", on="h2")
    assert decided(world).makes_room == MakingRoom("h2", ("low",), world.now)


WHO: list[tuple[str, list[ResourceGroup], tuple[str, ...]]] = [
    (
        "the one of the lowest priority",
        [needy("a", 30, priority=5), needy("b", 30, priority=4), needy("c", 30, priority=6)],
        ("b",),
    ),
    ("as few as possible", [needy("a", 20), needy("b", 20), needy("c", 50)], ("c",)),
    (
        "the cheaper one is not stopped for nothing",
        [needy("a", 10, priority=1), needy("b", 80, priority=2)],
        ("b",),
    ),
    (
        "one that can run elsewhere at once",
        [needy("a", 45, priority=1), needy("b", 45, ("h1", "h3"), priority=2)],
        ("b",),
    ),
    ("several", [needy("a", 20), needy("b", 20), needy("c", 20), needy("d", 40)], ("d",)),
    ("several of one size", [needy("a", 15), needy("b", 15), needy("c", 70)], ("c",)),
]


@pytest.mark.parametrize(("what", "there", "expected"), WHO, ids=[what for what, *_ in WHO])
def test_who_gives_way(what: str, there: list[ResourceGroup], expected: tuple[str, ...]) -> None:
    g = needy("g", 40, priority=20, preempt=True)
    world = World(g, *there, capacity={"h1": {"memory_gb": 100}, "h2": {"memory_gb": 0}})
    world.up("h1", "h2", *(["h3"] if "h3" in world.cluster.hosts else []))
    placed(world, *(group.id for group in there))
    making = decided(world).makes_room
    assert making is not None
    assert making.givers == expected


@settings(deadline=None)
@given(
    need=st.tuples(st.integers(0, 10), st.integers(0, 10)),
    there=st.lists(
        st.tuples(
            st.integers(0, 8), st.integers(0, 8), st.integers(0, 3), st.booleans(), st.booleans()
        ),
        max_size=6,
    ),
)
def test_those_that_give_way_are_lower_and_enough_and_none_is_needless(
    need: tuple[int, int], there: list[tuple[int, int, int, bool, bool]]
) -> None:
    """Each group has its needs of two things, a priority, maybe another host, and maybe a task."""
    others = [
        make_group(
            f"o{number}",
            ("h1", "h3") if can_leave else ("h1",),
            needs=amounts({"a": a, "b": b}),
            priority=priority,
        )
        for number, (a, b, priority, can_leave, _) in enumerate(there)
    ]
    g = make_group(
        "g", ["h1"], needs=amounts({"a": need[0], "b": need[1]}), priority=2, preempt=True
    )
    world = World(g, *others, hosts=["h3"], capacity={"h1": {"a": 12, "b": 12}})
    world.up("h1", "h3")
    for group, (*_, has_task) in zip(others, there, strict=True):
        placed(world, group.id)
        if not has_task:
            world.state.groups[group.id].managed_on = None

    def fits(without: tuple[ResourceGroup, ...]) -> bool:
        stay = [group for group in others if group not in without]
        return all(
            g.needs[name] == 0 or g.needs[name] + sum(o.needs[name] for o in stay) <= 12
            for name in ("a", "b")
        )

    possible = [
        group
        for group, (_, _, priority, _, has_task) in zip(others, there, strict=True)
        if priority < 2 and has_task
    ]
    making = plan.plan(world.state, world.group(), ["h1"], world.now)
    if making is None:
        assert fits(()) or not fits(tuple(possible))
        return
    assert not fits(())
    givers = tuple(world.group(name) for name in making.givers)
    assert set(making.givers) <= {group.id for group in possible}
    assert fits(givers)
    assert not any(fits(fewer) for fewer in combinations(givers, len(givers) - 1))


# --- nothing is stopped that need not be --------------------------------------------------------


def test_if_a_host_has_room_that_is_kept_for_another_group_it_waits_for_that() -> None:
    world = World(
        needy("g", priority=20, preempt=True),
        needy("first", priority=30, hosts=("h1",)),
        needy("low", hosts=("h2",), priority=10),
        capacity={"h1": GB, "h2": GB},
    )
    world.up("h1", "h2")
    placed(world, "low", on="h2")
    decision = decided(world)
    assert "the room on h1 is kept for first" in decision.text
    assert decision.makes_room is None


LEAVE_ANYWAY: list[tuple[str, Step]] = [
    ("is being moved", lambda w: setattr(w.state.groups["leaves"], "departing", True)),
    ("is being stopped", lambda w: w.journal(Event.STOP, "leaves")),
]


@pytest.mark.parametrize(("what", "happens"), LEAVE_ANYWAY, ids=[what for what, _ in LEAVE_ANYWAY])
def test_no_group_gives_way_while_another_one(what: str, happens: Step) -> None:
    world = full(needy("leaves", 40, ("h1",)))
    placed(world, "leaves")
    assert decided(world).makes_room is not None
    world.state.make_room("g", None)
    world.state.groups["g"].made_room_at = float("-inf")
    happens(world)
    assert decided(world).makes_room is None


def test_it_waits_some_seconds_for_a_higher_group_that_comes_to_the_host() -> None:
    world = full(needy("first", 90, priority=30))
    decision = decided(world)
    assert decision.makes_room is None
    waits_for_room(world, "g", since=world.now - room.KEPT_S)
    assert decided(world).makes_room is not None


def test_one_group_at_a_time_makes_room_on_a_host() -> None:
    world = full(
        needy("more", priority=10, hosts=("h1",)),
        needy("k", priority=25, preempt=True, hosts=("h1",)),
    )
    placed(world, "more")
    waits_for_room(world, "k")
    assert decided(world).makes_room is not None
    assert decided(world, "k").makes_room is None


# --- meanwhile ----------------------------------------------------------------------------------


def leaving(world: World, name: str = "low", host: str = "h1", *, begun: bool = False) -> Any:
    return departures.departure_reason(world.state, world.group(name), host, begun=begun)


def test_it_leaves_its_host_as_long_as_the_other_one_waits_for_room() -> None:
    world = full()
    assert leaving(world) is None
    decided(world)
    assert leaving(world) == "gives way to g, which has priority 20"
    assert leaving(world, host="h2") is None
    world.journal(Event.STOP, "g")
    decided(world)
    assert leaving(world) is None


def test_it_does_not_begin_to_leave_once_it_could_start_nowhere() -> None:
    world = full()
    decided(world)
    world.state.void_power_proof("h2", "it answers")
    assert leaving(world) is None
    assert leaving(world, begun=True) is not None


def test_what_the_operator_orders_comes_first() -> None:
    world = full()
    decided(world)
    world.journal(Event.STOP, "low")
    assert leaving(world) == "stopped by the administrator"


ENDS: list[tuple[str, Step]] = [
    ("it is not to run any more", lambda w: w.journal(Event.STOP, "g")),
    ("it is unmanaged", lambda w: w.unmanage("g")),
    ("it waits for a group before it", lambda w: w.journal(Event.STOP, "before")),
    ("the host is deactivated", lambda w: w.journal(Event.DEACTIVATE, "h1")),
    ("there is room elsewhere", lambda w: w.up("h3")),
    ("a copy of it is seen", lambda w: w.see("g", "h1", RUNNING, at=101.0)),
    (
        "another one took the room",
        then(lambda w: gone(w, "low", at=101.0), lambda w: placed(w, "taker")),
    ),
]


@pytest.mark.parametrize(("what", "happens"), ENDS, ids=[what for what, _ in ENDS])
def test_it_ends_if(what: str, happens: Step) -> None:
    world = World(
        needy("g", priority=20, preempt=True, hosts=("h1", "h3"), after=("before",)),
        needy("low", priority=10, hosts=("h1",)),
        needy("taker", 50, ("h1",)),
        make_group("before", ["h1"]),
        capacity={"h1": GB, "h3": GB},
    )
    world.up("h1", "h3")
    placed(world, "low", "before")
    world.disconnect("h3")
    world.fenced("h3")
    assert decided(world).makes_room is not None
    assert decided(world).makes_room is not None
    happens(world)
    decided(world)
    assert world.state.groups["g"].makes_room is None
    assert world.state.groups["low"].gives_way_to is None
    assert leaving(world) is None


def test_it_is_not_started_again_where_it_gave_way_before_the_other_one_runs() -> None:
    world = full()
    decided(world)
    gone(world, "low")
    text = decided(world, "low").text
    assert "the room on h1 is kept for g, and low gives way to g, which has priority 20" in text
    decision = decided(world)
    assert (decision.start_on, decision.makes_room) == ("h1", None)
    placed(world, "g")
    assert decided(world, "low").text == (
        "no host has room for low: h1 has 40 of 100 memory_gb free, and low needs 60; "
        "h2 is disconnected (silent); it gave way to g, which has priority 20"
    )
    waiting = world.state.groups["low"].waiting
    assert waiting is not None
    assert waiting.reason.groups == {"g": "low gave way to it"}


def test_the_room_is_kept_while_the_other_one_waits_for_its_turn() -> None:
    world = World(
        needy("g", priority=20, preempt=True, hosts=("h1",)),
        needy("low", priority=10, hosts=("h1",)),
        make_group("starts", ["h1"]),
        capacity={"h1": GB},
        max_starts={"h1": 1},
    )
    world.up("h1")
    placed(world, "low", "starts")
    making = decided(world).makes_room
    assert making is not None
    gone(world, "low")
    world.state.groups["starts"].starting = True
    decision = decided(world)
    assert decision.waits is not None
    assert (decision.waits.kind, decision.makes_room) == (Kind.TURN, making)
    world.state.groups["starts"].starting = False
    assert "the room on h1 is kept for g" in decided(world, "low").text
    assert decided(world).start_on == "h1"
    assert world.state.groups["low"].gives_way_to is None


def test_no_group_gives_way_before_the_other_one_could_be_started() -> None:
    world = World(
        needy("g", priority=20, preempt=True, hosts=("h1",)),
        needy("low", priority=10, hosts=("h1",)),
        make_group("starts", ["h1"]),
        capacity={"h1": GB},
        max_starts={"h1": 1},
    )
    world.up("h1")
    placed(world, "low", "starts")
    world.state.groups["starts"].starting = True
    decision = decided(world)
    assert decision.waits is not None
    assert (decision.waits.kind, decision.makes_room) == (Kind.TURN, None)
    assert decision.text == "h1 starts one group at a time, and starts starts now"
    world.state.groups["starts"].starting = False
    assert decided(world).makes_room is not None


def test_it_is_placed_like_others_if_the_other_one_does_not_come() -> None:
    world = full()
    decided(world)
    gone(world, "low")
    world.journal(Event.STOP, "g")
    decided(world)
    assert decided(world, "low").start_on == "h1"


def test_it_may_run_elsewhere_meanwhile() -> None:
    world = full()
    decided(world)
    gone(world, "low")
    world.up("h2")
    assert decided(world, "low").start_on == "h2"


def of_two() -> World:
    """g is down. a and b have to give way on h1, and a is gone already. w waits for room."""
    world = World(
        needy("g", 90, ("h1",), priority=20, preempt=True),
        needy("a", 45, ("h1",)),
        needy("b", 45, ("h1",)),
        needy("w", 40, ("h1",), priority=20),
        needy("high", 40, ("h1",), priority=30),
        capacity={"h1": GB},
    )
    world.up("h1")
    placed(world, "a", "b")
    waits_for_room(world, "w", "high")
    making = decided(world).makes_room
    assert making is not None
    assert making.givers == ("a", "b")
    gone(world, "a")
    return world


def test_the_room_that_they_leave_is_kept() -> None:
    world = of_two()
    assert (
        "the room on h1 is kept for g, to which other groups give way" in decided(world, "w").text
    )
    assert "kept for g, and a gives way to g" in decided(world, "a").text
    assert decided(world, "high").start_on == "h1"


def test_no_planned_move_takes_that_room() -> None:
    world = of_two()
    assert giving_way.kept(world.state, world.group("w"), "h1") is not None
    world.state.make_room("g", None)
    assert giving_way.kept(world.state, world.group("w"), "h1") is None


def test_the_room_beside_it_is_free() -> None:
    world = full(needy("small", 40, ("h1",)), needy("large", 41, ("h1",)))
    decided(world)
    assert giving_way.kept(world.state, world.group("small"), "h1") is None
    assert giving_way.kept(world.state, world.group("large"), "h1") is not None


def test_it_goes_on_while_answers_that_are_too_old_are_asked_for_again() -> None:
    world = full()
    decided(world)
    world.now += 25.0
    again = decided(world)
    assert again.waits is not None
    assert again.waits.kind is Kind.PROOF
    assert again.makes_room is not None
    world.now += giving_way.ASKED_AGAIN_WITHIN_S
    assert decided(world).makes_room is not None
    world.now += 0.1
    assert decided(world).makes_room is None


def test_a_device_that_is_slow_is_waited_for_longer() -> None:
    world = full()
    world.state.hosts["h2"].verify_took_s = 20.0
    decided(world)
    world.now += 25.0
    decided(world)
    world.now += 40.0
    assert decided(world).makes_room is not None
    world.now += 0.1
    assert decided(world).makes_room is None


def test_no_group_begins_to_give_way_without_proof() -> None:
    world = full()
    reason = unproven("g", "no proof", {"h2": "no proof"})
    world.state.groups["g"].waiting = Waiting(reason, world.now)
    world.now += 25.0  # the device has to confirm once more that h2 is off
    decision = decided(world)
    assert decision.waits is not None
    assert decision.waits.kind is Kind.PROOF
    assert decision.makes_room is None


def test_one_whose_stop_does_not_begin_is_not_waited_for() -> None:
    world = full()
    decided(world)
    since = world.now
    for passed, goes_on in ((giving_way.BEGINS_WITHIN_S, True), (0.1, False)):
        world.now += passed
        world.fenced("h2")  # the device has confirmed it again
        looked_at(world, "g")
        assert (decided(world, since=since).makes_room is not None) is goes_on


def test_one_that_takes_long_to_stop_is_waited_for() -> None:
    world = full()
    decided(world)
    world.state.groups["low"].stop_begun = True
    world.now += 600.0
    world.fenced("h2")
    looked_at(world, "g")
    assert decided(world).makes_room is not None


# --- in vain ------------------------------------------------------------------------------------


def in_vain() -> World:
    """low gave way, and then g was not to run for a moment."""
    world = full()
    decided(world)
    world.journal(Event.STOP, "g")
    decided(world)
    world.journal(Event.START, "g")
    return world


def test_after_it_was_in_vain_there_is_a_pause() -> None:
    world = in_vain()
    decision = decided(world)
    assert decision.makes_room is None
    assert "other groups gave way to it in vain, so none does for a minute" in decision.text
    world.now += plan.PAUSE_S
    world.fenced("h2")
    looked_at(world, "g")
    assert decided(world).makes_room is not None


def test_there_is_no_pause_once_it_ran() -> None:
    world = in_vain()
    world.see("g", "h1", RUNNING)
    world.see("g", "h1", STOPPED, at=101.0)
    assert decided(world).makes_room is not None


def test_if_one_cannot_be_stopped_no_other_gives_way_before_a_cleanup() -> None:
    world = full(needy("next", 30, ("h1",), priority=11))
    placed(world, "next")
    making = decided(world).makes_room
    assert making is not None
    assert making.givers == ("low",)
    world.error("low", ErrorKind.STOP_FAILED, "busy")
    assert "in vain" in decided(world).text
    world.now += 10 * plan.PAUSE_S
    world.fenced("h2")
    looked_at(world, "g")
    decision = decided(world)
    assert decision.makes_room is None
    assert "; low could not be stopped for it: busy; no other group gives way before " in (
        decision.text
    )
    world.journal(Event.CLEANUP, "low")
    assert decided(world).makes_room is not None


def test_it_says_so_no_more_once_it_runs_again() -> None:
    world = full()
    decided(world)
    gone(world, "low")
    placed(world, "low")
    assert world.state.groups["low"].gave_way_to is None
