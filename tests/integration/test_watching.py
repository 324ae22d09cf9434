"""Real agents watch: what happens on a host is known within the watch's period, not the manager's.

Where the manager's own period is a minute, whatever is noticed sooner was told by an agent.
"""

from __future__ import annotations

import socket
from typing import Any

import capnp
import pytest

from halo.adapters.rpc.event_loop import rpc_loop
from halo.adapters.rpc.schema import OcfResourceAgent
from tests.integration import processes
from tests.integration.cluster import ClusterHarness, group, service
from tests.integration.conftest import MakeCluster
from tests.integration.telling import changes, halo_ok, until_says

SELDOM = ["--manage-resources", "--sleep-time", "60000"]
OFTEN = ["--manage-resources", "--sleep-time", "300"]
WATCHED = {"watch_interval": 0.5, "digest_interval": 1, "survey_interval": 60}
SOON_S = 10.0
"""A period and the start, on a slow machine; far from the minute of a poll."""


async def until_watched(cluster: ClusterHarness, hosts: int = 2) -> None:
    """Wait until this many agents have sent their full reports."""
    log = cluster.folder / "manager_log"

    def told() -> bool:
        lines = log.read_text().splitlines()
        return sum("watching" in line and "resources" in line for line in lines) >= hosts

    await cluster.until_true(told, f"{hosts} hosts are watched")


async def test_a_resource_that_stops_is_restarted_soon_however_seldom_the_manager_looks(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(flags=SELDOM, settings=WATCHED)
    await cluster.start()
    await until_watched(cluster)
    for resource, starts in (("g1", 2), ("g1_mnt0", 3), ("g2_mnt0", 2), ("g1", 3)):
        cluster.break_resource(resource)
        await cluster.until_true(
            lambda: cluster.count(resource, "start") == starts,  # noqa: B023  # awaited here
            f"{resource} is started again",
            deadline=SOON_S,
        )
        await cluster.until(g1="Running on h1", g2="Running on h2", deadline=SOON_S)


async def test_a_second_copy_started_by_hand_is_seen_soon(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(flags=SELDOM, settings=WATCHED)
    await cluster.start()
    await until_watched(cluster)
    begun = changes(cluster)
    cluster.start_by_hand("g1", "h2")
    await until_says(cluster, "g1", "running on h1 and h2 at once", deadline=SOON_S)
    assert changes(cluster) == begun
    cluster.stop_by_hand("g1", "h2")
    await halo_ok(cluster, "cleanup", "g1")
    await cluster.until(g1="Running on h1", deadline=SOON_S)
    assert changes(cluster) == begun


async def test_a_hung_monitor_delays_nothing_else(make_cluster: MakeCluster) -> None:
    groups = [
        group("g1", resources=[service("g1", monitor_timeout=20)]),
        group("g2", resources=[service("g2")]),
        group("g3", resources=[service("g3")]),
    ]
    cluster = make_cluster(groups=groups, flags=SELDOM, settings=WATCHED)
    await cluster.start()
    await until_watched(cluster)
    cluster.fault("g1", "monitor-hang", host="h1")
    log = cluster.folder / "test_log"
    await cluster.until_true(lambda: "g1 monitor HANG" in log.read_text(), "its monitor hangs")
    for starts in (2, 3):
        for name in ("g2", "g3"):
            cluster.break_resource(name)
            await cluster.until_true(
                lambda: cluster.count(name, "start") == starts,  # noqa: B023  # awaited here
                f"{name} is started again",
                deadline=SOON_S,
            )
    assert cluster.count("g1", "start") == 1
    cluster.fault("g1", host="h1")
    agent = cluster.agent_pid("h1")
    processes.kill_all(lambda: (p for p in processes.marked(cluster.folder, "h1") if p != agent))


async def test_each_resource_is_looked_at_in_its_own_period(make_cluster: MakeCluster) -> None:
    groups = [
        group("quick", resources=[service("quick", monitor_interval=0.2)]),
        group("slow", resources=[service("slow", monitor_interval=30)]),
    ]
    cluster = make_cluster(groups=groups, flags=SELDOM, settings=WATCHED)
    await cluster.start()
    await until_watched(cluster)
    slow = cluster.count("slow", "monitor", "h1")
    quick = cluster.count("quick", "monitor", "h1")
    await cluster.until_true(
        lambda: cluster.count("quick", "monitor", "h1") >= quick + 10, "ten looks at it"
    )
    assert cluster.count("slow", "monitor", "h1") <= slow + 1


async def test_a_restarted_agent_is_watched_again(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(flags=SELDOM, settings=WATCHED)
    await cluster.start()
    await until_watched(cluster)
    cluster.crash_agent("h1")
    await cluster.until_host("h1", connected=False)
    cluster.boot("h1")
    await until_watched(cluster, 3)
    cluster.break_resource("g1")
    await cluster.until_true(
        lambda: cluster.count("g1", "start") == 2, "g1 is started again", deadline=SOON_S
    )


# Ends that know less ----------------------------------------------------------------------------


@pytest.mark.parametrize("greets", [False, True], ids=["operation-alone", "greets"])
async def test_agents_that_do_not_watch_serve_beside_one_that_does(
    make_cluster: MakeCluster, greets: bool
) -> None:
    cluster = make_cluster(flags=OFTEN, settings={**WATCHED, "survey_interval": 1})
    cluster.boot("h1")
    cluster.boot_old("h2", greets=greets)
    cluster.start_manager()
    await cluster.until(g1="Running on h1", g2="Running on h2")
    assert (await cluster.host("h2"))["legacy"] is not greets
    await until_watched(cluster, 1)
    for name in ("g1", "g2"):
        cluster.break_resource(name)
        await cluster.until_true(
            lambda: cluster.count(name, "start") == 2,  # noqa: B023  # awaited here
            f"{name} is started again",
        )
    await cluster.until(g1="Running on h1", g2="Running on h2")

    for target, shown in (("h2", "Running (Failed Over) on h2"), ("h1", "Running on h1")):
        await halo_ok(cluster, "move", "g1", "--to", target)
        await cluster.until(g1=shown)
    await halo_ok(cluster, "move", "g2", "--to", "h1")
    await cluster.until(g2="Running (Failed Over) on h1")

    cluster.start_by_hand("g2", "h2")
    await until_says(cluster, "g2", "running on h2 and h1 at once")


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def test_an_agent_that_watches_serves_a_manager_that_knows_operation_alone(
    cluster: ClusterHarness,
) -> None:
    cluster.boot("h1")
    await cluster.until_true(lambda: listens(cluster.ports["h1"]), "the agent listens")
    async with rpc_loop():
        old: Any = None

        async def call(operation: str) -> tuple[str, int]:
            answer = await old.operation(
                resource="heartbeat/ZFS", op=operation, args=[{"key": "pool", "value": "g1"}]
            )
            inner = answer.result.ok
            return inner.which(), 0 if inner.which() == "innerOk" else inner.innerErr.code

        stream = await capnp.AsyncIoStream.create_connection("127.0.0.1", cluster.ports["h1"])
        old = capnp.TwoPartyClient(stream).bootstrap().cast_as(OcfResourceAgent)
        assert await call("monitor") == ("innerErr", 7)
        assert await call("start") == ("innerOk", 0)
        assert await call("monitor") == ("innerOk", 0)
        assert cluster.running_on("g1") == {"h1"}
        assert await call("stop") == ("innerOk", 0)
    assert cluster.running_on("g1") == set()
