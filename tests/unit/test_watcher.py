"""The manager's end of watching: what it believes of a report, and when it looks for itself.

The real manager on a clock that jumps; its agents, devices and disk are fakes behind the ports.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from halo.core.cluster.host_state import FencePhase
from halo.core.cluster.knowledge import Presence
from halo.core.errors import LinkError, Loss, LossKind
from halo.core.journal.records import Event
from halo.core.model import FenceDevice, Host, Operation, Resource, ResourceGroup
from halo.core.outcomes import (
    AgentIdentity,
    FenceAction,
    FenceResult,
    OperationResult,
    Outcome,
    PowerState,
    ReportBatch,
    ReportedResult,
    WatchItem,
)
from halo.core.peers.digest import DigestKeeper
from halo.manager.hosts import watcher
from halo.manager.hosts.watcher import BATCHES_MISSED, CALL_DEADLINE_S, RETRY_S
from halo.manager.manager import Manager
from halo.ports import GreetingTurn, ReportSink
from tests.core.builders import make_cluster, make_group
from tests.fakes.memory_medium import MemoryDisk, MemoryMedium
from tests.fakes.monitors import MonitorsByOperation
from tests.unit.virtual_time import loop_now, run

MONITOR, START, STOP = Operation.MONITOR, Operation.START, Operation.STOP
POLL_S = 60.0  # so that a poll is never what made something known
DIGEST_S = 5.0


class Agent:
    """One host that does what it is told, and reports when the test says so.

    `up`: what runs. `holds`: operations whose answers wait for an event; they take effect at once.
    """

    def __init__(self, name: str, *, watches: bool = True, legacy: bool = False) -> None:
        self.name = name
        features = frozenset({"heartbeat", "run"} | ({"watch"} if watches else set()))
        self.identity = (
            AgentIdentity(legacy=True)
            if legacy
            else AgentIdentity("1", "boot-1", features=features)
        )
        self.up: set[str] = set()
        self.asked: list[tuple[Operation, str]] = []
        self.ended: Counter[str] = Counter()
        self.holds: dict[tuple[Operation, str], asyncio.Event] = {}
        self.refuses: set[Operation] = set()  # as what it could not read, and never counts
        self.watch_refusals: list[str] = []
        self.ignores_watch = False
        self.heartbeat_delay_s = 0.0
        self.connections: list[Connection] = []
        self.sink: ReportSink | None = None
        self.items: list[WatchItem] = []
        self.watches_asked: list[float] = []
        self.afresh()

    def afresh(self) -> None:
        """The next batch begins a full report."""
        self.sequence = 0
        self.digest = DigestKeeper()

    def code(self, resource: str) -> int:
        return 0 if resource in self.up else 7

    def count(self, operation: Operation, resource: str | None = None) -> int:
        return sum(op is operation and resource in (None, id) for op, id in self.asked)

    # Reports

    def result(self, resource: str, operations: int | None = None) -> ReportedResult:
        ended = self.ended[resource] if operations is None else operations
        return ReportedResult(
            resource, ended, OperationResult(Outcome.COMPLETED, self.code(resource))
        )

    def send(
        self,
        *results: ReportedResult,
        complete: bool = False,
        skip: int = 0,
        digest: int | None = None,
    ) -> bool:
        """One batch; whether it was accepted."""
        assert self.sink is not None
        self.sequence += 1 + skip
        for entry in results:
            self.digest.set(entry)
        value = self.digest.value if digest is None else digest
        return self.sink.report(ReportBatch(self.sequence, complete, value, results))

    def tell(self, *resources: str, **how: Any) -> bool:
        """Report how these resources are now."""
        return self.send(*(self.result(name) for name in resources), **how)

    def tell_all(self) -> bool:
        """The full report."""
        self.afresh()
        return self.tell(*(item.resource.id for item in self.items), complete=True)


class Connection(MonitorsByOperation):
    """Implements :class:`halo.ports.AgentConnection` on an :class:`Agent`."""

    def __init__(self, agent: Agent) -> None:
        self.identity = agent.identity
        self.agent = agent
        self.closed: asyncio.Future[Loss] = loop_now().create_future()

    async def operation(
        self, resource: Resource, operation: Operation, deadline_s: float
    ) -> OperationResult:
        agent, name = self.agent, resource.id
        self._require_open()
        agent.asked.append((operation, name))
        await asyncio.sleep(0)
        if operation in agent.refuses:
            return OperationResult(Outcome.NOT_RUN, message="refused", uncounted=True)
        result = OperationResult(Outcome.COMPLETED, 0)
        if operation is MONITOR:
            result = OperationResult(Outcome.COMPLETED, agent.code(name))
        elif operation is START:
            agent.up.add(name)
        else:
            agent.up.discard(name)
        if operation is not MONITOR:
            agent.ended[name] += 1
        hold = agent.holds.get((operation, name))
        if hold is not None:
            try:
                async with asyncio.timeout(deadline_s):
                    await hold.wait()
            except TimeoutError:
                return OperationResult(Outcome.TIMED_OUT)
        self._require_open()
        return result

    async def heartbeat(self) -> None:
        self._require_open()
        if self.agent.heartbeat_delay_s:
            await asyncio.sleep(self.agent.heartbeat_delay_s)
        self._require_open()

    async def watch(
        self, items: Sequence[WatchItem], sink: ReportSink, digest_interval_s: float
    ) -> None:
        agent = self.agent
        self._require_open()
        agent.watches_asked.append(loop_now().time())
        if agent.ignores_watch:
            await asyncio.Event().wait()
        if agent.watch_refusals:
            raise LinkError(Loss(LossKind.PROTOCOL, agent.watch_refusals.pop(0)))
        assert digest_interval_s == DIGEST_S
        agent.items, agent.sink = list(items), sink
        agent.afresh()

    async def wait_closed(self) -> Loss:
        return await asyncio.shield(self.closed)

    def close(self) -> None:
        self.end(LossKind.STALE)

    def end(self, kind: LossKind) -> None:
        if not self.closed.done():
            self.closed.set_result(Loss(kind))

    def _require_open(self) -> None:
        if self.closed.done():
            raise LinkError(self.closed.result())


class Connector:
    """Implements :class:`halo.ports.AgentConnector`; a host without an agent refuses."""

    def __init__(self, agents: dict[str, Agent]) -> None:
        self.agents = agents

    async def connect(
        self, host: Host, deadline_s: float, turn: GreetingTurn | None = None
    ) -> Connection:
        await asyncio.sleep(0)
        agent = self.agents.get(host.id)
        if agent is None:
            raise LinkError(Loss(LossKind.REFUSED))
        connection = Connection(agent)
        agent.connections.append(connection)
        return connection


class Devices:
    """Implements :class:`halo.ports.FenceDevices`: every outlet is on."""

    async def run(
        self,
        device: FenceDevice,
        action: FenceAction,
        deadline_s: float,
        expired: Callable[[], str | None] = lambda: None,
    ) -> FenceResult:
        return FenceResult(action is FenceAction.STATUS, PowerState.ON, "does not switch off")


class Clock:
    """Implements :class:`halo.ports.WallClock`."""

    def now(self) -> float:
        return loop_now().time()


class Bench:
    """A manager and its agents. Every watching agent has sent its full report at the start."""

    def __init__(self, *groups: ResourceGroup, disk: MemoryDisk | None = None, **settings: Any):
        groups = groups or (make_group("g"),)
        hosts = sorted({host for group in groups for host in group.candidates})
        self.agents = {host: Agent(host) for host in hosts}
        self.disk = disk or MemoryDisk()
        self.cluster = make_cluster(
            *groups,
            **{"monitor_interval_s": POLL_S, "digest_interval_s": DIGEST_S, **settings},
        )
        self.manager: Manager
        self.work: asyncio.Task[None]

    def begin(self) -> None:
        """Start the manager."""
        self.manager = Manager(
            self.cluster,
            Connector(self.agents),
            Devices(),
            MemoryMedium.open(self.disk),
            Clock(),
        )
        self.work = asyncio.create_task(self.manager.run())

    async def start(self) -> Bench:
        """Start the manager, and see every agent watch and every group run."""
        self.begin()
        await self.watch_all()
        await self.until(lambda: all(self.runs(group) for group in self.cluster.groups))
        self.tell_operations()
        await asyncio.sleep(1.0)
        self.forget()
        return self

    async def watch_all(self) -> None:
        await self.until(lambda: all(agent.sink is not None for agent in self.watching))
        for agent in self.watching:
            assert agent.tell_all()

    @property
    def watching(self) -> list[Agent]:
        return [a for a in self.agents.values() if "watch" in a.identity.features]

    def tell_operations(self) -> None:
        """As an agent does after starts: what is looked at for the first time since is told."""
        for agent in self.watching:
            assert agent.tell(*agent.ended)

    def forget(self) -> None:
        for agent in self.agents.values():
            agent.asked.clear()

    def runs(self, group: str) -> bool:
        return all(
            any(resource.id in agent.up for agent in self.agents.values())
            for resource in self.cluster.groups[group].resources
        )

    def knows(self, resource: str, host: str) -> Presence:
        return self.manager.state.knowledge.of(resource, host).presence

    def watched(self, host: str) -> bool:
        return self.manager.state.hosts[host].watched

    async def until(self, holds: Callable[[], bool], within_s: float = 5.0) -> float:
        """How long it took; the clock jumps no further than a millisecond at a time."""
        began = loop_now().time()
        while not holds():
            assert loop_now().time() < began + within_s, "not in time"
            assert not self.work.done(), self.work
            await asyncio.sleep(0.001)
        return loop_now().time() - began

    def events(self, *kinds: Event) -> list[str]:
        return [
            f"{r.event.value} {r.object}: {r.comment}"
            for r in self.manager.state.remembered.events
            if r.event in kinds
        ]


def play(test: Coroutine[Any, Any, None]) -> None:
    """Run a test on a clock that jumps; whatever came of it, the manager ends."""

    async def body() -> None:
        try:
            await test
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            if others:
                await asyncio.wait(others)

    run(body())


def _has(items: Sequence[object], count: int) -> bool:
    return len(items) == count


def virtual(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def wrapper() -> None:
        play(test())

    wrapper.__name__ = getattr(test, "__name__", "test")
    wrapper.__doc__ = test.__doc__
    return wrapper


# --- at rest, and on a change --------------------------------------------------------------------


@virtual
async def test_while_it_is_told_that_nothing_changes_it_asks_nothing() -> None:
    bench = await Bench(monitor_interval_s=1.0).start()
    assert all(bench.watched(host) for host in bench.agents)
    for _ in range(10):
        await asyncio.sleep(DIGEST_S)
        assert all(agent.tell() for agent in bench.agents.values())
    assert [agent.asked for agent in bench.agents.values()] == [[], []]


@virtual
async def test_the_watch_names_every_resource_once_with_its_own_period() -> None:
    bench = Bench(
        make_group("g", tree={"g": ("leaf", "both")}, shared=("both",)),
        make_group("f", tree={"f": ("both",)}, shared=("both",)),
        watch_interval_s=2.0,
    )
    await bench.start()
    periods = {item.resource.id: item.period_s for item in bench.agents["h1"].items}
    assert periods == {"g": 2.0, "leaf": 2.0, "both": 2.0, "f": 2.0}
    assert len(bench.agents["h1"].items) == 4


@virtual
async def test_a_resource_that_is_told_to_have_stopped_is_started_at_once() -> None:
    bench = await Bench().start()
    agent = bench.agents["h1"]
    agent.up.discard("g")
    assert agent.tell("g")
    assert await bench.until(lambda: agent.count(START, "g") == 1) < 0.1
    assert agent.count(MONITOR) == 0


@virtual
async def test_a_second_copy_that_is_told_is_an_error_after_a_second_look() -> None:
    bench = await Bench().start()
    bench.agents["h2"].up.add("g")
    assert bench.agents["h2"].tell("g")
    assert await bench.until(lambda: bool(bench.events(Event.ERROR))) < 1.0
    assert bench.events(Event.ERROR) == ["error g: running on h1 and h2 at once"]
    await asyncio.sleep(30.0)
    assert not [op for a in bench.agents.values() for op, _ in a.asked if op is not MONITOR]


@virtual
async def test_a_group_that_is_told_to_run_is_adopted_where_it_runs() -> None:
    bench = Bench()
    bench.agents["h2"].up.add("g")
    await bench.start()
    state = bench.manager.state.groups["g"]
    await bench.until(lambda: state.managed_on == "h2")
    assert all(agent.ended == {} for agent in bench.agents.values())


@virtual
async def test_what_is_told_of_a_shared_resource_reaches_every_group_that_has_it() -> None:
    bench = await Bench(
        make_group("g", ("h1",), tree={"g": ("both",)}, shared=("both",)),
        make_group("f", ("h1",), tree={"f": ("both",)}, shared=("both",)),
    ).start()
    agent = bench.agents["h1"]
    agent.up.discard("both")
    agent.tell("both")
    found = bench.manager.hosts["h1"]._children
    seen = {name: child.presence("both") for name, child in found.items()}
    assert Presence.RUNNING not in seen.values(), seen
    await bench.until(lambda: "both" in agent.up)
    agent.tell("both")
    assert {child.presence("both") for child in found.values()} == {Presence.RUNNING}


# --- a report is no proof ------------------------------------------------------------------------


@virtual
async def test_a_start_rests_on_monitors_that_were_asked_for_alone() -> None:
    bench = Bench()
    bench.agents["h2"].holds[MONITOR, "g"] = asyncio.Event()
    bench.begin()
    await bench.watch_all()
    await bench.until(
        lambda: all(bench.knows("g", host) is Presence.STOPPED for host in bench.agents)
    )
    for _ in range(5):
        await asyncio.sleep(1.0)
        assert all(agent.tell() for agent in bench.agents.values())
        assert not bench.runs("g")
    assert bench.agents["h2"].count(MONITOR, "g") == 1
    bench.agents["h2"].holds[MONITOR, "g"].set()
    await bench.until(lambda: bench.runs("g"))


@virtual
async def test_a_report_that_it_stopped_is_no_proof_for_a_start_elsewhere() -> None:
    """The group is stopped at home behind the manager's back, and its home is deactivated."""
    bench = await Bench().start()
    h1, h2 = bench.agents["h1"], bench.agents["h2"]
    h1.holds[START, "g"] = asyncio.Event()
    await bench.manager.operations.host_command("h1", "deactivate", force=True, comment=None)
    await bench.until(lambda: "g" in h2.up)
    stopped_at = h1.asked.index((STOP, "g"))
    assert (MONITOR, "g") in h1.asked[stopped_at:]


