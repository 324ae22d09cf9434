"""Why a group has to leave its host."""

from __future__ import annotations

import pytest

from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind
from halo.core.questions import departures
from tests.core.builders import ERROR, Step, then, world_of_three

DEPARTURES: list[tuple[str, Step, str | None]] = [
    ("nothing", lambda w: None, None),
    ("stopped", lambda w: w.journal(Event.STOP, "g"), "stopped by the administrator"),
    ("moving", lambda w: w.journal(Event.MOVE, "g", to="h3"), "moving to h3"),
    ("arrived", lambda w: w.journal(Event.MOVE, "g", to="h1"), None),
    (
        "a target that is gone",
        then(lambda w: w.journal(Event.MOVE, "g", to="h3"), lambda w: w.disconnect("h3")),
        None,
    ),
    ("a target of an older config", lambda w: w.journal(Event.MOVE, "g", to="h9"), None),
    ("deactivated", lambda w: w.journal(Event.DEACTIVATE, "h1"), "moving to h2"),
    (
        "deactivated, and no other can take it",
        then(*(lambda w, h=h: w.journal(Event.DEACTIVATE, h) for h in ("h1", "h2", "h3"))),
        None,
    ),
    (
        "an error holds it here",
        then(
            lambda w: w.journal(Event.MOVE, "g", to="h3"),
            lambda w: w.error("g", ErrorKind.STOP_FAILED),
        ),
        None,
    ),
    (
        "nor one while a third candidate is out of sight: it could start nowhere",
        then(lambda w: w.journal(Event.MOVE, "g", to="h3"), lambda w: w.disconnect("h2")),
        None,
    ),
    (
        "nor does a deactivated host give up what could start nowhere",
        then(
            lambda w: w.journal(Event.DEACTIVATE, "h1"),
            lambda w: w.see("g", "h2", ERROR, reason="hangs"),
        ),
        None,
    ),
    (
        "but a stop is a stop",
        then(lambda w: w.journal(Event.STOP, "g"), lambda w: w.error("g", ErrorKind.STOP_FAILED)),
        "stopped",
    ),
]


@pytest.mark.parametrize(("story", "arrange", "said"), DEPARTURES)
def test_why_a_group_has_to_leave(story: str, arrange: Step, said: str | None) -> None:
    world = world_of_three()
    arrange(world)
    why = departures.departure_reason(world.state, world.group(), "h1")
    assert (why is None) == (said is None), f"{story}: {why}"
    assert (said or "") in (why or "")
