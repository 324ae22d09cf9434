"""The facts, and the steps that change them."""

from __future__ import annotations

from typing import Any

import pytest

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.journal import fold
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from halo.core.model import FenceDevice, LossPolicy
from halo.core.outcomes import AgentIdentity

from .builders import PAIR, RUNNING, STOPPED, World, make_group, world_of_three

# --- connections --------------------------------------------------------------------------------


def test_a_new_connection_begins_a_new_epoch_and_forgets() -> None:
    world = world_of_three()
    world.see("g", "h1", RUNNING)
    before = world.state.hosts["h1"].epoch
    world.lose("h1")
    at = world.state.hosts["h1"]
    at.fence_phase, at.fence_error, at.fence_attempts = FencePhase.FAILED, "no power", 3
    epoch = world.state.host_connected("h1", AgentIdentity(), 200.0)
    assert epoch == before + 1
    assert (at.lost_at, at.suspect_at, at.loss) == (None, None, None)
    assert (at.fence_phase, at.fence_error, at.fence_attempts) == (FencePhase.IDLE, "", 0)
    assert world.state.knowledge.presence(world.group(), "h1") not in (RUNNING, STOPPED)


def test_a_connection_during_a_fence_does_not_end_the_fence() -> None:
    world = world_of_three()
    world.state.hosts["h1"].fence_phase = FencePhase.RUNNING
    world.connect("h1")
    assert world.state.hosts["h1"].fence_phase is FencePhase.RUNNING
    assert not world.state.hosts["h1"].ready


def test_a_fence_ends_the_needs_of_shared_resources_there() -> None:
    world = World(make_group("g", ["h1", "h2"], {"g": ["net"], "net": []}, shared=["net"]))
    world.up("h1", "h2")
    for host in ("h1", "h2"):
        world.state.needs.need("net", host, "g")
    world.fenced("h1")
    assert world.state.needs.needed_by("net", "h1") == frozenset()
    assert world.state.needs.needed_by("net", "h2") == {"g"}


def test_a_reboot_by_policy_is_due_once() -> None:
    world = World(make_group("g"), on_loss={"h1": LossPolicy.REBOOT})
    assert world.state.reboot_is_due("h1")
    assert not world.state.reboot_is_due("h2")
    world.journal(Event.POWER_ON, "h1", policy="reboot")
    assert not world.state.reboot_is_due("h1")


# --- proof by a fence ---------------------------------------------------------------------------


def test_a_device_that_says_off_again_shows_what_was_forgotten() -> None:
    world = world_of_three()
    world.fenced("h2")
    world.state.knowledge.drop_group(world.group(), "afresh", now=world.now)
    assert world.state.knowledge.presence(world.group(), "h2") is Presence.UNKNOWN
    assert world.state.renew_power_proof("h2", asked_at=world.now, answered_at=world.now)
    assert world.state.knowledge.presence(world.group(), "h2") is STOPPED


@pytest.mark.parametrize(
    ("recorded", "level"),
    [
        ({"level": 2, "agents": ["pdu"]}, 2),
        ({"level": 2, "agents": ["bmc"]}, None),  # the config has another order now
        ({"level": 3, "agents": ["pdu"]}, None),  # or fewer levels
        ({"level": 0, "agents": ["pdu"]}, None),
        ({}, None),  # a person's word, or an older version's record
    ],
)
def test_the_level_that_confirmed_a_fence_is_remembered_over_a_restart(
    recorded: dict[str, Any], level: int | None
) -> None:
    levels = tuple((FenceDevice(agent, f"/{agent}", {}),) for agent in ("bmc", "pdu"))
    remembered = Remembered()
    fold.apply(remembered, Record(0.0, Event.FENCE, "h2", "", recorded))
    again = Remembered()
    fold.apply(again, remembered.snapshot(0.0))
    world = World(
        make_group("g", ["h1", "h2"], PAIR), remembered=again, fence_levels={"h2": levels}
    )
    proof = world.state.hosts["h2"].power_proof
    assert proof is not None
    assert proof.level == level


def test_a_device_that_was_asked_before_a_doubt_shows_nothing() -> None:
    world = world_of_three()
    world.fenced("h2")
    world.state.knowledge.drop_group(world.group(), "afresh", now=world.now)
    world.state.doubt_power_proof("h2", since=world.now + 1)
    assert not world.state.renew_power_proof("h2", asked_at=world.now, answered_at=world.now + 30.0)
    assert world.state.knowledge.presence(world.group(), "h2") is Presence.UNKNOWN
