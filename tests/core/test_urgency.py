"""Which waiting groups come first: those that are down as far as all candidates can tell."""

from __future__ import annotations

import pytest

from halo.core.journal.records import Event
from halo.core.questions.starts.urgency import is_down

from .test_placement import arrange


@pytest.mark.parametrize(
    ("conditions", "down"),
    [
        ("up up", True),  # a crash that nobody saw
        ("lost up", True),
        ("off up", True),
        ("off, old up", True),  # its device has to be asked again: also a decision
        ("lost lost", True),
        ("runs up", False),
        ("up runs", False),
        ("runs runs", False),
        ("runs lost", False),
        ("up fresh", False),  # nobody knows yet: it may run there
        ("fresh up", False),
        ("gone up", False),  # not lost yet
        ("up gone", False),
        ("refused up", False),
        ("never up", False),
        ("never never", False),
        ("errs up", False),  # its monitor has to tell
    ],
)
def test_a_group_is_down_if_every_candidate_has_told_or_is_lost(
    conditions: str, down: bool
) -> None:
    world = arrange(_split(conditions))
    assert is_down(world.state, world.group()) is down


def _split(conditions: str) -> list[str]:
    return [word.replace("_", ", ") for word in conditions.replace(", ", "_").split()]


@pytest.mark.parametrize("event", [Event.STOP, Event.UNMANAGE])
def test_a_group_that_nobody_starts_is_not_urgent(event: Event) -> None:
    world = arrange(["up", "up"], lambda world: world.journal(event, "g"))
    assert not is_down(world.state, world.group())
