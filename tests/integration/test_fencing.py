"""Fence devices that fail, hang, lie or are missing (S3), and the administrator's fence (S8)."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.integration import processes
from tests.integration.cluster import ClusterHarness, group
from tests.integration.conftest import MakeCluster
from tests.integration.site import ROOT
from tests.integration.telling import (
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


async def a_lost_host(cluster: ClusterHarness, fault: str) -> list[str]:
    """Start, break the fence device of h1, let h1 fall silent; what was started and stopped."""
    await cluster.start()
    await until_devices_are_checked(cluster)
    cluster.fence_fault("h1", fault)
    begun = changes(cluster)
    cluster.freeze("h1")
    return begun


# Devices -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        pytest.param("off fail", "told to fail", id="fails"),
        pytest.param("off hang", "not finished within 1 s", id="hangs"),
        pytest.param("off lie", "acknowledged the off but says that the outlet is on", id="lies"),
        pytest.param("missing-status", "told to know no status", id="knows_no_status"),
        pytest.param("status hang", "not finished within 1 s", id="hangs_at_status"),
    ],
)
async def test_nothing_starts_while_the_device(
    make_cluster: MakeCluster, fault: str, words: str
) -> None:
    cluster = make_cluster(settings={"fence_timeout": 1})
    begun = await a_lost_host(cluster, fault)
    await until_host_says(cluster, "h1", words, deadline=40)
    host = await cluster.host("h1")
    assert (host["fenced"], host["connected"]) == (False, False)
    await cluster.until(g1="Error")
    told = await until_says(cluster, "g1", "fencing h1 failed", words)
    assert "halo fence h1 --confirm-off" in told
    await cluster.until_event("fence-failed", "h1")
    await stays_put(cluster)
    assert changes(cluster) == begun

    cluster.fence_fault("h1")
    await cluster.until(g1="Running (Failed Over) on h2", g2="Running on h2")
    assert not cluster.is_on("h1")


async def test_a_missing_fence_program_is_named_until_it_is_there(
    make_cluster: MakeCluster,
) -> None:
    nameless = "127.0.0.1"  # the id of a test host is the target of its fence agent
    cluster = make_cluster(groups=[group("g1", nameless, ["h2"])])
    program = a_fence_program(cluster, "h1")
    cluster.host_options = {"h1": levels_of(cluster, [program])}
    cluster.write_config()
    await cluster.start()
    await until_devices_are_checked(cluster)
    hidden = program.rename(program.with_suffix(".hidden"))
    begun = changes(cluster)
    cluster.freeze("h1")
    await until_host_says(cluster, nameless, "there is no program", str(program))
    await stays_put(cluster)
    assert changes(cluster) == begun
    hidden.rename(program)
    await cluster.until(g1="Running (Failed Over) on h2")


async def test_the_second_level_confirms_where_the_first_fails(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(flags=[*PRODUCTION, "--log-format", "json"])
    broken = a_fence_program(cluster, "h1", "exit 1")
    cluster.host_options = {"h1": levels_of(cluster, [broken], test_device=True)}
    cluster.write_config()
    await cluster.start()
    cluster.freeze("h1")
    await cluster.until(g1="Running (Failed Over) on h2")
    await cluster.until_event("fence", "h1")
    assert "off" in (cluster.folder / "asked").read_text().split()


async def test_a_level_of_two_devices_needs_both(cluster: ClusterHarness) -> None:
    device = a_fence_program(cluster, "h1", "[ -e repaired ] || exit 1\n    echo is OFF")
    cluster.host_options = {"h1": levels_of(cluster, [device], test_device=True, together=True)}
    cluster.write_config()
    await cluster.start()
    begun = changes(cluster)
    cluster.freeze("h1")
    await until_host_says(cluster, "h1", "the host is not proven off: fence_test")
    await stays_put(cluster)
    assert changes(cluster) == begun
    (cluster.folder / "repaired").touch()
    await cluster.until(g1="Running (Failed Over) on h2")


# Devices that are slow ---------------------------------------------------------------------


async def start_again(cluster: ClusterHarness, started: int) -> None:
    """g1 is stopped; when the proof that its other host is off has grown old, it is to start."""
    await halo_ok(cluster, "stop", "g1", "--wait", "20")
    await stays_put(cluster, seconds=2 * PROOF_AGE_S)
    await halo_ok(cluster, "start", "g1")
    await cluster.until(g1="Running (Failed Over) on h2")
    assert cluster.count("g1", "start") == started


PROOF_AGE_S = 1


async def test_a_device_slower_than_its_proof_is_young_keeps_no_group_down(
    make_cluster: MakeCluster,
) -> None:
    """From the first fence on, minutes later, after a restart of the manager and a cleanup."""
    cluster = make_cluster(settings={"power_proof_age": PROOF_AGE_S}, flags=PRODUCTION)
    await a_lost_host(cluster, "status slow 2.5")
    await cluster.until(g1="Running (Failed Over) on h2")
    await start_again(cluster, started=3)

    await halo_ok(cluster, "stop", "g1", "--wait", "20")
    cluster.restart_manager()
    await cluster.until_status(lambda _status: True, "the manager answers")
    await halo_ok(cluster, "cleanup", "g1")
    await halo_ok(cluster, "start", "g1")
    await cluster.until(g1="Running (Failed Over) on h2")
    assert cluster.count("g1", "start") == 4


async def test_a_dead_first_level_does_not_delay_the_word_of_the_one_that_confirmed(
    make_cluster: MakeCluster,
) -> None:
    """A controller that lost its power with the host takes its whole time to fail."""
    cluster = make_cluster(settings={"power_proof_age": PROOF_AGE_S}, flags=PRODUCTION)
    dead = cluster.folder / "dead.fence"
    dead.write_text(f"#!/bin/sh\ncd {cluster.folder}\ngrep ^action= >> asked\nsleep 2.5\nexit 1\n")
    dead.chmod(0o755)
    cluster.host_options = {"h1": levels_of(cluster, [dead], test_device=True)}
    cluster.write_config()
    await cluster.start()
    cluster.freeze("h1")
    await cluster.until(g1="Running (Failed Over) on h2")
    asked = (cluster.folder / "asked").read_text().split()
    assert asked.count("action=off") == 1
    await start_again(cluster, started=3)
    await halo_ok(cluster, "stop", "g1", "--wait", "20")
    cluster.restart_manager()
    await cluster.until_status(lambda _status: True, "the manager answers")
    await halo_ok(cluster, "start", "g1")
    await cluster.until(g1="Running (Failed Over) on h2")
    assert (cluster.folder / "asked").read_text().split() == asked


def a_fence_program(cluster: ClusterHarness, host: str, instead: str = "") -> Path:
    """A fence program of somebody else: the test device, or with `instead` those shell commands
    for off and status while the host lives. Writes each action it is asked for into `asked`."""
    program = cluster.folder / f"{host}-switch.fence"
    agent = shutil.which("fence_test") or str(ROOT / "fence_agents" / "fence_test")
    program.write_text(
        "#!/bin/sh\n"
        f"cd {cluster.folder}\n"
        "lines=$(cat)\n"
        'action=$(echo "$lines" | sed -n s/^action=//p)\n'
        "echo $action >> asked\n"
        + (f"case $action in\noff)\n    {instead}\n    exit 0 ;;\nesac\n" if instead else "")
        + (f"[ ! -e repaired ] || exit 2\nexit {0 if instead else 1}\n" if instead else "")
        + f'echo "$lines" | {agent}\n'
    )
    program.chmod(0o755)
    return program


def levels_of(
    cluster: ClusterHarness,
    programs: list[Path],
    *,
    test_device: bool = False,
    together: bool = False,
) -> dict[str, object]:
    """The options of host h1 with these programs as its levels, or all in one level."""
    parameters = {"target": "h1", "test_id": str(cluster.folder)}
    devices: list[dict[str, object]] = [
        {"fence_agent": str(program), "fence_parameters": parameters} for program in programs
    ]
    if test_device:
        devices.append({"fence_agent": "fence_test", "fence_parameters": parameters})
    levels = [devices] if together else devices
    return {"fence_agent": None, "fence_parameters": None, "fence_levels": levels}


# Devices that are not trusted --------------------------------------------------------------


async def test_a_device_that_says_off_while_the_agent_answers_is_not_trusted_until_reset(
    cluster: ClusterHarness,
) -> None:
    await cluster.start()
    await until_devices_are_checked(cluster)
    cluster.fence_fault("h1", "blind")  # the config names another host's outlet
    begun = changes(cluster)
    words = await halo_refused(cluster, "fence", "h1")
    assert "the device says off, but the host's agent still answers" in words
    await cluster.until_host("h1", fence_trusted=False, connected=True, fenced=False)
    await cluster.until_event("distrust", "h1")
    await cluster.until(g1="Running on h1")
    assert "is not trusted" in await halo_refused(cluster, "fence", "h1", "--force")

    cluster.fence_fault("h1")
    cluster.kill("h1")
    await until_host_says(cluster, "h1", "not trusted", "halo reset h1")
    await stays_put(cluster)
    assert changes(cluster) == begun
    assert "fence device not trusted: " in await halo_ok(cluster, "status")

    cluster.boot("h1")
    await cluster.until(g1="Running on h1")
    await halo_ok(cluster, "reset", "h1", "--reason", "wrong outlet in the config, mended")
    await cluster.until_host("h1", fence_trusted=True)
    cluster.kill("h1")
    await cluster.until(g1="Running (Failed Over) on h2")


async def test_a_device_that_says_off_when_its_host_connects_is_not_trusted(
    cluster: ClusterHarness,
) -> None:
    cluster.fence_fault("h1", "blind")
    await cluster.start()
    await until_host_says(cluster, "h1", "says off while the agent of h1 answers")
    assert (await cluster.group("g1"))["status"] == "Running"


# The administrator's fence -----------------------------------------------------------------


async def test_a_fence_that_fails_is_answered_with_500_and_the_devices_words(
    cluster: ClusterHarness,
) -> None:
    await cluster.start()
    await until_devices_are_checked(cluster)
    cluster.fence_fault("h1", "off fail")
    begun = changes(cluster)
    code, answer = await cluster.api("POST", "/v1/hosts/h1", {"command": "fence"})
    assert code == 500
    assert "fencing h1 failed" in str(answer)
    assert "told to fail" in str(answer)
    await cluster.until_host("h1", connected=True)
    await cluster.until(g1="Running on h1", g2="Running on h2")
    await stays_put(cluster)  # one attempt, and no other while it lives
    assert changes(cluster) == begun
    assert cluster.is_on("h1")


async def test_an_operator_who_saw_it_dark_says_so(make_cluster: MakeCluster) -> None:
    # No retry is under way when it is said: while one is, the command is refused.
    cluster = make_cluster(settings={"fence_retry_min": 60, "fence_retry_max": 60})
    await cluster.start()
    await until_devices_are_checked(cluster)
    cluster.fence_fault("h1", "fail")
    answer = await cluster.halo("fence", "h1", "--confirm-off")
    assert answer.code == 2
    assert "--confirm-off needs --reason" in answer.stderr
    seen = ("--confirm-off", "--reason", "unplugged, seen by NN")
    assert "h1 answers, so it is not off" in await halo_refused(cluster, "fence", "h1", *seen)
    code, words = await cluster.api("POST", "/v1/hosts/h1", {"command": "confirm-off"})
    assert code in (400, 409), words

    begun = changes(cluster, "g1")
    cluster.kill("h1")
    told = await until_host_says(cluster, "h1", "told to fail")
    assert told.count("told to fail") == 1
    assert changes(cluster, "g1") == begun
    await halo_ok(cluster, "fence", "h1", *seen)
    await cluster.until(g1="Running (Failed Over) on h2")
    status = await cluster.until_event("fence", "h1")
    [event] = [e for e in status["events"] if e["event"] == "fence"]
    assert event["comment"] == "unplugged, seen by NN"


async def test_a_cancelled_fence_leaves_nothing_behind(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(flags=PRODUCTION)
    begun = await a_lost_host(cluster, "off hang")
    await cluster.until_host("h1", state="fencing")
    await cluster.until_true(lambda: bool(fence_programs(cluster)), "its program runs")
    programs = fence_programs(cluster)
    assert "is being fenced" in await halo_refused(cluster, "fence", "h1", "--force")
    assert "is being fenced; wait" in await halo_refused(cluster, "reset", "h1")
    await halo_ok(cluster, "fence", "h1", "--cancel", "--reason", "the BMC hangs")
    await cluster.until_true(
        lambda: not any(processes.is_alive(pid) for pid in programs), "its program is gone"
    )
    told = (await cluster.group("g1"))["comment"]
    assert "cancelled by the administrator" in told, told
    assert "is not being fenced" in await halo_refused(cluster, "fence", "h2", "--cancel")
    cluster.fence_fault("h1")
    await stays_put(cluster)
    assert changes(cluster) == begun
    assert cluster.is_on("h1")

    await halo_ok(cluster, "fence", "h1", "--force")
    await cluster.until(g1="Running (Failed Over) on h2")


async def test_a_command_that_waits_for_a_hanging_device_learns_of_the_cancellation(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(flags=PRODUCTION)
    await cluster.start()
    await until_devices_are_checked(cluster)
    cluster.fence_fault("h1", "off hang")
    waiting = asyncio.ensure_future(cluster.halo("fence", "h1"))
    await cluster.until_host("h1", state="fencing")
    await halo_ok(cluster, "fence", "h1", "--cancel")
    answer = await waiting
    assert answer.code == 1
    assert "cancelled" in answer.stderr
    await cluster.until(g1="Running on h1", g2="Running on h2")
    await cluster.until_host("h1", connected=True, fenced=False)
