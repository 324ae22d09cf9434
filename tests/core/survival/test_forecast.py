"""Which loss of one host would be the worst, which groups would stay down, and what is told."""

from __future__ import annotations

from typing import Any

import pytest

from halo.core.cluster.host_state import FencePhase
from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind
from halo.core.model import Company
from halo.core.survival.forecast import (
    GROUPS_AT_ONCE,
    GROUPS_SHOWN,
    Forecast,
    groups_in_words,
    in_words,
    shown,
)
from halo.core.survival.outlook import Outlook
from tests.core.builders import STOPPED, Step, World, amounts, make_group, then

GB = {"memory_gb": 100}


def needy(name: str, *hosts: str, need: int = 60, **options: Any) -> Any:
    return make_group(name, hosts, needs=amounts({"memory_gb": need}), **options)


def made(*groups: Any, **where: str) -> World:
    """Hosts with 100 GB each. All are up, and each group runs where it is told, or at home."""
    hosts = dict.fromkeys(host for group in groups for host in group.candidates)
    world = World(*groups, capacity=dict.fromkeys(hosts, GB))
    at = {group.id: where.get(group.id, group.home_host) for group in groups}
    for host in hosts:
        world.up(host, running=[name for name, on in at.items() if on == host])
    for name, host in at.items():
        placed(world, name, host)
    return world


def placed(world: World, name: str, host: str | None) -> None:
    state = world.state.groups[name]
    state.placed_on = state.managed_on = host


def a_pair(**options: Any) -> World:
    """a runs on h1, b on h2. There is room for one of them on each host."""
    return made(needy("a", "h1", "h2", **options), needy("b", "h2", "h1"))


def forecast_of(world: World) -> Forecast:
    outlook = Outlook(world.state)
    for group in world.cluster.groups.values():
        outlook.note(group, world.state.knowledge.running_on(group))
    for _ in outlook.steps():
        pass
    return outlook.forecast


def worst(world: World) -> tuple[str, dict[str, str]] | None:
    """The host, and the groups that would stay down, with the reason."""
    loss = forecast_of(world).worst
    return None if loss is None else (loss.host, dict(loss.down))


def down(world: World) -> list[str]:
    """The groups that the worst loss would leave down."""
    found = worst(world)
    return [] if found is None else list(found[1])


def test_groups_that_have_room_nowhere_else_stay_down() -> None:
    world = a_pair()
    assert worst(world) == ("h1", {"a": "h2 would have 40 of 100 memory_gb free, and a needs 60"})
    assert forecast_of(world).further_hosts == 1


def test_a_cluster_with_room_for_everything_survives() -> None:
    world = made(needy("a", "h1", "h2", need=40), needy("b", "h2", "h1"))
    assert worst(world) is None
    assert forecast_of(world).further_hosts == 0


def test_what_was_started_takes_room_and_the_higher_priority_comes_first() -> None:
    world = made(needy("low", "h1", "h2", priority=1), needy("high", "h1", "h2", priority=2))
    assert worst(world) == (
        "h1",
        {"low": "h2 would have 40 of 100 memory_gb free, and low needs 60"},
    )


def test_a_group_goes_on_to_its_next_candidate() -> None:
    world = made(needy("a", "h1", "h2", "h3"), needy("b", "h1", "h2", "h3"))
    assert worst(world) is None


def test_the_worst_loss_leaves_the_most_groups_down() -> None:
    world = made(
        needy("a", "h1", "h2"), needy("b", "h2", "h1", need=50), needy("c", "h2", "h1", need=50)
    )
    assert worst(world) == (
        "h2",
        {
            "b": "h1 would have 40 of 100 memory_gb free, and b needs 50",
            "c": "h1 would have 40 of 100 memory_gb free, and c needs 50",
        },
    )
    assert forecast_of(world).further_hosts == 1


def test_of_two_such_losses_the_one_of_a_higher_priority_is_the_worst() -> None:
    world = made(needy("a", "h1", "h2"), needy("b", "h2", "h1", priority=1))
    found = worst(world)
    assert found is not None
    assert found[0] == "h2"


