"""What the daemons tell systemd and monitoring: READY, WATCHDOG, STOPPING; `check`; versions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration import processes
from tests.integration.cluster import ClusterHarness
from tests.integration.conftest import MakeCluster
from tests.integration.site import DEADLINE_S, ROOT
from tests.integration.telling import halo_ok


class Listener:
    """Stands for systemd: takes what is sent to NOTIFY_SOCKET."""

    def __init__(self, folder: str) -> None:
        self.path = str(Path(folder) / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self.heard: list[str] = []

    async def until(self, word: str, times: int = 1) -> None:
        """Wait until a message holds this line so often."""
        end = time.monotonic() + DEADLINE_S
        while sum(word in message.split("\n") for message in self.heard) < times:
            assert time.monotonic() < end, f"{word} was not told, only {self.heard}"
            self.take()
            await asyncio.sleep(0.01)

    def take(self) -> None:
        """Take what lies there."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self._socket.recv(4096).decode())

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with tempfile.TemporaryDirectory(prefix="halo-test-") as folder:  # a socket's path is short
        found = Listener(folder)
        yield found
        found.close()


async def test_the_manager_tells_systemd_when_it_is_ready_alive_and_stopping(
    cluster: ClusterHarness, listener: Listener
) -> None:
    for host in cluster.ports:
        cluster.boot(host)
    cluster.environment |= {"NOTIFY_SOCKET": listener.path, "WATCHDOG_USEC": "600000"}
    cluster.start_manager()
    await listener.until("READY=1")
    assert cluster.socket.exists()
    assert "STATUS=managing 2 hosts, 2 groups" in "\n".join(listener.heard)
    await listener.until("WATCHDOG=1", times=4)
    cluster.freeze_manager()
    listener.take()
    listener.heard.clear()
    await asyncio.sleep(0.8)  # four times the period: a loop that stands still must not feed it
    listener.take()
    assert listener.heard == []
    cluster.thaw_manager()
    await listener.until("WATCHDOG=1")
    assert cluster.stop_manager() == 0
    await listener.until("STOPPING=1")
    assert not cluster.socket.exists()


async def test_the_agent_tells_systemd_and_its_scripts_cannot(
    cluster: ClusterHarness, listener: Listener
) -> None:
    usual = cluster.environment
    cluster.environment = {**usual, "NOTIFY_SOCKET": listener.path}
    cluster.boot("h1")
    cluster.environment = usual
    await listener.until("READY=1")
    cluster.boot("h2")
    cluster.start_manager()
    cluster.fault("g1", "start-slow 1", host="h1")
    await cluster.until_true(lambda: bool(_scripts(cluster)), "a script runs")
    for environment in _scripts(cluster):
        assert "NOTIFY_SOCKET" not in environment
    await cluster.until(g1="Running on h1")
    cluster.stop_agent("h1")
    await listener.until("STOPPING=1")


def _scripts(cluster: ClusterHarness) -> list[dict[str, str]]:
    return [
        environment
        for pid in processes.marked(cluster.folder, "h1")
        if "OCF_RESKEY_pool" in (environment := processes.environment_of(pid))
    ]


async def test_check_speaks_to_a_monitoring_system_in_each_state(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    absent = await cluster.halo("check")
    assert absent.code == 2
    assert absent.stdout.startswith("HALO CRITICAL - ")
    await cluster.start()
    well = await cluster.halo("check")
    assert (well.code, well.stderr) == (0, "")
    assert well.stdout.startswith("HALO OK - ")
    assert "| groups=2 running=2 failed_over=0" in well.stdout
    cluster.kill("h1")
    await cluster.until(g1="Running (Failed Over) on h2")
    worse = await cluster.halo("check")
    assert worse.code == 1
    assert "host h1 is fenced" in worse.stdout
    cluster.fence_fault("h2", "off fail")
    cluster.kill("h2")
    await cluster.until(g1="Unknown", g2="Unknown")
    assert (await cluster.halo("check")).code == 2


async def test_the_status_as_json_is_the_managers_answer(cluster: ClusterHarness) -> None:
    await cluster.start()
    shown = json.loads(await halo_ok(cluster, "status", "--json"))
    answer = await cluster.status()
    assert {r["id"]: r["status"] for r in shown["resources"]} == {
        r["id"]: r["status"] for r in answer["resources"]
    }
    assert shown.keys() == answer.keys()


def boot_other_release(cluster: ClusterHarness, host: str) -> None:
    """Start the agent of another release: nothing but its version is other."""
    other = "import halo; halo.__version__ = '99.1'; from halo.remote.main import main; main()"
    with (cluster.folder / f"agent_{host}_log").open("ab") as log:
        agent = subprocess.Popen(
            [
                *(sys.executable, "-c", other, "--network", "127.0.0.1/32"),
                *("--port", str(cluster.ports[host]), "--test-id", host),
                *("--ocf-root", str(ROOT / "tests" / "ocf_resources")),
            ],
            cwd=ROOT,
            env=cluster.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    cluster.agents.append(agent)


async def test_an_agent_of_another_version_is_told(cluster: ClusterHarness) -> None:
    boot_other_release(cluster, "h1")
    cluster.boot("h2")
    cluster.start_manager()
    await cluster.until(g1="Running on h1", g2="Running on h2")
    assert (await cluster.host("h1"))["version"] == "99.1"
    shown = await halo_ok(cluster, "status")
    assert "some agents have another one: 99.1 on h1. Finish the upgrade" in shown
    check = await cluster.halo("check")
    assert check.code == 1
    assert "99.1" in check.stdout or "version" in check.stdout
