"""The log tells every change once, line by line; and no secret is ever seen anywhere."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from tests.integration import processes
from tests.integration.cluster import ClusterHarness, ResourceSpec, group
from tests.integration.conftest import MakeCluster
from tests.integration.site import ROOT
from tests.integration.telling import halo_ok, log_lines, until_host_says

JSON = ["--log-format", "json"]
SECRET = "hunter2-sentinel-4711"
DEFAULT = ["--manage-resources", "--fence-on-connection-close", "--sleep-time", "500"]


# Lines -------------------------------------------------------------------------------------


async def test_every_change_is_one_line_with_what_it_concerns(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(flags=[*DEFAULT, *JSON])
    await cluster.start()
    cluster.kill("h1")
    await cluster.until(g1="Running (Failed Over) on h2")
    cluster.boot("h1")
    await cluster.until_host("h1", connected=True)
    await halo_ok(cluster, "reset", "h1")
    await halo_ok(cluster, "failback", "--onto", "h1", "--wait", "20")

    def once(event: str, **fields: str) -> None:
        found = log_lines(cluster, event, **fields)
        assert len(found) == 1, f"{event} {fields}: {found}"

    once("connected", host="h2")
    assert len(log_lines(cluster, "connected", host="h1")) == 2
    once("disconnected", host="h1")
    once("declared lost", host="h1")
    once("fencing", host="h1", by="manager")
    once("fenced", host="h1")
    once("managing", group="g1", host="h2")
    once("start", group="g1", host="h2", resource="g1_mnt0")
    once("start ended", group="g1", host="h2", resource="g1_mnt0")
    once("stop", group="g1", host="h2", resource="g1_mnt0")
    once("stop ended", group="g1", host="h2", resource="g1_mnt0")
    assert log_lines(cluster, "managing", group="g1")[-1]["host"] == "h1"


async def test_in_json_every_line_of_every_daemon_is_an_object(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(flags=[*DEFAULT, *JSON])
    cluster.environment["PYTHONASYNCIODEBUG"] = "1"  # a library that has much to say
    await cluster.start()
    cluster.fault("g1", "monitor-error 1", host="h1")
    cluster.kill("h2")
    await cluster.until(g2="Running (Failed Over) on h1")
    cluster.restart_manager()
    await cluster.until(g2="Running (Failed Over) on h1")
    lines = (cluster.folder / "manager_log").read_text().splitlines()
    assert len(lines) > 10
    for line in lines:
        entry = json.loads(line)
        assert {"event", "level", "timestamp"} <= entry.keys(), line


@pytest.mark.parametrize(
    ("level", "present", "absent"),
    [
        ("debug", ["debug", "info"], []),
        ("info", ["info"], ["debug"]),
        ("warn", ["warning"], ["debug", "info"]),
        ("error", ["error"], ["debug", "info", "warning"]),
    ],
)
async def test_halo_log_sets_the_level(
    make_cluster: MakeCluster, level: str, present: list[str], absent: list[str]
) -> None:
    cluster = make_cluster(flags=[*DEFAULT, *JSON])
    cluster.environment["HALO_LOG"] = level
    await cluster.start()
    cluster.kill("h1")
    await cluster.until(g1="Running (Failed Over) on h2")
    lines = (cluster.folder / "manager_log").read_text().splitlines()
    levels = {json.loads(line)["level"] for line in lines}
    assert set(present) <= levels
    assert not levels & set(absent)


async def test_an_unknown_level_is_told_and_info_is_taken(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(flags=[*DEFAULT, *JSON])
    cluster.environment["HALO_LOG"] = "loud"
    await cluster.start()
    assert len(log_lines(cluster, "HALO_LOG names no level; using the default")) == 1


async def test_a_manager_at_rest_spares_the_collector_once_more(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    await cluster.start()
    log = cluster.folder / "manager_log"
    await cluster.until_true(lambda: "objects_spared" in log.read_text(), "the second freeze")
    assert log.read_text().count("objects_spared") == 1


async def test_a_host_that_stays_away_does_not_fill_the_log(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(
        flags=["--manage-resources", "--sleep-time", "200", *JSON],
        settings={"reconnect_interval": 0.02},
    )
    cluster.environment["HALO_LOG"] = "info"
    await cluster.start()
    cluster.crash_agent("h1")
    await cluster.until_host("h1", connected=False)
    await until_host_says(cluster, "h1", "agent does not run")
    before = len((cluster.folder / "manager_log").read_text().splitlines())
    await cluster.stays(lambda s: True, "it tries many times", seconds=1.5)
    after = len((cluster.folder / "manager_log").read_text().splitlines())
    assert after - before <= 3


# Secrets -----------------------------------------------------------------------------------


NAMELESS = "127.0.0.1"  # the id of a test host without `fence_test`
HOLDS_IT = {"config.yaml", "secret"}


def leaky_program(cluster: ClusterHarness) -> Path:
    """A fence program that blurts out what it was told, and else does as `fence_test` does."""
    program = cluster.folder / "leaky.fence"
    agent = shutil.which("fence_test") or str(ROOT / "fence_agents" / "fence_test")
    program.write_text(
        "#!/bin/sh\n"
        "lines=$(cat)\n"
        'echo "told: $lines" >&2\n'
        f"until [ -e {cluster.folder}/seen ]; do sleep 0.02; done\n"
        f"[ ! -e {cluster.folder}/broken ] || exit 1\n"
        f'echo "$lines" | grep -v ^password= | {agent}\n'
    )
    program.chmod(0o755)
    return program


async def watch_command_lines(cluster: ClusterHarness, seen: set[str]) -> None:
    """Collect the command lines of all processes of the test until cancelled."""
    while True:
        for pid in processes.marked(cluster.folder):
            seen.add(line := " ".join(processes.command_of(pid)))
            if "leaky.fence" in line:
                (cluster.folder / "seen").touch()  # it waits for that, however slow we are
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("source", ["config", "file", "environment"])
async def test_no_secret_is_seen_anywhere(make_cluster: MakeCluster, source: str) -> None:
    pool = ResourceSpec("g1", "heartbeat/ZFS", {"pool": "g1", "password": SECRET})
    cluster = make_cluster(groups=[group("g1", NAMELESS, ["h2"], resources=[pool])])
    secret_file = cluster.folder / "secret"
    secret_file.write_text(f"{SECRET}\n")
    cluster.environment["SENTINEL"] = SECRET
    password = {"config": SECRET, "file": f"file:{secret_file}", "environment": "env:SENTINEL"}
    parameters = {
        "target": "h1",
        "test_id": str(cluster.folder),
        "password": password[source],
    }
    cluster.host_options = {
        "h1": {"fence_agent": str(leaky_program(cluster)), "fence_parameters": parameters}
    }
    cluster.write_config()
    answers, seen = [], set[str]()
    watching = asyncio.ensure_future(watch_command_lines(cluster, seen))
    await cluster.start()
    (cluster.folder / "broken").touch()
    cluster.kill("h1")
    told = await until_host_says(cluster, NAMELESS, "told: ")
    assert "password=***" in told
    answers += [str(await cluster.status()), await halo_ok(cluster, "status", "--verbose")]
    await cluster.halo("power", "off", NAMELESS)
    (cluster.folder / "broken").unlink()
    await cluster.until(g1="Running (Failed Over) on h2")
    answers += [str(await cluster.status()), await halo_ok(cluster, "events", "show")]
    answers += [await halo_ok(cluster, "validate"), str(await cluster.halo("power", "status"))]
    watching.cancel()

    assert any("leaky.fence" in line for line in seen), "no fence program was seen"
    assert not [line for line in seen if SECRET in line]
    assert not [answer for answer in answers if SECRET in answer]
    files = [f for f in cluster.folder.rglob("*") if f.is_file() and f.suffix != ".cmd"]
    holders = {f.name for f in files if SECRET.encode() in f.read_bytes()}
    assert holders - HOLDS_IT == set()