def test_without_a_limit_there_is_room() -> None:
    world = World(needy("a", "h1", "h2"), needy("b", "h2", "h1"), capacity={"h1": {"cores": 1}})
    world.up("h1", running=["a"])
    world.up("h2", running=["b"])
    assert worst(world) is None


# --- company ------------------------------------------------------------------------------------


def test_a_group_stays_down_where_the_others_are_that_it_has_to_be_apart_from() -> None:
    world = made(
        make_group("db0", ["h1", "h2"], company=Company(apart_from=("db1",))),
        make_group("db1", ["h2", "h1"], company=Company(apart_from=("db0",))),
    )
    assert worst(world) == ("h1", {"db0": "db1 would be on h2, and db0 has to be apart from it"})


def test_groups_that_go_together_have_to_find_a_place_together() -> None:
    together = Company(together_with=("db",))
    world = made(
        needy("db", "h1", "h2", "h3", need=60),
        needy("web", "h1", "h2", "h3", need=50, company=together),
    )
    why = (
        "h2 would have 40 of 100 memory_gb free, and web needs 50; db would run on h2, and web has "
        "to be together with it"
    )
    assert worst(world) == ("h1", {"web": why})


def test_a_group_stays_down_with_the_one_that_it_needs() -> None:
    world = made(
        needy("db", "h1", "h2"),
        needy("other", "h2", "h1"),
        make_group("web", ["h1", "h2"], company=Company(together_with=("db",))),
        make_group("late", ["h1", "h2"], after=("web",)),
    )
    assert worst(world) == (
        "h1",
        {
            "db": "h2 would have 40 of 100 memory_gb free, and db needs 60",
            "web": "db would not run, and web has to be together with it",
            "late": "web would not run, and late is started after it",
        },
    )


def test_a_group_is_started_after_the_others_and_may_find_the_room_taken() -> None:
    world = made(
        needy("first", "h1", "h2", need=10),
        needy("low", "h1", "h2", need=60),
        needy("late", "h1", "h2", need=60, priority=9, after=("first",)),
    )
    assert down(world) == ["late"]


@pytest.mark.parametrize(
    ("wish", "expected"),
    [({}, []), ({"prefer_apart_from": ("b",)}, ["c"]), ({"prefer_together_with": ("b",)}, [])],
)
def test_a_preference_chooses_among_the_hosts_that_can_take_it(
    wish: dict[str, tuple[str, ...]], expected: list[str]
) -> None:
    """Away from b, which is on h2, it takes the only place that c could have."""
    world = made(
        needy("a", "h1", "h2", "h3", priority=1, company=Company(**wish)),
        needy("b", "h2", "h3", need=10),
        needy("c", "h1", "h3"),
    )
    assert down(world) == expected


# --- what is there now ----------------------------------------------------------------------------


def leaves(world: World) -> None:
    world.state.groups["b"].departing = True


def has_left(world: World) -> None:
    """b was stopped on h2, and its token is home."""
    placed(world, "b", None)
    world.see("b", "h2", STOPPED, at=101.0)


NOW: list[tuple[str, Step, list[str]]] = [
    ("a group that runs there takes room", lambda w: None, ["a"]),
    ("so does one that is being stopped there", leaves, ["a"]),
    ("one that has left takes none", has_left, []),
    ("one that moves there does", then(has_left, lambda w: w.journal(Event.MOVE, "b", to="h2")),
     ["a"]),
    ("one that is not known to be stopped there does",
     then(has_left, lambda w: w.connect("h2"), lambda w: w.see("a", "h2", STOPPED)), ["a"]),
]  # fmt: skip


@pytest.mark.parametrize(("what", "happens", "expected"), NOW, ids=[what for what, *_ in NOW])
def test_what_takes_room(what: str, happens: Step, expected: list[str]) -> None:
    world = a_pair()
    happens(world)
    assert down(world) == expected


def test_a_group_that_moves_away_takes_no_room_there_for_itself() -> None:
    world = made(needy("a", "h1", "h2"))
    world.journal(Event.MOVE, "a", to="h2")
    assert worst(world) is None