# --- reports beside starts and stops --------------------------------------------------------------


async def restarting() -> tuple[Bench, Agent, asyncio.Event]:
    """A restart is under way: done at the agent, and not answered yet."""
    bench = await Bench().start()
    agent = bench.agents["h1"]
    hold = agent.holds[START, "g"] = asyncio.Event()
    agent.up.discard("g")
    agent.tell("g")
    await bench.until(lambda: "g" in agent.up)
    return bench, agent, hold


@virtual
async def test_a_report_sampled_before_a_start_is_not_believed_after_it() -> None:
    bench, agent, hold = await restarting()
    hold.set()
    await bench.until(lambda: bench.knows("g", "h1") is Presence.RUNNING)
    agent.up.discard("g")
    assert agent.send(agent.result("g", operations=agent.ended["g"] - 1))
    assert bench.knows("g", "h1") is Presence.RUNNING
    await asyncio.sleep(1.0)
    assert agent.count(START) == 1


@virtual
async def test_a_report_beside_a_start_is_not_believed() -> None:
    bench, agent, hold = await restarting()
    agent.up.discard("g")
    assert agent.send(agent.result("g", operations=agent.ended["g"] - 1))
    await asyncio.sleep(1.0)
    assert bench.knows("g", "h1") is Presence.UNKNOWN
    hold.set()
    await bench.until(lambda: bench.knows("g", "h1") is Presence.RUNNING)
    assert agent.count(START) == 1


