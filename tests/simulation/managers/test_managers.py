"""Several managers on one virtual clock: stories by hand, seeds, and mutants that seeds find.

For more: ``python -m tests.simulation --managers 3 --seeds 0..100``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.simulation.managers.mutants import MUTANTS, hunt
from tests.simulation.managers.plan import scenario as planned
from tests.simulation.managers.simulation import ManagersSimulation
from tests.simulation.model import Action, GroupPlan, Scenario
from tests.simulation.mutants import patched
from tests.simulation.runner import Result, quiet, run

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(300)]

FIXED_SEEDS = range(1, 13)
FOUND_SOON = (
    "a_manager_acts_after_its_lease",
    "a_manager_that_stands_by_acts",
    "an_agent_looks_at_no_term",
    "silence_is_counted_from_the_last_leader",
)
"""Mutants that a few seeds find; ``--managers 3 --mutants 100`` hunts them all."""


def story(*actions: Action, duration_s: float = 60.0) -> Scenario:
    """Two hosts with one group, and three managers."""
    return Scenario(
        seed=3,
        hosts={"a": {}, "b": {}},
        groups=(GroupPlan(("a", "b"), (("g", ""), ("g.0", "g"))),),
        settings={},
        actions=actions,
        duration_s=duration_s,
        options={"managers": 3},
    )


def at(when: float, kind: str, **args: Any) -> Action:
    return Action(when, kind, args)


def checked(scenario: Scenario, timeline: bool = False) -> Result:
    with quiet():
        result = run(scenario, timeline)
    assert not result.violations, (
        f"{result.violations[0]}\n"
        f"replay: python -m tests.simulation --managers 3 --seed {scenario.seed}\n"
        f"scenario: {scenario.to_json()}"
    )
    return result


def times(result: Result, text: str) -> list[float]:
    """When the timeline says this."""
    return [float(line.split()[0]) for line in result.timeline if text in line]


# --- stories ---------------------------------------------------------------------------------


def test_one_of_three_leads_and_the_others_do_nothing() -> None:
    result = checked(story(), timeline=True)
    assert len(times(result, "begins to lead")) == 1
    assert len(times(result, "stands by")) == 3
    assert len(times(result, "start g on a")) >= 1


def test_a_killed_leader_is_followed_when_its_lease_has_ended() -> None:
    result = checked(story(at(20.0, "node_kill", node="leader", down_s=1.0)), timeline=True)
    second = times(result, "begins to lead")[1]
    assert 27.0 < second < 32.0
    assert len(times(result, "start script of g begins")) == 1


def test_a_leader_that_is_told_to_end_costs_no_lease() -> None:
    result = checked(story(at(20.0, "node_term", node="leader")), timeline=True)
    assert times(result, "begins to lead")[1] < 21.5


def test_a_manager_that_stops_between_its_look_and_its_start_does_no_harm() -> None:
    """The start leaves its machine when another manager leads. No agent carries it out."""
    result = checked(
        story(
            at(19.0, "node_stop_at", node="leader", what="start", for_s=20.0, how="machine"),
            at(20.0, "die", resource="g.0"),
        ),
        timeline=True,
    )
    assert result.counts["standstills between look and act"] == 1
    woke = times(result, "goes on")[0]
    second = times(result, "begins to lead")[1]
    assert second < woke
    starts = times(result, "start script of g.0 begins")
    assert [second < start < woke for start in starts[1:]] == [True]


def test_a_leader_without_etcd_stops_before_another_begins() -> None:
    cut = at(20.0, "etcd_cut", node="leader", members=[0, 1, 2], for_s=30.0)
    result = checked(story(cut), timeline=True)
    lost, second = times(result, "leads no more")[0], times(result, "begins to lead")[1]
    assert lost + 1.0 < second < 32.0


def test_while_etcd_has_no_majority_nobody_leads_for_long() -> None:
    result = checked(story(at(20.0, "etcd_quorum", for_s=30.0)), timeline=True)
    assert times(result, "leads no more")[0] < 28.0
    assert times(result, "begins to lead")[1] > 50.0


def test_a_record_that_leaves_late_is_refused_by_the_store() -> None:
    """An order is given, and the machine stops with the record before it leaves."""
    stop = at(19.0, "node_stop_at", node="leader", what="kv/txn", for_s=25.0, how="process")
    order = at(20.0, "command", name="unmanage", object="g", force=False)
    result = checked(story(stop, order, duration_s=80.0), timeline=True)
    assert times(result, "begins to lead")[1] < times(result, "goes on")[0]
    assert times(result, "unmanage g: CommandFailed")[0] >= times(result, "goes on")[0]
    assert result.counts["answers of earlier leaders"] == 1


def test_a_cluster_without_a_leader_is_noticed() -> None:
    simulation = ManagersSimulation(story())
    simulation.managers_world.leaders.somebody_leads()
    assert simulation.world.violations == ["S12: nobody leads; None holds the key"]


def test_a_rebuilt_store_needs_an_operator() -> None:
    """Its terms begin at 1. No manager leads with one that is lower than those in the journal."""
    steps = [at(20.0 + number, "node_term", node="leader", down_s=1.0) for number in range(3)]
    rebuilt = at(30.0, "etcd_rebuild", for_s=10.0)
    result = checked(story(*steps, rebuilt), timeline=True)
    assert result.counts["managers that wait for an operator"] == 3
    assert not [when for when in times(result, "begins to lead") if 30.0 < when < 40.0]
    assert len(times(result, "raises the terms above")) == 1


# --- seeds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", FIXED_SEEDS[::4])
def test_fixed_seeds(first: int) -> None:
    for seed in range(first, first + 4):
        checked(planned(seed))


def test_a_seed_runs_the_same_way_in_another_process() -> None:
    """Also where hashes, addresses and the real time differ."""
    code = (
        "from tests.simulation.managers.plan import scenario\n"
        "from tests.simulation.runner import quiet, run\n"
        "with quiet():\n"
        "    print(run(scenario(8)).digest)\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    ).stdout
    with quiet():
        assert there == run(planned(8)).digest + "\n"


def test_scenarios_survive_their_text() -> None:
    for seed in range(5):
        scenario = planned(seed)
        assert Scenario.from_json(scenario.to_json()) == scenario


# --- mutants ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_every_mutant_still_finds_what_it_breaks(name: str) -> None:
    with patched(MUTANTS[name]()):
        pass


@pytest.mark.parametrize("name", FOUND_SOON)
def test_the_simulator_finds(name: str) -> None:
    assert hunt(name, limit=8) is not None
