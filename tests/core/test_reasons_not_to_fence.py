"""The operator's handbook explains every reason not to fence a lost host, and no other ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo.core.cluster.host_state import FencePhase
from halo.core.errors import Loss, LossKind
from halo.core.journal.records import Event
from halo.core.model import LossPolicy
from tests.core.builders import World, make_group
from tests.core.test_fencing import AUTOMATIC, automatic, lost_host, phase

HANDBOOK = Path(__file__).parents[2] / "docs" / "operators.md"
HEADING = "## When HALO does not fence a lost host\n"


def explained() -> list[re.Pattern[str]]:
    """The reasons of the handbook's table. HOST is any host, N any number."""
    section = HANDBOOK.read_text().split(HEADING, 1)[1].split("\n## ", 1)[0]
    reasons = re.findall(r"^\| (`+) ?(.+?) ?\1 \|", section, re.MULTILINE)
    patterns = [re.escape(reason) for _, reason in reasons]
    return [
        re.compile(re.sub(r"\bN\b", r"\\d+", re.sub(r"\bHOST\b", r"h\\d", pattern)))
        for pattern in patterns
    ]


def refusals() -> Iterator[str]:
    """What the manager says in every situation in which it does not fence a lost host."""
    for _, arrange, said in AUTOMATIC:
        world = lost_host()
        arrange(world)
        if said is not None:
            yield automatic(world) or ""
    for kind in LossKind:
        world = lost_host()
        world.state.hosts["h1"].lost_at = None
        world.state.hosts["h1"].loss = Loss(kind)
        yield automatic(world) or ""
    limited = lost_host(fence_limit=2)
    limited.state.automatic_fences.extend([50.0, 60.0])
    cancelled = lost_host()
    cancelled.journal(Event.FENCE_CANCEL, "h1")
    ended = lost_host()
    phase(FencePhase.FAILED, "no power", float("inf"))(ended)
    for world in (
        limited,
        cancelled,
        ended,
        _storm(),
        _just_back(),
        lost_host(observe_only=True),
        lost_host(on_loss={"h1": LossPolicy.WAIT}),
        lost_host(no_device=["h1"]),
    ):
        yield automatic(world) or ""


def _storm() -> World:
    world = World(make_group("g", ["h1", "h4"]), hosts=["h1", "h2", "h3", "h4"])
    world.up("h1", "h2", "h3", "h4")
    world.lose("h1", "h2", "h3")
    world.answers("h4")
    return world


def _just_back() -> World:
    world = World(make_group("g", ["h1", "h2"]), hosts=["h1", "h2"])
    world.up("h1", "h2")
    world.lose("h1", "h2")
    world.now += 20.0
    world.up("h2")
    world.answers("h2")
    return world


@pytest.mark.parametrize("refusal", sorted(set(refusals())))
def test_every_reason_is_explained(refusal: str) -> None:
    assert refusal
    assert any(pattern.match(refusal) for pattern in explained()), refusal


def test_every_explanation_is_of_a_reason() -> None:
    said = set(refusals())
    unused = [p.pattern for p in explained() if not any(p.match(each) for each in said)]
    assert explained()
    assert unused == []
