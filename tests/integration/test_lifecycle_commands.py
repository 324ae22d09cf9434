"""Commands that hold groups back, and commands given while something is under way."""

from __future__ import annotations

import asyncio

from tests.integration.cluster import ClusterHarness, group
from tests.integration.conftest import MakeCluster
from tests.integration.telling import (
    QUICK_MONITORS,
    again,
    ask,
    at_once,
    comes_to_rest,
    nothing_happens,
    refused,
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


async def test_nothing_is_done_to_an_unmanaged_group(quick: ClusterHarness) -> None:
    await quick.start()
    before = story(quick)
    await ask(quick, "unmanage", "g1", "--reason", "disk swap")
    quick.break_resource("g1_mnt0")
    quick.break_resource("g1")
    await until_says(quick, "g1", "unmanaged: disk swap")
    await nothing_happens(quick)
    assert "halo manage g1" in await refused(quick, "stop", "g1")
    assert "unmanaged" in await refused(quick, "move", "g1", "--to", "h2")
    assert "halo manage g1" in await refused(quick, "cleanup", "g1")
    again(quick)
    await until_says(quick, "g1", "unmanaged: disk swap", status="Stopped")
    await nothing_happens(quick)
    assert story(quick) == before
    assert "g1 (heartbeat/ZFS): Stopped: unmanaged: disk swap (Unmanaged)" in await ask(
        quick, "status"
    )

    await ask(quick, "manage", "g1")
    await quick.until(g1="Running on h1")


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


async def test_managing_a_group_that_was_moved_by_hand_starts_no_second_copy(
    quick: ClusterHarness,
) -> None:
    await quick.start()
    before = story(quick)
    await ask(quick, "unmanage", "g1")
    # Within one monitor period, so that nothing was seen of it when the group is managed again.
    quick.fault("g1", "monitor-slow 1", host="h1")
    quick.fault("g1", "monitor-slow 1", host="h2")
    quick.stop_by_hand("g1", "h1")
    quick.start_by_hand("g1", "h2")
    code, answer = await quick.api("PATCH", "/v1/resources/g1", {"managed": True})
    assert code == 200, answer
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


async def test_a_managed_group_waits_where_an_unmanaged_one_forbids_the_fence(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(groups=[group("g1"), group("g3")], flags=QUICK_MONITORS)
    await cluster.start()
    await ask(cluster, "unmanage", "g1")
    cluster.kill("h1")
    await until_says(
        cluster,
        *("g3", "h1 is disconnected", "not fenced: h1 may hold unmanaged groups: g1"),
        status="Unknown",
    )
    await nothing_happens(cluster)
    assert "unmanaged groups: g1" in await refused(cluster, "fence", "h1")
    await ask(cluster, "manage", "g1")
    await cluster.until(g1="Running (Failed Over) on h2", g3="Running (Failed Over) on h2")


# freeze and thaw -----------------------------------------------------------------------------


async def test_a_frozen_cluster_restarts_nothing(quick: ClusterHarness) -> None:
    await quick.start()
    before = story(quick)
    assert "no automatic action" in await ask(quick, "freeze", "--reason", "switch work")
    quick.break_resource("g1_mnt0")
    await until_says(quick, "g1", "frozen: switch work", "not running on h1: g1_mnt0")
    await nothing_happens(quick)
    assert "FROZEN: no automatic action until `halo thaw` (switch work)." in await ask(
        quick, "status"
    )
    again(quick)
    await until_says(quick, "g1", "frozen: switch work")
    await nothing_happens(quick)
    assert story(quick) == before
    await ask(quick, "thaw")
    await quick.until(g1="Running on h1")
    assert story(quick) == [*before, "start g1_mnt0 on h1"]


async def test_a_frozen_cluster_fences_nobody_until_thaw(quick: ClusterHarness) -> None:
    await quick.start()
    before = story(quick)
    await ask(quick, "freeze", "--reason", "switch work")
    quick.freeze("h1")
    await quick.until_host("h1", connected=False)
    await until_says(quick, "g1", "frozen: switch work", "h1 is disconnected", status="Unknown")
    await nothing_happens(quick, seconds=2)
    assert quick.is_on("h1")
    assert story(quick) == before
    await ask(quick, "thaw")
    await quick.until(g1="Running (Failed Over) on h2")
    assert not quick.is_on("h1")


async def test_thawing_after_a_move_by_hand_starts_no_second_copy(quick: ClusterHarness) -> None:
    await quick.start()
    before = story(quick)
    await ask(quick, "freeze")
    quick.stop_by_hand("g1", "h1")
    quick.start_by_hand("g1", "h2")
    assert await at_once(quick, "/v1/cluster", "thaw")
    await quick.until(g1="Running (Failed Over) on h2")
    assert story(quick) == before


async def test_commands_are_refused_while_frozen(quick: ClusterHarness) -> None:
    await quick.start()
    await ask(quick, "freeze", "--reason", "switch work")
    for command in (
        ("stop", "g1"),
        ("start", "g1"),
        ("move", "g1", "--to", "h2"),
    ):
        assert "frozen" in await refused(quick, *command)
    assert "staying here: g1" in await ask(quick, "deactivate", "h1")
    await nothing_happens(quick)
    await ask(quick, "thaw")
    await quick.until(g1="Running (Failed Over) on h2")
    assert "not frozen" in await ask(quick, "thaw")


# Commands over running work ------------------------------------------------------------------


async def test_a_stop_during_a_slow_start_lets_it_end_and_starts_nothing_more(
    quick: ClusterHarness,
) -> None:
    await slow_start_of_g1(quick)
    answer = await at_once(quick, "/v1/groups/g1", "stop")
    assert "still running: start of g1 on h1" in answer
    await quick.until(g1="Stopped")
    assert story_of(quick, "h1") == ["start g1", "stop g1"]
    assert quick.count("g1", "start", "h1") == 1  # it ended; it was not killed


async def test_no_step_follows_a_slow_start_of_a_group_that_was_unmanaged(
    quick: ClusterHarness,
) -> None:
    await slow_start_of_g1(quick)
    code, answer = await quick.api("PATCH", "/v1/resources/g1", {"managed": False})
    assert (code, "still running: start of g1 on h1" in answer["message"]) == (200, True), answer
    await quick.until_true(lambda: quick.running_on("g1") == {"h1"}, "the end of the start")
    await nothing_happens(quick)
    assert story_of(quick, "h1") == ["start g1"]
    await ask(quick, "manage", "g1")
    await quick.until(g1="Running on h1")
    assert story_of(quick, "h1") == ["start g1", "start g1_mnt0"]


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


async def test_a_deactivation_during_a_slow_start_moves_the_group(quick: ClusterHarness) -> None:
    await slow_start_of_g1(quick)
    await at_once(quick, "/v1/hosts/h1", "deactivate")
    await quick.until(g1="Running (Failed Over) on h2")
    assert story_of(quick, "h1") == ["start g1", "stop g1"]


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
