"""Which groups a group shares its host with."""

from __future__ import annotations

import pytest

from halo.core.fencing import rules
from halo.core.groups.placement import Decision, decide
from halo.core.journal.records import Event
from halo.core.model import Company
from halo.core.questions import candidates, company, departures, takers
from halo.core.reasons import Kind
from tests.core.builders import PAIR, RUNNING, STOPPED, Step, World, amounts, make_group, then


def beside(**wishes: tuple[str, ...]) -> World:
    """g has these wishes about db, which has a leaf. Both may run on h1 and h2, and are stopped."""
    world = World(
        make_group("db", ["h1", "h2"], {"db": ["leaf"], "leaf": []}),
        make_group("g", ["h1", "h2"], PAIR, company=Company(**wishes)),
    )
    world.up("h1", "h2")
    return world


def runs_on(world: World, name: str, host: str) -> None:
    """The group runs whole, and its host manages it."""
    world.see(name, host, RUNNING, at=101.0)
    at = world.state.groups[name]
    at.placed_on = at.managed_on = host


def decided(world: World) -> Decision:
    group = world.group()
    return decide(world.state, group, world.state.candidates_of(group), world.now, world.now)


# --- apart --------------------------------------------------------------------------------------

THERE: list[tuple[str, Step, bool]] = [
    ("it runs there", lambda w: runs_on(w, "db", "h1"), True),
    ("it is seen there", lambda w: w.see("db", "h1", RUNNING, only=["leaf"], at=101.0), True),
    ("it was just sent there", lambda w: setattr(w.state.groups["db"], "placed_on", "h1"), True),
    ("it moves there", lambda w: w.journal(Event.MOVE, "db", to="h1"), True),
    (
        "nothing is known of it there",
        then(lambda w: w.connect("h1"), lambda w: w.see("g", "h1", STOPPED)),
        True,
    ),
    ("it is stopped", lambda w: None, False),
    ("it runs elsewhere", lambda w: runs_on(w, "db", "h2"), False),
]


@pytest.mark.parametrize(("what", "happens", "there"), THERE, ids=[what for what, *_ in THERE])
def test_it_is_never_started_where_a_group_is_that_it_has_to_be_apart_from(
    what: str, happens: Step, there: bool
) -> None:
    world = beside(apart_from=("db",))
    happens(world)
    assert decided(world).start_on == ("h2" if there else "h1")


def test_a_group_that_is_stopped_is_not_where_it_may_not_run() -> None:
    """Nobody looks for db on h3. So nothing is known of it there, and that says nothing."""
    world = World(
        make_group("db", ["h1", "h2"]),
        make_group("g", ["h3", "h1"], company=Company(apart_from=("db",))),
    )
    world.up("h1", "h2", "h3")
    assert decided(world).start_on == "h3"


def test_with_no_other_host_it_waits_and_names_the_group() -> None:
    world = beside(apart_from=("db",))
    runs_on(world, "db", "h1")
    world.fenced("h2")
    decision = decided(world)
    assert decision.waits is not None
    assert decision.waits.kind is Kind.NO_ELIGIBLE_HOST
    assert decision.waits.hosts["h1"] == "db is on h1, and g has to be apart from it"
    assert decision.crowded  # it is decided on again when db leaves


def test_a_move_to_that_host_is_refused() -> None:
    world = beside(apart_from=("db",))
    runs_on(world, "db", "h2")
    why = candidates.unavailable(world.state, world.state.candidate(world.group(), "h2"))
    assert why == "db is on h2, and g has to be apart from it"


# --- together -----------------------------------------------------------------------------------


def test_it_waits_until_its_company_runs_whole_and_is_started_there() -> None:
    world = beside(together_with=("db",))
    decision = decided(world)
    assert decision.waits is not None
    assert decision.waits.kind is Kind.DEPENDENCY
    assert decision.text == "g is started together with db: db does not run completely yet"
    runs_on(world, "db", "h2")
    world.see("db", "h2", STOPPED, only=["leaf"], at=102.0)
    assert decided(world).start_on is None
    world.see("db", "h2", RUNNING, only=["leaf"], at=103.0)
    assert decided(world).start_on == "h2"


