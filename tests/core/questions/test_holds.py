"""When a group is held (S4, S9)."""

from __future__ import annotations

import pytest

from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind
from halo.core.questions import holds
from tests.core.builders import RUNNING, Step, then, world_of_three

HOLDS: list[tuple[str, Step, str | None]] = [
    ("nothing", lambda w: None, None),
    ("unmanaged", lambda w: w.unmanage("g"), "unmanaged"),
    ("unmanaged with a reason", lambda w: w.unmanage("g", "disk swap"), "disk swap"),
    ("frozen", lambda w: w.journal(Event.FREEZE, "c", "migration"), "frozen: migration"),
    (
        "a second copy was reported",
        lambda w: w.error("g", ErrorKind.SECOND_COPY, "two"),
        "halo cleanup g",
    ),
    (
        "two copies are seen",
        then(lambda w: w.see("g", "h1", RUNNING), lambda w: w.see("g", "h3", RUNNING, only=["x"])),
        "h1 and h3",
    ),
    ("a failed stop holds no action in place", lambda w: w.error("g", ErrorKind.STOP_FAILED), None),
    ("so with too many restarts", lambda w: w.error("g", ErrorKind.RESTART_LIMIT), None),
    ("another group is unmanaged", lambda w: w.unmanage("other"), None),
]


@pytest.mark.parametrize(("story", "arrange", "said"), HOLDS)
def test_when_a_group_is_held(story: str, arrange: Step, said: str | None) -> None:
    world = world_of_three()
    arrange(world)
    held = holds.hold_reason(world.state, world.group())
    if said is None:
        assert held is None, story
    else:
        assert held is not None, story
        assert said in held


def test_observe_mode_holds_everything() -> None:
    world = world_of_three(observe_only=True)
    assert "observe" in (holds.hold_reason(world.state, world.group()) or "")