@virtual
async def test_a_report_that_is_ahead_of_the_answer_counts_when_the_answer_comes() -> None:
    bench, agent, hold = await restarting()
    agent.up.discard("g")  # it crashed again, before its start was answered
    assert agent.tell("g")
    await asyncio.sleep(1.0)
    assert bench.knows("g", "h1") is Presence.UNKNOWN
    assert agent.count(START) == 1
    hold.set()
    del agent.holds[START, "g"]
    await bench.until(lambda: agent.count(START) == 2)
    assert agent.count(MONITOR) == 0


@pytest.mark.parametrize("then", [START, STOP])
def test_a_start_or_stop_without_an_answer_ends_the_watch(then: Operation) -> None:
    """It may end at any time from now on, and nobody would know which report came after it."""

    async def body() -> None:
        bench = await Bench(operation_deadline_s=20.0).start()
        agent = bench.agents["h1"]
        agent.holds[then, "g"] = asyncio.Event()
        if then is START:
            agent.up.discard("g")
            agent.tell("g")
        else:
            await bench.manager.operations.group_command("g", "stop", to=None, comment=None)
        await bench.until(lambda: agent.count(then) == 1)
        for _ in range(3):
            await asyncio.sleep(4.0)
            assert agent.tell()
        await asyncio.sleep(4.0)
        assert bench.watched("h1")
        state = bench.manager.state.hosts["h1"]
        await bench.until(lambda: not state.counts_certain)
        assert not bench.watched("h1")
        await asyncio.sleep(10 * RETRY_S)
        assert len(agent.watches_asked) == 1
        await bench.until(lambda: agent.count(MONITOR, "g") > 0, within_s=2 * POLL_S)

    play(body())


