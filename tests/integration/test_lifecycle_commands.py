"""Commands that hold groups back, and commands given while something is under way."""

from __future__ import annotations

import asyncio

from tests.integration.cluster import ClusterHarness
from tests.integration.telling import (
    ask,
    at_once,
    comes_to_rest,
    nothing_happens,
    story,
    story_of,
    until_says,
)


async def slow_start_of_g1(cluster: ClusterHarness) -> None:
    """Start the cluster; returns at the beginning of a long start of g1 on h1."""
    cluster.fault("g1", "start-slow 3", host="h1")
    await cluster.start(settled=False)
    await cluster.until_host("h2", connected=True)
    await cluster.until_true(lambda: "start g1" in story_of(cluster, "h1"), "the start")


# unmanage and manage -------------------------------------------------------------------------


async def test_an_unmanaged_group_started_by_hand_elsewhere_is_left_there(
    quick: ClusterHarness,
) -> None:
    await quick.start()
    await ask(quick, "unmanage", "g1")
    before = story(quick)
    quick.stop_by_hand("g1", "h1")
    await quick.until(g1="Stopped")
    quick.start_by_hand("g1", "h2")
    await quick.until(g1="Running (Failed Over) on h2")
    await ask(quick, "manage", "g1")
    await nothing_happens(quick)
    await quick.until(g1="Running (Failed Over) on h2")
    assert story(quick) == before


async def test_a_host_that_dies_with_an_unmanaged_group_is_not_fenced(
    quick: ClusterHarness,
) -> None:
    await quick.start()
    await ask(quick, "unmanage", "g1")
    before = story(quick)
    quick.freeze("h1")
    await quick.until_host("h1", connected=False)
    await until_says(quick, "g1", "unmanaged", "h1 is disconnected", status="Unknown")
    await nothing_happens(quick, seconds=1.5)
    assert quick.is_on("h1")
    assert story(quick) == before

    quick.thaw_process("h1")
    await quick.until(g1="Running on h1")
    assert "g1 is managed" in await ask(quick, "manage", "g1")
    await nothing_happens(quick)


# Commands over running work ------------------------------------------------------------------


async def test_no_step_follows_a_slow_start_in_a_cluster_that_was_frozen(
    quick: ClusterHarness,
) -> None:
    await slow_start_of_g1(quick)
    assert "still running: start of g1 on h1" in await at_once(quick, "/v1/cluster", "freeze")
    await quick.until_true(lambda: quick.running_on("g1") == {"h1"}, "the end of the start")
    await nothing_happens(quick)
    assert story_of(quick, "h1") == ["start g1"]
    await ask(quick, "thaw")
    await quick.until(g1="Running on h1")
    assert story_of(quick, "h1") == ["start g1", "start g1_mnt0"]


async def test_a_wait_that_is_too_short_says_what_is_missing(quick: ClusterHarness) -> None:
    await quick.start()
    quick.fault("g1", "stop-slow 3", host="h1")
    result = await quick.halo("stop", "g1", "--wait", "1")
    assert result.code == 75
    assert "Not reached within 1 s" in result.stderr
    assert "g1" in result.stderr
    await quick.until(g1="Stopped")


async def test_two_commands_at_once_leave_one_clear_state(quick: ClusterHarness) -> None:
    await quick.start()
    results = await asyncio.gather(
        quick.halo("stop", "g1"),
        quick.halo("move", "g1", "--to", "h2"),
        quick.halo("deactivate", "h1"),
    )
    assert all(result.code in (0, 1) for result in results), results
    await comes_to_rest(quick)
    found = await quick.group("g1")
    assert found["wanted"] == "stopped"
    assert found["status"] == "Stopped"
    assert found["move_target"] in (None, "h2")
