"""`halo validate --agents`, from the script to the line: the agent, the manager, the command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from halo.cli.errors import EXIT_REFUSED, EXIT_UNREACHABLE
from halo.cli.main import cli
from halo.core.errors import CommandRefused, Loss, LossKind, UnknownObject
from halo.core.model import Cluster, Host, Operation, Resource, Settings
from halo.core.outcomes import AgentIdentity, OperationResult, Outcome
from halo.core.peers.calls import VALIDATE_ALL
from halo.manager.hosts.validation import AT_ONCE, Validation
from halo.manager.manager import Manager
from tests.core.builders import make_group
from tests.fakes.http_operations import FakeOperations, Server, serving
from tests.fakes.memory_medium import MemoryDisk, MemoryMedium

from .fake_agents import FakeAgent, FakeConnector
from .fake_devices import FakeDevices
from .remote_helpers import PATIENCE_S, AgentProcess, agent_process, connected, resource, until
from .virtual_time import loop_now, run, settle

VALIDATE, MONITOR = Operation.VALIDATE, Operation.MONITOR


# The agent ----------------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with agent_process(tmp_path) as made:
        yield made


async def test_the_script_is_asked_with_its_parameters(agent: AgentProcess) -> None:
    agent.script('[ "$1" = validate-all ] || exit 9; echo "no pool $OCF_RESKEY_pool" >&2; exit 6')
    await agent.start()
    async with connected(agent) as connection:
        assert VALIDATE_ALL in connection.identity.features
        result = await connection.operation(
            resource(parameters={"pool": "tank"}), VALIDATE, PATIENCE_S
        )
    assert result == OperationResult(Outcome.COMPLETED, 6, "no pool tank")


async def test_one_that_hangs_is_ended_when_its_script_said_and_holds_up_nothing_else(
    agent: AgentProcess,
) -> None:
    agent.script(
        """
        case $1 in
        meta-data) echo '<resource-agent><actions><action name="validate-all" timeout="2s"/>'
                   echo '</actions></resource-agent>' ;;
        validate-all) echo $$ >> $OUT/pids; sleep 600 ;;
        esac
        """
    )
    await agent.start()
    async with connected(agent) as connection:
        hangs = asyncio.ensure_future(
            connection.operation(resource(parameters={"a": "1"}), VALIDATE, PATIENCE_S)
        )
        await until(lambda: agent.read("pids"), "the script to hang")
        await connection.heartbeat()
        other = resource(parameters={"a": "2"}, id="r2")
        assert (await connection.operation(other, MONITOR, PATIENCE_S)).code == 0
        assert not hangs.done()
        # The same resource waits: one operation at a time.
        same = await connection.operation(resource(parameters={"a": "1"}), MONITOR, PATIENCE_S)
        assert same.code == 0
        assert hangs.done()
        assert (await hangs).outcome is Outcome.TIMED_OUT
        assert "validate-all" in (await hangs).message


# The manager --------------------------------------------------------------------------------------


class Clock:
    def now(self) -> float:
        return loop_now().time()


class Bench:
    """Groups g and k on h1 and h2, and a manager that only observes."""

    def __init__(
        self,
        groups: int = 2,
        *,
        features: tuple[str, ...] = (VALIDATE_ALL,),
        besides: tuple[Resource, ...] = (),
    ) -> None:
        self.agents = {"h1": FakeAgent(), "h2": FakeAgent()}
        for agent in self.agents.values():
            agent.identity = AgentIdentity("1", features=frozenset(features))
        made = {}
        for name in (f"g{number}" for number in range(groups)):
            group = make_group(name, ("h1", "h2"))
            made[name] = replace(group, resources=(*group.resources, *besides))
        hosts = {name: Host(name, "192.0.2.1", 8000) for name in self.agents}
        self.manager = Manager(
            Cluster("test", hosts, made, Settings()),
            FakeConnector(self.agents),
            FakeDevices({}),
            MemoryMedium.open(MemoryDisk()),
            Clock(),
            observe_only=True,
        )
        self.work = asyncio.create_task(self.manager.run())

    async def up(self) -> Bench:
        hosts = self.manager.state.hosts.values()
        while not all(at.accepted for at in hosts):  # noqa: ASYNC110  # there is no such event
            await asyncio.sleep(0.01)
        return self

    async def outcomes(self, host: str = "h1") -> list[tuple[str, str, str | None]]:
        answer = await self.manager.operations.validate(host)
        return [(row["resource"], row["outcome"], row["message"]) for row in answer["results"]]


def test_each_resource_has_a_row_with_what_its_script_said() -> None:
    async def body() -> None:
        bench = await Bench().up()

        async def validate(name: str) -> OperationResult:
            if name == "g0":
                return OperationResult(Outcome.COMPLETED, 5, "no zpool")
            return OperationResult(Outcome.COMPLETED, 0)

        bench.agents["h1"].validate = validate
        answer = await bench.manager.operations.validate("h1")
        assert answer["results"] == [
            {
                "resource": "g0",
                "group": "g0",
                "kind": answer["results"][0]["kind"],
                "host": "h1",
                "outcome": "failed",
                "code": 5,
                "ocf_name": "OCF_ERR_INSTALLED",
                "message": "no zpool",
            },
            {
                **answer["results"][1],
                "resource": "g1",
                "outcome": "ok",
                "code": 0,
                "ocf_name": "OCF_SUCCESS",
                "message": None,
            },
        ]
        assert answer["message"] == "h1: 1 of 2 resources are valid"
        assert [outcome for _, outcome, _ in await bench.outcomes("h2")] == ["ok", "ok"]

    run(body())


def test_a_host_runs_a_few_scripts_at_a_time_and_refuses_a_second_round() -> None:
    async def body() -> None:
        bench = await Bench(AT_ONCE * 2).up()
        running: list[str] = []
        gate = asyncio.Event()

        async def validate(name: str) -> OperationResult:
            running.append(name)
            await gate.wait()
            return OperationResult(Outcome.COMPLETED, 0)

        bench.agents["h1"].validate = validate
        first = asyncio.create_task(bench.outcomes())
        await settle()
        assert len(running) == AT_ONCE
        with pytest.raises(CommandRefused, match="already"):
            await bench.manager.operations.validate("h1")
        gate.set()
        assert len(await first) == len(running) == AT_ONCE * 2
        assert len(await bench.outcomes()) == AT_ONCE * 2

    run(body())


def test_a_connection_that_ends_leaves_rows_that_say_so() -> None:
    async def body() -> None:
        bench = await Bench().up()
        h1 = bench.agents["h1"]
        asked = asyncio.create_task(bench.outcomes())
        h1.fall_silent()
        await settle()
        h1.refuses = LossKind.REFUSED
        h1.standing[0].end(Loss(LossKind.RESET, "gone"))
        assert await asked == [
            ("g0", "not run", "connection reset: gone"),
            ("g1", "not run", "connection reset: gone"),
        ]
        with pytest.raises(CommandRefused, match=r"^h1 is disconnected: connection re"):
            await bench.manager.operations.validate("h1")
        with pytest.raises(UnknownObject, match="h3"):
            await bench.manager.operations.validate("h3")

    run(body())


def test_an_agent_that_knows_no_validate_all_is_named_so() -> None:
    async def body() -> None:
        bench = await Bench(features=("heartbeat", "run")).up()
        with pytest.raises(CommandRefused, match="agent of h2 is too old"):
            await bench.manager.operations.validate("h2")

    run(body())


def test_after_a_while_no_further_script_is_begun() -> None:
    async def body() -> None:
        bench = await Bench(AT_ONCE + 2).up()

        async def validate(name: str) -> OperationResult:
            await asyncio.sleep(7.0)
            return OperationResult(Outcome.TIMED_OUT, message="hung")

        bench.agents["h1"].validate = validate
        validation = Validation(bench.manager.state, bench.manager.hosts, host_deadline_s=5.0)
        rows = (await validation.run("h1"))["results"]
        assert [row["outcome"] for row in rows] == ["timed out"] * AT_ONCE + ["not run"] * 2
        assert "took all 5 s" in rows[-1]["message"]

    run(body())


def test_a_shared_resource_of_two_groups_is_asked_once() -> None:
    async def body() -> None:
        shared = Resource("net", "test/Net", {}, shared=True)
        bench = await Bench(besides=(shared,)).up()
        assert [name for name, *_ in await bench.outcomes()] == ["g0", "net", "g1"]

    run(body())


# The command --------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    hosts = [{"id": "h1", "connected": True}, {"id": "h2", "connected": True}]
    status = {"resources": [], "hosts": hosts, "events": []}
    with capture_logs(), serving(FakeOperations(status)) as running:
        yield running


def halo(server: Server, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--socket", str(server.path), "validate", *arguments])


def row(resource: str, outcome: str, **more: Any) -> dict[str, Any]:
    return {"resource": resource, "kind": "halo/ZFS", "outcome": outcome, **more}


def test_all_is_well(server: Server) -> None:
    server.operations.validated = {"h1": [row("g", "ok")], "h2": [row("g", "ok")]}
    result = halo(server, "--agents")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "g (halo/ZFS) on h1: ok",
        "g (halo/ZFS) on h2: ok",
        "validate-all: 2 of 2 ok",
    ]
    assert sorted(server.operations.calls) == [("validate", "h1"), ("validate", "h2")]


def test_what_is_not_well_is_told_and_counts(server: Server) -> None:
    failed = row("g", "failed", code=6, ocf_name="OCF_ERR_CONFIGURED", message="no\npool")
    odd = row("k", "failed", code=130, ocf_name=None, message=None)
    hung = row("l", "timed out", message="ended after 5 s")
    server.operations.validated = {"h1": [failed, odd, hung, row("m", "ok")]}
    server.operations.errors["validate h2"] = CommandRefused("h2 is disconnected: silent")
    result = halo(server, "--agents")
    assert result.exit_code == EXIT_REFUSED
    assert result.stdout.splitlines() == [
        "g (halo/ZFS) on h1: exit 6 (OCF_ERR_CONFIGURED): no pool",
        "k (halo/ZFS) on h1: exit 130",
        "l (halo/ZFS) on h1: timed out: ended after 5 s",
        "m (halo/ZFS) on h1: ok",
        "h2: could not be asked: h2 is disconnected: silent",
        "validate-all: 1 of 4 ok, 2 failed, 1 timed out; not asked: h2",
    ]
    as_json = halo(server, "--agents", "--json")
    assert as_json.exit_code == EXIT_REFUSED
    assert json.loads(as_json.stdout) == {
        "results": [failed, odd, hung, row("m", "ok")],
        "not_asked": {"h2": "h2 is disconnected: silent"},
    }


def test_a_host_that_cannot_be_asked_is_enough_to_fail(server: Server) -> None:
    server.operations.validated = {"h1": [row("g", "ok")]}
    server.operations.errors["validate h2"] = CommandRefused("too old")
    assert halo(server, "--agents").exit_code == EXIT_REFUSED


def test_it_goes_to_the_manager_and_takes_no_file(server: Server) -> None:
    assert halo(server, "--agents", "some.conf").exit_code == 2
    assert halo(server, "--json").exit_code == 2
    assert server.operations.calls == []
    gone = CliRunner().invoke(cli, ["--socket", "/nowhere/s", "validate", "--agents"])
    assert gone.exit_code == EXIT_UNREACHABLE
