"""`halo validate --agents` on real processes: scripts that say no or hang, hosts not asked."""

from __future__ import annotations

import asyncio
import json

from tests.integration.cluster import ClusterHarness, group
from tests.integration.conftest import MakeCluster

OBSERVE = ["--sleep-time", "200", "--fence-on-connection-close"]


async def test_every_candidate_host_is_asked_and_nothing_is_started(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        hosts=["h1", "h2", "h3", "h4"],
        groups=[group("g1", "h1", ["h2", "h3", "h4"])],
        flags=OBSERVE,
    )
    for host in ("h1", "h2"):
        cluster.boot(host)
    cluster.boot_old("h3", greets=True)
    cluster.start_manager()
    for host in ("h1", "h2", "h3"):
        await cluster.until_host(host, connected=True)

    cluster.fault("g1", "validate-error 6", host="h1")
    cluster.fault("g1_mnt0", "validate-hang", host="h2")
    result = await cluster.halo("validate", "--agents")
    assert (result.code, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    assert lines[:3] == [
        "g1 (heartbeat/ZFS) on h1: exit 6 (OCF_ERR_CONFIGURED): zfs g1: fails as ordered",
        "g1_mnt0 (lustre/Lustre) on h1: ok",
        "g1 (heartbeat/ZFS) on h2: ok",
    ]
    assert lines[3].startswith("g1_mnt0 (lustre/Lustre) on h2: timed out: validate-all of ")
    assert lines[4].startswith("h3: could not be asked: the agent of h3 is too old ")
    assert lines[5].startswith("h4: could not be asked: h4 is disconnected: connection refused")
    assert lines[6:] == ["validate-all: 2 of 4 ok, 1 failed, 1 timed out; not asked: h3, h4"]
    assert [a for a in cluster.actions() if a.operation in ("start", "stop")] == []


async def test_one_that_hangs_delays_no_other_resource_and_no_heartbeat(
    cluster: ClusterHarness,
) -> None:
    await cluster.start()
    cluster.fault("g1_mnt0", "validate-hang", host="h1")
    await cluster.halo("unmanage", "g1")  # its own monitors wait, and are not what is looked at
    asked = asyncio.create_task(cluster.api("POST", "/v1/validate/h1"))
    await cluster.until_true(
        lambda: any((a.operation, a.phase) == ("validate", "HANG") for a in cluster.actions()),
        "validate-all hangs",
    )
    await cluster.halo("move", "g2", "--to", "h1")
    await cluster.until(g2="Running (Failed Over) on h1")
    code, answer = await asked
    assert code == 200
    outcomes = {row["resource"]: row["outcome"] for row in answer["results"]}
    assert outcomes == {"g1": "ok", "g1_mnt0": "timed out", "g2": "ok", "g2_mnt0": "ok"}
    assert (await cluster.host("h1"))["connected"]
    told = [event["event"] for event in (await cluster.status())["events"]]
    assert "fence" not in told, json.dumps(told)

    cluster.fault("g1_mnt0", host="h1")
    result = await cluster.halo("validate", "--agents")
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == "validate-all: 8 of 8 ok"
