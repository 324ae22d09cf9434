"""The gate in front of each start, and what a look at a group says of its host."""

from __future__ import annotations

import pytest

from halo.core.model import Operation, Resource
from halo.core.outcomes import OperationResult, Outcome
from halo.core.questions import proof
from halo.manager.groups.operations import SeenRunning, operate
from tests.core.builders import RUNNING, STOPPED, World, make_group
from tests.fakes.monitors import MonitorsByOperation

from .test_watcher import MONITOR, Agent, Bench, virtual


class Nothing(MonitorsByOperation):
    """A connection over which nothing may be asked."""

    async def operation(
        self, resource: Resource, operation: Operation, deadline_s: float
    ) -> OperationResult:
        raise AssertionError(f"{operation} of {resource.id} was sent")


@virtual
async def test_what_runs_is_looked_at_again_and_not_called_unproven() -> None:
    """Else its dependents are stopped, for want of a proof that nothing needs."""
    world = World(make_group("g", ("h1", "h2"), {"g": ["x"], "x": []}))
    world.up("h1", "h2")
    world.see("g", "h1", RUNNING, only=["x"], at=101.0)
    world.see("g", "h2", STOPPED, at=50.0)  # too old for a proof
    group, epoch = world.group(), world.state.hosts["h1"].epoch
    assert proof.start_refusal(world.state, group, "h1", epoch, since=200.0, now=200.0) is not None
    with pytest.raises(SeenRunning):
        await operate(
            world.state,
            Nothing(),  # type: ignore[arg-type]  # nothing else of it is reached
            group,
            group.by_id["x"],
            "h1",
            Operation.START,
            epoch=epoch,
            since=200.0,
        )


class OldAgent(Agent):
    """One that knows neither heartbeats nor watching; of `unanswered` no monitor is answered."""

    def __init__(self, name: str, unanswered: set[str]) -> None:
        super().__init__(name, legacy=True)
        self.unanswered = unanswered


def timing_out(agent: OldAgent) -> None:
    """The monitors of what is `unanswered` time out on its standing connection."""
    connection = agent.connections[-1]
    ask = connection.operation

    async def operation(
        resource: Resource, operation: Operation, deadline_s: float
    ) -> OperationResult:
        result = await ask(resource, operation, deadline_s)
        if operation is MONITOR and resource.id in agent.unanswered:
            return OperationResult(Outcome.TIMED_OUT)
        return result

    connection.operation = operation  # type: ignore[method-assign]  # of one connection alone


@pytest.mark.parametrize(("unanswered", "there"), [({"x"}, True), ({"g", "x"}, False)])
def test_one_answer_shows_that_an_old_agent_is_there_whatever_else_times_out(
    unanswered: set[str], there: bool
) -> None:
    async def body() -> None:
        group = make_group("g", ("h1", "h2"), {"g": ["x"], "x": []})
        bench = Bench(group, monitor_interval_s=5.0)
        old = bench.agents["h2"] = OldAgent("h2", unanswered)
        await bench.start()
        timing_out(old)
        looked, before = old.count(MONITOR), bench.manager.state.hosts["h2"].answered_at
        await bench.manager.operations.set_managed("g", False, "people look at it")
        await bench.until(lambda: old.count(MONITOR) >= looked + 4, within_s=60.0)
        assert (bench.manager.state.hosts["h2"].answered_at > before) is there

    virtual(body)()
