"""Which host can take a group."""

from __future__ import annotations

import pytest

from halo.core.cluster.host_state import FencePhase
from halo.core.errors import Loss, LossKind
from halo.core.journal.records import Event
from halo.core.questions import candidates
from tests.core.builders import ERROR, Step, then, world_of_three

UNAVAILABLE: list[tuple[str, Step, str | None]] = [
    ("nothing", lambda w: None, None),
    ("disconnected", lambda w: w.disconnect("h2"), "h2 is disconnected (no answer"),
    ("deactivated", lambda w: w.journal(Event.DEACTIVATE, "h2"), "h2 is deactivated"),
    ("just connected", lambda w: w.connect("h2"), "has not probed the group there yet"),
    (
        "being fenced",
        lambda w: setattr(w.state.hosts["h2"], "fence_phase", FencePhase.RUNNING),
        "h2 is being fenced",
    ),
    ("the start failed there", lambda w: w.start_failed("g", "h2", "exit 1"), "exit 1"),
    ("it failed elsewhere", lambda w: w.start_failed("g", "h1"), None),
    (
        "it was cleaned up",
        then(lambda w: w.start_failed("g", "h2"), lambda w: w.journal(Event.CLEANUP, "g")),
        None,
    ),
    (
        "its monitor fails there: that stands in the way of a proof",
        lambda w: w.see("g", "h2", ERROR),
        None,
    ),
]


@pytest.mark.parametrize(("story", "arrange", "said"), UNAVAILABLE)
def test_why_a_host_cannot_take_a_group(story: str, arrange: Step, said: str | None) -> None:
    world = world_of_three()
    if "disconnected" in story:
        world.state.host_disconnected("h2", Loss(LossKind.SILENT, "x"), world.now)
        said = "h2 is disconnected"
    else:
        arrange(world)
    reason = candidates.unavailable(world.state, world.state.candidate(world.group(), "h2"))
    assert (reason is None) == (said is None), story
    assert (said or "") in (reason or "")
    others = ["h3"] if said else ["h2", "h3"]
    available = candidates.available(world.state, world.group(), besides="h1")
    assert [candidate.host for candidate in available] == others
