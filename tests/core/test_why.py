"""The answers to "why?": they say what was decided, on what facts, and what can be done."""

from __future__ import annotations

from typing import Any

import pytest

from halo.core.errors import Loss, LossKind
from halo.core.groups.placement import decide
from halo.core.groups.proof_search import search
from halo.core.journal.records import Event
from halo.core.why.group import why_group
from halo.core.why.host import why_host

from .builders import PAIR, RUNNING, STOPPED, Step, World, amounts, make_group, then
from .test_placement import SCENARIOS, Scenario, arrange_with_unmanaged

WALL = 1000.0


def why(world: World, name: str = "g") -> dict[str, Any]:
    """The answer after the placer has decided on each group that no host manages."""
    for group in world.cluster.groups.values():
        at = world.state.groups[group.id]
        if at.managed_on is None:
            seen = world.state.candidates_of(group)
            decision = decide(world.state, group, seen, 100.0, world.now)
            found = search(world.state, group, seen, decision.unproven, world.now)
            waits = decision.waits and decision.waits.with_words(found.words)
            at.decided(decision.text + found.words, waits, world.now, failed=decision.failed)
    if name in world.cluster.groups:
        return why_group(world.state, world.group(name), world.now, WALL)
    return why_host(world.state, name, world.now, WALL)


def facts_of(answer: dict[str, Any], about: str) -> list[str]:
    return [fact["text"] for fact in answer["facts"] if fact["about"] == about]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_waiting_group_says_the_reason_on_record_and_a_way_out(scenario: Scenario) -> None:
    world = arrange_with_unmanaged(scenario)
    answer = why(world)
    waiting = world.state.groups["g"].waiting
    if waiting is None:
        assert answer["waiting"] is None
        assert " waits" not in answer["text"]
        return
    assert answer["text"] == f"g should run, and waits: {waiting.reason.text}"
    assert answer["waiting"]["text"] == waiting.reason.text
    assert answer["halo_does"]
    about = {fact["about"] for fact in answer["facts"]}
    assert set(world.group().candidates) <= about


def test_each_fact_says_how_and_when_it_was_learnt() -> None:
    world = World(make_group("g", ["h1", "h2", "h3"]))
    world.up("h1", "h2", "h3")
    world.fenced("h2", verified_at=97.0)
    world.disconnect("h3")
    world.now = 110.0
    facts = {(f["about"], f["text"]): (f["how"], f["at"]) for f in why(world)["facts"]}
    assert facts["h1", "g is stopped"] == ("monitors", WALL - 10.0)
    off = facts["h2", "g is stopped, because the host is off"]
    assert off == ("a confirmed fence", WALL - 13.0)
    unknown = facts["h3", "it is not known whether g runs; it was last seen stopped"]
    assert unknown == ("not known", None)


def test_a_group_that_gives_way_and_the_one_that_needs_its_room() -> None:
    needs = amounts({"gb": 1})
    world = World(
        make_group("g", ["h1", "h2"], needs=needs, priority=10),
        make_group("high", ["h1"], needs=needs, priority=20, preempt=True),
        capacity={"h1": {"gb": 1}},
    )
    world.up("h1", running=["g"])
    world.up("h2")
    at = world.state.groups["g"]
    at.managed_on = at.placed_on = "h1"
    needing = world.group("high")
    decision = decide(world.state, needing, world.state.candidates_of(needing), 100.0, world.now)
    world.state.make_room("high", decision.makes_room)

    answer = why(world)
    assert answer["text"] == "g leaves h1: gives way to high, which has priority 20"
    assert answer["halo_does"] == [
        "HALO stops it on h1, and starts it again as soon as a host has room for it"
    ]
    answer = why(world, "high")
    assert "; g gives way to it on h1" in answer["text"]
    assert answer["halo_does"][0] == "HALO stops g to make room for it"
    assert "it needs 1 gb (priority 20); groups of a lower priority give way to it" in facts_of(
        answer, "high"
    )


HELP: list[tuple[str, Step, str, str]] = [
    ("unmanaged", lambda w: w.unmanage("g"), "only monitors", "`halo manage g`"),
    ("one is gone", lambda w: w.disconnect("h2"), "does not fence h2", "bring h2 back"),
    (
        "one is lost",
        then(lambda w: w.lose("h2"), lambda w: w.answers("h1")),
        "HALO fences h2",
        "halo fence",
    ),
    (
        "nobody is active",
        then(
            lambda w: w.journal(Event.DEACTIVATE, "h1"), lambda w: w.journal(Event.DEACTIVATE, "h2")
        ),
        "one of h1, h2 can take it, HALO starts the group",
        "`halo activate h2`",
    ),
]