@virtual
async def test_a_start_that_fails_on_a_standing_connection_ends_the_watch() -> None:
    """Whether the agent has counted it nobody knows: reports would not be believed for ever."""
    bench = await Bench().start()
    agent = bench.agents["h1"]

    async def refuse() -> None:
        raise LinkError(Loss(LossKind.BUSY, "this connection is not the one served"))

    class Refusing(asyncio.Event):
        async def wait(self) -> Any:
            await refuse()

    agent.holds[START, "g"] = Refusing()
    agent.up.discard("g")
    agent.tell("g")
    await bench.until(lambda: agent.count(START) == 1)
    await bench.until(lambda: not bench.watched("h1"), within_s=0.1)
    del agent.holds[START, "g"]
    agent.up.add("g")
    await bench.until(lambda: bench.knows("g", "h1") is Presence.RUNNING, within_s=2 * POLL_S)


@virtual
async def test_a_start_that_the_agent_refused_and_did_not_count_ends_the_watch() -> None:
    """Every later report of the resource would be taken for one from before the start."""
    bench = await Bench().start()
    agent = bench.agents["h1"]
    agent.refuses = {START}
    agent.up.discard("g")
    agent.tell("g")
    await bench.until(lambda: agent.count(START) == 1)
    await bench.until(lambda: not bench.watched("h1"), within_s=0.1)
    agent.refuses = set()
    agent.up.add("g")
    await bench.until(lambda: bench.knows("g", "h1") is Presence.RUNNING, within_s=2 * POLL_S)


