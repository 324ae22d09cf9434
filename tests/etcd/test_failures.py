"""Managers and etcd fail at the worst moments: real processes, real members, short leases."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from halo.adapters.etcd.location import Store
from tests.etcd.members import Members
from tests.etcd.several import LEASE_S, LOST, NOT_LEADING, QUICK_FLAGS, Managers
from tests.etcd.stand_ins import Wire
from tests.integration import processes
from tests.integration.cluster import Status, group
from tests.integration.telling import comes_to_rest, halo_ok, story

FAILED_OVER = {"g1": "Running (Failed Over) on h2", "g2": "Running on h2"}


@pytest.fixture
async def make(
    request: pytest.FixtureRequest, members: Members, store: Store
) -> AsyncIterator[Callable[..., Managers]]:
    """A factory of clusters with several managers; each is ended and checked after the test."""
    made: list[Managers] = []

    def of(members: Members = members, store: Store = store, **arguments: object) -> Managers:
        name = request.node.name.removeprefix("test_").replace("[", ".").replace("]", "")
        made.append(Managers(f"failures.{name}"[:80], members, store, **arguments))
        return made[-1]

    yield of
    for cluster in made:
        await cluster.finish()


def events(status: Status) -> list[tuple[object, ...]]:
    return [tuple(event.values()) for event in status["events"]]


def alarms(cluster: Managers, node: str) -> list[str]:
    """What a manager logged as critical."""
    return [line["event"] for line in cluster.log(node) if line["level"] == "critical"]


def _until(holds: Callable[[], bool]) -> None:
    while not holds():
        pass


def answer_of(asked: socket.socket) -> bytes:
    """What came back for a command before its manager ended."""
    with asked, contextlib.suppress(ConnectionError):
        return asked.recv(65536)
    return b""


def each_started_once(cluster: Managers, host: str = "h2", of: str = "g1") -> None:
    """The group was started once at home and once on `host`, each time completely."""
    for resource in (of, f"{of}_mnt0"):
        assert cluster.count(resource, "start", host) == 1, story(cluster)
        assert cluster.running_on(resource) == {host}


# The leader is killed --------------------------------------------------------------------------


async def test_the_leader_is_killed_in_the_middle_of_starts(
    make: Callable[..., Managers],
) -> None:
    """The starts take longer than the takeover. Their scripts go on, and are waited for."""
    groups = [group(f"g{n}", "h1" if n % 2 else "h2", ["h2" if n % 2 else "h1"]) for n in range(6)]
    cluster = make(groups=groups)
    for name in cluster.groups:
        cluster.fault(name, "start-slow 5")
    for host in cluster.ports:
        cluster.boot(host)
    cluster.start_manager("1")
    await cluster.until_status(lambda _status: True, "it leads")
    await halo_ok(cluster, "stop", "g5", "--reason", "stays down")
    await cluster.until_true(lambda: len(story(cluster)) >= 4, "starts have begun")
    cluster.start_manager("2")
    await cluster.stands_by("2")
    before = events(await cluster.status())
    head = cluster.head()
    cluster.kill_manager()
    await cluster.until_leads("2")
    wanted = {g: f"Running on {s.home}" for g, s in cluster.groups.items() if g != "g5"}
    status = await cluster.until({**wanted, "g5": "Stopped"}, deadline=60)
    after = events(status)
    kept = [event for event in after if event in before]
    assert kept == before  # nothing is lost, and the order is the same
    assert after[: len(before)] == before
    now = cluster.head()
    assert (now.generation, now.records) > (head.generation, head.records)
    for resource in cluster.resources:
        begun = [a for a in cluster.actions() if (a.operation, a.phase) == ("start", "BEGIN")]
        name = cluster.resources[resource].state_suffix
        ran = [action for action in begun if action.resource == name]
        assert len(ran) <= 1, [str(action) for action in ran]
    await halo_ok(cluster, "start", "g5", "--reason", "accepted by the successor")
    await cluster.until(g5="Running on h1", deadline=60)


# The leader is killed while it fences ----------------------------------------------------------


@pytest.mark.parametrize("point", ["before-off", "after-off", "before-status", "after-status"])
async def test_the_leader_is_killed_in_a_fence(make: Callable[..., Managers], point: str) -> None:
    """Its intent is recorded. The device did not act yet, or did; was not asked yet, or was."""
    cluster = make(settings={"restart_grace": 0.5})
    await cluster.settle()
    await halo_ok(cluster, "stop", "g2", "--reason", "stays down")
    await cluster.until(g2="Stopped")
    await comes_to_rest(cluster)
    already = len(cluster.fence_steps(point))
    held = cluster.hold(point)
    cluster.freeze("h1")
    await cluster.until_true(
        lambda: len(cluster.fence_steps(point)) > already, f"the device is held {point}"
    )
    program = cluster.fence_steps(point)[-1]
    assert program.manager == cluster.of["1"].pid
    cluster.kill_manager()
    await cluster.until_true(
        lambda: not processes.is_alive(program.process), "the program dies with its manager"
    )
    asked = len(cluster.fence_steps())
    held.unlink()
    await cluster.until_leads("2")
    await cluster.until(g1="Running (Failed Over) on h2", g2="Stopped", deadline=60)
    each_started_once(cluster)
    assert not cluster.is_on("h1")
    own = [step for step in cluster.fence_steps()[asked:] if step.host == "h1"]
    assert {step.manager for step in own} == {cluster.of["2"].pid}
    assert "after-status" in {step.point for step in own}  # it asked the device itself


async def test_fence_programs_are_dead_before_another_manager_may_lead(
    make: Callable[..., Managers],
) -> None:
    cluster = make()
    cluster.lease_s = 10
    await cluster.settle()
    cluster.hold("before-off")
    cluster.freeze("h1")
    await cluster.until_true(lambda: bool(cluster.fence_steps("before-off")), "it fences")
    [program] = cluster.fence_steps("before-off")
    own, first = cluster.read_key("leader"), cluster.of["1"]
    first.terminate()
    await asyncio.to_thread(_until, lambda: cluster.read_key("leader") != own)
    assert not processes.is_alive(program.process)
    cluster.thaw_process("h1")
    (cluster.folder / "hold.before-off").unlink()
    assert await cluster.until_ended("1") == 0
    assert alarms(cluster, "1") == []
    await cluster.until_leads("2", deadline=8)  # the lease was not waited for
    await cluster.until(g2="Running on h2", deadline=60)


async def test_a_leader_that_steps_down_ends_and_the_next_one_leads_at_once(
    make: Callable[..., Managers],
) -> None:
    cluster = make()
    cluster.lease_s = 20
    await cluster.settle()
    await halo_ok(cluster, "unmanage", "g1", "--reason", "is remembered")
    await comes_to_rest(cluster)
    begun = story(cluster)
    await halo_ok(cluster, "managers", "step-down", "--reason", "for the night")
    assert await cluster.until_ended("1") == NOT_LEADING
    await cluster.until_leads("2", deadline=cluster.lease_s / 2)  # the lease is not waited for
    status = await cluster.until(g1="Running on h1", g2="Running on h2")
    assert [group["managed"] for group in status["groups"]] == [False, True]
    assert story(cluster) == begun
    assert events(status)[-1][1:] == (
        *("step-down", "1", "manager 1 gives the leadership back by command: for the night"),
    )
    assert alarms(cluster, "1") == []


# The leader stands still for longer than its lease ---------------------------------------------


async def test_a_leader_that_wakes_does_nothing(make: Callable[..., Managers]) -> None:
    """Meanwhile a host died, a command came, and its successor did everything."""
    cluster = make(flags=QUICK_FLAGS)
    await cluster.settle()
    await comes_to_rest(cluster)
    first = cluster.of["1"]
    first.send_signal(signal.SIGSTOP)
    command = cluster.ask_without_waiting("/v1/groups/g2", {"command": "stop"})
    cluster.kill("h1")
    await cluster.until_leads("2")
    await cluster.until(FAILED_OVER, deadline=60)
    await comes_to_rest(cluster)
    head, begun, fenced = await cluster.journal_rests(), story(cluster), cluster.fence_steps()
    first.send_signal(signal.SIGCONT)
    assert await cluster.until_ended("1") == NOT_LEADING
    assert b" 200 " not in answer_of(command)
    await asyncio.sleep(1)  # two monitors: what must not happen cannot be waited for
    assert story(cluster) == begun
    assert [s for s in cluster.fence_steps()[len(fenced) :] if s.manager == first.pid] == []
    assert cluster.recorded_under_other_terms(head) == []
    each_started_once(cluster)


async def test_a_leader_that_wakes_alone_does_nothing(make: Callable[..., Managers]) -> None:
    """Its connections to the agents still stand, and nobody else did what it would do."""
    cluster = make(flags=QUICK_FLAGS)
    await cluster.settle("1")
    await comes_to_rest(cluster)
    head, begun = await cluster.journal_rests(), story(cluster)
    first = cluster.of["1"]
    first.send_signal(signal.SIGSTOP)
    fenced = len(cluster.fence_steps())
    command = cluster.ask_without_waiting("/v1/groups/g2", {"command": "stop"})
    cluster.break_resource("g2")
    cluster.kill("h1")
    await asyncio.sleep(LEASE_S + 0.5)  # what is tested is that time passes
    first.send_signal(signal.SIGCONT)
    assert await cluster.until_ended("1") == NOT_LEADING
    assert b" 200 " not in answer_of(command)
    await asyncio.sleep(1)
    assert story(cluster) == begun
    assert cluster.recorded_since(head) == []
    assert [s for s in cluster.fence_steps()[fenced:] if "status" not in s.point] == []
    cluster.start_manager("1")
    await cluster.until_leads("1")
    await cluster.until(FAILED_OVER, deadline=60)


# etcd is cut off, or has no majority -----------------------------------------------------------


async def test_a_leader_that_is_cut_off_from_etcd_ends_before_another_leads(
    make: Callable[..., Managers], members: Members, store: Store
) -> None:
    """It still reaches the agents. Nothing is lost with it, and nothing is started again."""
    cluster = make()
    wires = [Wire(address) for address in members.addresses]
    async with contextlib.AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(wire) for wire in wires]
        cluster.stores["1"] = Store(tuple(addresses), store.prefix)
        await cluster.settle()
        await comes_to_rest(cluster)
        begun = story(cluster)
        for wire in wires:
            wire.swallows_answers = wire.swallows_requests = True
        assert await cluster.until_ended("1") == NOT_LEADING
        await cluster.until_leads("2")
        await cluster.until(g1="Running on h1", g2="Running on h2")
        assert cluster.time_of("1", LOST) < cluster.time_of("2", "managing")
        assert story(cluster) == begun


async def test_without_a_majority_of_etcd_nothing_is_done_until_it_is_back(
    cold: Members, make: Callable[..., Managers]
) -> None:
    cold.start()
    cluster = make(members=cold, store=cold.store(), flags=QUICK_FLAGS)
    await cluster.settle()
    await comes_to_rest(cluster)
    cluster.keep_managers()
    begun, fenced = story(cluster), cluster.fence_steps()
    for number in (0, 1):
        cold.kill(number)
    await cluster.until_true(lambda: ("1", NOT_LEADING) in cluster.ended, "the leader ends")
    cluster.kill("h1")
    for node in "12":
        cluster.look_at(node)
        await cluster.until_refused("This manager does not know who leads")
    await asyncio.sleep(3)  # longer than a loss of the host takes to be noticed
    assert (story(cluster), cluster.fence_steps()) == (begun, fenced)
    assert cluster.running_on("g2") == {"h2"}  # services run on
    cold.start_one(0)
    await cluster.until_one_leads()
    await cluster.until(FAILED_OVER, deadline=60)
    each_started_once(cluster)


@pytest.mark.parametrize("order", ["etcd-1-2", "2-etcd-1", "1-2-etcd", "one member-2-1-etcd"])
async def test_all_managers_and_etcd_start_again_in_any_order(
    cold: Members, make: Callable[..., Managers], order: str
) -> None:
    cold.start()
    cluster = make(members=cold, store=cold.store())
    await cluster.settle()
    await halo_ok(cluster, "stop", "g2", "--reason", "stays down")
    await cluster.until(g2="Stopped")
    await halo_ok(cluster, "unmanage", "g1", "--reason", "by hand")
    before, head = events(await cluster.status()), cluster.head()
    begun = story(cluster)
    for process in cluster.of.values():
        process.kill()
        process.wait(20)
    for number in range(3):
        cold.kill(number)
    for part in order.split("-"):
        if part in cluster.of:
            cluster.start_manager(part)
        else:
            for number in range(1 if part == "one member" else 3):
                if cold.processes[number] is None:
                    cold.start_one(number)
        await asyncio.sleep(0.3)  # so that each part finds the others as the order says
    await cluster.until_one_leads()
    status = await cluster.until(g1="Running on h1", g2="Stopped", deadline=60)
    [g1] = [found for found in status["groups"] if found["id"] == "g1"]
    assert not g1["managed"]
    assert events(status)[: len(before)] == before
    assert cluster.head().records > head.records
    assert story(cluster) == begun