STAYS: list[tuple[str, Step]] = [
    ("its company is here", lambda w: runs_on(w, "db", "h1")),
    ("its company runs nowhere", lambda w: None),
    (
        "its company is not complete there",
        then(
            lambda w: runs_on(w, "db", "h2"),
            lambda w: w.see("db", "h2", STOPPED, only=["leaf"], at=102.0),
        ),
    ),
    (
        "the host of its company cannot take it",
        then(lambda w: runs_on(w, "db", "h2"), lambda w: w.start_failed("g", "h2")),
    ),
    (
        "its company is to be stopped",
        then(lambda w: runs_on(w, "db", "h2"), lambda w: w.journal(Event.STOP, "db")),
    ),
]


STAYS += [
    (
        "a person moves its company",
        then(lambda w: runs_on(w, "db", "h2"), lambda w: w.unmanage("db")),
    ),
    (
        "its company runs there a second time",
        then(lambda w: runs_on(w, "db", "h1"), lambda w: w.see("db", "h2", RUNNING, at=102.0)),
    ),
]


@pytest.mark.parametrize(("why", "happens"), STAYS, ids=[why for why, _ in STAYS])
def test_it_stays_where_it_runs(why: str, happens: Step) -> None:
    world = beside(together_with=("db",))
    runs_on(world, "g", "h1")
    happens(world)
    assert departures.departure_reason(world.state, world.group(), "h1") is None


def test_it_follows_its_company_to_another_host() -> None:
    world = beside(together_with=("db",))
    runs_on(world, "g", "h1")
    runs_on(world, "db", "h2")
    reason = departures.departure_reason(world.state, world.group(), "h1")
    assert reason == "following db to h2"


def test_company_on_two_hosts_is_followed_to_neither() -> None:
    world = World(
        make_group("db", ["h1", "h2"]),
        make_group("web", ["h1", "h3"]),
        make_group("g", ["h1", "h2", "h3"], company=Company(together_with=("db", "web"))),
    )
    world.up("h1", "h2", "h3")
    runs_on(world, "g", "h1")
    runs_on(world, "db", "h2")
    runs_on(world, "web", "h3")
    assert company.host_to_follow(world.state, world.group(), "h1") is None


# --- preferences --------------------------------------------------------------------------------


def test_preferences_choose_among_the_hosts_that_can_take_it() -> None:
    world = beside(prefer_apart_from=("db",))
    assert decided(world).start_on == "h1"
    runs_on(world, "db", "h1")
    assert decided(world).start_on == "h2"
    world.fenced("h2")
    assert decided(world).start_on == "h1"

    world = beside(prefer_together_with=("db",))
    runs_on(world, "db", "h2")
    assert decided(world).start_on == "h2"
    world.journal(Event.DEACTIVATE, "h2")
    assert decided(world).start_on == "h1"


def test_a_preference_does_not_move_a_group() -> None:
    world = beside(prefer_together_with=("db",), prefer_apart_from=())
    runs_on(world, "g", "h1")
    runs_on(world, "db", "h2")
    assert departures.departure_reason(world.state, world.group(), "h1") is None


# --- a host that both leave ---------------------------------------------------------------------


def test_a_group_that_was_stopped_for_a_move_does_not_wait_for_its_company() -> None:
    world = beside(together_with=("db",))
    world.state.groups["g"].moving = True
    assert decided(world).start_on == "h1"


def test_a_host_may_be_fenced_although_the_company_of_a_group_is_there() -> None:
    world = beside(together_with=("db",))
    runs_on(world, "db", "h1")
    runs_on(world, "g", "h1")
    assert rules.administrator_refusal(world.state, "h1", force=False) is None


def test_no_host_is_fenced_for_a_group_whose_company_could_not_follow() -> None:
    world = World(
        make_group("db", ["h1", "h2"], needs=amounts({"memory_gb": 80})),
        make_group("g", ["h1", "h2"], company=Company(together_with=("db",))),
        capacity={"h2": {"memory_gb": 50}},
    )
    world.up("h1", running=["db", "g"])
    world.up("h2")
    world.lose("h1")
    world.answers("h2")
    groups = list(world.cluster.groups.values())
    refusal = takers.why_no_taker(world.state, groups, "h1")
    assert refusal is not None
    assert "h2 has 50 of 50 memory_gb free, and db needs 80" in refusal