# --- a report beside a monitor -----------------------------------------------------------------


@virtual
async def test_a_report_is_not_undone_by_the_answer_to_an_older_monitor() -> None:
    """The agent tells a change once: what an older answer made of it would stand for ever."""
    bench = await Bench().start()
    h2 = bench.agents["h2"]
    hold = h2.holds[MONITOR, "g"] = asyncio.Event()
    bench.manager.hosts["h2"].probe("g")
    await bench.until(lambda: h2.count(MONITOR) == 1)  # sampled: stopped
    h2.up.add("g")
    h2.tell("g")
    assert bench.knows("g", "h2") is Presence.RUNNING
    hold.set()
    await asyncio.sleep(1.0)
    assert bench.knows("g", "h2") is Presence.RUNNING


@virtual
async def test_a_stop_that_is_told_beside_a_monitor_is_acted_on() -> None:
    """The monitor that the group's own task asked for was answered "running" before."""
    bench = await Bench(monitor_interval_s=RETRY_S + 2).start()
    agent = bench.agents["h1"]
    hold = agent.holds[MONITOR, "g"] = asyncio.Event()
    assert agent.send(skip=1)  # sight is lost
    assert not bench.watched("h1")
    await bench.until(lambda: len(agent.watches_asked) == 2, within_s=2 * RETRY_S)
    await bench.until(lambda: agent.count(MONITOR, "g") == 1)
    agent.up.discard("g")
    assert agent.tell_all()
    hold.set()
    await bench.until(lambda: agent.count(START) == 1, within_s=2.0)


# --- when sight is lost ------------------------------------------------------------------------


def a_gap(agent: Agent) -> None:
    agent.tell(skip=1)


def a_repeated_batch(agent: Agent) -> None:
    agent.tell(skip=-1)


def a_full_report_unasked(agent: Agent) -> None:
    agent.tell_all()


def another_digest(agent: Agent) -> None:
    agent.tell(digest=agent.digest.value ^ 1)


def a_result_that_was_swallowed(agent: Agent) -> None:
    agent.digest.set(ReportedResult("g", 0, OperationResult(Outcome.COMPLETED, 1)))
    agent.tell()


def a_result_that_is_new_only_since_an_operation_ended(agent: Agent) -> None:
    told = agent.result("g")
    agent.digest.set(replace(told, operations=told.operations + 1))
    agent.tell()


def a_resource_that_nobody_knows(agent: Agent) -> None:
    agent.send(agent.result("g"), agent.result("stranger"))


DOUBTS = [
    a_gap,
    a_repeated_batch,
    a_full_report_unasked,
    another_digest,
    a_result_that_was_swallowed,
    a_result_that_is_new_only_since_an_operation_ended,
    a_resource_that_nobody_knows,
]


@pytest.mark.parametrize("doubt", DOUBTS, ids=lambda doubt: doubt.__name__)
def test_what_shows_that_something_was_missed_ends_the_watch(
    doubt: Callable[[Agent], None],
) -> None:
    async def body() -> None:
        bench = await Bench().start()
        for host, agent in bench.agents.items():
            doubt(agent)
            lost_at = loop_now().time()
            assert not bench.watched(host)  # in that very step
            asked = agent.watches_asked
            await bench.until(partial(_has, asked, 2), within_s=2 * RETRY_S)
            assert asked[1] - lost_at == pytest.approx(RETRY_S, abs=0.1)
            assert not bench.watched(host)
            assert agent.tell_all()
            assert bench.watched(host)

    play(body())


