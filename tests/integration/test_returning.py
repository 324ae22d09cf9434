"""A host was out of sight and comes back: what ran on is adopted, and nothing is started twice.

An agent of the test environment stands for its host: started anew, it has another boot identity,
though (after a crash of the agent alone) all that ran there still runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.integration.cluster import ClusterHarness, Status
from tests.integration.conftest import MakeCluster
from tests.integration.telling import (
    changes,
    halo_ok,
    stays_put,
    until_devices_are_checked,
    until_host_says,
    until_says,
)

PRODUCTION = ["--manage-resources", "--sleep-time", "300"]
SIGHT = {"watch_interval": 0.3, "digest_interval": 1}
AT_HOME = {"g1": "Running on h1", "g2": "Running on h2"}
BOOTED, SAME_BOOT = "the host has booted since", "the host has not booted since"


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> ClusterHarness:
    """A pair of hosts; a closed port is no death."""
    return make_cluster(flags=PRODUCTION, settings=SIGHT)


def returns(status: Status, host: str) -> list[str]:
    """What was told of a host's returns."""
    return [e["comment"] for e in status["events"] if (e["event"], e["obj_id"]) == ("return", host)]


async def until_returned(cluster: ClusterHarness, host: str, times: int = 1) -> str:
    """Wait for the nth return of a host; what was told."""
    status = await cluster.until_status(
        lambda s: len(returns(s, host)) >= times, f"return {times} of {host}"
    )
    assert len(returns(status, host)) == times
    await until_lifecycle(cluster, host, "ready")
    return returns(status, host)[-1]


async def until_lifecycle(cluster: ClusterHarness, host: str, *states: str) -> Mapping[str, Any]:
    """Wait until a host's lifecycle is in one of these states; the lifecycle."""
    status = await cluster.until_status(
        lambda s: lifecycle(s, host)["state"] in states, f"{host} is {states}"
    )
    return lifecycle(status, host)


