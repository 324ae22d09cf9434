"""The fence program `fence_test`: power for agents that are processes of this machine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from halo.adapters.fence.programs import FencePrograms
from halo.core.model import FenceDevice
from halo.core.outcomes import FenceAction, FenceResult, PowerState
from tests.fence_helpers import (
    bundled,
    have_numbers,
    is_alive,
    make_program,
    pids_in,
    wait_until,
    wait_until_async,
)

OFF, ON, STATUS = FenceAction.OFF, FenceAction.ON, FenceAction.STATUS

# Stands for halo_remote: it writes its PID file and runs a script in a session of its own, as the
# agent does; the script has a child, and a grandchild that forgot its environment.
AGENT = """
import os, subprocess, sys
target = sys.argv[sys.argv.index("--test-id") + 1]
folder = os.environ["HALO_TEST_DIRECTORY"]
script = (
    "echo $$ > %(f)s/script; sh -c 'echo $$ > %(f)s/child; exec sleep 600' & "
    "env -i sh -c 'echo $$ > %(f)s/grandchild; exec /bin/sleep 600' & wait" % {"f": folder}
)
subprocess.Popen(
    ["sh", "-c", script],
    start_new_session=True,
    env={**os.environ, "HALO_TEST_ID": target},
)
with open(os.path.join(folder, target + ".pid"), "w") as file:
    file.write("%d\\n" % os.getpid())
sys.stdin.read() if sys.argv[-1] == "--until-eof" else __import__("signal").pause()
"""

SCRIPTS = ("script", "child", "grandchild")


class Bench:
    """One test folder with agents in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = FencePrograms()
        self.agent_program = make_program(folder / "halo_remote", AGENT, sys.executable)
        self._started: list[subprocess.Popen[bytes]] = []

    def command(self, target: str) -> list[str]:
        return [self.agent_program, "--test-id", target]

    def start(self, target: str, folder: Path | None = None) -> int:
        """Start an agent and wait for it and its script."""
        place = folder or self.folder
        environment = {**os.environ, "HALO_TEST_DIRECTORY": str(place)}
        process = subprocess.Popen(self.command(target), env=environment)
        self._started.append(process)
        files = [place / f"{target}.pid", *(place / name for name in SCRIPTS)]
        wait_until(lambda: have_numbers(*files), f"agent {target} with its script")
        return process.pid

    def device(self, target: str = "mds00") -> FenceDevice:
        return bundled("fence_test", target=target, test_id=str(self.folder))

    async def fence(self, action: FenceAction, target: str = "mds00") -> FenceResult:
        return await self.programs.run(self.device(target), action, 15)

    def fault(self, text: str) -> None:
        (self.folder / "mds00.fence-fault").write_text(text + "\n")

    async def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
        for target in ("mds00", "mds01"):
            (self.folder / f"{target}.fence-fault").unlink(missing_ok=True)
            await self.fence(OFF, target)
        await self.programs.close()


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def stray(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is no agent."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


async def test_status_tells_whether_the_agent_lives(bench: Bench) -> None:
    assert (await bench.fence(STATUS)).power is PowerState.OFF
    bench.start("mds00")
    assert (await bench.fence(STATUS)).power is PowerState.ON
    assert (await bench.fence(STATUS, "mds01")).power is PowerState.OFF


async def test_off_kills_the_agent_and_every_script_with_its_children(bench: Bench) -> None:
    agent = bench.start("mds00")
    pids = [agent, *pids_in(*(bench.folder / name for name in SCRIPTS))]
    assert all(is_alive(pid) for pid in pids)
    result = await bench.fence(OFF)
    assert result.succeeded, result.message
    assert not [pid for pid in pids if is_alive(pid)]
    assert (await bench.fence(STATUS)).power is PowerState.OFF


async def test_off_minds_no_state_file_that_somebody_else_removes(bench: Bench) -> None:
    """Two offs at once, which meet at each of many files."""
    files = [bench.folder / f"mds00.zfs.pool{number}" for number in range(3000)]
    for path in files:
        path.touch()
    results = await asyncio.gather(*(bench.fence(OFF) for _ in range(4)))
    assert [result.message for result in results if not result.succeeded] == []
    assert not [path for path in files if path.exists()]


async def test_off_kills_the_scripts_of_an_agent_that_crashed(bench: Bench) -> None:
    agent = bench.start("mds00")
    os.kill(agent, 9)
    await wait_until_async(lambda: not is_alive(agent), "the agent's end")
    pids = pids_in(*(bench.folder / name for name in SCRIPTS))
    assert all(is_alive(pid) for pid in pids)
    assert (await bench.fence(OFF)).succeeded
    assert not [pid for pid in pids if is_alive(pid)]


async def test_off_removes_state_files_and_keeps_logs_and_other_agents(bench: Bench) -> None:
    bench.start("mds00")
    gone = ["mds00.zfs.pool_0", "mds00.lustre._mnt_mdt0", "mds00.pid"]
    kept = [
        "mds00.cmd",
        "mds00.log",
        "agent_mds00_log",
        "mds01.zfs.pool_0",
        "mds000.zfs.pool_1",
        "halo.state",
    ]
    for name in (*gone, *kept):
        if name != "mds00.pid":
            (bench.folder / name).touch()
    await bench.fence(OFF)
    assert [name for name in gone if (bench.folder / name).exists()] == []
    assert [name for name in kept if not (bench.folder / name).exists()] == []


async def test_an_agent_of_the_same_name_in_another_test_is_spared(
    bench: Bench, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    neighbour = bench.start("mds00", other)
    (bench.folder / "mds00.pid").write_text(f"{neighbour}\n")  # even when the number is the same
    assert (await bench.fence(STATUS)).power is PowerState.OFF
    assert (await bench.fence(OFF)).succeeded
    assert is_alive(neighbour)
    assert is_alive(pids_in(other / "child")[0])
    cleaned = await bench.programs.run(
        bundled("fence_test", target="mds00", test_id=str(other)), OFF, 15
    )
    assert cleaned.succeeded
    assert not is_alive(neighbour)


async def test_a_process_that_got_the_number_of_a_dead_agent_is_spared(
    bench: Bench, stray: subprocess.Popen[bytes]
) -> None:
    (bench.folder / "mds00.pid").write_text(f"{stray.pid}\n")
    assert (await bench.fence(STATUS)).power is PowerState.OFF
    assert (await bench.fence(OFF)).succeeded
    assert stray.poll() is None


async def test_on_starts_the_agent_as_its_command_file_says(bench: Bench) -> None:
    command = {
        "argv": bench.command("mds00"),
        "env": {"HALO_TEST_DIRECTORY": str(bench.folder)},
        "cwd": str(bench.folder),
    }
    (bench.folder / "mds00.cmd").write_text(json.dumps(command))
    result = await bench.fence(ON)
    assert result.succeeded, result.message
    agent = pids_in(bench.folder / "mds00.pid")[0]
    assert (await bench.fence(STATUS)).power is PowerState.ON
    # It outlives the watchdog of the manager that switched it on.
    watchdog = bench.programs.watchdog_pid
    assert watchdog is not None
    await bench.programs.close()
    await wait_until_async(lambda: not is_alive(watchdog), "the watchdog's end")
    assert is_alive(agent)
    bench.programs = FencePrograms()
    assert (await bench.fence(OFF)).succeeded
    assert not is_alive(agent)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "that tells how to start it"),
        ("{", "is not JSON"),
        ('{"argv": ["/no/such/agent"]}', "cannot start"),
        ('{"argv": ["/bin/false"]}', "its agent ended at once; see its log"),
    ],
)
async def test_on_that_cannot_start_the_agent_says_why(
    bench: Bench, content: str | None, words: str
) -> None:
    if content is not None:
        (bench.folder / "mds00.cmd").write_text(content)
    result = await bench.fence(ON)
    assert not result.succeeded
    assert words in result.message