REASONS: list[tuple[Step, str]] = [
    (lambda w: w.journal(Event.DEACTIVATE, "h2"), "h2 is deactivated"),
    (lambda w: w.disconnect("h2"), "h2 is disconnected (silent)"),
    (lambda w: w.start_failed("a", "h2", "no disk"), "the start failed on h2: no disk"),
    (
        lambda w: setattr(w.state.hosts["h2"], "fence_phase", FencePhase.RUNNING),
        "h2 is being fenced",
    ),
]


@pytest.mark.parametrize(("happens", "why"), REASONS, ids=[why for _, why in REASONS])
def test_a_host_that_does_not_serve_takes_nothing(happens: Step, why: str) -> None:
    world = made(needy("a", "h1", "h2"))
    happens(world)
    assert worst(world) == ("h1", {"a": why})


NO_NEWS: list[tuple[str, Step]] = [
    ("it should be stopped", lambda w: w.journal(Event.STOP, "a")),
    ("it is unmanaged", lambda w: w.unmanage("a")),
    ("two copies of it were seen", lambda w: w.error("a", ErrorKind.SECOND_COPY)),
]


@pytest.mark.parametrize(("why", "happens"), NO_NEWS, ids=[why for why, _ in NO_NEWS])
def test_a_group_that_halo_would_not_start_is_no_news(why: str, happens: Step) -> None:
    world = made(needy("a", "h1", "h2", need=90), needy("b", "h2", "h1", need=20))
    assert down(world) == ["a"]
    happens(world)
    found = worst(world)
    assert found is None or "a" not in found[1]


def test_a_group_with_one_candidate_is_no_news() -> None:
    world = made(needy("a", "h1"), needy("b", "h2"))
    assert worst(world) is None


def test_a_group_that_is_down_is_no_news() -> None:
    world = a_pair()
    placed(world, "a", None)
    world.see("a", "h1", STOPPED, at=101.0)
    assert worst(world) is None


# --- what is told -------------------------------------------------------------------------------


def test_the_sentence_names_the_host_the_groups_and_the_reasons() -> None:
    assert in_words(forecast_of(a_pair())) == (
        "the loss of h1 would leave 1 group down: a (h2 would have 40 of 100 memory_gb free, and a "
        "needs 60); the loss of 1 other host would leave groups down, too"
    )
    assert in_words(Forecast()) is None


def test_three_hosts_with_the_same_problem() -> None:
    groups = [needy(f"g{n}", f"h{n}", f"h{(n + 1) % 3}") for n in range(3)]
    told = in_words(forecast_of(made(*groups)))
    assert told is not None
    assert told.endswith("; the loss of each of 2 other hosts would, too")


def test_many_groups_are_cut_short() -> None:
    count = GROUPS_SHOWN + 5
    groups = [needy(f"g{n}", "h1", "h2", need=4) for n in range(count)]
    world = made(*groups, needy("full", "h2", need=100))
    forecast = forecast_of(world)
    told = in_words(forecast)
    assert told is not None
    assert told.startswith(f"the loss of h1 would leave {count} groups down: g0 (h2 would have 0 ")
    assert told.endswith(f"and {count - 3} more")
    assert shown(forecast)["groups"] == count
    assert len(shown(forecast)["reasons"]) == GROUPS_SHOWN


def test_many_hosts_are_cut_short() -> None:
    hosts = [f"h{n}" for n in range(8)]
    world = made(make_group("a", hosts, company=Company(apart_from=("b",))), make_group("b", ["x"]))
    for host in hosts[1:]:
        world.disconnect(host)
    [why] = dict(forecast_of(world).worst.down).values()  # type: ignore[union-attr]  # it is there
    assert why.count("is disconnected") == 4
    assert why.endswith("; and 3 more hosts")


def test_few_groups_are_named_each_with_its_reason() -> None:
    assert groups_in_words({"a": "x", "b": "y"}) == "2 groups down: a (x), b (y)"


def test_a_host_with_many_groups_takes_many_steps() -> None:
    groups = [needy(f"g{n}", "h1", "h2", need=1) for n in range(4 * GROUPS_AT_ONCE)]
    world = made(*groups)
    outlook = Outlook(world.state)
    for group in groups:
        outlook.note(group, ["h1"])
    assert sum(1 for _ in outlook.steps()) > 4
