"""The agent as a process: scripts, deadlines, queues, crashes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo.adapters.rpc.connection import CapnpConnection
from halo.adapters.rpc.connector import CapnpConnector
from halo.core.errors import LinkError, LossKind
from halo.core.model import Operation
from halo.core.outcomes import OperationResult, Outcome
from halo.core.peers.calls import Request
from tests.unit.remote_helpers import (
    PATIENCE_S,
    AgentProcess,
    agent_process,
    connected,
    connector,
    is_running,
    resource,
    until,
)

MONITOR, START, STOP = Operation.MONITOR, Operation.START, Operation.STOP


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with agent_process(tmp_path) as made:
        yield made


async def run(
    connection: CapnpConnection,
    parameters: dict[str, str] | None = None,
    operation: Operation = MONITOR,
    *,
    kind: str = "test/Script",
    id: str = "r1",
    timeout_s: float | None = 10.0,
) -> OperationResult:
    asked = resource(kind, parameters, id=id, timeout_s=timeout_s)
    return await connection.operation(asked, operation, PATIENCE_S)


async def test_an_operation_answers_the_scripts_exit_status_and_error_output(
    agent: AgentProcess,
) -> None:
    agent.script('[ "$1" = stop ] && exit 0; echo "no pool" >&2; exit 7')
    await agent.start()
    async with connected(agent) as connection:
        assert await run(connection, operation=STOP) == OperationResult(Outcome.COMPLETED, 0)
        assert await run(connection) == OperationResult(Outcome.COMPLETED, 7, "no pool")
        assert connection.identity.version
        assert connection.identity.boot_id
        assert not connection.identity.legacy
        await connection.heartbeat()


async def test_scripts_see_the_ocf_environment(agent: AgentProcess) -> None:
    agent.script("env -0 > $OUT/env")
    await agent.start(
        EXTRA="kept",
        OCF_RESKEY_stale="x",
        NOTIFY_SOCKET="/nowhere",
        HALO_STORE_PASSWORD="hunter2",  # in a file that the manager on this host reads, too
    )
    async with connected(agent) as connection:
        parameters = {"pool": "tank one", "empty": ""}
        assert (await run(connection, parameters, id="root/leaf", timeout_s=2.5)).code == 0
    seen = dict(line.split("=", 1) for line in agent.read("env").split("\0") if line)
    assert seen["OCF_ROOT"] == str(agent.ocf_root)
    assert seen["OCF_RESKEY_pool"] == "tank one"
    assert seen["OCF_RESKEY_empty"] == ""
    assert seen["OCF_RESKEY_CRM_meta_timeout"] == "2500"
    assert seen["OCF_RESOURCE_INSTANCE"] == "root_leaf"
    assert seen["OCF_RESOURCE_TYPE"] == "Script"
    assert seen["OCF_RESOURCE_PROVIDER"] == "test"
    assert (seen["OCF_RA_VERSION_MAJOR"], seen["OCF_RA_VERSION_MINOR"]) == ("1", "1")
    assert seen["HALO_TEST_ID"] == "agent"
    assert seen["EXTRA"] == "kept"
    assert "OCF_RESKEY_stale" not in seen
    assert "NOTIFY_SOCKET" not in seen
    assert "hunter2" not in seen.values()


async def test_a_script_that_cannot_be_run_is_named_with_the_reason(agent: AgentProcess) -> None:
    agent.script("exit 0", "test/NoInterpreter", "/nowhere/sh")
    agent.script("exit 0", "test/NotExecutable").chmod(0o644)
    (agent.ocf_root / "resource.d/test/Dangling").symlink_to("/nowhere")
    (agent.ocf_root / "resource.d/test/NoProgram").write_text("exit 0")
    (agent.ocf_root / "resource.d/test/NoProgram").chmod(0o755)
    await agent.start()
    reasons = {
        "test/Missing": "no such resource agent",
        "test/NoInterpreter": "interpreter",
        "test/NotExecutable": "not an executable file",
        "test/Dangling": "symbolic link",
        "test/NoProgram": "#!interpreter",
    }
    async with connected(agent) as connection:
        for timeout_s in (5.0, None):
            for kind, reason in reasons.items():
                result = await run(connection, kind=kind, timeout_s=timeout_s)
                assert result.outcome is Outcome.NOT_RUN
                assert reason in result.message


@pytest.mark.parametrize(
    "kind",
    [
        "Script",
        "a/b/c",
        "../test/Script",
        "test/..",
        "./Script",
        "/bin/true",
        "test/",
        "",
        "te st/x",
        "test/Scr\nipt",
        "test/Script\n",
    ],
)
async def test_a_kind_that_is_not_two_plain_names_is_refused(
    agent: AgentProcess, kind: str
) -> None:
    agent.script("touch $OUT/ran")
    await agent.start()
    async with connected(agent) as connection:
        result = await run(connection, kind=kind)
    assert result.outcome is Outcome.NOT_RUN
    assert "not the name of a resource agent" in result.message
    assert not (agent.folder / "ran").exists()


@pytest.mark.parametrize("name", ["a b", "x=y", "", "1st", "f()", "a\n"])
async def test_a_parameter_name_that_is_no_plain_word_is_refused(
    agent: AgentProcess, name: str
) -> None:
    agent.script("touch $OUT/ran")
    await agent.start()
    async with connected(agent) as connection:
        result = await run(connection, {name: "secret value"})
    assert result.outcome is Outcome.NOT_RUN
    assert "not a parameter name" in result.message
    assert "secret value" not in agent.log.read_text()
    assert not (agent.folder / "ran").exists()


async def test_parameter_values_are_never_logged_or_recorded(agent: AgentProcess) -> None:
    agent.script("cat $OUT/agent.run/*.json > $OUT/record; exit 1")
    await agent.start("--verbose")
    async with connected(agent) as connection:
        await run(connection, {"password": "hunter2"}, START)
    assert agent.read("record")
    assert "hunter2" not in agent.read("record")
    await until(lambda: "start completed" in agent.log.read_text(), "the line of the start")
    assert "hunter2" not in agent.log.read_text()


async def test_a_script_that_outlives_its_deadline_dies_with_its_whole_session(
    agent: AgentProcess,
) -> None:
    agent.script(
        """
        trap '' TERM
        (trap '' TERM; echo $BASHPID >> $OUT/pids; while :; do sleep 1; done) &
        set -m   # the next one gets a process group of its own
        (trap '' TERM; echo $BASHPID >> $OUT/pids; while :; do sleep 1; done) &
        echo $$ >> $OUT/pids
        echo 'half way' >&2
        while :; do sleep 1; done
        """
    )
    await agent.start()
    async with connected(agent) as connection:
        result = await run(connection, timeout_s=0.5)
        assert result.outcome is Outcome.TIMED_OUT
        assert "half way" in result.message
    pids = [int(pid) for pid in agent.read("pids").split()]
    assert len(pids) == 3
    assert not any(is_running(pid) for pid in pids)


async def test_a_script_that_cannot_even_be_read_is_answered_at_its_deadline(
    agent: AgentProcess,
) -> None:
    """A pipe nobody writes to stands for a file system that does not answer."""
    path = agent.script("exit 0")
    agent.script("exit 0", "test/Other")
    path.unlink()
    os.mkfifo(path)
    await agent.start()
    async with connected(agent) as connection:
        result = await run(connection, timeout_s=0.3)
        assert result.outcome is Outcome.TIMED_OUT
        assert str(path) in result.message
        waiting = asyncio.create_task(run(connection))
        assert (await run(connection, kind="test/Other")).code == 0
        assert not waiting.done()
        path.write_text("")  # the file system is back
        agent.script("exit 5")
        assert (await waiting).code == 5


async def test_a_script_that_obeys_sigterm_is_given_the_time(agent: AgentProcess) -> None:
    agent.script("trap 'echo bye > $OUT/bye; exit 0' TERM; sleep 60 & wait")
    await agent.start()
    async with connected(agent) as connection:
        assert (await run(connection, timeout_s=0.3)).outcome is Outcome.TIMED_OUT
    assert agent.read("bye") == "bye\n"


async def test_a_daemon_that_holds_the_error_pipe_does_not_hold_the_operation(
    agent: AgentProcess,
) -> None:
    agent.script(
        """
        (echo $BASHPID >> $OUT/pids; while [ ! -e $OUT/go ]; do sleep 0.02; done
         for i in $(seq 2000); do echo "a line of some length to fill the pipe up $i" >&2; done
         echo alive > $OUT/alive; exec sleep 600) &
        exit 0
        """
    )
    await agent.start()
    async with connected(agent) as connection:
        began = time.monotonic()
        assert (await run(connection, operation=START)).code == 0
        assert time.monotonic() - began < 5
        (agent.folder / "go").touch()
        await until(lambda: agent.read("alive"), "the daemon to survive writing to its stderr")
        assert is_running(int(agent.read("pids")))


async def test_output_is_drained_and_its_end_kept(agent: AgentProcess) -> None:
    agent.script(
        """
        head -c 20000000 /dev/zero | tr '\\0' x
        head -c 20000000 /dev/zero | tr '\\0' y >&2
        echo 'the end' >&2
        exit 1
        """
    )
    await agent.start()
    async with connected(agent) as connection:
        result = await run(connection, timeout_s=PATIENCE_S)
    assert result.code == 1
    assert result.message.endswith("the end")
    assert len(result.message) <= 16 * 1024


async def test_without_a_configured_timeout_the_scripts_advertised_one_holds(
    agent: AgentProcess,
) -> None:
    agent.script(
        """
        if [ "$1" = meta-data ]; then
            echo run >> $OUT/metadata
            echo '<?xml version="1.0"?><!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">
              <resource-agent name="Script"><actions>
              <action name="monitor" timeout="20s" depth="0"/>
              <action name="monitor" timeout="1m" depth="10"/>
              <action name="start" timeout="500ms"/></actions></resource-agent>'
            exit 0
        fi
        echo "$1 $OCF_RESKEY_CRM_meta_timeout" >> $OUT/timeouts
        [ "$1" = start ] && sleep 60
        exit 0
        """
    )
    await agent.start()
    async with connected(agent) as connection:
        for operation in (MONITOR, STOP):
            assert (await run(connection, operation=operation, timeout_s=None)).code == 0
        result = await run(connection, operation=START, timeout_s=None)
    assert result.outcome is Outcome.TIMED_OUT
    assert agent.read("timeouts").split() == ["monitor", "60000", "stop", "300000", "start", "500"]
    assert agent.read("metadata") == "run\n"


async def test_operations_on_one_resource_run_one_at_a_time_in_order(agent: AgentProcess) -> None:
    agent.script('echo "$1 begins" >> $OUT/log; sleep 0.1; echo "$1 ends" >> $OUT/log')
    await agent.start()
    async with connected(agent) as connection:
        await asyncio.gather(
            run(connection, {"a": "1", "b": "2"}, START),
            # The same resource: the order of parameters and what CRM_meta says do not count.
            run(connection, {"b": "2", "a": "1", "CRM_meta_interval": "5"}, MONITOR, id="other"),
            run(connection, {"a": "1", "b": "2"}, STOP),
        )
    lines = agent.read("log").splitlines()
    assert lines == [
        f"{action} {end}" for action in ("start", "monitor", "stop") for end in ("begins", "ends")
    ]


async def test_a_hundred_resources_run_side_by_side_and_a_hung_one_delays_nothing(
    agent: AgentProcess,
) -> None:
    # Each script waits until all of them run: only side by side can they end. A pipe that is not
    # open for writing yet costs nothing to wait for; a hundred that look at a file cost a machine.
    gate = agent.folder / "gate"
    os.mkfifo(gate)
    agent.script(
        """
        [ "$OCF_RESKEY_n" = hung ] && exec sleep 600
        : > $OUT/n.$OCF_RESKEY_n
        : < $OUT/gate
        """
    )
    await agent.start()
    async with connected(agent) as connection:
        hung = asyncio.create_task(run(connection, {"n": "hung"}, timeout_s=110))
        rest = [
            asyncio.create_task(run(connection, {"n": str(n)}, timeout_s=110)) for n in range(100)
        ]
        await until(lambda: len(list(agent.folder.glob("n.*"))) == 100, "all scripts to run")
        began = time.monotonic()
        await connection.heartbeat()
        assert time.monotonic() - began < 1
        opened = os.open(gate, os.O_RDWR)
        try:
            assert all(result.code == 0 for result in await asyncio.gather(*rest))
        finally:
            os.close(opened)
        assert not hung.done()
        hung.cancel()


async def test_a_cancelled_call_leaves_its_script_and_the_next_waits_for_its_end(
    agent: AgentProcess,
) -> None:
    agent.script(
        """
        echo "$1 begins" >> $OUT/log
        while [ "$1" = start ] && [ ! -e $OUT/go ]; do sleep 0.02; done
        echo "$1 ends" >> $OUT/log
        """
    )
    await agent.start()
    async with connected(agent) as connection:
        start = asyncio.create_task(run(connection, operation=START))
        await until(lambda: "start begins" in agent.read("log"), "the start to begin")
        start.cancel()
        stop = asyncio.create_task(run(connection, operation=STOP))
        await connection.heartbeat()
        (agent.folder / "go").touch()
        assert (await stop).code == 0
    assert agent.read("log").splitlines() == [
        "start begins",
        "start ends",
        "stop begins",
        "stop ends",
    ]


async def test_operations_not_begun_are_dropped_with_their_connection(agent: AgentProcess) -> None:
    agent.script(
        """
        echo "$1 begins" >> $OUT/log
        while [ "$1" = start ] && [ ! -e $OUT/go ]; do sleep 0.02; done
        echo "$1 ends" >> $OUT/log
        """
    )
    await agent.start()
    async with connector() as made:
        first = await made.connect(agent.host, PATIENCE_S)
        calls = [asyncio.create_task(run(first, operation=o)) for o in (START, STOP)]
        await until(lambda: "start begins" in agent.read("log"), "the start to begin")
        first.close()
        for call in calls:
            with pytest.raises(LinkError) as caught:
                await call
            assert caught.value.loss.kind is LossKind.STALE
        second = await made.connect(agent.host, PATIENCE_S)
        monitor = asyncio.create_task(run(second))
        await second.heartbeat()
        (agent.folder / "go").touch()
        assert (await monitor).code == 0
        second.close()
    assert agent.read("log").splitlines() == [
        "start begins",
        "start ends",
        "monitor begins",
        "monitor ends",
    ]


async def test_a_successor_waits_for_the_script_of_a_killed_agent(agent: AgentProcess) -> None:
    agent.script(
        """
        echo "$1 begins" >> $OUT/log
        echo $$ >> $OUT/pids
        while [ "$1" = start ] && [ ! -e $OUT/go ]; do echo waiting >&2; sleep 0.02; done
        echo "$1 ends" >> $OUT/log
        """
    )
    await agent.start()
    async with connector() as made:
        first = await made.connect(agent.host, PATIENCE_S)
        start = asyncio.create_task(run(first, operation=START, timeout_s=60))
        await until(lambda: "start begins" in agent.read("log"), "the start to begin")
        agent.kill()
        with pytest.raises(LinkError) as caught:
            await start
        assert caught.value.loss.kind is LossKind.RESET
        assert len(list(agent.folder.glob("agent.run/*.json"))) == 1

        await agent.start()
        second = await made.connect(agent.host, PATIENCE_S)
        monitor = asyncio.create_task(run(second))
        other = await run(second, {"other": "resource"}, STOP)
        assert other.code == 0
        assert not monitor.done()
        assert is_running(int(agent.read("pids").split()[0]))
        (agent.folder / "go").touch()
        assert (await monitor).code == 0
        second.close()
    lines = agent.read("log").splitlines()
    assert lines.index("start ends") < lines.index("monitor begins")
    await until(lambda: not list(agent.folder.glob("agent.run/*.json")), "records to be removed")


async def test_a_successor_ends_an_orphan_at_its_deadline(agent: AgentProcess) -> None:
    agent.script('[ "$1" = monitor ] && exit 7; echo $$ >> $OUT/pids; sleep 600; exit 0')
    await agent.start()
    async with connector() as made:
        first = await made.connect(agent.host, PATIENCE_S)
        start = asyncio.create_task(run(first, operation=START, timeout_s=3))
        await until(lambda: agent.read("pids"), "the start to begin")
        agent.kill()
        with pytest.raises(LinkError):
            await start
        await agent.start()
        second = await made.connect(agent.host, PATIENCE_S)
        assert (await run(second)).code == 7
        assert not is_running(int(agent.read("pids")))
        second.close()


async def test_a_record_of_a_reused_pid_is_not_taken_for_the_script(agent: AgentProcess) -> None:
    agent.script("exit 7")
    record = {
        "id": "0" * 32,
        "resource_key": resource_key({}),
        "kind": "test/Script",
        "operation": "start",
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        "deadline_boot_s": 0.0,
        "deadline_unix_s": 0.0,
        "pid": os.getpid(),
        "start_ticks": 1,
    }
    folder = agent.folder / "agent.run"
    folder.mkdir()
    (folder / f"{record['id']}.json").write_text(json.dumps(record))
    (folder / "damaged.json").write_text("{")
    await agent.start()
    async with connected(agent) as connection:
        assert (await run(connection)).code == 7
    await until(lambda: not list(folder.glob("*")), "all records to be removed")


async def test_a_script_whose_agent_died_before_it_knew_the_pid_is_found(
    agent: AgentProcess,
) -> None:
    agent.script('[ "$1" = monitor ] && exit 7; echo $$ >> $OUT/pids; sleep 600; exit 0')
    await agent.start()
    async with connector() as made:
        first = await made.connect(agent.host, PATIENCE_S)
        start = asyncio.create_task(run(first, operation=START, timeout_s=5))
        await until(lambda: agent.read("pids"), "the start to begin")
        agent.kill()
        with pytest.raises(LinkError):
            await start
        [path] = agent.folder.glob("agent.run/*.json")
        record = json.loads(path.read_text())
        path.write_text(json.dumps({**record, "pid": 0, "start_ticks": 0}))
        await agent.start()
        second = await made.connect(agent.host, PATIENCE_S)
        monitor = asyncio.create_task(run(second))
        await second.heartbeat()
        assert is_running(int(agent.read("pids")))
        assert (await monitor).code == 7
        assert not is_running(int(agent.read("pids")))
        second.close()


def resource_key(parameters: dict[str, str]) -> str:
    return Request("test/Script", MONITOR, parameters).resource_key


async def test_sigterm_ends_the_agent_at_once_and_leaves_scripts_running(
    agent: AgentProcess,
) -> None:
    agent.script("echo $$ >> $OUT/pids; while :; do echo working >&2; sleep 0.05; done")
    await agent.start()
    async with connected(agent) as connection:
        start = asyncio.create_task(run(connection, operation=START, timeout_s=60))
        await until(lambda: agent.read("pids"), "the start to begin")
        began = time.monotonic()
        agent.signal(signal.SIGTERM)
        with pytest.raises(LinkError) as caught:
            await start
        assert caught.value.loss.kind is LossKind.RESET
        assert agent.process is not None
        await asyncio.to_thread(agent.process.wait, PATIENCE_S)
        assert time.monotonic() - began < 0.5
        assert agent.process.returncode == 0
        # It writes on after its agent has gone.
        await asyncio.sleep(0.3)
        assert is_running(int(agent.read("pids")))
        assert len(list(agent.folder.glob("agent.run/*.json"))) == 1


async def test_another_manager_is_refused_while_one_is_served(agent: AgentProcess) -> None:
    agent.script("exit 0")
    await agent.start()
    async with connector("manager one") as one:
        first = await one.connect(agent.host, PATIENCE_S)
        two = CapnpConnector("manager two", "cluster")
        with pytest.raises(LinkError) as caught:
            await two.connect(agent.host, PATIENCE_S)
        assert caught.value.loss.kind is LossKind.BUSY
        assert "manager one" in caught.value.loss.detail
        await first.heartbeat()
        first.close()
        second = None
        while second is None:
            try:
                second = await two.connect(agent.host, PATIENCE_S)
            except LinkError:  # until the agent has seen the end of the first
                await asyncio.sleep(0.01)
        second.close()
        two.close()


async def test_a_newer_connection_of_the_same_manager_replaces_the_older(
    agent: AgentProcess,
) -> None:
    agent.script("exit 0")
    await agent.start()
    async with connector() as made:
        first = await made.connect(agent.host, PATIENCE_S)
        second = await made.connect(agent.host, PATIENCE_S)
        loss = await asyncio.wait_for(first.wait_closed(), PATIENCE_S)
        assert loss.kind is LossKind.RESET
        with pytest.raises(LinkError):
            await first.heartbeat()
        assert (await run(second)).code == 0
        second.close()


async def test_the_agent_stays_small_and_leaks_no_descriptors(agent: AgentProcess) -> None:
    agent.script("echo some output >&2; exit 7")
    await agent.start()
    async with connector() as made:
        connection = await made.connect(agent.host, PATIENCE_S)
        for _ in range(3):
            await asyncio.gather(*(run(connection, {"n": str(n)}) for n in range(30)))
        before = agent.descriptors
        for _ in range(10):
            await asyncio.gather(*(run(connection, {"n": str(n)}) for n in range(30)))
        for _ in range(50):
            connection.close()
            connection = await made.connect(agent.host, PATIENCE_S)
        connection.close()
        await until(lambda: agent.descriptors <= before, "descriptors to be closed")
    status = Path(f"/proc/{agent.pid}/status").read_text()
    [rss_kb] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
    assert rss_kb <= 60 * 1024


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can protect a process")
async def test_the_agent_is_protected_and_its_scripts_are_not(agent: AgentProcess) -> None:
    agent.script("cat /proc/self/oom_score_adj > $OUT/oom; nice > $OUT/nice")
    before = int(Path("/proc/self/oom_score_adj").read_text())
    await agent.start()
    own = int(Path(f"/proc/{agent.pid}/oom_score_adj").read_text())
    if own == before:
        pytest.skip("the kernel lets nobody change oom_score_adj here")
    async with connected(agent) as connection:
        await run(connection)
    assert own == -1000
    assert int(Path(f"/proc/{agent.pid}/oom_score_adj").read_text()) == -1000
    assert agent.read("oom") == "0\n"
    assert agent.read("nice") == "0\n"


async def test_the_pid_file_is_there_before_the_agent_listens(agent: AgentProcess) -> None:
    await agent.start()
    assert agent.read("agent.pid").strip() == str(agent.pid)
    with socket.socket() as probe:
        probe.connect(("127.0.0.1", agent.port))


async def test_a_crowd_of_idle_connections_does_not_cost_the_served_manager(
    agent: AgentProcess,
) -> None:
    await agent.start()
    async with connected(agent) as connection:
        before = agent.descriptors
        crowd = [socket.create_connection(("127.0.0.1", agent.port)) for _ in range(200)]
        try:
            await connection.heartbeat()
            await until(lambda: agent.descriptors <= before + 64, "the oldest to be dropped")
            await connection.heartbeat()
        finally:
            for sock in crowd:
                sock.close()
        await until(lambda: agent.descriptors <= before, "descriptors to be closed")
