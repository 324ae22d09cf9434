"""A group on its host, with real scripts: started in order, watched, restarted, given up on.

What the manager decides when a start or a stop fails is told in `tests/stories`."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.integration.cluster import ClusterHarness, GroupSpec, Status, group, service
from tests.integration.conftest import MakeCluster
from tests.integration.telling import (
    QUICK_MONITORS,
    ask,
    at,
    comes_to_rest,
    nothing_happens,
    story,
    story_of,
    until_says,
)


def tree(home: str = "h1", failover: tuple[str, ...] = ("h2",), **options: Any) -> GroupSpec:
    """A root `g1` with `a` and `b` on it, and `c` on `a`."""
    resources = [service("g1", ["a", "b"]), service("a", ["c"]), service("b"), service("c")]
    return group("g1", home, failover, resources=resources, **options)


def make_tree(make_cluster: MakeCluster, **options: Any) -> ClusterHarness:
    return make_cluster(groups=[tree(**options)], flags=QUICK_MONITORS)


def pair(make_cluster: MakeCluster, **options: Any) -> ClusterHarness:
    return make_cluster(groups=[group("g1", **options)], flags=QUICK_MONITORS)


# In order ------------------------------------------------------------------------------------


async def test_parents_start_first_and_stop_last(make_cluster: MakeCluster) -> None:
    cluster = make_tree(make_cluster)
    await cluster.start()
    for parent, child in [("g1", "a"), ("g1", "b"), ("a", "c")]:
        assert at(cluster, "start", parent, "END") < at(cluster, "start", child, "BEGIN")
    await ask(cluster, "stop", "g1")
    await cluster.until(g1="Stopped")
    for parent, child in [("g1", "a"), ("g1", "b"), ("a", "c")]:
        assert at(cluster, "stop", child, "END") < at(cluster, "stop", parent, "BEGIN")
    assert len(story(cluster)) == 8


async def test_siblings_start_and_stop_side_by_side(make_cluster: MakeCluster) -> None:
    cluster = make_tree(make_cluster)
    for resource in ("a", "b"):
        cluster.fault(resource, "start-slow 0.7\nstop-slow 0.7")
    await cluster.start()
    await ask(cluster, "stop", "g1")
    await cluster.until(g1="Stopped")
    for operation in ("start", "stop"):
        latest_begin = max(at(cluster, operation, r, "BEGIN") for r in "ab")
        earliest_end = min(at(cluster, operation, r, "END") for r in "ab")
        assert latest_begin < earliest_end


# Crashes -------------------------------------------------------------------------------------


async def test_a_crashed_leaf_alone_is_restarted(make_cluster: MakeCluster) -> None:
    cluster = make_tree(make_cluster)
    await cluster.start()
    before = story(cluster)
    cluster.break_resource("c")
    await cluster.until_true(lambda: cluster.count("c", "start") == 2, "a second start of c")
    await cluster.until(g1="Running on h1")
    await nothing_happens(cluster)
    assert story(cluster) == [*before, "start c on h1"]
    events = (await cluster.until_event("restarted", "g1"))["events"]
    assert [event["comment"] for event in events if event["event"] == "restarted"] == [
        "c was started again on h1: it had stopped by itself"
    ]


async def test_a_group_that_crashed_as_a_whole_is_started_again(make_cluster: MakeCluster) -> None:
    cluster = make_tree(make_cluster)
    await cluster.start()
    cluster.stop_by_hand("g1", "h1")
    await cluster.until_true(lambda: cluster.count("c", "start") == 2, "a second start of c")
    await cluster.until(g1="Running on h1")
    assert set(story_of(cluster, "h2")) == set()


def started(cluster: ClusterHarness, times: int) -> bool:
    return cluster.count("g1_mnt0", "start") == times


# Starts that fail ----------------------------------------------------------------------------


async def test_a_root_told_to_stay_does_not_start_elsewhere(make_cluster: MakeCluster) -> None:
    cluster = pair(make_cluster, on_start_failure="stay")
    cluster.fault("g1", "start-fail", host="h1")
    await cluster.start(settled=False)
    await until_says(cluster, "g1", "start of g1 on h1", "halo cleanup g1")
    await comes_to_rest(cluster)
    assert story_of(cluster, "h2") == []
    cluster.fault("g1", host="h1")
    await ask(cluster, "cleanup", "g1", "--wait", "20")
    assert (await cluster.group("g1"))["status"] == "Running"


async def test_a_start_that_hangs_is_killed_and_counts_as_failed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        groups=[group("g1", resources=[service("g1", start_timeout=0.5)])], flags=QUICK_MONITORS
    )
    cluster.fault("g1", "start-hang", host="h1")
    await cluster.start(settled=False)
    await cluster.until(g1="Running (Failed Over) on h2")
    assert "timed out" in (await cluster.group("g1"))["start_failures"]["h1"]


# Stops that fail -----------------------------------------------------------------------------


async def test_a_stop_that_lies_is_not_believed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        groups=[group("g1", resources=[service("g1", stop_timeout=0.5)])], flags=QUICK_MONITORS
    )
    await cluster.start()
    cluster.fault("g1", "stop-hang", host="h1")
    await ask(cluster, "stop", "g1")
    await until_says(cluster, "g1", "stop of g1 on h1", "timed out")
    assert cluster.running_on("g1") == {"h1"}
    assert story_of(cluster, "h2") == []


# Monitors that fail --------------------------------------------------------------------------


async def test_a_monitor_that_fails_once_is_forgiven(make_cluster: MakeCluster) -> None:
    cluster = pair(make_cluster)
    await cluster.start()
    before = story(cluster)
    monitors = cluster.count("g1_mnt0", "monitor", "h1")
    cluster.fault("g1_mnt0", "once monitor-error 1", host="h1")
    await cluster.until_true(
        lambda: cluster.count("g1_mnt0", "monitor", "h1") >= monitors + 4, "four more monitors"
    )
    assert story(cluster) == before
    assert (await cluster.group("g1"))["status"] == "Running"


async def test_a_monitor_that_fails_twice_makes_a_stop_and_a_start(
    make_cluster: MakeCluster,
) -> None:
    cluster = pair(make_cluster)
    await cluster.start()
    before = len(story(cluster))
    cluster.fault("g1", "monitor-error 1", host="h1")
    await cluster.until_true(lambda: cluster.count("g1_mnt0", "stop") == 1, "the mount stops")
    cluster.fault("g1", host="h1")
    await cluster.until_true(lambda: cluster.count("g1_mnt0", "start") == 2, "the mount is back")
    await cluster.until(g1="Running on h1")
    assert story(cluster)[before:] == [
        "stop g1_mnt0 on h1",
        "stop g1 on h1",
        "start g1 on h1",
        "start g1_mnt0 on h1",
    ]


async def test_a_monitor_that_times_out_is_an_error_and_monitoring_goes_on(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        groups=[group("g1", resources=[service("g1", monitor_timeout=0.5)])], flags=QUICK_MONITORS
    )
    await cluster.start()
    before = story(cluster)
    cluster.fault("g1", "monitor-hang", host="h1")
    await until_says(cluster, "g1", "monitor: timed out", status="Error")
    await cluster.stays(lambda s: s["groups"][0]["status"] == "Error", "an error", seconds=1.5)
    cluster.fault("g1", host="h1")
    await cluster.until(g1="Running on h1")
    assert story(cluster) == before


@pytest.mark.parametrize("code", [8, 190])
async def test_degraded_and_promoted_is_running(make_cluster: MakeCluster, code: int) -> None:
    cluster = pair(make_cluster)
    await cluster.start()
    before = story(cluster)
    cluster.fault("g1", f"monitor-error {code}", host="h1")

    def shows(status: Status) -> bool:
        return f"(exit {code})" in (status["resources"][0]["comment"] or "")

    await cluster.until_status(shows, "the degree of health")
    await nothing_happens(cluster, seconds=1)
    assert (await cluster.group("g1"))["status"] == "Running"
    assert story(cluster) == before


async def test_a_slow_monitor_of_one_resource_delays_no_other(make_cluster: MakeCluster) -> None:
    cluster = pair(make_cluster)
    await cluster.start()
    cluster.fault("g1", "monitor-slow 3", host="h1")
    await cluster.until_true(lambda: cluster.count("g1", "monitor", "h1") > 0, "monitors")
    began = time.monotonic()
    cluster.break_resource("g1_mnt0", "h1")
    await cluster.until_true(lambda: cluster.count("g1_mnt0", "start") == 2, "a restart")
    assert time.monotonic() - began < 2.5
