"""A short slice of each fuzzer: of a seed that stays, and of one that nobody had before.

The fresh seed stands in the message of a failure, with the command that repeats the case. More of
it: `make fuzz`.
"""

from __future__ import annotations

import os

import pytest

from tests.hostile.fuzz import runner
from tests.hostile.fuzz.fuzzer import Slice
from tests.hostile.fuzz.table import FUZZERS

SECONDS = float(os.environ.get("HALO_FUZZ_SECONDS", "3"))
FRESH = os.environ.get("HALO_FUZZ_SEED") or runner.fresh_seed()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FUZZERS)
async def test_nothing_is_found(name: str) -> None:
    for seed in ("fixed", FRESH):
        outcome = await runner.run(Slice(name, seed, SECONDS))
        assert not outcome.problem, str(outcome)
        assert outcome.cases > 0


@pytest.mark.parametrize("how", ["raise", "kill", "hang"])
async def test_whatever_ends_a_case_is_found_with_its_number(how: str) -> None:
    outcome = await runner.run(Slice(f"self-test-{how}", "fixed", 20.0, first=5))
    assert outcome.problem
    assert outcome.cases == 7
    assert f"--only self-test-{how} --seed fixed --case 7" in str(outcome)


async def test_a_case_is_the_same_each_time() -> None:
    for _ in range(2):
        outcome = await runner.run(Slice("self-test-raise", "fixed", 20.0, first=7, count=1))
        assert outcome.cases == 7
        assert "found something at 7, by chance 0." in outcome.problem
