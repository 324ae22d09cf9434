"""A group on its host: started in order, watched, restarted, given up on, and taken up again."""

from __future__ import annotations

import functools
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
    refused,
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


async def test_a_planned_move_stops_everything_before_it_starts_anything(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_tree(make_cluster)
    await cluster.start()
    await ask(cluster, "move", "g1", "--to", "h2", "--wait", "20")
    assert at(cluster, "stop", "g1", "END") < at(cluster, "start", "g1", "BEGIN", 1)
    assert set(story_of(cluster, "h2")) == {"start g1", "start a", "start b", "start c"}


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


async def test_the_dependents_of_a_crashed_parent_stop_before_it_starts_again(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_tree(make_cluster)
    await cluster.start()
    before = len(story(cluster))
    cluster.break_resource("a")
    await cluster.until_true(lambda: cluster.count("c", "start") == 2, "a second start of c")
    await cluster.until(g1="Running on h1")
    assert story(cluster)[before:] == ["stop c on h1", "start a on h1", "start c on h1"]


async def test_a_crashed_root_is_restarted_with_its_whole_tree(make_cluster: MakeCluster) -> None:
    cluster = make_tree(make_cluster)
    await cluster.start()
    cluster.break_resource("g1")
    await cluster.until_true(lambda: cluster.count("c", "start") == 2, "a second start of c")
    await cluster.until(g1="Running on h1")
    again = at(cluster, "start", "g1", "BEGIN", 1)
    assert at(cluster, "stop", "c", "END") < at(cluster, "stop", "a", "BEGIN")
    assert max(at(cluster, "stop", r, "END") for r in "abc") < again
    assert cluster.count("g1", "stop") == 0


async def test_a_group_that_crashed_as_a_whole_is_started_again(make_cluster: MakeCluster) -> None:
    cluster = make_tree(make_cluster)
    await cluster.start()
    cluster.stop_by_hand("g1", "h1")
    await cluster.until_true(lambda: cluster.count("c", "start") == 2, "a second start of c")
    await cluster.until(g1="Running on h1")
    assert set(story_of(cluster, "h2")) == set()


def started(cluster: ClusterHarness, times: int) -> bool:
    return cluster.count("g1_mnt0", "start") == times


async def test_five_restarts_in_ten_minutes_are_enough(make_cluster: MakeCluster) -> None:
    cluster = pair(make_cluster)
    await cluster.start()
    for restarts in range(1, 6):
        cluster.break_resource("g1_mnt0", "h1")
        await cluster.until_true(
            functools.partial(started, cluster, restarts + 1), f"restart {restarts}"
        )
        await cluster.until_true(lambda: cluster.running_on("g1_mnt0") == {"h1"}, "running")
        await cluster.until(g1="Running on h1")
    cluster.break_resource("g1_mnt0", "h1")
    await until_says(
        cluster,
        *("g1", "g1_mnt0 was restarted 5 times within 600 s on h1", "halo cleanup g1"),
        status="Error",
    )
    await cluster.until_event("error", "g1")
    await nothing_happens(cluster)
    assert cluster.running_on("g1") == {"h1"}
    assert cluster.count("g1_mnt0", "start") == 6

    await ask(cluster, "cleanup", "g1")
    await cluster.until(g1="Running on h1")
    assert cluster.count("g1_mnt0", "start") == 7
    assert cluster.count("g1", "start") == 1


async def test_a_restart_limit_outlives_the_manager(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        groups=[group("g1")], flags=QUICK_MONITORS, settings={"restart_limit": 1}
    )
    await cluster.start()
    cluster.break_resource("g1_mnt0", "h1")
    await cluster.until_true(lambda: cluster.count("g1_mnt0", "start") == 2, "a restart")
    await cluster.until(g1="Running on h1")
    cluster.break_resource("g1_mnt0", "h1")
    await cluster.until_event("error", "g1")
    cluster.kill_manager()
    cluster.start_manager()
    await until_says(cluster, "g1", "was restarted 1 times", "halo cleanup g1", status="Error")
    await nothing_happens(cluster)
    assert cluster.count("g1_mnt0", "start") == 2
    await ask(cluster, "cleanup", "g1", "--wait", "20")
    assert cluster.count("g1_mnt0", "start") == 3


# Starts that fail ----------------------------------------------------------------------------


async def test_a_start_that_fails_moves_the_group_on(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(hosts=("h1", "h2", "h3"), groups=[group("g1", "h1", ["h2", "h3"])])
    cluster.fault("g1_mnt0", "start-fail", host="h1")
    cluster.fault("g1", "start-fail", host="h2")
    await cluster.start(settled=False)
    status = await cluster.until(g1="Running (Failed Over) on h3")
    found = next(g for g in status["groups"] if g["id"] == "g1")
    assert sorted(found["start_failures"]) == ["h1", "h2"]
    assert "start of g1_mnt0 on h1" in found["start_failures"]["h1"]
    assert "fails as ordered" in found["start_failures"]["h1"]
    # What the failed starts left behind was stopped before the group went on.
    assert story_of(cluster, "h1") == ["start g1", "start g1_mnt0", "stop g1_mnt0", "stop g1"]
    assert story_of(cluster, "h2") == ["start g1", "stop g1"]
    assert "halo cleanup g1" in await refused(cluster, "move", "g1", "--to", "h1")

    cluster.fault("g1_mnt0", host="h1")
    await ask(cluster, "cleanup", "g1")
    await cluster.until(g1="Running (Failed Over) on h3")
    await ask(cluster, "failback", "--onto", "h1", "--wait", "20")
    await cluster.until(g1="Running on h1")


async def test_a_start_that_fails_on_every_host_leaves_on_the_last_what_runs(
    make_cluster: MakeCluster,
) -> None:
    cluster = pair(make_cluster, mounts=2)
    cluster.fault("g1_mnt1", "start-fail")
    await cluster.start(settled=False)
    await until_says(cluster, "g1", "start of g1_mnt1 on h2", "halo cleanup g1", status="Error")
    await cluster.until_true(lambda: cluster.running_on("g1_mnt0") == {"h2"}, "what runs")
    await comes_to_rest(cluster)
    assert cluster.running_on("g1") == {"h2"}
    assert cluster.running_on("g1_mnt1") == set()
    lines = (await ask(cluster, "status")).splitlines()
    assert "  g1_mnt0 (lustre/Lustre): Running (Failed Over) on h2" in lines

    cluster.fault("g1_mnt1")
    await ask(cluster, "cleanup", "g1")
    await cluster.until(g1="Running (Failed Over) on h2")
    assert cluster.count("g1", "start") == 2


async def test_a_root_that_starts_nowhere_waits_for_a_cleanup(make_cluster: MakeCluster) -> None:
    cluster = pair(make_cluster)
    cluster.fault("g1", "start-fail")
    await cluster.start(settled=False)
    await until_says(
        cluster,
        *("g1", "start of g1 on h1", "start of g1 on h2", "halo cleanup g1"),
        start_failures={
            h: f"start of g1 on {h}: generic error (exit 1): zfs g1: fails as ordered"
            for h in ("h1", "h2")
        },
    )
    await comes_to_rest(cluster)
    assert [s for s in story(cluster) if s.startswith("start")] == [
        "start g1 on h1",
        "start g1 on h2",
    ]
    assert "halo cleanup g1" in await refused(cluster, "start", "g1")
    cluster.fault("g1")
    await ask(cluster, "cleanup", "g1", "--wait", "20")
    assert (await cluster.group("g1"))["status"] == "Running"


async def test_a_group_told_to_stay_stays_where_its_start_failed(make_cluster: MakeCluster) -> None:
    cluster = pair(make_cluster, on_start_failure="stay", mounts=2)
    cluster.fault("g1_mnt0", "start-fail", host="h1")
    await cluster.start(settled=False)
    await until_says(cluster, "g1", "start of g1_mnt0 on h1", "halo cleanup g1", status="Error")
    await cluster.until_true(lambda: cluster.running_on("g1_mnt1") == {"h1"}, "the sibling")
    await comes_to_rest(cluster)
    assert cluster.running_on("g1") == {"h1"}
    assert story_of(cluster, "h2") == []
    cluster.fault("g1_mnt0", host="h1")
    await ask(cluster, "cleanup", "g1", "--wait", "20")
    assert cluster.count("g1", "start") == 1


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


async def test_a_restart_that_fails_moves_the_group(make_cluster: MakeCluster) -> None:
    cluster = pair(make_cluster)
    await cluster.start()
    cluster.fault("g1_mnt0", "start-fail", host="h1")
    cluster.break_resource("g1_mnt0", "h1")
    await cluster.until(g1="Running (Failed Over) on h2")
    assert cluster.running_on("g1") == {"h2"}


async def test_a_start_that_hangs_is_killed_and_counts_as_failed(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        groups=[group("g1", resources=[service("g1", start_timeout=0.5)])], flags=QUICK_MONITORS
    )
    cluster.fault("g1", "start-hang", host="h1")
    await cluster.start(settled=False)
    await cluster.until(g1="Running (Failed Over) on h2")
    assert "timed out" in (await cluster.group("g1"))["start_failures"]["h1"]


async def test_start_failures_outlive_the_manager(make_cluster: MakeCluster) -> None:
    cluster = pair(make_cluster)
    cluster.fault("g1", "start-fail", host="h1")
    await cluster.start(settled=False)
    await cluster.until(g1="Running (Failed Over) on h2")
    cluster.kill_manager()
    cluster.start_manager()
    await cluster.until(g1="Running (Failed Over) on h2")
    assert "start of g1 on h1" in await refused(cluster, "failback", "--onto", "h1")


# Stops that fail -----------------------------------------------------------------------------


async def test_a_planned_move_whose_stop_fails_ends_with_the_group_where_it_was(
    make_cluster: MakeCluster,
) -> None:
    cluster = pair(make_cluster)
    await cluster.start()
    cluster.fault("g1", "stop-fail", host="h1")
    waited = await cluster.halo("move", "g1", "--to", "h2", "--wait", "300")
    assert waited.code == 1
    assert "Given up:\n  g1 was not moved: stop of g1 on h1" in waited.stderr
    await cluster.until_event("move-failed", "g1")
    # What had been stopped on the way runs again.
    await cluster.until_true(lambda: cluster.count("g1_mnt0", "start") == 2, "the mount again")
    await until_says(
        cluster, "g1", "stop of g1 on h1", "fails as ordered", "halo cleanup g1", status="Error"
    )
    await comes_to_rest(cluster)
    assert story_of(cluster, "h2") == []
    assert (await cluster.group("g1"))["move_target"] is None
    assert "stop of g1 on h1" in await refused(cluster, "move", "g1", "--to", "h2")

    cluster.fault("g1", host="h1")
    await ask(cluster, "cleanup", "g1", "--wait", "20")
    await cluster.until(g1="Running on h1")
    await ask(cluster, "move", "g1", "--to", "h2", "--wait", "20")
    assert cluster.running_on("g1") == {"h2"}


async def test_a_commanded_stop_that_fails_is_an_error_and_the_rest_stays(
    make_cluster: MakeCluster,
) -> None:
    cluster = pair(make_cluster)
    await cluster.start()
    cluster.fault("g1_mnt0", "stop-fail", host="h1")
    await ask(cluster, "stop", "g1")
    await until_says(cluster, "g1", "stop of g1_mnt0 on h1", "halo cleanup g1", status="Error")
    await comes_to_rest(cluster)
    assert cluster.running_on("g1") == {"h1"}
    cluster.fault("g1_mnt0", host="h1")
    await ask(cluster, "cleanup", "g1")
    await cluster.until(g1="Stopped")


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


async def test_a_failed_start_whose_cleaning_up_fails_too_stays(make_cluster: MakeCluster) -> None:
    cluster = pair(make_cluster)
    cluster.fault("g1_mnt0", "start-fail", host="h1")
    cluster.fault("g1", "stop-fail", host="h1")
    await cluster.start(settled=False)
    await until_says(cluster, "g1", "stop of g1 on h1", "halo cleanup g1", status="Error")
    await comes_to_rest(cluster)
    assert cluster.running_on("g1") == {"h1"}
    assert story_of(cluster, "h2") == []
    cluster.fault("g1_mnt0", host="h1")
    cluster.fault("g1", host="h1")
    await ask(cluster, "cleanup", "g1")
    await cluster.until(g1="Running on h1")


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
