"""TLC checks the model of HALO's safety core, and finds every weakening of it (docs/model.md)."""

from __future__ import annotations

import pytest

from tests.model import tlc
from tests.model.mutants import MUTANTS, Mutant

DEADLINE_S = 900.0
"""For one run of TLC. On two quiet cores the longest takes half a minute."""

ACTIONS = 35
"""Of Halo.tla, with Init."""

pytestmark = pytest.mark.timeout(tlc.FETCH_DEADLINE_S + DEADLINE_S + 60)


def test_the_spec_can_be_read_in_one_sitting() -> None:
    assert len((tlc.HERE / "Halo.tla").read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.long
@pytest.mark.parametrize("name", ["triple", "pair", "live"])
def test_the_model_breaks_no_rule(name: str) -> None:
    found = tlc.check(tlc.require_tlc(), tlc.config(name), deadline_s=DEADLINE_S)
    assert (found.violated, found.steps) == (None, ())
    assert found.distinct > 1000


def test_everything_that_the_model_names_happens() -> None:
    found = tlc.check(
        tlc.require_tlc(),
        tlc.config("pair", {"Faults": "2"}),
        deadline_s=DEADLINE_S,
        flags=("-coverage", "1"),
    )
    assert len(found.taken) == ACTIONS
    assert [action for action, times in found.taken.items() if times == 0] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_weakened_model_breaks_a_rule(mutant: Mutant) -> None:
    found = tlc.check(
        tlc.require_tlc(),
        tlc.config(mutant.config, mutant.constants),
        deadline_s=DEADLINE_S,
        modules={"Halo": mutant.applied()},
        workers=1,  # so that it always finds the same counterexample, the shortest one
    )
    assert found.violated == mutant.found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_one_line_that_is_there(mutant: Mutant) -> None:
    assert mutant.applied() != (tlc.HERE / "Halo.tla").read_text(encoding="utf-8")
