"""Every verb of the harness once, on real processes: the examples for scenario tests."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.cluster import ClusterHarness, group, service
from tests.integration.conftest import MakeCluster


async def test_a_dead_host_is_fenced_its_groups_move_and_come_home(
    cluster: ClusterHarness,
) -> None:
    await cluster.start()
    cluster.kill("h1")
    await cluster.until(g1="Running (Failed Over) on h2", g2="Running on h2")
    await cluster.until_event("fence", "h1")
    assert cluster.running_on("g1_mnt0") == {"h2"}

    cluster.boot("h1")
    await cluster.until_host("h1", connected=True)
    assert (await cluster.halo("reset", "h1")).code == 0
    result = await cluster.halo("failback", "--onto", "h1", "--reason", "repaired")
    assert result.code == 0, result.stderr
    await cluster.until(g1="Running on h1", g2="Running on h2")


async def test_a_frozen_host_is_fenced(cluster: ClusterHarness) -> None:
    await cluster.start()
    cluster.freeze("h2")
    await cluster.until(g1="Running on h1", g2="Running (Failed Over) on h1")
    assert not cluster.is_on("h2")


async def test_a_short_freeze_does_no_harm(cluster: ClusterHarness) -> None:
    await cluster.start()
    cluster.freeze("h2")
    await asyncio.sleep(0.2)  # well below the loss budget
    cluster.thaw_process("h2")
    await cluster.stays(
        lambda s: all(g["status"] == "Running" for g in s["groups"]), "all at home", seconds=3
    )
    assert cluster.is_on("h2")


async def test_a_resource_that_crashes_is_started_again_in_place(cluster: ClusterHarness) -> None:
    await cluster.start()
    cluster.break_resource("g1_mnt0")
    await cluster.until_true(lambda: cluster.count("g1_mnt0", "start") == 2, "a second start")
    await cluster.until(g1="Running on h1")
    assert cluster.running_on("g1_mnt0") == {"h1"}
    assert cluster.count("g1", "start") == 1


async def test_a_manager_that_is_killed_finds_everything_again(cluster: ClusterHarness) -> None:
    await cluster.start()
    cluster.kill_manager()
    starts = cluster.count("g1", "start")
    cluster.start_manager()
    await cluster.until(g1="Running on h1", g2="Running on h2")
    assert cluster.count("g1", "start") == starts
    assert cluster.count("g1", "stop") == 0


async def test_a_group_that_cannot_start_at_home_starts_on_the_next_host(
    cluster: ClusterHarness,
) -> None:
    cluster.fault("g1_mnt0", "start-fail", host="h1")
    await cluster.start(settled=False)
    await cluster.until(g1="Running (Failed Over) on h2", g2="Running on h2")
    assert cluster.running_on("g1") == {"h2"}


async def test_a_fence_device_that_fails_holds_the_groups_back(cluster: ClusterHarness) -> None:
    await cluster.start()
    cluster.fence_fault("h1", "off fail")
    cluster.freeze("h1")
    await cluster.until_host("h1", connected=False)
    assert cluster.running_on("g1") == {"h1"}
    cluster.fence_fault("h1")
    await cluster.until(g1="Running (Failed Over) on h2")


async def test_an_observing_manager_does_nothing(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(flags=["--sleep-time", "200"])
    await cluster.start(settled=False)
    await cluster.until(g1="Stopped", g2="Stopped")
    cluster.start_by_hand("g1", "h2")
    await cluster.until(g1="Running (Failed Over) on h2")
    cluster.stop_by_hand("g1", "h2")
    await cluster.until(g1="Stopped")
    assert cluster.count("g1", "start") == 0


async def test_a_group_started_by_hand_is_found_where_it_runs(cluster: ClusterHarness) -> None:
    cluster.start_by_hand("g1", "h2")
    await cluster.start(settled=False)
    await cluster.until(g1="Running (Failed Over) on h2", g2="Running on h2")
    assert cluster.count("g1", "start") == 0


async def test_a_crashed_agent_is_taken_up_again(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(flags=["--manage-resources", "--sleep-time", "500"])
    await cluster.start()
    cluster.crash_agent("h1")
    await cluster.until_host("h1", connected=False)
    cluster.boot("h1")
    await cluster.until_host("h1", connected=True)
    await cluster.until(g1="Running on h1", g2="Running on h2")
    assert cluster.count("g1", "start") == 1


async def test_a_shared_resource_runs_on_both_hosts(make_cluster: MakeCluster) -> None:
    net = service("net", shared=True)
    cluster = make_cluster(
        groups=[
            group("a", resources=[service("a", ["net"]), net]),
            group("b", "h2", ["h1"], resources=[service("b", ["net"]), net]),
        ]
    )
    await cluster.start()
    await cluster.until_true(lambda: cluster.running_on("net") == {"h1", "h2"}, "net on both")


async def test_with_mutual_tls(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(mtls=True)
    await cluster.start()
    cluster.kill("h1")
    await cluster.until(g1="Running (Failed Over) on h2")


async def test_the_status_command_shows_what_runs(cluster: ClusterHarness) -> None:
    await cluster.start()
    result = await cluster.halo("status")
    assert (result.code, result.stderr) == (0, "")
    assert "g1 (heartbeat/ZFS): Running on h1" in result.stdout.splitlines()


async def test_a_wait_that_fails_tells_why(cluster: ClusterHarness) -> None:
    await cluster.start()
    with pytest.raises(AssertionError) as failure:
        await cluster.until(g1="Stopped", deadline=0.3)
    text = str(failure.value)
    assert "not within 0.3 s: groups are {'g1': 'Stopped'}" in text
    assert "g1_mnt0 really runs on ['h1']" in text
    assert "manager_log" in text
