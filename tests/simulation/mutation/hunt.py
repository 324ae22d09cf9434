"""The hunt: what the seeds reach; every mutant with the seeds that reach it; the survivors with the
tests of the core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.simulation.mutation import hook, trials
from tests.simulation.mutation.crew import Ended, Work, work_through
from tests.simulation.mutation.derive import Mutant
from tests.simulation.mutation.marks import Reach, seeds_of
from tests.simulation.mutation.results import Line, ResultsFile
from tests.simulation.mutation.trials import Usual

SIMULATION, CORE = "simulation", "core"
REACH, DONE, TRIAL = "reach", "done", "trial"
SEEDS_AT_ONCE = 20

Say = Callable[[str], None]


@dataclass(slots=True)
class Finding:
    """What came of one mutant. A stage without a line found nothing that reaches it."""

    mutant: Mutant
    simulation: Line | None = None
    core: Line | None = None

    @property
    def outcome(self) -> str:
        """In one word or two."""
        if self.simulation is not None and self.simulation["verdict"] == "killed":
            return "killed by simulation"
        if self.core is not None and self.core["verdict"] == "killed":
            return "killed by core tests"
        return "unreached" if self.simulation is None else "survived"


@dataclass(slots=True)
class Hunt:
    """Hunts mutants over the seeds from 0 to `seeds`-1. `problems`: what went wrong on the way."""

    file: ResultsFile
    seeds: int
    jobs: int
    say: Say
    points: Sequence[tuple[str, str]] = field(default_factory=hook.points)
    usual: dict[int, Usual] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def run(self, mutants: Sequence[Mutant], with_core_tests: bool) -> list[Finding]:
        """Hunt all of these; what the file has already is not run again."""
        findings = [Finding(mutant) for mutant in mutants]
        self._simulate(findings)
        if with_core_tests:
            self._test([f for f in findings if f.outcome != "killed by simulation"])
        return findings

    # --- with the simulation -----------------------------------------------------------------

    def _simulate(self, findings: list[Finding]) -> None:
        reach = self._seeds_reach()
        done = {line["mutant"]: line for line in self.file.of(SIMULATION, TRIAL)}
        works: list[tuple[Any, Work]] = []
        for finding in findings:
            mutant, first = finding.mutant, 0
            if (line := done.get(mutant.id)) is not None:
                if _still_holds(line, self.seeds):
                    finding.simulation = line
                    continue
                first = line["seeds"] if line["verdict"] == "survived" else 0
            seeds = seeds_of(reach, mutant.module, mutant.point, first, self.seeds)
            if not seeds and first:
                finding.simulation = line
            elif seeds:
                work = partial(trials.try_seeds, mutant.id, seeds, self.usual)
                works.append((finding, work))
        self.say(f"simulation: {len(works)} of {len(findings)} mutants to run")
        for number, ended in enumerate(work_through(works, self.jobs), 1):
            self._take_simulated(ended.key, ended, done.get(ended.key.mutant.id))
            self.say(f"{number}/{len(works)} {_told(ended.key.simulation)} {ended.key.mutant.id}")

    def _take_simulated(self, finding: Finding, ended: Ended, before: Line | None) -> None:
        found = self._verdict(ended, finding.mutant)
        if found is None:  # nobody knows; it is not written down, and was not killed
            finding.simulation = {"verdict": "survived", "runs": 0, "changed": 0}
            return
        if before is not None and before["verdict"] == "survived":
            found = {**found, "runs": before["runs"] + found["runs"]}
            found["changed"] = before.get("changed", 0) + found.get("changed", 0)
        line = {"mutant": finding.mutant.id, "seeds": self.seeds, **found}
        finding.simulation = self.file.append(SIMULATION, TRIAL, line)

    def _verdict(self, ended: Ended, mutant: Mutant) -> Line | None:
        """What a child has found; how it ended may be what it found."""
        last = ended.told[-1] if ended.told else {}
        if "verdict" in last:
            return dict(last)
        begun = [told for told in ended.told if told.get("begins") is not None]
        is_killed = ended.exit_code is not None and ended.exit_code < 0
        if ended.was_ended or (is_killed and begun):
            rule = "deadline" if ended.was_ended else "died"
            seed = begun[-1]["begins"] if begun else None
            return {"verdict": "killed", "rule": rule, "seed": seed, "runs": len(begun)}
        self.problems.append(f"{mutant.id}: its child ended with {ended.exit_code}")
        return None

    def _seeds_reach(self) -> Reach:
        known = {line["seed"]: line for line in self.file.of(SIMULATION, REACH)}
        missing = [seed for seed in range(self.seeds) if seed not in known]
        parts = [missing[n : n + SEEDS_AT_ONCE] for n in range(0, len(missing), SEEDS_AT_ONCE)]
        if missing:
            self.say(f"looking what {len(missing)} seeds reach")
        works = ((part, partial(trials.see_seeds, part)) for part in parts)
        for ended in work_through(works, self.jobs):
            for told in ended.told:
                known[told["seed"]] = self.file.append(SIMULATION, REACH, told)
        reach = Reach(self.points)
        for seed in range(self.seeds):
            line = known.get(seed)
            if line is None or line["broken"]:
                why = line["broken"] if line else "it did not come to its end"
                self.problems.append(f"seed {seed} is left out: without a mistake, {why}")
                continue
            self.usual[seed] = Usual(line["digest"], line["cpu_s"])
            reach.imported(line["imported"])
            reach.add(seed, line["hits"])
        return reach

    # --- with the tests of the core ----------------------------------------------------------

    def _test(self, findings: list[Finding]) -> None:
        reach = self._tests_reach()
        if reach is None:
            return
        took = {line["took"]: line["s"] for line in self.file.of(CORE, DONE) if "took" in line}
        done = {line["mutant"]: line for line in self.file.of(CORE, TRIAL)}
        works: list[tuple[Any, Work]] = []
        for finding in findings:
            mutant = finding.mutant
            finding.core = done.get(mutant.id)
            tests = [str(test) for test in reach.of(mutant.module, mutant.point)]
            if finding.core is None and tests:
                tests.sort(key=lambda test: took.get(test, 0.0))
                works.append((finding, partial(trials.try_tests, mutant.id, tests)))
        self.say(f"tests of the core: {len(works)} mutants to run")
        for number, ended in enumerate(work_through(works, self.jobs), 1):
            finding = ended.key
            found = self._verdict(ended, finding.mutant)
            if found is not None:
                line = {"mutant": finding.mutant.id, **found}
                finding.core = self.file.append(CORE, TRIAL, line)
            self.say(f"{number}/{len(works)} {_told(finding.core)} {finding.mutant.id}")

    def _tests_reach(self) -> Reach | None:
        if not any("ended" in line for line in self.file.of(CORE, DONE)):
            self.say("looking what the tests of the core reach")
            for told in self._told_of_tests():
                is_known = "hits" in told or "imported" in told
                self.file.append(CORE, REACH if is_known else DONE, told)
        ends = [line["ended"] for line in self.file.of(CORE, DONE) if "ended" in line]
        if not ends or ends[-1]:
            how = ends[-1] if ends else "no result"
            self.problems.append(f"without a mistake, the tests of the core end with {how}")
            return None
        known = {line.get("test"): line for line in self.file.of(CORE, REACH)}
        reach = Reach(self.points)
        for test, line in known.items():
            if test is None:
                reach.imported(line["imported"])
            else:
                reach.add(test, line["hits"])
        return reach

    def _told_of_tests(self) -> Iterator[Line]:
        for ended in work_through([(None, trials.see_tests)], 1):
            yield from ended.told


def _still_holds(line: Line, seeds: int) -> bool:
    """Would these seeds find the same?"""
    if line["verdict"] == "survived":
        return bool(line["seeds"] >= seeds)
    return line.get("seed") is None or line["seed"] < seeds


def _told(line: Line | None) -> str:
    if line is None:
        return "-"
    if line["verdict"] == "survived":
        return "survived"
    return f"killed ({line.get('rule') or line.get('test')})"
