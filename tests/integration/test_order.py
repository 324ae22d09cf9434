"""The order of groups on real processes: at a cold start, at a takeover, and after a stop."""

from __future__ import annotations

from tests.integration.cluster import ClusterHarness
from tests.integration.conftest import MakeCluster
from tests.integration.layout import group
from tests.integration.telling import QUICK_MONITORS, ask, story_of, until_says


def ordered(make_cluster: MakeCluster) -> ClusterHarness:
    """mgs is at home on h1, and ost on h2. ost is started after mgs."""
    return make_cluster(
        groups=[group("mgs", "h1", ["h2"]), group("ost", "h2", ["h1"], after=["mgs"])],
        flags=QUICK_MONITORS,
    )


def moments(cluster: ClusterHarness, resource: str, operation: str) -> dict[str, float]:
    """When this operation of a resource began (BEGIN) and ended (END) last."""
    name = cluster.resources[resource].state_suffix
    return {
        action.phase: action.at
        for action in cluster.actions()
        if (action.operation, action.resource) == (operation, name)
    }


async def test_a_cold_start_keeps_the_order_and_a_takeover_too(make_cluster: MakeCluster) -> None:
    cluster = ordered(make_cluster)
    cluster.fault("mgs_mnt0", "start-slow 1", host="h1")
    await cluster.start(settled=False)
    await until_says(cluster, "ost", "ost is started after mgs: mgs does not run completely yet")
    await cluster.until(mgs="Running on h1", ost="Running on h2")
    assert (await cluster.group("ost"))["waiting"] is None
    last, first = moments(cluster, "mgs_mnt0", "start"), moments(cluster, "ost", "start")
    assert last["END"] <= first["BEGIN"]

    await ask(cluster, "move", "mgs", "--to", "h2")
    await cluster.until(mgs="Running (Failed Over) on h2")
    cluster.fault("mgs_mnt0", "start-slow 1", host="h1")
    cluster.kill("h2")  # both groups were there
    await cluster.until(mgs="Running on h1", ost="Running (Failed Over) on h1")
    last, first = moments(cluster, "mgs_mnt0", "start"), moments(cluster, "ost", "start")
    assert last["END"] <= first["BEGIN"]


async def test_commands_on_several_groups_keep_the_order(make_cluster: MakeCluster) -> None:
    cluster = ordered(make_cluster)
    await cluster.start()
    told = await ask(cluster, "stop", "mgs", "--with-dependents")
    assert "Step 1 of 2: stop ost" in told
    assert "Step 2 of 2: stop mgs" in told
    await cluster.until(mgs="Stopped", ost="Stopped")
    last, first = moments(cluster, "ost", "stop"), moments(cluster, "mgs_mnt0", "stop")
    assert last["END"] <= first["BEGIN"]
    assert "Step 2 of 2: start ost" in await ask(cluster, "start", "--all", "--wait", "30")
    await cluster.until(mgs="Running on h1", ost="Running on h2")
    last, first = moments(cluster, "mgs_mnt0", "start"), moments(cluster, "ost", "start")
    assert last["END"] <= first["BEGIN"]


async def test_a_stopped_group_holds_what_is_not_started_and_nothing_else(
    make_cluster: MakeCluster,
) -> None:
    cluster = ordered(make_cluster)
    await cluster.start()
    await ask(cluster, "stop", "mgs")
    await cluster.until(mgs="Stopped", ost="Running on h2")

    await ask(cluster, "move", "ost", "--to", "h1")  # a planned move does not wait
    await cluster.until(ost="Running (Failed Over) on h1")
    cluster.stop_by_hand("ost_mnt0", "h1")  # neither does a restart in place
    await cluster.until_event("restarted", "ost")
    await cluster.until(ost="Running (Failed Over) on h1")

    await ask(cluster, "stop", "ost")
    await cluster.until(ost="Stopped")
    assert "will be started when mgs runs" in await ask(cluster, "start", "ost")
    await until_says(cluster, "ost", "mgs was stopped by the administrator")
    waiting = (await cluster.group("ost"))["waiting"]
    assert (waiting["reason"], waiting["ends_when"]) == ("Dependency", "mgs runs")
    assert "You can:\n  - `halo start mgs`" in (await cluster.halo("why", "ost")).stdout
    before = len(story_of(cluster, "h2"))
    await ask(cluster, "start", "mgs")
    await cluster.until(mgs="Running on h1", ost="Running on h2")
    assert story_of(cluster, "h2")[before:] == ["start ost", "start ost_mnt0"]
    last, first = moments(cluster, "mgs_mnt0", "start"), moments(cluster, "ost", "start")
    assert last["END"] <= first["BEGIN"]
