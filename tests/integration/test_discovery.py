"""Start-up: what runs is found and left alone, what is stopped is started, the rest waits."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.cluster import ClusterHarness, group, service
from tests.integration.conftest import MakeCluster
from tests.integration.site import DEADLINE_S
from tests.integration.telling import (
    QUICK_MONITORS,
    ask,
    refused,
    story,
    story_of,
    until_reported,
    until_says,
)

THREE = ("h1", "h2", "h3")
FOUR = ("h1", "h2", "h3", "h4")


async def test_what_is_stopped_everywhere_starts_at_home(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(groups=[group("g1", mounts=2), group("g2", "h2", ["h1"])])
    await cluster.start()
    await cluster.until_true(lambda: len(story(cluster)) == 5, "five starts")
    assert story_of(cluster, "h1")[0] == "start g1"
    assert sorted(story_of(cluster, "h1")) == ["start g1", "start g1_mnt0", "start g1_mnt1"]
    assert story_of(cluster, "h2") == ["start g2", "start g2_mnt0"]


async def test_a_host_out_of_sight_keeps_its_groups_from_starting(cluster: ClusterHarness) -> None:
    cluster.boot("h1")
    cluster.start_manager()
    await until_says(
        cluster,
        *(
            "g1",
            "h2 is disconnected",
            "connection refused",
            "not fenced",
            "h2 has not answered since",
        ),
        but_not="not probed yet",  # h1 is probed meanwhile
        status="Unknown",
    )
    await until_says(cluster, "g2", "h2 is disconnected", status="Unknown")
    lines: list[str] = []
    async with asyncio.timeout(DEADLINE_S):
        while not any(line.startswith("g1 (heartbeat/ZFS): Unknown: h2 is disc") for line in lines):
            lines = (await ask(cluster, "status")).splitlines()
    assert "Disconnected hosts: h2 (lost)" in lines
    assert story(cluster) == []
    assert not (await cluster.host("h2"))["fenced"]

    cluster.boot("h2")
    await cluster.until(g1="Running on h1", g2="Running on h2")


async def test_with_both_hosts_down_everything_waits_for_them(cluster: ClusterHarness) -> None:
    cluster.start_manager()
    await until_says(cluster, "g1", "h1 is disconnected", "h2 is disconnected", status="Unknown")
    await until_says(cluster, "g2", "h1 is disconnected", "h2 is disconnected", status="Unknown")
    cluster.boot("h2")
    await cluster.until_host("h2", connected=True)
    await until_says(cluster, "g2", "h1 is disconnected", status="Unknown")
    cluster.boot("h1")
    await cluster.until(g1="Running on h1", g2="Running on h2")
    assert sorted(set(story_of(cluster, "h2"))) == ["start g2", "start g2_mnt0"]


async def test_what_runs_on_a_partner_is_adopted_even_if_home_is_out_of_sight(
    cluster: ClusterHarness,
) -> None:
    cluster.start_by_hand("g1", "h2")
    cluster.boot("h2")
    cluster.start_manager()
    await cluster.until(g1="Running (Failed Over) on h2", g2="Unknown")
    assert story(cluster) == []


async def test_a_stray_mount_without_its_root_is_stopped_and_the_group_started(
    cluster: ClusterHarness,
) -> None:
    cluster.start_by_hand("g1_mnt0", "h2")
    await cluster.start(settled=False)
    await cluster.until_true(lambda: cluster.running_on("g1_mnt0") != {"h2"}, "a stop on h2")
    await cluster.until_status(
        lambda s: all(g["status"].startswith("Running") for g in s["groups"]), "all groups run"
    )
    assert "stop g1_mnt0 on h2" in story(cluster)
    assert len(cluster.running_on("g1")) == 1
    assert cluster.running_on("g1") == cluster.running_on("g1_mnt0")


async def test_an_error_of_two_copies_outlives_the_manager(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(groups=[group("g1")])
    cluster.start_by_hand("g1", "h1")
    cluster.start_by_hand("g1", "h2")
    await cluster.start(settled=False)
    await cluster.until_event("error", "g1")
    cluster.stop_by_hand("g1", "h1")
    cluster.stop_by_hand("g1", "h2")
    cluster.kill_manager()
    cluster.start_manager()
    await until_says(cluster, "g1", "h1 and h2", "halo cleanup g1", status="Error")
    await until_reported(cluster, "h1", "h2")
    assert "cleanup" in await refused(cluster, "start", "g1")
    assert story(cluster) == []
    await ask(cluster, "cleanup", "g1")
    await cluster.until(g1="Running on h1")


def second_copy_cluster(make_cluster: MakeCluster, policy: str) -> ClusterHarness:
    return make_cluster(
        groups=[group("g1", second_copy=policy), group("g2", "h2", ["h1"])],
        flags=QUICK_MONITORS,
        settings={"survey_interval": 0.5},
    )


async def test_a_host_that_comes_with_a_second_copy_has_it_stopped(
    make_cluster: MakeCluster,
) -> None:
    cluster = second_copy_cluster(make_cluster, "stop")
    for host in ("h1", "h2"):
        cluster.start_by_hand("g1", host)
    cluster.boot("h1")
    cluster.start_manager()
    await cluster.until(g1="Running on h1")
    cluster.boot("h2")
    await cluster.until_event("stop-copy", "g1")
    await cluster.until(g1="Running on h1", g2="Running on h2")
    assert cluster.running_on("g1") == {"h1"}


@pytest.mark.parametrize("hosts", [THREE, FOUR], ids=["three", "four"])
async def test_one_of_many_candidates_out_of_sight_holds_a_group(
    make_cluster: MakeCluster, hosts: tuple[str, ...]
) -> None:
    *seen, unseen = hosts
    cluster = make_cluster(hosts=hosts, groups=[group("g1", "h1", hosts[1:])])
    for host in seen:
        cluster.boot(host)
    cluster.start_manager()
    await until_reported(cluster, *seen)
    # Those that are seen may still be looked at for a moment.
    says = f"{unseen} is disconnected"
    await until_says(cluster, "g1", says, but_not="h1", status="Unknown")
    assert story(cluster) == []
    cluster.boot(unseen)
    await cluster.until(g1="Running on h1")
    assert story(cluster) == ["start g1 on h1", "start g1_mnt0 on h1"]


@pytest.mark.parametrize("hosts", [THREE, FOUR], ids=["three", "four"])
async def test_a_group_is_adopted_on_the_last_of_many_candidates(
    make_cluster: MakeCluster, hosts: tuple[str, ...]
) -> None:
    cluster = make_cluster(hosts=hosts, groups=[group("g1", "h1", hosts[1:])])
    cluster.start_by_hand("g1", hosts[-1])
    await cluster.start(settled=False)
    await cluster.until(g1=f"Running (Failed Over) on {hosts[-1]}")
    assert story(cluster) == []


async def test_copies_on_three_of_four_candidates_are_all_named(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(hosts=FOUR, groups=[group("g1", "h1", FOUR[1:])])
    for host in ("h2", "h3", "h4"):
        cluster.start_by_hand("g1", host)
    await cluster.start(settled=False)
    await until_says(cluster, "g1", "h2 and h3 and h4", status="Error")
    assert story(cluster) == []


async def test_a_group_without_failover_needs_its_home_alone(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        hosts=THREE, groups=[group("alone", "h1", []), group("pair", "h2", ["h3"])]
    )
    cluster.boot("h1")
    cluster.start_manager()
    await cluster.until(alone="Running on h1")
    await until_says(cluster, "pair", "h2 is disconnected", "h3 is disconnected", status="Unknown")


async def test_groups_of_every_shape_in_one_config(make_cluster: MakeCluster) -> None:
    net = service("net", shared=True)
    cluster = make_cluster(
        hosts=FOUR,
        groups=[
            group("alone", "h1", []),
            group("pair", "h2", ["h3"]),
            group("many", "h3", ["h4", "h1"]),
            group("a", "h4", ["h1"], resources=[service("a", ["net"]), net]),
            group("b", "h1", ["h4"], resources=[service("b", ["net"]), net]),
        ],
    )
    cluster.start_by_hand("pair", "h3")
    await cluster.start(settled=False)
    await cluster.until(
        alone="Running on h1",
        pair="Running (Failed Over) on h3",
        many="Running on h3",
        a="Running on h4",
        b="Running on h1",
    )
    assert cluster.running_on("net") == {"h1", "h4"}


async def test_a_monitor_that_proves_nothing_holds_a_group_and_says_so(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(groups=[group("g1")], flags=QUICK_MONITORS)
    cluster.fault("g1", "monitor-error 5", host="h2")
    await cluster.start(settled=False)
    await until_says(cluster, "g1", "g1 on h2", "required software is not installed (exit 5)")
    assert story(cluster) == []
    cluster.fault("g1", host="h2")
    await cluster.until(g1="Running on h1")


async def test_a_monitor_that_hangs_holds_its_group_alone(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        groups=[
            group("g1", resources=[service("g1", monitor_timeout=0.5)]),
            group("g2", "h2", ["h1"]),
        ],
        flags=QUICK_MONITORS,
    )
    cluster.fault("g1", "monitor-hang", host="h2")
    await cluster.start(settled=False)
    await cluster.until(g2="Running on h2")
    await until_says(cluster, "g1", "g1 on h2", "timed out")
    assert cluster.count("g1", "start") == 0
    cluster.fault("g1", host="h2")
    await cluster.until(g1="Running on h1")