@virtual
async def test_a_host_without_a_task_of_the_group_is_looked_at_when_sight_is_lost() -> None:
    bench = await Bench().start()
    agent = bench.agents["h2"]
    agent.up.add("g")  # the batch that tells of it is lost
    a_gap(agent)
    assert await bench.until(lambda: bench.knows("g", "h2") is Presence.RUNNING) < 0.1
    assert await bench.until(lambda: bool(bench.events(Event.ERROR))) < 1.0
    assert bench.events(Event.ERROR) == ["error g: running on h1 and h2 at once"]


@virtual
async def test_a_group_that_was_moved_by_hand_between_two_looks_is_no_second_copy() -> None:
    bench = await Bench().start()
    bench.agents["h1"].up.discard("g")  # stopped there, which nobody has told yet
    bench.agents["h2"].up.add("g")
    assert bench.agents["h2"].tell("g")
    await bench.until(lambda: bench.knows("g", "h1") is Presence.STOPPED)
    assert bench.agents["h1"].tell("g")
    state = bench.manager.state.groups["g"]
    await bench.until(lambda: state.managed_on == "h2")
    assert bench.events(Event.ERROR) == []


@virtual
async def test_nothing_of_a_doubtful_batch_or_after_it_is_believed() -> None:
    bench = await Bench().start()
    agent = bench.agents["h1"]
    agent.up.discard("g")
    assert agent.tell("g", skip=1)
    assert not agent.tell("g")
    assert bench.knows("g", "h1") is Presence.RUNNING
    assert agent.asked == []


@virtual
async def test_silence_of_three_digest_intervals_ends_the_watch() -> None:
    bench = await Bench().start()
    agent = bench.agents["h1"]
    assert agent.tell()
    took = await bench.until(lambda: not bench.watched("h1"), within_s=20.0)
    assert took == pytest.approx(BATCHES_MISSED * DIGEST_S, abs=0.1)
    await bench.until(lambda: agent.count(MONITOR, "g") > 0, within_s=POLL_S)


@virtual
async def test_a_digest_that_comes_late_but_in_time_does_not() -> None:
    bench = await Bench().start()
    assert all(agent.tell() for agent in bench.agents.values())
    for _ in range(5):
        await asyncio.sleep(BATCHES_MISSED * DIGEST_S - 0.1)
        assert all(agent.tell() for agent in bench.agents.values())
    assert all(bench.watched(host) for host in bench.agents)
    assert len(bench.agents["h1"].watches_asked) == 1


@virtual
async def test_a_full_report_that_does_not_end_is_no_sight() -> None:
    bench = Bench(monitor_interval_s=5.0)
    bench.begin()
    await bench.until(lambda: all(agent.sink is not None for agent in bench.agents.values()))
    for agent in bench.agents.values():
        agent.tell()
    await bench.until(lambda: bench.runs("g"))  # by monitors, which the placer asks for
    bench.forget()
    for _ in range(6):
        await asyncio.sleep(5.0)
        assert all(agent.tell() for agent in bench.agents.values())
    assert not any(bench.watched(host) for host in bench.agents)
    assert bench.agents["h1"].count(MONITOR, "g") >= 5


# --- hosts that are not ready ------------------------------------------------------------------


@virtual
async def test_a_batch_of_a_host_that_is_not_ready_is_rejected_and_the_next_full_one_taken() -> (
    None
):
    bench = await Bench().start()
    agent, state = bench.agents["h1"], bench.manager.state.hosts["h1"]
    state.fence_phase = FencePhase.RUNNING
    agent.up.discard("g")
    assert not agent.tell("g")
    assert not agent.tell_all()
    assert bench.knows("g", "h1") is Presence.RUNNING
    state.fence_phase = FencePhase.IDLE
    await asyncio.sleep(1.0)
    assert bench.knows("g", "h1") is Presence.RUNNING
    assert agent.asked == []
    assert agent.tell_all()
    assert bench.watched("h1")
    await bench.until(lambda: agent.count(START) == 1)
    assert len(agent.watches_asked) == 1


@pytest.mark.parametrize("sequence", [2, 5])
def test_after_a_rejection_only_a_new_full_report_is_taken(sequence: int) -> None:
    async def body() -> None:
        bench = await Bench().start()
        agent, state = bench.agents["h1"], bench.manager.state.hosts["h1"]
        state.fence_phase = FencePhase.RUNNING
        assert not agent.tell()
        state.fence_phase = FencePhase.IDLE
        agent.afresh()
        agent.tell("g", complete=True, skip=sequence - 1)
        assert not bench.watched("h1")

    play(body())


