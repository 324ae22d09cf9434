"""Runs of the simulated manager are behaviours of the model, and runs of a broken one are not."""

from __future__ import annotations

import pytest

from tests.model import tlc, traces
from tests.model.recorder import KINDS, record
from tests.simulation.mutants import applied

SEEDS = 12

OFF = ("power_off", "manager_crash")

BROKEN: dict[str, tuple[range, tuple[str, ...]]] = {
    "start_without_waiting_for_the_fence": (range(6), KINDS),
    "partner_never_seen_counts_as_stopped": (range(6), KINDS),
    "power_proof_never_grows_old": (range(10, 20), OFF),
    "knowledge_survives_a_lost_connection": (range(6), KINDS),
    "old_samples_are_proof": (range(6), KINDS),
    "a_stop_is_believed_without_a_monitor": (range(6), KINDS),
    "a_failed_off_is_believed": (range(6), KINDS),
    "acts_while_unmanaged": (range(6), KINDS),
}
"""Mutants of the simulation, and the runs among which the model has to refuse one."""

pytestmark = pytest.mark.timeout(tlc.FETCH_DEADLINE_S + traces.DEADLINE_S + 60)


def test_runs_of_the_manager_are_behaviours_of_the_model() -> None:
    jar = tlc.require_tlc()
    verdicts = traces.check(jar, [record(seed) for seed in range(SEEDS)])
    assert [f"seed {n}: {v}" for n, v in enumerate(verdicts) if not v.is_accepted] == []


def test_the_runs_hold_all_that_the_model_can_follow() -> None:
    seen = {event["what"] for seed in range(SEEDS) for event in record(seed)}
    assert seen >= {"connect", "disconnect", "start", "stop", "begin", "restart", "manage"}
    assert seen >= {"intent", "order", "off", "done", "asked", "says off", "confirmed", "failed"}


def test_runs_of_a_broken_manager_are_no_behaviours_of_the_model() -> None:
    jar, names, runs = tlc.require_tlc(), [], []
    for name, (seeds, kinds) in BROKEN.items():
        with applied(name):
            for seed in seeds:
                names.append(name)
                runs.append(record(seed, kinds))
    verdicts = traces.check(jar, runs)
    found = {name for name, verdict in zip(names, verdicts, strict=True) if not verdict.is_accepted}
    assert found == set(BROKEN)
