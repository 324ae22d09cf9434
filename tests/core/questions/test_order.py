"""Which groups a group is started after, and what holds it while they do not run."""

from __future__ import annotations

import pytest

from halo.core.cluster.host_state import FencePhase
from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind
from halo.core.questions import proof
from halo.core.questions.starts import order
from halo.core.reasons import Kind
from tests.core.builders import ERROR, PAIR, RUNNING, STOPPED, Step, World, make_group


def ordered() -> World:
    """g is started after mgs, which has a leaf, and mdt. All are stopped."""
    world = World(
        make_group("mgs", ["h1", "h2"], {"mgs": ["leaf"], "leaf": []}),
        make_group("mdt", ["h2"]),
        make_group("g", ["h1", "h2"], PAIR, after=("mgs", "mdt")),
    )
    world.up("h1", "h2")
    return world


def all_run(world: World) -> None:
    world.see("mgs", "h1", RUNNING, at=101.0)
    world.see("mdt", "h2", RUNNING, at=101.0)


def holders(world: World) -> list[str]:
    reason = order.lacking(world.state, world.group())
    return [] if reason is None else list(reason.groups)


def test_it_waits_for_all_of_them_and_names_those_that_do_not_run() -> None:
    world = ordered()
    reason = order.lacking(world.state, world.group())
    assert reason is not None
    assert reason.kind is Kind.DEPENDENCY
    assert reason.text.startswith("g is started after mgs and mdt: ")
    assert reason.ends_when == "mgs and mdt run"
    world.see("mdt", "h2", RUNNING, at=101.0)
    assert holders(world) == ["mgs"]
    world.see("mgs", "h2", RUNNING, at=101.0)  # on any host
    assert holders(world) == []


NOT_RUNNING: list[tuple[str, Step, str]] = [
    (
        "a leaf is missing",
        lambda w: w.see("mgs", "h1", STOPPED, only=["leaf"], at=102.0),
        "not run",
    ),
    ("a leaf is in error", lambda w: w.see("mgs", "h1", ERROR, only=["leaf"], at=102.0), "not run"),
    ("its host is gone", lambda w: w.disconnect("h1"), "does not run completely yet"),
    (
        "its host is being fenced",
        lambda w: setattr(w.state.hosts["h1"], "fence_phase", FencePhase.RUNNING),
        "does not run completely yet",
    ),
    ("it is to be stopped", lambda w: w.journal(Event.STOP, "mgs"), "stopped by the administrator"),
]


@pytest.mark.parametrize(("name", "happens", "words"), NOT_RUNNING, ids=lambda v: str(v)[:20])
def test_only_what_runs_whole_and_should_run_counts(name: str, happens: Step, words: str) -> None:
    world = ordered()
    all_run(world)
    assert holders(world) == []
    happens(world)
    assert holders(world) == ["mgs"]
    reason = order.lacking(world.state, world.group())
    assert reason is not None
    assert words in reason.groups["mgs"]


def test_a_group_that_is_being_stopped_for_a_move_does_not_count() -> None:
    world = ordered()
    all_run(world)
    count = world.state.hosts["h1"].operation_count("leaf")
    count.sent += 1
    assert holders(world) == ["mgs"]
    told = list[str]()
    world.state.tell_followers = told.append
    count.answered += 1
    world.state.operation_ended(world.group("mgs"), world.group("mgs").by_id["leaf"])
    assert told == ["mgs"]
    assert holders(world) == []


def test_the_halves_on_two_hosts_do_not_make_a_whole() -> None:
    world = ordered()
    all_run(world)
    world.see("mgs", "h1", STOPPED, only=["leaf"], at=102.0)
    world.see("mgs", "h2", RUNNING, only=["leaf"], at=102.0)
    assert holders(world) == ["mgs"]


def test_a_failed_group_is_told_with_its_error() -> None:
    world = ordered()
    world.error("mdt", ErrorKind.RESTART_LIMIT, "mdt was restarted 5 times")
    world.start_failed("mgs", "h1", "exit 5")
    reason = order.lacking(world.state, world.group())
    assert reason is not None
    assert reason.groups == {
        "mgs": "mgs could not be started: exit 5",
        "mdt": "mdt is in error: mdt was restarted 5 times",
    }


# --- the gate of every start --------------------------------------------------------------------


def refusal(world: World) -> str | None:
    epoch = world.state.hosts["h1"].epoch
    return proof.start_refusal(world.state, world.group(), "h1", epoch, 100.0, 101.0)


def test_the_gate_refuses_a_start_before_its_turn() -> None:
    world = ordered()
    assert "g is started after mgs and mdt" in (refusal(world) or "")
    all_run(world)
    assert refusal(world) is None


def test_what_ran_here_is_completed_and_restarted_in_place() -> None:
    world = ordered()
    world.see("g", "h1", RUNNING, only=["g"], at=101.0)
    world.see("g", "h1", STOPPED, only=["g"], at=102.0)
    assert refusal(world) is None


def test_a_planned_move_does_not_wait_until_it_has_arrived() -> None:
    world = ordered()
    world.state.groups["g"].moving = True
    assert refusal(world) is None
    world.see("g", "h1", RUNNING, at=101.0)
    assert not world.state.groups["g"].moving


def test_every_change_of_a_group_that_others_wait_for_is_told() -> None:
    world, told = ordered(), list[str]()
    world.state.tell_followers = told.append
    world.see("mgs", "h1", RUNNING, only=["mgs"], at=101.0)
    world.see("mgs", "h1", RUNNING, only=["mgs"], at=102.0)  # nothing new
    world.see("g", "h1", RUNNING, at=102.0)  # nobody waits for it
    assert told == ["mgs"]
    found = world.group("mdt")
    epoch = world.state.hosts["h2"].epoch
    world.state.observe_report(found, found.resources[0], "h2", RUNNING, epoch=epoch)
    assert told == ["mgs", "mdt"]


def test_a_shared_resource_is_told_for_each_of_its_groups() -> None:
    tree = {"a": ["net"], "net": []}
    world = World(
        make_group("a", ["h1"], tree, ["net"]),
        make_group("b", ["h1"], {"b": ["net"], "net": []}, ["net"]),
        make_group("g", ["h1"], after=("b",)),
    )
    told = list[str]()
    world.up("h1")
    world.state.tell_followers = told.append
    world.see("a", "h1", RUNNING, only=["net"], at=101.0)
    assert told == ["b"]
