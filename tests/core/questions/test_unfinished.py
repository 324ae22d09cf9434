"""Why the rest of a managed group is not started."""

from __future__ import annotations

import pytest

from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind
from halo.core.questions import unfinished
from halo.core.questions.starts import order
from halo.core.reasons import Kind
from tests.core.builders import PAIR, RUNNING, STOPPED, Step, World, make_group, then


def half_running() -> World:
    """h1 manages g, whose leaf does not run."""
    world = World(make_group("g", ["h1", "h2"], PAIR))
    world.up("h1", "h2")
    world.see("g", "h1", RUNNING, only=["g"])
    world.state.groups["g"].managed_on = "h1"
    return world


HELD: list[tuple[Step, str]] = [
    (lambda w: w.unmanage("g"), "`halo manage g`"),
    (lambda w: w.journal(Event.FREEZE, "test"), "`halo thaw`"),
    (lambda w: w.see("g", "h2", RUNNING), "at most one copy"),
    (lambda w: w.error("g", ErrorKind.RESTART_LIMIT), "`halo cleanup g`"),
    (lambda w: w.state.knowledge.mark_failure("x", "h1", "start failed"), "`halo cleanup g`"),
]


@pytest.mark.parametrize(("happens", "ends_when"), HELD)
def test_a_hold_or_an_error_is_the_reason(happens: Step, ends_when: str) -> None:
    world = half_running()
    happens(world)
    reason = unfinished.reason(world.state, world.group(), "h1")
    assert reason is not None
    assert reason.kind is Kind.HELD
    assert ends_when in reason.ends_when


NOTHING: list[Step] = [
    lambda w: None,  # HALO is about to start the leaf
    then(lambda w: w.unmanage("g"), lambda w: w.see("g", "h1", RUNNING, at=101.0)),
    then(lambda w: w.unmanage("g"), lambda w: w.journal(Event.STOP, "g")),
]


@pytest.mark.parametrize("happens", NOTHING)
def test_no_reason_if_it_runs_or_is_started_or_should_not_run(happens: Step) -> None:
    world = half_running()
    happens(world)
    assert unfinished.reason(world.state, world.group(), "h1") is None


def test_it_runs_whole_only_if_each_resource_is_seen_running() -> None:
    world = half_running()
    assert not order.runs_whole(world.state, world.group(), "h1")
    world.see("g", "h1", RUNNING, at=101.0)
    assert order.runs_whole(world.state, world.group(), "h1")
    world.see("g", "h1", STOPPED, only=["g"], at=102.0)
    assert not order.runs_whole(world.state, world.group(), "h1")
