"""A resource that two groups need: started once a host, stopped only with the last of them."""

from __future__ import annotations

from tests.integration.cluster import ClusterHarness, GroupSpec, group, service
from tests.integration.conftest import MakeCluster
from tests.integration.telling import QUICK_MONITORS, ask, at, nothing_happens, story_of


def sharing(name: str, home: str, partner: str) -> GroupSpec:
    """A group that needs the shared `net`."""
    resources = [service(name, ["net"]), service("net", shared=True)]
    return group(name, home, [partner], resources=resources)


def neighbours(make_cluster: MakeCluster) -> ClusterHarness:
    """Groups a and b, both at home on h1."""
    return make_cluster(
        groups=[sharing("a", "h1", "h2"), sharing("b", "h1", "h2")], flags=QUICK_MONITORS
    )


async def test_two_groups_of_one_host_start_what_they_share_once_or_harmlessly(
    make_cluster: MakeCluster,
) -> None:
    cluster = neighbours(make_cluster)
    await cluster.start()
    assert cluster.running_on("net") == {"h1"}
    assert cluster.count("net", "stop") == 0


async def test_both_groups_stopped_at_once_stop_it_once(make_cluster: MakeCluster) -> None:
    cluster = neighbours(make_cluster)
    await cluster.start()
    # Roots that stop slowly: the one is still seen running when the other lets go.
    for root in ("a", "b"):
        cluster.fault(root, "stop-slow 1", host="h1")
    for name in ("a", "b"):
        code, answer = await cluster.api("POST", f"/v1/groups/{name}", {"command": "stop"})
        assert code == 200, answer
    await cluster.until(a="Stopped", b="Stopped")
    await cluster.until_true(lambda: cluster.running_on("net") == set(), "net stopped as well")
    assert cluster.count("net", "stop") == 1


async def test_a_start_waits_for_the_stop_of_what_it_shares(make_cluster: MakeCluster) -> None:
    cluster = neighbours(make_cluster)
    await cluster.start()
    await ask(cluster, "stop", "a", "--wait", "20")
    cluster.fault("net", "stop-slow 1.5", host="h1")
    await ask(cluster, "stop", "b")
    await cluster.until_true(lambda: "stop net" in story_of(cluster, "h1"), "the stop of net")
    await ask(cluster, "start", "a")
    await cluster.until(a="Running on h1", b="Stopped")
    assert cluster.running_on("net") == {"h1"}
    assert at(cluster, "stop", "net", "END") < at(cluster, "start", "net", "BEGIN", -1)


async def test_it_runs_on_both_hosts_and_comes_over_with_a_dead_host(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        groups=[sharing("a", "h1", "h2"), sharing("b", "h2", "h1")], flags=QUICK_MONITORS
    )
    await cluster.start()
    assert cluster.running_on("net") == {"h1", "h2"}
    before = story_of(cluster, "h2")
    cluster.kill("h1")
    await cluster.until(a="Running (Failed Over) on h2", b="Running on h2")
    assert cluster.running_on("net") == {"h2"}
    assert "stop net" not in story_of(cluster, "h2")
    assert story_of(cluster, "h2")[len(before)] == "start a"


async def test_a_manager_that_was_killed_still_knows_who_needs_it(
    make_cluster: MakeCluster,
) -> None:
    cluster = neighbours(make_cluster)
    await cluster.start()
    cluster.kill_manager()
    cluster.start_manager()
    await cluster.until(a="Running on h1", b="Running on h1")
    await ask(cluster, "stop", "a")
    await cluster.until_true(lambda: cluster.running_on("a") == set(), "a stopped")
    await nothing_happens(cluster)
    assert cluster.running_on("net") == {"h1"}
    assert cluster.running_on("b") == {"h1"}


async def test_an_unmanaged_group_keeps_it(make_cluster: MakeCluster) -> None:
    cluster = neighbours(make_cluster)
    await cluster.start()
    await ask(cluster, "unmanage", "b")
    await ask(cluster, "stop", "a")
    await cluster.until_true(lambda: cluster.running_on("a") == set(), "a stopped")
    await nothing_happens(cluster)
    assert cluster.running_on("net") == {"h1"}
