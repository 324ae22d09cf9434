"""Who fell silent together."""

from __future__ import annotations

import pytest

from halo.core.questions import suspicion
from tests.core.builders import world_of_three


@pytest.mark.parametrize(
    ("onsets", "together"),
    [
        ({"h1": 0.0}, 1),
        ({"h1": 0.0, "h2": 60.0}, 2),
        ({"h1": 0.0, "h2": 60.1}, 1),
        ({"h1": 50.0, "h2": 0.0, "h3": 100.0}, 2),  # no single minute holds all three
        ({"h1": 50.0, "h2": 0.0, "h3": 60.0}, 3),
        ({"h2": 0.0, "h3": 0.0}, 0),  # h1 itself is not suspect
    ],
)
def test_hosts_are_suspect_together_within_one_sliding_minute(
    onsets: dict[str, float], together: int
) -> None:
    world = world_of_three()
    for host, onset in onsets.items():
        world.suspect(host, since=onset)
    assert len(suspicion.suspects_with(world.state, "h1")) == together


def test_a_host_that_answered_again_is_not_suspect() -> None:
    world = world_of_three()
    for host in ("h1", "h2", "h3"):
        world.suspect(host)
    world.state.host_alive("h2")
    assert suspicion.suspects_with(world.state, "h1") == ["h1", "h3"]


def test_a_host_that_was_fenced_meanwhile_is() -> None:
    world = world_of_three()
    world.suspect("h1")
    world.suspect("h2")
    world.fenced("h2")
    assert suspicion.suspects_with(world.state, "h1") == ["h1", "h2"]
