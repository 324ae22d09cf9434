"""Why a host is not fenced is said as long as a group waits for it, and no longer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.model import Action, GroupPlan, Scenario
from tests.simulation.runner import quiet
from tests.simulation.simulation import Simulation

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(60)]

LOST_AT_S, ORDERED_AT_S = 5.0, 15.0


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet():
        yield


@pytest.mark.parametrize("order", [{"name": "stop", "object": "g0"}, {"name": "freeze"}])
def test_a_host_says_why_it_is_not_fenced_while_a_group_waits(order: dict[str, str]) -> None:
    simulation = Simulation(
        Scenario(
            1,
            {"h0": {"on_loss": "wait"}, "h1": {}},
            (GroupPlan(("h0", "h1"), (("g0", ""),)),),
            {},
            (
                Action(LOST_AT_S, "power_off", {"host": "h0", "back_s": 0.0}),
                Action(ORDERED_AT_S, "command", order),
            ),
        )
    )
    simulation.faults.schedule()
    simulation.start_manager()
    try:
        simulation.run_until(ORDERED_AT_S - 1.0)
        assert "`on_loss: wait`" in held(simulation)
        simulation.run_until(ORDERED_AT_S + 2.0)
        assert held(simulation) == ""
    finally:
        simulation.dispose()


def held(simulation: Simulation) -> str:
    """What the status says of the silent host."""
    assert simulation.current is not None
    hosts = simulation.current.manager.operations.status()["hosts"]
    return next(host["fence_held"] or "" for host in hosts if host["id"] == "h0")
