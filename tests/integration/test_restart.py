"""The manager is killed at every point of a failover: its successor ends with each group once."""

from __future__ import annotations

import os
import subprocess
from datetime import datetime, timedelta

import pytest

from tests.integration import processes
from tests.integration.cluster import ClusterHarness, group
from tests.integration.conftest import MakeCluster
from tests.integration.layout import GroupSpec
from tests.integration.site import DEADLINE_S, ROOT
from tests.integration.telling import (
    again,
    changes,
    fence_programs,
    halo_ok,
    halo_refused,
    stays_put,
    until_devices_are_checked,
    until_host_says,
    until_says,
)

PRODUCTION = ["--manage-resources", "--sleep-time", "500"]
FAILED_OVER = {"g1": "Running (Failed Over) on h2", "g2": "Running on h2"}


def assert_started_once(cluster: ClusterHarness) -> None:
    """g1 was started once at home and once after the failover, each time completely."""
    for resource in ("g1", "g1_mnt0"):
        assert cluster.count(resource, "start", "h1") == 1
        assert cluster.count(resource, "start", "h2") == 1
        assert cluster.running_on(resource) == {"h2"}


# Killed at a point of a failover -------------------------------------------------------------


async def test_killed_before_it_noticed_the_loss(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(flags=PRODUCTION, settings={"restart_grace": 0.5})
    await cluster.start()
    cluster.freeze_manager()
    cluster.freeze("h1")
    cluster.kill_manager()
    cluster.start_manager()
    await cluster.until(FAILED_OVER)  # it was journaled as connected, and is silent
    assert_started_once(cluster)
    assert not cluster.is_on("h1")


@pytest.mark.parametrize("fault", ["off hang", "off slow 30"])
async def test_killed_while_the_fence_program_runs(make_cluster: MakeCluster, fault: str) -> None:
    cluster = make_cluster(flags=PRODUCTION, settings={"restart_grace": 0.5})
    await cluster.start()
    await until_devices_are_checked(cluster)
    cluster.fence_fault("h1", fault)
    cluster.freeze("h1")
    await cluster.until_host("h1", state="fencing")
    await cluster.until_true(lambda: bool(fence_programs(cluster)), "its program runs")
    programs = fence_programs(cluster)
    cluster.kill_manager()
    await cluster.until_true(
        lambda: not any(processes.is_alive(pid) for pid in programs), "it dies with the manager"
    )
    assert cluster.is_on("h1")
    cluster.fence_fault("h1")
    cluster.start_manager()
    await cluster.until(FAILED_OVER)
    assert_started_once(cluster)


async def test_killed_after_the_device_switched_off_and_before_it_was_recorded(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(flags=PRODUCTION)
    await cluster.start()
    await until_devices_are_checked(cluster)
    cluster.fence_fault("h1", "status slow 30")
    cluster.freeze("h1")
    # Its fence program dies with the manager: it must have done all that a power cut does.
    left = [cluster.folder / "h1.pid", *(cluster.state_file(r, "h1") for r in cluster.resources)]
    await cluster.until_true(lambda: not any(f.exists() for f in left), "h1 is off and empty")
    cluster.kill_manager()
    assert not cluster.is_on("h1")
    cluster.fence_fault("h1")
    cluster.start_manager()
    await cluster.until(FAILED_OVER)  # the open intent is confirmed, since the device says off
    await cluster.until_event("fence", "h1")
    assert_started_once(cluster)


async def test_an_open_intent_of_a_host_that_answers_is_dropped(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(flags=PRODUCTION)
    await cluster.start()
    await until_devices_are_checked(cluster)
    begun = changes(cluster)
    cluster.fence_fault("h1", "off hang")
    cluster.freeze("h1")
    await cluster.until_host("h1", state="fencing")
    await cluster.until_true(lambda: bool(fence_programs(cluster)), "its program runs")
    cluster.kill_manager()
    await cluster.until_true(lambda: not fence_programs(cluster), "it dies with the manager")
    cluster.fence_fault("h1")
    cluster.thaw_process("h1")
    cluster.start_manager()
    await cluster.until(g1="Running on h1", g2="Running on h2")
    await cluster.until_host("h1", connected=True, fenced=False)
    assert changes(cluster) == begun


async def test_killed_after_the_confirmation_and_before_the_start(cluster: ClusterHarness) -> None:
    await cluster.start()
    # The proof of h2 has to be fresh: a monitor that hangs there holds the start back.
    cluster.fault("g1", "monitor-hang", host="h2")
    cluster.kill("h1")
    await cluster.until_event("fence", "h1")
    cluster.kill_manager()
    assert cluster.count("g1", "start") == 1
    cluster.fault("g1", host="h2")
    agent = cluster.agent_pid("h2")
    processes.kill_all(lambda: (p for p in processes.marked(cluster.folder, "h2") if p != agent))
    cluster.start_manager()
    await cluster.until(FAILED_OVER)
    assert_started_once(cluster)


async def test_killed_during_a_slow_start(cluster: ClusterHarness) -> None:
    await cluster.start()
    cluster.fault("g1", "start-slow 1.5", host="h2")
    cluster.kill("h1")
    await cluster.until_true(lambda: "start zfs.g1 on h2" in changes(cluster), "its start began")
    cluster.kill_manager()
    cluster.start_manager()
    await cluster.until(FAILED_OVER)
    assert_started_once(cluster)  # the successor waited for the end of that start


async def test_killed_between_two_starts_of_a_group(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(groups=[group("g1", mounts=2)])
    await cluster.start()
    for mount in ("g1_mnt0", "g1_mnt1"):
        cluster.fault(mount, "start-slow 1", host="h2")
    cluster.kill("h1")
    await cluster.until_true(lambda: cluster.count("g1", "start", "h2") == 1, "the pool is up")
    cluster.kill_manager()
    cluster.start_manager()
    await cluster.until(g1="Running (Failed Over) on h2")
    for resource in ("g1", "g1_mnt0", "g1_mnt1"):
        assert cluster.count(resource, "start", "h2") == 1


# What is remembered ----------------------------------------------------------------------------


async def test_a_host_that_was_gone_before_the_restart_and_never_seen_is_not_fenced(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(settings={"restart_grace": 0.2})
    cluster.boot("h2")
    cluster.start_manager()
    await cluster.until(g1="Unknown")
    await until_host_says(cluster, "h1", "has not answered since its last reset")
    await stays_put(cluster, "g1")
    assert changes(cluster, "g1") == []
    assert not (await cluster.host("h1"))["fenced"]
    cluster.boot("h1")
    await cluster.until(g1="Running on h1", g2="Running on h2")


async def test_orders_and_fences_outlive_the_manager(cluster: ClusterHarness) -> None:
    await cluster.start()
    await halo_ok(cluster, "unmanage", "g2", "--reason", "by hand tonight")
    await halo_ok(cluster, "stop", "g1", "--wait", "20")
    await halo_ok(cluster, "deactivate", "h2", "--force", "--reason", "new disks")
    cluster.kill_manager()
    cluster.start_manager()
    await until_says(cluster, "g2", "unmanaged: by hand tonight")
    await cluster.until(g1="Stopped", g2="Running on h2")
    group_1, host_2 = await cluster.group("g1"), await cluster.host("h2")
    assert (group_1["wanted"], host_2["active"]) == ("stopped", False)


async def test_killed_five_times_it_forgets_nothing(cluster: ClusterHarness) -> None:
    await cluster.start()
    begun = changes(cluster)
    for _ in range(5):
        cluster.kill_manager()
        cluster.start_manager()
        await cluster.until_status(lambda s: True, "an answer")
    await cluster.until(g1="Running on h1", g2="Running on h2")
    assert changes(cluster) == begun


# One manager -----------------------------------------------------------------------------------


def second_manager(cluster: ClusterHarness, **changed: str) -> subprocess.CompletedProcess[str]:
    """Run another manager, with other paths where named, to its end."""
    paths = {
        "config": str(cluster.config),
        "socket": str(cluster.folder / "other.socket"),
        "statefile": str(cluster.folder / "other.state"),
        **changed,
    }
    return subprocess.run(
        ["halo_manager", *(word for k, v in paths.items() for word in (f"--{k}", v))],
        cwd=ROOT,
        env=cluster.environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


async def test_a_second_manager_on_the_same_state_file_is_refused(cluster: ClusterHarness) -> None:
    await cluster.start()
    second = second_manager(cluster, statefile=str(cluster.statefile))
    assert second.returncode == 64
    assert str(cluster.statefile) in second.stderr
    assert "another manager" in second.stderr
    assert "Traceback" not in second.stderr
    await cluster.until(g1="Running on h1", g2="Running on h2")


async def test_a_second_manager_on_the_same_socket_is_refused(cluster: ClusterHarness) -> None:
    await cluster.start()
    second = second_manager(cluster, socket=str(cluster.socket))
    assert second.returncode == 64
    assert cluster.manager is not None
    assert f"in use by process {cluster.manager.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    await cluster.until(g1="Running on h1", g2="Running on h2")


async def test_a_state_file_of_halo_is_imported_once(cluster: ClusterHarness) -> None:
    then = datetime.now() - timedelta(days=3)
    lines = [
        ("unmanage", "g1", "work on the pool"),
        ("deactivate", "h2", "new disks"),
        ("fence", "h1", "Manager service initiated fence action."),
    ]
    text = "".join(
        f"{(then + timedelta(hours=n)).isoformat()}\t{event}\t{name}\t{comment}\n"
        for n, (event, name, comment) in enumerate(lines)
    )
    cluster.statefile.write_text(text)
    await cluster.start(settled=False)
    await until_says(cluster, "g1", "unmanaged: work on the pool")
    await cluster.until_host("h1", connected=True, fenced=True)
    await cluster.until_host("h2", connected=True, active=False)
    await cluster.until(g1="Stopped", g2="Running (Failed Over) on h1")
    shown = await halo_ok(cluster, "status")
    assert "event=unmanage object=g1 comment=" in shown
    assert 'event=fence object=h1 comment="Manager service initiated fence action."' in shown
    aside = cluster.statefile.with_name("halo.state.halo-text")
    assert aside.read_text() == text
    log = (cluster.folder / "manager_log").read_text()
    assert str(aside) in log

    await halo_ok(cluster, "manage", "g1")
    await halo_ok(cluster, "reset", "h1")
    cluster.restart_manager()
    await cluster.until_host("h1", connected=True, fenced=False)
    await cluster.until(g1="Running on h1", g2="Running (Failed Over) on h1")
    assert aside.read_text() == text
    assert os.listdir(cluster.folder).count("halo.state.halo-text") == 1


# A config that lacks a group --------------------------------------------------------------------


async def test_a_group_that_was_removed_while_it_ran_is_named_until_somebody_sees_to_it(
    cluster: ClusterHarness,
) -> None:
    await cluster.start()
    gone = cluster.groups.pop("g2")
    cluster.write_config()
    again(cluster)
    await cluster.until(g1="Running on h1")
    shown = await halo_ok(cluster, "status")
    assert "g2 was removed from the config and may still run on h2" in shown
    assert "h2" in (await cluster.status())["manager"]["removed_groups"]["g2"]
    check = await cluster.halo("check")
    assert (check.code, "g2 was removed" in check.stdout) == (1, True), check
    assert "halo cleanup g2" in await halo_refused(cluster, "stop", "g2")
    again(cluster)  # it is named after any number of restarts
    await cluster.until(g1="Running on h1")
    assert "g2 was removed" in await halo_ok(cluster, "status")
    assert cluster.running_on("g2") == {"h2"}, "it is left alone"

    await halo_ok(cluster, "cleanup", "g2", "--reason", "stopped by hand", "--wait", "5")
    assert "g2 was removed" not in await halo_ok(cluster, "status")
    again(cluster)
    await cluster.until(g1="Running on h1")
    assert "g2 was removed" not in await halo_ok(cluster, "status")
    cluster.groups["g2"] = gone
    cluster.write_config()
    again(cluster)
    await cluster.until(g1="Running on h1", g2="Running on h2")


async def test_a_group_that_was_stopped_before_it_was_removed_is_not_named(
    cluster: ClusterHarness,
) -> None:
    await cluster.start()
    await halo_ok(cluster, "stop", "g2", "--wait", "20")
    await until_says(cluster, "g2", "stopped by the administrator")
    del cluster.groups["g2"]
    cluster.write_config()
    again(cluster)
    await cluster.until(g1="Running on h1")
    assert (await cluster.status())["manager"]["removed_groups"] == {}


async def test_a_group_that_is_back_in_the_config_is_named_no_more(cluster: ClusterHarness) -> None:
    await cluster.start()
    gone = cluster.groups.pop("g2")
    back: list[dict[str, GroupSpec]] = [{}, {"g2": gone}]
    for groups in back:
        cluster.groups.update(groups)
        cluster.write_config()
        again(cluster)
        await cluster.until(g1="Running on h1")
    assert (await cluster.status())["manager"]["removed_groups"] == {}
    await cluster.until(g2="Running on h2")
