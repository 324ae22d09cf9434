"""The config loses a candidate while its group runs there: it is not started a second time."""

from __future__ import annotations

from dataclasses import replace

from tests.integration.cluster import ClusterHarness, group
from tests.integration.conftest import MakeCluster
from tests.integration.telling import again, halo_ok, halo_refused, stays_put, until_says


def three_hosts(make_cluster: MakeCluster) -> ClusterHarness:
    return make_cluster(
        hosts=["h1", "h2", "h3"],
        groups=[group("g1", "h3", ["h1", "h2"]), group("g2", "h2", ["h1"])],
    )


def may_run_on(cluster: ClusterHarness, home: str, *failover: str) -> None:
    """The config gives g1 these candidates. The manager is restarted."""
    cluster.groups["g1"] = replace(cluster.groups["g1"], home=home, failover=failover)
    cluster.write_config()
    again(cluster)


async def test_a_group_on_a_host_that_is_no_candidate_any_more_is_started_nowhere_else(
    make_cluster: MakeCluster,
) -> None:
    cluster = three_hosts(make_cluster)
    await cluster.start()
    may_run_on(cluster, "h1", "h2")
    await until_says(cluster, "g1", "running on h3, which is no candidate of g1 any more")
    await stays_put(cluster, "g1")
    assert cluster.running_on("g1") == {"h3"}
    assert (await cluster.group("g1"))["former_hosts"] == {"h3": "Running"}
    cluster.stop_by_hand("g1", "h3")
    await cluster.until(g1="Running on h1")
    await cluster.until_status(
        lambda status: not any(group["former_hosts"] for group in status["groups"]),
        "h3 is no former host any more",
    )
    assert cluster.running_on("g1") == {"h1"}


async def test_a_host_that_left_the_config_holds_the_group_until_it_is_confirmed(
    make_cluster: MakeCluster,
) -> None:
    cluster = three_hosts(make_cluster)
    await cluster.start()
    port = cluster.ports.pop("h3")
    may_run_on(cluster, "h1", "h2")
    cluster.ports["h3"] = port  # the harness goes on to look there, and ends its agent
    confirm = "halo cleanup g1 --stopped-on h3"
    await until_says(cluster, "g1", "may still run on h3", confirm)
    again(cluster)  # also after any number of restarts
    await until_says(cluster, "g1", "may still run on h3", confirm)
    await halo_ok(cluster, "cleanup", "g1", "--reason", "another thing")
    await stays_put(cluster, "g1")
    assert (await cluster.halo("check")).code == 2
    assert cluster.running_on("g1") == {"h3"}

    await halo_refused(cluster, "cleanup", "g1", "--stopped-on", "h2", "--reason", "x")
    cluster.stop_by_hand("g1", "h3")
    await halo_ok(cluster, "cleanup", "g1", "--stopped-on", "h3", "--reason", "h3 is scrapped")
    await cluster.until(g1="Running on h1")
    assert "h3 is scrapped" in await halo_ok(cluster, "status")


async def test_a_candidate_that_the_group_never_ran_on_is_taken_out_without_any_ado(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        hosts=["h1", "h2", "h3"],
        groups=[group("g1", "h1", ["h2", "h3"]), group("g2", "h2", ["h1"])],
    )
    await cluster.start()

    def is_on_record() -> bool:
        return b"seen-stopped" in cluster.statefile.with_name("halo.state-wal").read_bytes()

    await cluster.until_true(is_on_record, "the journal has it that g1 is stopped on h3")
    port = cluster.ports.pop("h3")
    may_run_on(cluster, "h1", "h2")
    cluster.ports["h3"] = port
    await cluster.until(g1="Running on h1")
    assert (await cluster.status())["manager"]["notices"] == []
    await halo_ok(cluster, "move", "g1", "--to", "h2")
    await cluster.until(g1="Running (Failed Over) on h2")