@virtual
async def test_nothing_is_watched_before_the_first_heartbeat_is_answered() -> None:
    bench = Bench()
    for agent in bench.agents.values():
        agent.heartbeat_delay_s = 1.0
    bench.begin()
    await bench.until(lambda: all(agent.connections for agent in bench.agents.values()))
    began = loop_now().time()
    assert bench.manager.state.remembered.lifecycle("h1").state.value == "reconnecting"
    await bench.until(lambda: all(agent.watches_asked for agent in bench.agents.values()))
    assert loop_now().time() - began == pytest.approx(1.0, abs=0.1)
    assert bench.manager.state.remembered.lifecycle("h1").state.value == "ready"


@virtual
async def test_a_late_batch_of_an_ended_connection_is_rejected() -> None:
    bench = await Bench().start()
    agent = bench.agents["h1"]
    old = agent.sink
    assert old is not None
    agent.connections[-1].end(LossKind.RESET)
    await bench.until(lambda: len(agent.watches_asked) == 2)
    agent.up.discard("g")
    batch = ReportBatch(agent.sequence + 1, True, 0, (agent.result("g", operations=0),))
    assert not old.report(batch)
    assert bench.knows("g", "h1") is not Presence.STOPPED


# --- agents that do not watch --------------------------------------------------------------------


@virtual
async def test_an_agent_that_refuses_to_watch_is_looked_at_at_once_and_polled() -> None:
    bench = Bench(monitor_interval_s=5.0)
    for agent in bench.agents.values():
        agent.watch_refusals = ["2001 resources are more than the 2000 of one watch"] * 3
    bench.agents["h2"].up.add("g")
    bench.begin()
    took = await bench.until(lambda: bench.knows("g", "h2") is Presence.RUNNING)
    assert took < 0.1
    await bench.until(lambda: bench.manager.state.groups["g"].managed_on == "h2")
    bench.agents["h2"].up.discard("g")
    await bench.until(lambda: "g" in bench.agents["h2"].up, within_s=6.0)
    agent = bench.agents["h2"]
    await bench.until(lambda: len(agent.watches_asked) == 4, within_s=4 * RETRY_S)
    assert agent.tell_all()
    assert bench.watched("h2")


def test_a_host_with_more_resources_than_a_watch_holds_is_polled_and_never_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = 20  # two thousand would be polled for a minute of processor time
    monkeypatch.setattr(watcher, "ITEM_LIMIT", limit)

    async def body() -> None:
        below = [f"r{number}" for number in range(limit)]
        bench = Bench(make_group("g", tree={"g": below}))
        agent = bench.agents["h2"]
        agent.up |= {"g", *below}
        with capture_logs() as log:
            bench.begin()
            await bench.until(lambda: bench.knows("g", "h2") is Presence.RUNNING)
            await asyncio.sleep(2.5 * RETRY_S)
        assert agent.watches_asked == []
        told = [line for line in log if line["event"] == "not watched" and line["host"] == "h2"]
        assert [line["reason"] for line in told] == [
            "it has 21 resources, and a watch takes at most 20; HALO polls it"
        ]

    play(body())


@virtual
async def test_an_agent_that_does_not_answer_the_call_is_polled() -> None:
    bench = Bench(monitor_interval_s=5.0)
    bench.agents["h1"].ignores_watch = True
    bench.agents["h1"].up.add("g")
    bench.begin()
    agent = bench.agents["h1"]
    await bench.until(lambda: bench.knows("g", "h1") is Presence.RUNNING)
    agent.ignores_watch = False
    await bench.until(lambda: len(agent.watches_asked) == 2, within_s=CALL_DEADLINE_S + RETRY_S + 1)
    assert agent.tell_all()
    assert bench.watched("h1")


@pytest.mark.parametrize("legacy", [False, True])
def test_an_agent_without_the_feature_is_looked_through_and_polled(legacy: bool) -> None:
    async def body() -> None:
        bench = Bench(monitor_interval_s=5.0)
        old = bench.agents["h1"] = Agent("h1", watches=False, legacy=legacy)
        await bench.start()
        assert old.watches_asked == []
        assert not bench.watched("h1")
        assert bench.watched("h2")
        old.up.discard("g")
        await bench.until(lambda: "g" in old.up, within_s=6.0)
        assert bench.agents["h2"].count(MONITOR) == 0

    play(body())


# --- what the manager chose to forget ----------------------------------------------------------


