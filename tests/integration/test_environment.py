"""The test environment itself: emulated resources, their faults, the evidence, the fence agent."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from halo.config import load
from tests.integration import processes
from tests.integration.cluster import ClusterHarness, group, service
from tests.integration.conftest import MakeCluster
from tests.integration.evidence import double_starts, read_actions
from tests.integration.site import ROOT

SCRIPTS = ROOT / "tests" / "ocf_resources" / "resource.d"
KINDS = {
    "heartbeat/ZFS": ("pool", "pool0", "zfs.pool0"),
    "lustre/Lustre": ("mountpoint", "/mnt/a/b", "lustre._mnt_a_b"),
    "test/Service": ("name", "web", "service.web"),
}


class Script:
    """Runs one emulated resource on one or the other host."""

    def __init__(self, folder: Path, kind: str = "heartbeat/ZFS") -> None:
        self.folder = folder
        self.path = SCRIPTS / kind
        self.parameter, self.value, self.suffix = KINDS[kind]

    def begin(self, action: str, host: str = "h1", **more: str) -> subprocess.Popen[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HALO_TEST_DIRECTORY": str(self.folder),
            "HALO_TEST_ID": host,
            f"OCF_RESKEY_{self.parameter}": self.value,
            **more,
        }
        return subprocess.Popen(
            [str(self.path), action],
            env={k: v for k, v in environment.items() if v},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, action: str, host: str = "h1", **more: str) -> int:
        process = self.begin(action, host, **more)
        process.communicate(timeout=20)
        return process.returncode

    def fault(self, faults: str, host: str = "") -> None:
        prefix = f"fault.{host}." if host else "fault."
        (self.folder / f"{prefix}{self.suffix}").write_text(f"{faults}\n")

    def last(self) -> str:
        """The phase that was logged last."""
        actions = read_actions(self.folder / "test_log")
        return actions[-1].phase if actions else ""

    def double_starts(self) -> list[str]:
        return double_starts(read_actions(self.folder / "test_log"), {self.suffix})


@pytest.fixture(params=sorted(KINDS))
def any_script(request: pytest.FixtureRequest, tmp_path: Path) -> Script:
    return Script(tmp_path, request.param)


@pytest.fixture
def script(tmp_path: Path) -> Script:
    return Script(tmp_path)


class TestEmulatedResources:
    def test_runs_where_its_state_file_is(self, any_script: Script) -> None:
        state = any_script.folder / f"h1.{any_script.suffix}"
        codes = [any_script.run(a) for a in ("monitor", "stop", "start", "start", "monitor")]
        assert codes == [7, 0, 0, 0, 0]
        assert state.exists()
        assert any_script.run("monitor", "h2") == 7
        state.unlink()
        assert any_script.run("monitor") == 7
        assert any_script.run("start") == 0
        assert any_script.run("stop") == 0
        assert not state.exists()

    def test_follows_the_ocf_interface(self, any_script: Script) -> None:
        assert any_script.run("meta-data") == 0
        assert any_script.run("validate-all") == 0
        assert any_script.run("no-such-action") == 3
        assert any_script.run("start", **{f"OCF_RESKEY_{any_script.parameter}": ""}) == 6
        assert any_script.run("start", **{f"OCF_RESKEY_{any_script.parameter}": "a b"}) == 6
        assert any_script.run("start", HALO_TEST_DIRECTORY="/nowhere") == 5

    def test_meta_data_is_xml(self, any_script: Script) -> None:
        if not shutil.which("xmllint"):
            pytest.skip("xmllint is not installed")
        text, _ = any_script.begin("meta-data").communicate(timeout=20)
        subprocess.run(["xmllint", "--noout", "-"], input=text, text=True, check=True, timeout=20)

    def test_faults_strike_their_action_and_host_alone(self, script: Script) -> None:
        script.fault("start-fail\nmonitor-error 5", host="h1")
        assert [script.run(a, "h1") for a in ("start", "monitor", "stop")] == [1, 5, 0]
        assert [script.run(a, "h2") for a in ("start", "monitor", "stop")] == [0, 0, 0]
        script.fault("once stop-fail")
        assert script.run("start", "h2") == 0
        assert [script.run("stop", "h2") for _ in range(2)] == [1, 0]

    def test_a_slow_start_takes_effect_at_its_end(self, script: Script) -> None:
        script.fault("start-slow 0.3")
        begun = time.monotonic()
        process = script.begin("start")
        until(lambda: len(read_actions(script.folder / "test_log")) == 1)
        assert not (script.folder / "h1.zfs.pool0").exists()
        assert process.wait(20) == 0
        assert time.monotonic() - begun >= 0.3
        assert (script.folder / "h1.zfs.pool0").exists()

    @pytest.mark.parametrize("action", ["start", "stop", "monitor"])
    def test_a_hanging_action_does_nothing(self, script: Script, action: str) -> None:
        if action != "start":
            script.run("start")
        before = sorted(p.name for p in script.folder.glob("h1.zfs.*"))
        script.fault(f"{action}-hang")
        process = script.begin(action)
        until(lambda: script.last() == "HANG")
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
        assert sorted(p.name for p in script.folder.glob("h1.zfs.*")) == before


class TestEvidence:
    def test_no_double_start_where_each_stops_first(self, script: Script) -> None:
        for host in ("h1", "h2", "h1"):
            script.run("start", host)
            script.run("stop", host)
        assert script.double_starts() == []

    def test_a_start_beside_a_running_copy_is_seen(self, script: Script) -> None:
        script.run("start", "h1")
        script.run("start", "h2")
        (found,) = script.double_starts()
        assert found.startswith("start zfs.pool0 on h2")
        assert found.endswith("while it was on h1")

    def test_a_start_beside_a_start_in_progress_is_seen(self, script: Script) -> None:
        script.fault("start-slow 0.5", host="h1")
        first = script.begin("start", "h1")
        until(lambda: len(read_actions(script.folder / "test_log")) == 1)
        script.run("start", "h2")
        first.wait(20)
        assert len(script.double_starts()) == 1

    def test_a_start_beside_a_stop_in_progress_is_seen(self, script: Script) -> None:
        script.run("start", "h1")
        script.fault("stop-slow 0.5", host="h1")
        first = script.begin("stop", "h1")
        until(lambda: len(read_actions(script.folder / "test_log")) == 3)
        script.run("start", "h2")
        first.wait(20)
        assert len(script.double_starts()) == 1

    def test_a_start_that_was_killed_does_not_count(self, script: Script) -> None:
        script.fault("start-hang", host="h1")
        first = script.begin("start", "h1")
        until(lambda: script.last() == "HANG")
        os.killpg(first.pid, signal.SIGKILL)
        first.wait(20)
        script.run("start", "h2")
        assert script.double_starts() == []

    def test_another_resource_of_a_similar_name_does_not_count(self, script: Script) -> None:
        script.run("start", "h1", OCF_RESKEY_pool="a")
        script.run("start", "h2", OCF_RESKEY_pool="b.a")
        script.run("start", "h3", OCF_RESKEY_pool="a.b")
        actions = read_actions(script.folder / "test_log")
        assert double_starts(actions, {"zfs.a", "zfs.b.a", "zfs.a.b"}) == []


class TestSite:
    """The harness with agents alone."""

    @pytest.fixture
    def agents(self, make_cluster: MakeCluster) -> ClusterHarness:
        cluster = make_cluster(
            groups=[
                group("g1"),
                group("s", resources=[service("s", ["net"]), service("net", shared=True)]),
            ]
        )
        for host in cluster.ports:
            cluster.boot(host)
        for host in cluster.ports:
            until(lambda h=host: cluster.is_on(h))  # type: ignore[misc]  # a default binds it
        return cluster

    def fence(self, cluster: ClusterHarness, action: str, host: str) -> tuple[int, str]:
        done = subprocess.run(
            [str(ROOT / "fence_agents" / "fence_test")],
            input=f"action={action}\ntarget={host}\ntest_id={cluster.folder}\n",
            text=True,
            capture_output=True,
            timeout=30,
        )
        return done.returncode, done.stdout + done.stderr

    def test_its_config_is_valid(self, agents: ClusterHarness) -> None:
        loaded = load(agents.config)
        assert list(loaded.hosts) == ["h1", "h2"]
        assert [r.id for r in loaded.groups["g1"].resources] == ["g1", "g1_mnt0"]
        assert loaded.settings.loss_budget_s == 2

    def test_cutting_the_power_ends_all_that_ran_there(self, agents: ClusterHarness) -> None:
        agents.start_by_hand("g1", "h1")
        agents.start_by_hand("s", "h2")
        agents.kill("h1")
        assert not agents.is_on("h1")
        assert agents.is_on("h2")
        assert agents.running_on("g1") == set()
        assert agents.running_on("s") == {"h2"}

    def test_a_crash_of_the_agent_leaves_its_resources(self, agents: ClusterHarness) -> None:
        agents.start_by_hand("g1", "h1")
        agents.crash_agent("h1")
        assert not agents.is_on("h1")
        assert agents.running_on("g1_mnt0") == {"h1"}

    def test_the_fence_agent_cuts_the_power_and_gives_it_back(self, agents: ClusterHarness) -> None:
        agents.start_by_hand("g1", "h1")
        first = agents.agent_pid("h1")
        assert self.fence(agents, "status", "h1")[0] == 0
        code, words = self.fence(agents, "off", "h1")
        assert code == 0, words
        assert self.fence(agents, "status", "h1")[0] == 2
        assert not agents.is_on("h1")
        assert agents.running_on("g1") == set()
        code, words = self.fence(agents, "on", "h1")
        assert code == 0, words
        assert agents.is_on("h1")
        assert agents.agent_pid("h1") != first

    def test_a_fence_fault_is_met(self, agents: ClusterHarness) -> None:
        agents.fence_fault("h1", "off fail")
        assert self.fence(agents, "off", "h1")[0] not in (0, 2)
        assert agents.is_on("h1")
        agents.fence_fault("h1")
        assert self.fence(agents, "off", "h1")[0] == 0


async def test_a_double_start_fails_the_test_that_saw_it(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    script = Script(cluster.folder)
    for host in cluster.ports:
        script.run("start", host, OCF_RESKEY_pool="g1")
    with pytest.raises(AssertionError, match=r"start zfs\.g1 on h2 at .* while it was on h1"):
        await cluster.finish()
    (cluster.folder / "test_log").unlink()


async def test_a_process_that_is_left_fails_the_test_that_left_it(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster()
    cluster.exit_deadline_s = 0.1
    left = await asyncio.create_subprocess_exec(
        "sleep", "1000", env={**os.environ, processes.MARK: str(cluster.folder)}
    )
    with pytest.raises(AssertionError, match=rf"process {left.pid} \(sleep 1000\) was left"):
        await cluster.finish()
    await left.wait()


async def test_a_defect_in_a_log_fails_the_test(make_cluster: MakeCluster) -> None:
    cluster = make_cluster()
    log = cluster.folder / "manager_log"
    log.write_text("fine\nInvariantError: the token of group g1 is lost\n")
    with pytest.raises(AssertionError, match="manager_log: InvariantError"):
        await cluster.finish()
    log.unlink()


def test_a_line_that_is_still_written_is_not_read(tmp_path: Path) -> None:
    log = tmp_path / "test_log"
    line = "up22904.86 h1 lustre _mnt_g1_mnt0 stop END 0\n"
    for seen in range(len(line)):
        log.write_text(line + line[:seen])
        assert len(read_actions(log)) == 1, line[:seen]


def test_ports_are_not_given_out_twice() -> None:
    ports = [processes.free_port() for _ in range(20)]
    assert len(set(ports)) == 20


def until(holds: Callable[[], bool], deadline_s: float = 20.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + deadline_s
    while not holds():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)
