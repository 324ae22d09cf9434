"""Watching, by real agents: what is reported, in which order, and when it ends."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from halo.adapters.rpc.connection import CapnpConnection
from halo.core.errors import LinkError, LossKind
from halo.core.model import Operation
from halo.core.outcomes import Outcome
from halo.core.peers.bounds import ITEM_LIMIT
from halo.remote.watch import AT_ONCE, GRACE_S
from tests.unit.remote_helpers import (
    PATIENCE_S,
    AgentProcess,
    agent_process,
    connected,
    connector,
    is_running,
    until,
)
from tests.unit.watch_helpers import STATEFUL, Reader, item

START, STOP = Operation.START, Operation.STOP


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with agent_process(tmp_path) as made:
        yield made


@pytest.fixture
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    assert not made.faults


def looks(agent: AgentProcess) -> Counter[str]:
    """How often each resource was looked at."""
    return Counter(agent.read("looks").split())


async def operate(connection: CapnpConnection, name: str, operation: Operation) -> int:
    result = await connection.operation(item(name).resource, operation, PATIENCE_S)
    return result.code


async def test_an_agent_that_watches_says_so(agent: AgentProcess) -> None:
    await agent.start()
    async with connected(agent) as connection:
        assert "watch" in connection.identity.features
        first = connection.identity.start_id
    agent.kill()
    await agent.start()
    async with connected(agent) as connection:
        assert connection.identity.start_id not in ("", first)


async def test_the_full_report_holds_every_resource_once_and_changes_follow(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script(STATEFUL)
    await agent.start()
    (agent.folder / "up.a").touch()
    async with connected(agent) as connection:
        await connection.watch([item(n) for n in "abc"], reader, 5.0)
        await until(lambda: reader.complete, "the full report")
        told = [e.resource for e in reader.history]
        assert sorted(told) == ["a", "b", "c"]
        assert [reader.code(n) for n in "abc"] == [0, 7, 7]
        (agent.folder / "up.b").touch()
        (agent.folder / "up.a").unlink()
        await until(lambda: (reader.code("a"), reader.code("b")) == (7, 0), "both changes")
        assert Counter(e.resource for e in reader.history) == {"a": 2, "b": 2, "c": 1}


async def test_a_change_is_reported_within_its_period_though_the_digests_are_far_apart(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script(STATEFUL)
    await agent.start()
    (agent.folder / "up.a").touch()
    async with connected(agent) as connection:
        await connection.watch([item("a", 1.0), item("b", 1.0)], reader, 600.0)
        await until(lambda: reader.complete, "the full report")
        (agent.folder / "up.a").unlink()
        changed_at = time.monotonic()
        await until(lambda: reader.code("a") == 7, "the change")
        slack_s = 3.0  # for the machine that runs the tests
        assert reader.heard_at["a"] - changed_at < 1.0 + slack_s


async def test_while_nothing_changes_only_digests_come(agent: AgentProcess, reader: Reader) -> None:
    agent.script(STATEFUL + "date +%N >&2; exit 1")  # the message differs every time
    await agent.start()
    (agent.folder / "up.a").touch()
    async with connected(agent) as connection:
        await connection.watch([item("a"), item("b")], reader, 0.2)
        await until(lambda: reader.complete, "the full report")
        since = len(reader.batches)
        before = looks(agent)["a"]
        await until(lambda: looks(agent)["a"] >= before + 5, "five more looks")
        await until(lambda: len(reader.batches) >= since + 3, "three digests")
        assert all(batch.results == () for batch in reader.batches[since:])
        assert reader.code("a") == 1
        assert reader.picture["a"].result.message.isdigit()


async def test_a_result_says_how_many_operations_had_ended_before_it(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script(STATEFUL)
    await agent.start()
    async with connected(agent) as connection:
        assert await operate(connection, "a", START) == 0
        await connection.watch([item("a"), item("b")], reader, 5.0)
        await until(lambda: reader.shows("a", 0, 1), "what was started before the watch")
        assert await operate(connection, "a", STOP) == 0
        await until(lambda: reader.shows("a", 7, 2), "the stop")
        assert await operate(connection, "a", STOP) == 0
        await until(lambda: reader.shows("a", 7, 3), "the same result after another operation")
        await connection.watch([item("a")], reader, 5.0)
        await until(lambda: reader.shows("a", 7, 3), "the count in a second watch")
        assert reader.shows("a", 7, 3)
    async with connected(agent) as connection:
        fresh = Reader()
        await connection.watch([item("a")], fresh, 5.0)
        await until(lambda: fresh.shows("a", 7, 0), "the count of a new connection")


async def test_a_monitor_never_runs_beside_an_operation_and_counts_what_was_before_it(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script(
        """
        ! [ -e $OUT/in ] || touch $OUT/beside
        touch $OUT/in
        case "$1" in
        monitor) until [ -e $OUT/gate ]; do sleep 0.02; done; code=$([ -e $OUT/up ]; echo $?) ;;
        start) sleep 0.3; touch $OUT/up; code=0 ;;
        stop) sleep 0.3; rm $OUT/up; code=0 ;;
        esac
        rm $OUT/in
        exit $code
        """
    )
    await agent.start()
    async with connected(agent) as connection:
        await connection.watch([item("a", 0.1)], reader, 5.0)
        await until((agent.folder / "in").exists, "the first monitor")
        start = asyncio.create_task(operate(connection, "a", START))
        await connection.heartbeat()  # calls arrive in order: the start waits behind the monitor
        assert not reader.history
        (agent.folder / "gate").touch()
        assert await start == 0
        for number in range(2, 8):
            operation = STOP if number % 2 == 0 else START
            assert await operate(connection, "a", operation) == 0
        await until(lambda: reader.shows("a", 0, 7), "the last start")
        assert not (agent.folder / "beside").exists()
    assert (reader.history[0].operations, reader.history[0].result.code) == (0, 1)
    assert [e.operations for e in reader.history] == sorted(e.operations for e in reader.history)
    assert all(e.result.code == 1 - e.operations % 2 for e in reader.history)


async def test_operations_that_were_refused_or_dropped_count_too(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script(
        """
        [ "$1" = monitor ] && exit 7
        echo $1 >> $OUT/ran; until [ -e $OUT/gate ]; do sleep 0.02; done
        """
    )
    await agent.start()
    async with connected(agent) as connection:
        await connection.watch([item("a"), item("b", kind="test/Missing")], reader, 5.0)
        await until(lambda: reader.complete, "the full report")
        assert reader.picture["b"].result.outcome is Outcome.NOT_RUN
        missing = item("b", kind="test/Missing").resource
        result = await connection.operation(missing, START, PATIENCE_S)
        assert result.outcome is Outcome.NOT_RUN
        await until(lambda: reader.picture["b"].operations == 1, "the refused one to count")

        running = asyncio.create_task(operate(connection, "a", START))
        await until(lambda: agent.read("ran"), "the start to run")
        gives_up = await connection.operation(item("a").resource, STOP, 0.2)
        assert gives_up.outcome is Outcome.TIMED_OUT
        (agent.folder / "gate").touch()
        assert await running == 0
        await until(lambda: reader.shows("a", 7, 2), "the dropped one to count")
        assert agent.read("ran").split() == ["start"]


async def test_hung_scripts_however_many_delay_no_other_and_are_ended_at_their_deadline(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script("echo $$ >> $OUT/pids; sleep 1000", "test/Hung")
    agent.script(STATEFUL)
    await agent.start()
    hung = [item(f"hung{n}", timeout_s=8.0, kind="test/Hung") for n in range(AT_ONCE + 4)]
    async with connected(agent) as connection:
        await connection.watch([*hung, *(item(n) for n in "abc")], reader, 5.0)
        await until(lambda: set("abc") <= set(reader.picture), "the others")
        await until(lambda: min(looks(agent)[n] for n in "abc") >= 5, "the others again")
        assert set(reader.picture) == set("abc")
        assert not reader.complete
        await until(lambda: reader.complete, "the deadlines")
        told = [reader.picture[i.resource.id].result.outcome for i in hung]
        assert set(told) == {Outcome.TIMED_OUT}


async def heartbeats_until(
    connection: CapnpConnection, condition: Callable[[], object], what: str
) -> None:
    """Send heartbeats, as a manager does, until something is so: the first may reach the agent
    before it has taken in that its batch was refused."""

    async def send() -> None:
        while True:
            await connection.heartbeat()
            await asyncio.sleep(0.1)

    sending = asyncio.create_task(send())
    try:
        await until(condition, what)
    finally:
        sending.cancel()


async def test_a_refused_batch_is_followed_by_a_full_report_after_the_next_heartbeat(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script(STATEFUL)
    await agent.start()
    reader.accepts = False
    async with connected(agent) as connection:
        await connection.watch([item(n) for n in "abc"], reader, 0.2)
        await until(lambda: reader.batches, "a batch")
        before = looks(agent)["a"]
        await until(lambda: looks(agent)["a"] >= before + 10, "ten more looks")
        assert len(reader.batches) == 1
        await connection.heartbeat()
        await until(lambda: len(reader.batches) == 2, "another attempt")
        assert [batch.sequence for batch in reader.batches] == [1, 1]
        reader.accepts = True
        (agent.folder / "up.b").touch()
        await heartbeats_until(connection, lambda: reader.complete, "the full report")
        assert [reader.code(n) for n in "abc"] == [7, 0, 7]
        reader.accepts = False
        (agent.folder / "up.c").touch()
        since = len(reader.batches)
        await until(lambda: len(reader.batches) > since, "a batch to refuse")
        reader.accepts, reader.complete = True, False
        await heartbeats_until(connection, lambda: reader.complete, "the full report again")
        assert [reader.code(n) for n in "abc"] == [7, 0, 0]


async def test_a_new_watch_ends_the_one_before(agent: AgentProcess, reader: Reader) -> None:
    agent.script(STATEFUL)
    await agent.start()
    second = Reader()
    async with connected(agent) as connection:
        await connection.watch([item("a"), item("b")], reader, 0.2)
        await until(lambda: reader.complete, "the first full report")
        await connection.watch([item("b"), item("c")], second, 0.2)
        first_batches = len(reader.batches)
        last_a = looks(agent)["a"]
        await until(lambda: second.complete, "the second full report")
        await until(lambda: looks(agent)["c"] >= 10, "ten looks")
        assert set(second.picture) == {"b", "c"}
        assert len(reader.batches) == first_batches
        assert looks(agent)["a"] <= last_a + 1  # one may have been under way
        await connection.watch([], second, 0.2)
        since = len(second.batches)
        await until(lambda: len(second.batches) >= since + 3, "a watch of nothing to go on")
    assert not second.faults


async def test_a_watch_ends_a_while_after_its_connection(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script(STATEFUL)
    await agent.start()
    async with connected(agent) as connection:
        await connection.watch([item("a")], reader, 0.2)
        await until(lambda: reader.complete, "the full report")
    closed_at = time.monotonic()
    batches = len(reader.batches)
    await until(lambda: "no longer watching" in agent.log.read_text(), "the end of the watch")
    assert time.monotonic() - closed_at > GRACE_S - 1
    last = looks(agent)["a"]
    async with connected(agent) as connection:
        for _ in range(10):  # ten periods
            await connection.heartbeat()
            await asyncio.sleep(0.2)
        assert looks(agent)["a"] <= last + 1
    assert len(reader.batches) == batches


async def test_a_newer_connection_of_the_manager_takes_the_watch_over(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script(STATEFUL)
    await agent.start()
    async with connector() as made:
        older = await made.connect(agent.host, PATIENCE_S)
        await older.watch([item("a")], reader, 0.2)
        await until(lambda: reader.complete, "the full report")
        newer = await made.connect(agent.host, PATIENCE_S)
        assert (await asyncio.wait_for(older.wait_closed(), PATIENCE_S)).kind is LossKind.RESET
        with pytest.raises(LinkError):
            await older.watch([item("a")], reader, 0.2)
        batches = len(reader.batches)
        second = Reader()
        await newer.watch([item("b")], second, 0.2)
        last = looks(agent)["a"]
        await until(lambda: second.complete and looks(agent)["b"] >= 5, "the second watch")
        assert looks(agent)["a"] <= last + 1
        assert len(reader.batches) == batches
        newer.close()


@pytest.mark.parametrize(
    ("names", "period_s", "words"),
    [
        (["a", "a"], 1.0, "its own id"),
        (["a"], 0.01, "period"),
        ([str(n) for n in range(ITEM_LIMIT + 1)], 1.0, "too many"),
    ],
)
async def test_what_cannot_be_watched_is_refused_and_ends_the_watch_before(
    agent: AgentProcess, reader: Reader, names: list[str], period_s: float, words: str
) -> None:
    agent.script(STATEFUL)
    await agent.start()
    async with connected(agent) as connection:
        await connection.watch([item("before")], reader, 0.2)
        with pytest.raises(LinkError, match=words) as caught:
            await connection.watch([item(n, period_s) for n in names], reader, 0.2)
        assert caught.value.loss.kind is LossKind.PROTOCOL
        await connection.heartbeat()
        await connection.watch([item("after")], reader, 0.2)
        await until(lambda: "after" in reader.picture and reader.complete, "another watch")


ALL_S = 3 * PATIENCE_S
"""Two hundred scripts a second are more than two slow cores with other work can run."""


async def test_two_hundred_resources_are_watched_at_once(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script(STATEFUL)
    await agent.start()
    names = [f"r{n}" for n in range(200)]
    async with connected(agent) as connection:
        await connection.watch([item(n, 10.0) for n in names], reader, 1.0)
        await until(lambda: reader.complete, "the full report", ALL_S)
        assert set(reader.picture) == set(names)
        assert len(reader.batches) < 100
        for name in names[::2]:
            (agent.folder / f"up.{name}").touch()
        expected = [0, 7] * 100
        await until(lambda: [reader.code(n) for n in names] == expected, "a hundred changes", ALL_S)
        start = time.monotonic()
        assert await operate(connection, "another", START) == 0
        assert time.monotonic() - start < 20.0
    counted = looks(agent)
    assert min(counted.values()) >= 2, counted  # none was forgotten for the others
    assert max(counted.values()) <= 2 * min(counted.values()) + 2, counted
    assert agent.descriptors < 250


async def test_the_monitors_of_a_watch_leave_nothing_on_disk(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script("ls $OUT/agent.run >> $OUT/records; exit 7")
    await agent.start()
    async with connected(agent) as connection:
        await connection.watch([item("a")], reader, 0.2)
        await until(lambda: reader.complete, "the full report")
        await connection.operation(item("b").resource, Operation.MONITOR, PATIENCE_S)
        await until(lambda: agent.read("records"), "the one that is recorded")
    assert len(agent.read("records").split()) <= 2


async def test_a_monitor_that_outlives_its_agent_holds_its_resource_and_dies_at_its_deadline(
    agent: AgentProcess, reader: Reader
) -> None:
    agent.script(
        """
        if [ "$1" = start ]; then
            grep -q . /proc/$(cat $OUT/pids)/cmdline && touch $OUT/beside
            exit 0
        fi
        echo $$ > $OUT/pids; sleep 1000
        """
    )
    agent.script("exit 0", "test/Other")
    await agent.start()
    async with connected(agent) as connection:
        await connection.watch([item("a", timeout_s=8.0)], reader, 5.0)
        await until(lambda: agent.read("pids"), "the monitor to hang")
    orphan = int(agent.read("pids"))
    agent.kill()
    await agent.start()
    async with connected(agent) as connection:
        other = item("b", kind="test/Other").resource
        assert (await connection.operation(other, START, PATIENCE_S)).code == 0
        assert "waiting for a script of an earlier agent" in agent.log.read_text()
        assert await operate(connection, "a", START) == 0
        assert not is_running(orphan)
    assert not (agent.folder / "beside").exists()


async def test_an_agent_of_another_folder_leaves_the_monitors_of_this_one_alone(
    tmp_path: Path, agent: AgentProcess, reader: Reader
) -> None:
    agent.script("echo $$ >> $OUT/pids; sleep 1000")
    await agent.start()
    async with connector() as made:
        connection = await made.connect(agent.host, PATIENCE_S)
        await connection.watch([item("a", timeout_s=1000.0)], reader, 5.0)
        await until(lambda: agent.read("pids"), "the monitor to hang")
        with agent_process(tmp_path, "other") as other:
            other.script("exit 0", "test/Free")
            await other.start()
            second = await made.connect(other.host, PATIENCE_S)
            free = item("a", kind="test/Free").resource
            assert (await second.operation(free, START, PATIENCE_S)).code == 0
            assert "earlier agent" not in other.log.read_text()
            second.close()
        connection.close()


async def test_scripts_inherit_none_of_the_agents_descriptors(agent: AgentProcess) -> None:
    agent.script("ls -l /proc/self/fd > $OUT/fds")
    leaked = agent.folder / "inherited"
    leaked.touch()
    with leaked.open() as file:
        agent.pass_fds = (file.fileno(),)
        await agent.start()
    assert str(leaked) in {os.readlink(fd) for fd in Path(f"/proc/{agent.pid}/fd").iterdir()}
    async with connected(agent) as connection:
        assert await operate(connection, "a", START) == 0
    targets = [line.partition(" -> ")[2] for line in agent.read("fds").splitlines()]
    assert str(leaked) not in targets
    assert not [t for t in targets if t.startswith(("socket:", "anon_inode:"))]