@virtual
async def test_what_a_cleanup_made_unknown_is_asked_for_though_the_host_is_watched() -> None:
    """Nothing has changed at the agent, which tells changes alone."""
    bench = await Bench().start()
    operations = bench.manager.operations
    await operations.group_command("g", "stop", to=None, comment=None)
    await bench.until(lambda: not bench.runs("g"))
    bench.tell_operations()
    await operations.group_command("g", "cleanup", to=None, comment=None)
    await bench.until(
        lambda: all(bench.knows("g", host) is Presence.STOPPED for host in bench.agents)
    )


@virtual
async def test_a_command_that_could_not_be_recorded_leaves_nothing_unknown_for_long() -> None:
    bench = await Bench(monitor_interval_s=5.0).start()
    operations = bench.manager.operations
    await operations.set_managed("g", managed=False, comment=None)
    bench.disk.fail_next = 1
    with pytest.raises(Exception, match="nothing was changed"):
        await operations.set_managed("g", managed=True, comment=None)
    assert bench.knows("g", "h1") is Presence.UNKNOWN
    await bench.until(lambda: bench.knows("g", "h1") is Presence.RUNNING, within_s=6.0)
    assert all(bench.watched(host) for host in bench.agents)


# --- coming back -------------------------------------------------------------------------------


async def away_and_back(bench: Bench, host: str, boot: str | None = None) -> None:
    agent = bench.agents[host]
    number = len(agent.watches_asked)
    if boot is not None:
        agent.identity = AgentIdentity("1", boot, features=agent.identity.features)
    agent.connections[-1].end(LossKind.RESET)
    await bench.until(lambda: len(agent.watches_asked) > number, within_s=20.0)
    await asyncio.sleep(0.01)


@virtual
async def test_a_return_is_told_once_and_with_what_the_boot_identity_says() -> None:
    bench = await Bench().start()
    assert bench.events(Event.RETURN) == []
    await away_and_back(bench, "h2")
    await away_and_back(bench, "h2", "boot-2")
    await away_and_back(bench, "h2", "")
    assert bench.events(Event.RETURN) == [
        "return h2: the host has not booted since: what ran there may still run",
        "return h2: the host has booted since: nothing from before still runs",
        "return h2: it is not known whether the host has booted since",
    ]


@virtual
async def test_a_return_is_told_though_the_first_heartbeat_was_overdue() -> None:
    """The silence of a host that is not ready yet must not pass for the end of its absence."""
    bench = await Bench(loss_budget_s=20.0).start()
    agent = bench.agents["h2"]
    agent.heartbeat_delay_s = 4.0
    lifecycle: list[str] = []
    agent.connections[-1].end(LossKind.RESET)
    number = len(agent.watches_asked)
    while len(agent.watches_asked) == number:
        await asyncio.sleep(0.01)
        shown = bench.manager.state.remembered.lifecycle("h2").state.value
        if lifecycle[-1:] != [shown]:
            lifecycle.append(shown)
    assert [word for word in lifecycle if word != "disconnected"] == ["reconnecting", "ready"]
    assert len(bench.events(Event.RETURN)) == 1


@virtual
async def test_a_manager_that_restarts_tells_no_return_of_hosts_that_never_were_away() -> None:
    disk = MemoryDisk()
    bench = await Bench(disk=disk).start()
    bench.work.cancel()
    await asyncio.wait({bench.work})
    again = Bench(disk=disk)
    again.agents = bench.agents
    for agent in again.agents.values():
        agent.sink = None
        agent.connections[-1].end(LossKind.RESET)
        agent.ended.clear()  # counted by connection
    again.begin()
    await again.watch_all()
    await again.until(lambda: all(again.watched(host) for host in again.agents))
    assert again.events(Event.RETURN) == []


@virtual
async def test_a_host_that_went_while_no_manager_ran_is_not_shown_as_ready() -> None:
    disk = MemoryDisk()
    bench = await Bench(disk=disk).start()
    bench.work.cancel()
    await asyncio.wait({bench.work})
    again = Bench(disk=disk)
    gone = bench.agents["h2"]
    again.agents = {"h1": bench.agents["h1"]}
    again.begin()
    shown = again.manager.state.remembered.lifecycle
    assert shown("h2").state.value == "ready"  # as far as was written down
    await again.until(lambda: shown("h2").state.value == "disconnected")
    assert not again.manager.state.memory_of_host("h2").connected  # a reset would rest on it
    again.agents["h2"] = gone
    await again.until(lambda: shown("h2").state.value == "ready")
    assert len(again.events(Event.RETURN)) == 1
