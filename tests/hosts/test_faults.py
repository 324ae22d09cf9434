"""What befalls whole hosts and the manager: partitions, a site without power, a killed manager."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest

from tests.hosts.cluster import Group, HostCluster, dummy
from tests.hosts.world import MANAGER, ROOT

FENCE_MAINS = ROOT / "tests" / "hosts" / "fence_mains.py"


def cluster_of(name: str, *groups: Group, hosts: int = 2, **settings: Any) -> HostCluster:
    """Hosts h1, h2, ... whose outlets are switched without a BMC in between."""
    names = [f"h{number}" for number in range(1, hosts + 1)]
    cluster = HostCluster(name, groups, {h: {} for h in names}, settings=settings)
    cluster.fencing = dict(_instant(cluster, names))
    return cluster


def _instant(cluster: HostCluster, hosts: list[str]) -> Mapping[str, dict[str, Any]]:
    program = cluster.world.ground / "fence_instant"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -S {FENCE_MAINS}\n")
    program.chmod(0o755)
    mains = str(cluster.world.ground / "mains")
    return {
        host: {"fence_agent": str(program), "fence_parameters": {"mains": mains, "port": host}}
        for host in hosts
    }


def at_of(line: Mapping[str, Any]) -> float:
    """The time of day of a line of the manager's log."""
    return datetime.fromisoformat(line["timestamp"]).timestamp()


@pytest.mark.parametrize("way", ["both ways", "out", "in"])
def test_a_host_that_is_cut_off_is_dead_before_its_group_starts_elsewhere(
    name: str, way: str
) -> None:
    with cluster_of(name, dummy("g1")) as cluster:
        world = cluster.world
        cluster.start()
        if way == "in":
            cut = world.partition(MANAGER, "h1", one_way=True)
        else:
            cut = world.partition("h1", MANAGER, one_way=way == "out")
        assert world.run("h1", "test", "-e", "/run/dummy-g1").code == 0  # it lives, and has it
        cluster.until(g1="Running (Failed Over) on h2")
        died = world.happened("died", "h1")[0]["at"]
        started = cluster.logged("start", cut, group="g1", host="h2")
        assert len(started) == 1
        assert cut < died < at_of(started[0])
        assert not world.is_alive("h1")
        world.heal()
        cluster.bring_back("h1")
        cluster.until(g1="Running (Failed Over) on h2")


@pytest.mark.parametrize("count", [2, 3])
def test_a_manager_that_is_cut_off_from_everybody_fences_nobody(name: str, count: int) -> None:
    names = [f"h{number}" for number in range(1, count + 1)]
    groups = [
        dummy(f"g{number}", home, [other])
        for number, (home, other) in enumerate(zip(names, names[1:] + names[:1], strict=True), 1)
    ]
    with cluster_of(name, *groups, hosts=count) as cluster:
        world = cluster.world
        cluster.start()
        hosts = world.hosts
        for host in hosts:
            world.partition(host, MANAGER)
        for host in hosts:
            cluster.until_host(host, connected=False)
        cluster.until_status(
            lambda s: all(h["state"] == "lost" for h in s["hosts"]), "all hosts count as lost"
        )
        assert "h1" in cluster.halo("status").stdout
        world.heal()
        for host in hosts:
            cluster.until_host(host, connected=True)
        cluster.until({group.id: f"Running on {group.home}" for group in groups})
        assert not world.happened("died")
        assert not cluster.logged("fencing")


def test_a_manager_that_is_killed_while_it_fences_is_followed_by_one_that_finishes(
    name: str,
) -> None:
    with cluster_of(name, dummy("g1")) as cluster:
        world = cluster.world
        cluster.start()
        world.wire("h1", fault="slow 1")
        cut = world.crash("h1")
        world.wait(lambda: cluster.logged("fencing", cut), "a fence")
        cluster.kill_manager()
        cluster.start_manager()
        cluster.until(g1="Running (Failed Over) on h2")
        assert not world.outlet_is_on("h1")
        assert len(cluster.logged("start", cut, group="g1")) == 1


def test_a_manager_that_is_killed_changes_nothing_where_all_is_well(name: str) -> None:
    with cluster_of(name, dummy("g1")) as cluster:
        cluster.start()
        killed = cluster.kill_manager()
        cluster.start_manager()
        cluster.until(g1="Running on h1")
        cluster.until_host("h2", connected=True)
        assert not cluster.logged("start", killed)
        assert not cluster.logged("stop", killed)
        assert not cluster.world.happened("died")


def test_a_site_without_power_comes_back_by_itself(name: str) -> None:
    groups = [dummy("g1", "h1", ["h2"]), dummy("g2", "h2", ["h1"])]
    with cluster_of(name, *groups) as cluster:
        world = cluster.world
        cluster.start()
        cluster.kill_manager()
        for host in world.hosts:
            world.cut_power(host)
        for host in world.hosts:
            world.power_on(host)
        cluster.start_manager()
        cluster.until(g1="Running on h1", g2="Running on h2")
        assert not cluster.logged("fencing")


def test_an_agent_that_crashes_costs_its_resources_nothing(name: str) -> None:
    with cluster_of(name, dummy("g1")) as cluster:
        world = cluster.world
        cluster.start()
        code = "kill -9 $(pgrep -o -f 'halo_remote --network')"
        world.do("h1", "sh", "-c", code)
        cluster.until_host("h1", connected=False)
        cluster.until_host("h1", connected=True)
        cluster.until(g1="Running on h1")
        assert len(cluster.logged("start", group="g1")) == 1
        assert not cluster.logged("fencing")
        assert world.boots("h1") == 1