def lifecycle(status: Status, host: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(h["lifecycle"] for h in status["hosts"] if h["id"] == host)
    return found


# What kept running is adopted -----------------------------------------------------------------


async def test_what_ran_on_under_a_crashed_agent_is_adopted_as_it_is(
    cluster: ClusterHarness,
) -> None:
    await cluster.start()
    begun = changes(cluster)
    for time in (1, 2):
        cluster.crash_agent("h1")
        await until_lifecycle(cluster, "h1", "disconnected")
        await stays_put(cluster, seconds=0.5)
        cluster.boot("h1")
        assert (await until_returned(cluster, "h1", time)).startswith(BOOTED)
        await cluster.until(AT_HOME)
    await stays_put(cluster)
    assert changes(cluster) == begun


async def test_what_ran_on_beyond_a_hole_in_the_network_is_adopted_as_it_is(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(
        flags=PRODUCTION, settings=SIGHT, host_options={"h1": {"on_loss": "wait"}}
    )
    await cluster.start()
    begun = changes(cluster)
    cluster.freeze("h1")
    await until_host_says(cluster, "h1", "not fenced: h1 has `on_loss: wait`")
    await cluster.until(g1="Unknown")
    cluster.thaw_process("h1")
    assert (await until_returned(cluster, "h1")).startswith(SAME_BOOT)
    await cluster.until(AT_HOME)
    await stays_put(cluster)
    assert changes(cluster) == begun


async def test_a_silence_below_the_budget_is_suspicion_and_no_absence(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(flags=PRODUCTION, settings={**SIGHT, "loss_budget": 15})
    await cluster.start()
    begun = changes(cluster)
    before = await until_lifecycle(cluster, "h1", "ready")
    cluster.freeze("h1")
    suspect = await until_lifecycle(cluster, "h1", "suspect")
    assert suspect["since"] > before["since"]
    assert suspect["reason"] == "a heartbeat is overdue"
    assert (await cluster.host("h1"))["state"] == "suspect"
    assert "suspect" in await halo_ok(cluster, "status")
    await cluster.until(g1="Running on h1")
    cluster.thaw_process("h1")
    after = await until_lifecycle(cluster, "h1", "ready")
    assert after["since"] > suspect["since"]
    status = await cluster.until(AT_HOME)
    assert returns(status, "h1") == []
    assert changes(cluster) == begun


async def test_a_restarted_manager_adopts_everything_and_tells_no_return(
    cluster: ClusterHarness,
) -> None:
    await cluster.start()
    begun = changes(cluster)
    for _ in range(2):
        cluster.kill_manager()
        cluster.start_manager()
        status = await cluster.until(AT_HOME)
        assert (returns(status, "h1"), returns(status, "h2")) == ([], [])
    await stays_put(cluster)
    assert changes(cluster) == begun


async def test_a_return_is_told_once_whatever_managers_come_and_go(
    cluster: ClusterHarness,
) -> None:
    await cluster.start()
    begun = changes(cluster)
    cluster.crash_agent("h2")
    await until_lifecycle(cluster, "h2", "disconnected")
    cluster.kill_manager()
    cluster.start_manager()
    await cluster.until(g1="Running on h1", g2="Unknown")
    assert returns(await cluster.status(), "h2") == []
    cluster.boot("h2")
    await until_returned(cluster, "h2")
    for _ in range(2):
        cluster.kill_manager()
        cluster.start_manager()
        status = await cluster.until(AT_HOME)
        assert len(returns(status, "h2")) == 1
    assert changes(cluster) == begun


async def test_a_host_that_went_with_the_manager_is_away_for_its_successor(
    cluster: ClusterHarness,
) -> None:
    await cluster.start()
    begun = changes(cluster)
    cluster.kill_manager()
    cluster.crash_agent("h2")
    cluster.start_manager()
    await until_lifecycle(cluster, "h2", "disconnected")
    cluster.boot("h2")
    assert (await until_returned(cluster, "h2")).startswith(BOOTED)
    await cluster.until(AT_HOME)
    assert changes(cluster) == begun


# What runs elsewhere, or is not to run ---------------------------------------------------------


async def test_what_runs_on_a_partner_meanwhile_stays_there(cluster: ClusterHarness) -> None:
    await cluster.start()
    cluster.freeze("h1")
    await cluster.until(g1="Running (Failed Over) on h2")
    begun = changes(cluster)
    cluster.boot("h1")
    assert (await until_returned(cluster, "h1")).startswith(BOOTED)
    await stays_put(cluster)
    await cluster.until(g1="Running (Failed Over) on h2", g2="Running on h2")
    assert changes(cluster) == begun


async def test_a_group_that_was_stopped_is_not_resumed(cluster: ClusterHarness) -> None:
    await cluster.start()
    await halo_ok(cluster, "stop", "g1", "--wait", "20")
    begun = changes(cluster)
    cluster.crash_agent("h1")
    await until_lifecycle(cluster, "h1", "disconnected")
    cluster.boot("h1")
    await until_returned(cluster, "h1")
    await cluster.until(g1="Stopped", g2="Running on h2")
    await stays_put(cluster)
    assert changes(cluster) == begun


async def test_a_group_that_was_stopped_while_its_host_was_away_is_stopped_when_it_is_back(
    cluster: ClusterHarness,
) -> None:
    await cluster.start()
    cluster.crash_agent("h1")
    await until_lifecycle(cluster, "h1", "disconnected")
    await halo_ok(cluster, "stop", "g1")
    cluster.kill_manager()
    cluster.start_manager()
    await until_says(cluster, "g1", "wanted stopped, but may still run on h1", status="Unknown")
    cluster.boot("h1")
    await cluster.until(g1="Stopped", g2="Running on h2")
    assert cluster.running_on("g1") == cluster.running_on("g1_mnt0") == set()
    assert cluster.count("g1", "start") == 1


async def test_a_group_that_stopped_with_its_host_is_started_once(
    cluster: ClusterHarness,
) -> None:
    """The agent is back before anybody would fence: everything is looked at, then started."""
    await cluster.start()
    cluster.crash_agent("h1")
    cluster.stop_by_hand("g1", "h1")
    await until_lifecycle(cluster, "h1", "disconnected")
    await stays_put(cluster, seconds=0.5)  # h2 might take it, and h1 is not proven stopped
    cluster.boot("h1")
    await cluster.until(AT_HOME)
    await stays_put(cluster)
    assert (cluster.count("g1", "start", "h1"), cluster.count("g1", "start", "h2")) == (2, 0)


# The lifecycle ----------------------------------------------------------------------------------


async def test_a_host_dies_is_fenced_and_returns(cluster: ClusterHarness) -> None:
    await cluster.start()
    seen: list[Mapping[str, Any]] = []

    def follow(status: Status) -> bool:
        if (now := lifecycle(status, "h1")) not in seen:
            seen.append(now)
        return bool(now["state"] == "fenced")

    await cluster.until_status(lambda s: follow(s) or True, "an answer")
    cluster.freeze("h1")
    await cluster.until_status(follow, "h1 is fenced")
    states = [now["state"] for now in seen]
    assert states[:2] == ["ready", "suspect"]  # before the verdict
    assert states[2:] in (["fenced"], ["disconnected", "fenced"])
    times = [now["since"] for now in seen]
    assert times == sorted(times)
    assert all(now["reason"] for now in seen[1:])
    assert "Manager service" in seen[-1]["reason"]

    cluster.restart_manager()
    await cluster.until(g1="Running (Failed Over) on h2")
    shown = json.loads(await halo_ok(cluster, "status", "--json"))
    assert lifecycle(shown, "h1") == seen[-1]  # it is journaled
    cluster.boot("h1")
    assert (await until_returned(cluster, "h1")).startswith(BOOTED)


async def test_a_fence_that_fails_is_shown_until_the_host_answers(cluster: ClusterHarness) -> None:
    await cluster.start()
    await until_devices_are_checked(cluster)
    begun = changes(cluster)
    cluster.fence_fault("h1", "fail")
    cluster.freeze("h1")
    failed = await until_lifecycle(cluster, "h1", "fence-failed")
    assert failed["reason"]
    assert failed["since"]
    cluster.thaw_process("h1")
    assert (await until_returned(cluster, "h1")).startswith(SAME_BOOT)
    await cluster.until(AT_HOME)
    await stays_put(cluster)
    assert changes(cluster) == begun
    assert len(returns(await cluster.status(), "h1")) == 1