@pytest.mark.parametrize(
    ("name", "happens", "does", "can"), HELP, ids=lambda value: str(value)[:20]
)
def test_it_says_what_halo_does_and_what_you_can_do(
    name: str, happens: Step, does: str, can: str
) -> None:
    world = World(make_group("g", ["h1", "h2"]))
    world.up("h1", "h2")
    happens(world)
    answer = why(world)
    assert does in "; ".join(answer["halo_does"])
    assert can in "; ".join(answer["you_can"])


# --- a group that runs --------------------------------------------------------------------------


def running_on(host: str) -> World:
    world = World(make_group("g", ["h1", "h2"], PAIR))
    world.up("h1", "h2", running=[])
    world.see("g", host, RUNNING, at=101.0)
    world.state.groups["g"].managed_on = host
    world.now = 102.0
    return world


def test_at_home_it_runs_because_that_is_its_home() -> None:
    answer = why(running_on("h1"))
    assert answer["text"] == "g runs on h1: this is its home host"
    assert "if h1 is lost, h2 takes it" in answer["halo_does"]


def test_elsewhere_it_says_why_no_preferred_host_has_it_and_how_to_move_it_back() -> None:
    world = running_on("h2")
    assert "h1 is preferred, and could take it now" in why(world)["text"]
    assert "`halo failback --onto h1` moves it home" in why(world)["you_can"]
    world.fenced("h1")
    answer = why(world)
    assert answer["text"].startswith("g runs on h2: h1 is disconnected")
    assert "if h2 is lost, no other host can take it now" in answer["halo_does"]
    assert not any("failback" in way for way in answer["you_can"])


def test_a_part_that_does_not_run_and_a_stop_are_told() -> None:
    world = running_on("h1")
    world.see("g", "h1", STOPPED, only=["x"], at=102.0)
    assert why(world)["text"] == "g is being started on h1"
    world.journal(Event.STOP, "g", "disks")
    assert "g should be stopped" in why(world)["text"]
    world.state.groups["g"].managed_on = None
    world.see("g", "h1", STOPPED, at=103.0)
    answer = why(world)
    assert answer["text"].startswith("g should be stopped: stopped by the administrator")
    assert "`halo start g`" in answer["you_can"]
    assert {"it should be stopped", "stop: disks"} <= set(facts_of(answer, "g"))


# --- hosts --------------------------------------------------------------------------------------


def test_a_fenced_host_says_why_it_was_fenced_and_what_comes_next() -> None:
    world = World(make_group("g", ["h1", "h2"]))
    world.up("h1", "h2")
    world.disconnect("h1")
    world.journal(Event.FENCE, "h1", "h1 was silent for 3.0 s; for g")
    world.state.host_fenced("h1", world.now)
    answer = why(world, "h1")
    assert answer["text"] == ("h1 was fenced, and not reset since: h1 was silent for 3.0 s; for g")
    assert "off, as was confirmed" in facts_of(answer, "h1")
    assert "after the repair: `halo reset h1`" in answer["you_can"]


NOT_FENCED: list[tuple[str, Step, str]] = [
    ("it answers", lambda w: None, "it is connected, and answers"),
    (
        "its agent is gone",
        lambda w: w.disconnect("h1", Loss(LossKind.REFUSED)),
        "its agent does not run",
    ),
    (
        "an unmanaged group",
        then(
            lambda w: w.see("u", "h1", RUNNING, at=101.0),
            lambda w: w.unmanage("u"),
            lambda w: w.lose("h1"),
        ),
        "h1 may hold unmanaged groups: u",
    ),
    (
        "nobody waits for it",
        then(lambda w: w.journal(Event.STOP, "g"), lambda w: w.journal(Event.STOP, "u"),
             lambda w: w.lose("h1")),
        "no group that should run waits for it",
    ),
    (
        "it will be",
        then(lambda w: w.lose("h1"), lambda w: w.answers("h2")),
        "HALO may fence it now",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "happens", "words"), NOT_FENCED, ids=lambda v: str(v)[:20])
def test_a_host_says_why_it_is_not_fenced(name: str, happens: Step, words: str) -> None:
    world = World(make_group("g", ["h1", "h2"]), make_group("u", ["h1"]))
    world.up("h1", "h2")
    happens(world)
    answer = why(world, "h1")
    assert answer["text"].startswith("h1 is not fenced")
    assert words in answer["text"]
    assert answer["halo_does"]