async def test_a_folder_that_is_not_there_is_no_proof_of_anything(bench: Bench) -> None:
    for action in (OFF, STATUS):
        device = bundled("fence_test", target="mds00", test_id=str(bench.folder / "typo"))
        result = await bench.programs.run(device, action, 15)
        assert not result.succeeded
        assert "there is no folder" in result.message


async def test_a_relative_folder_is_below_the_test_output(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = bench.folder / "tests" / "test_output" / "failover"
    folder.mkdir(parents=True)
    monkeypatch.chdir(bench.folder)
    (folder / "mds00.zfs.pool").touch()
    device = bundled("fence_test", target="mds00", test_id="failover")
    assert (await bench.programs.run(device, OFF, 15)).succeeded
    assert not (folder / "mds00.zfs.pool").exists()


async def test_the_fault_fail(bench: Bench) -> None:
    agent = bench.start("mds00")
    bench.fault("fail")
    assert not (await bench.fence(OFF)).succeeded
    assert not (await bench.fence(STATUS)).succeeded
    assert is_alive(agent)


async def test_the_fault_hang_ends_at_the_deadline(bench: Bench) -> None:
    agent = bench.start("mds00")
    bench.fault("off hang")
    result = await bench.programs.run(bench.device(), OFF, 0.5)
    assert "not finished within 0.5 s" in result.message
    assert is_alive(agent)
    assert (await bench.fence(STATUS)).power is PowerState.ON


async def test_the_fault_lie_acknowledges_and_does_nothing(bench: Bench) -> None:
    agent = bench.start("mds00")
    bench.fault("lie")
    assert (await bench.fence(OFF)).succeeded
    assert is_alive(agent)
    assert (await bench.fence(STATUS)).power is PowerState.ON


async def test_the_fault_blind_says_off_of_a_living_agent(bench: Bench) -> None:
    agent = bench.start("mds00")
    bench.fault("blind")
    assert (await bench.fence(OFF)).succeeded
    assert (await bench.fence(STATUS)).power is PowerState.OFF
    assert is_alive(agent)


async def test_the_fault_slow_takes_its_seconds(bench: Bench) -> None:
    bench.start("mds00")
    bench.fault("off slow 0.4")
    result = await bench.fence(OFF)
    assert result.succeeded
    assert result.duration_s >= 0.4


async def test_the_fault_missing_status(bench: Bench) -> None:
    bench.start("mds00")
    bench.fault("missing-status")
    assert (await bench.fence(STATUS)).power is PowerState.UNKNOWN
    assert (await bench.fence(OFF)).succeeded


async def test_an_unknown_fault_is_told_and_not_passed_over(bench: Bench) -> None:
    bench.fault("frail")
    result = await bench.fence(OFF)
    assert not result.succeeded
    assert 'unknown fault "frail"' in result.message


async def test_it_runs_by_hand_with_options(bench: Bench) -> None:
    device = bench.device()
    done = subprocess.run(  # noqa: ASYNC221 # nothing else runs on this loop
        [device.program, "-o", "status", "--target=mds00", "--test-id", str(bench.folder)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "mds00 is OFF\n")


async def test_status_is_quick(bench: Bench) -> None:
    bench.start("mds00")
    costs = []
    for _ in range(10):
        started = sum(os.times()[:4])  # processor time, its children's too: load does not count
        await bench.fence(STATUS)
        costs.append(sum(os.times()[:4]) - started)
    assert min(costs) < 0.06  # 12 ms on an idle machine
