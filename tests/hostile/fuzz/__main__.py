"""Fuzz what HALO reads.

python -m tests.hostile.fuzz [--minutes N] [--seed S] [--only NAME]... [--case N]

Without --only, a tenth of the time goes to each target of `guided` where atheris is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import zlib
from pathlib import Path

from tests.hostile.fuzz import runner
from tests.hostile.fuzz.fuzzer import Slice, run_slice
from tests.hostile.fuzz.guided import TARGETS as GUIDED
from tests.hostile.fuzz.table import FUZZERS, SELF_TESTS
from tests.integration.site import ROOT

_ROUND_S = 20.0
"""Each fuzzer in turn gets so long, and with each round a seed of its own."""


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        return run_slice(
            {**FUZZERS, **SELF_TESTS}, Slice(*json.loads(sys.argv[2])), Path(sys.argv[3])
        )
    parser = argparse.ArgumentParser(description="Throw random cases at what HALO reads.")
    parser.add_argument("--minutes", type=float, default=1.0, help="for all of them together")
    parser.add_argument("--seed", help="of an earlier run; a fresh one where it is not given")
    parser.add_argument("--only", action="append", choices=FUZZERS, help="may be repeated")
    parser.add_argument("--case", type=int, help="repeat one case of --only and --seed")
    given = parser.parse_args()
    seed = given.seed or runner.fresh_seed()
    names = given.only or list(FUZZERS)
    if given.case is not None:
        if not (given.only and given.seed):
            parser.error("--case needs --only and --seed")
        slices = [Slice(name, seed, 600.0, given.case, 1) for name in names]
    else:
        print(f"seed {seed}", flush=True)
        slices = _rounds(names, seed, given.minutes * 60)
    found = asyncio.run(_run(slices))
    if not given.only:
        found += _run_guided(seed, given.minutes * 60)
    return min(found, 1)


def _rounds(names: list[str], seed: str, seconds: float) -> list[Slice]:
    """Turns for everybody; those of a later round have another seed, made of the given one."""
    rounds = max(1, round(seconds / (len(names) * _ROUND_S)))
    turn_s = seconds / (rounds * len(names))
    return [
        Slice(name, seed if number == 0 else f"{seed}-{number}", turn_s)
        for number in range(rounds)
        for name in names
    ]


async def _run(slices: list[Slice]) -> int:
    found, cases = 0, 0
    for slice_ in slices:
        outcome = await runner.run(slice_)
        print(outcome, flush=True)
        found += bool(outcome.problem)
        cases += outcome.cases
    print(f"{found} of {len(slices)} slices found something, in {cases} cases", flush=True)
    return found


def _run_guided(seed: str, seconds: float) -> int:
    """How many of the targets that coverage leads found something."""
    found = 0
    for target in GUIDED:
        number = zlib.crc32(seed.encode()) % 2**31
        options = ["--seconds", str(max(1, round(seconds / 10))), "--seed", str(number)]
        command = [sys.executable, "-m", "tests.hostile.fuzz.guided", target, *options]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True)
        text = (ended.stdout + ended.stderr).decode(errors="replace")
        if ended.returncode:
            found += 1
            print(text[-3000:])
        cases = re.search(r"number_of_executed_units: (\d+)", text)
        what = f"{cases[1]} cases" if cases else "not run, atheris is not installed"
        print(f"{target}, led by coverage: {what}, status {ended.returncode}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
