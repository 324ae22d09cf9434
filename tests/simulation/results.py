"""Results of many runs in a file, a line a batch, so that an interruption loses a batch at most.

A line counts only for the code that wrote it: the source of what a run loads is hashed into it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation.runner import Result

ROOT = Path(__file__).parents[2]
DAY_S = 86_400.0
NOT_SIMULATED = ("adapters", "cli", "config")
"""Packages of `halo` that no run loads (a test holds them to it)."""


def code_version() -> str:
    """A hash over everything that a run's outcome depends on."""
    digest = hashlib.sha256()
    for folder in ("halo", "tests/simulation"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = path.relative_to(ROOT)
            if place.parts[1] not in NOT_SIMULATED:
                digest.update(str(place).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


@dataclass
class Tally:
    """The sums over many runs."""

    runs: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    checks: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: dict[int, str] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Take one run in."""
        self.runs += 1
        self.virtual_s += result.virtual_s
        self.cpu_s += result.cpu_s
        self.checks += result.checks
        self.counts += result.counts
        if result.violations:
            self.failed[result.seed] = result.violations[0]

    def add_line(self, line: dict[str, Any]) -> None:
        """Take a line of a results file in."""
        self.runs += len(line["seeds"])
        self.virtual_s += line["virtual_s"]
        self.cpu_s += line["cpu_s"]
        self.checks += line["checks"]
        self.counts += Counter(line["counts"])
        self.failed.update({int(seed): text for seed, text in line["failed"].items()})

    def lines(self) -> Iterator[str]:
        """The sums, in words."""
        cpu_s = max(self.cpu_s, 1e-9)
        yield (
            f"{self.runs} runs, {self.virtual_s / DAY_S:.2f} virtual days, {self.checks} checks; "
            f"{cpu_s:.0f} s of one core: {self.runs / cpu_s:.2f} runs and "
            f"{self.virtual_s / cpu_s:.0f} virtual seconds a second"
        )
        for name, number in sorted(self.counts.items()):
            yield f"  {name:<28}{number:>10}"
        yield f"failing seeds: {' '.join(map(str, sorted(self.failed))) or 'none'}"


class ResultsFile:
    """Appends to one file, and tells what of it need not be run again."""

    def __init__(self, path: Path, duration_s: float, sparse: bool) -> None:
        self._path = path
        self._key = {"code": code_version(), "duration_s": duration_s, "sparse": sparse}

    def earlier(self) -> list[dict[str, Any]]:
        """The lines of this code and this kind of run; one cut short by a crash is left out."""
        if not self._path.exists():
            return []
        found = []
        for text in self._path.read_text().splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if all(line.get(name) == value for name, value in self._key.items()):
                found.append(line)
        return found

    def append(self, results: Iterable[Result]) -> None:
        """Write a batch down."""
        tally, seeds = Tally(), []
        for result in results:
            tally.add(result)
            seeds.append(result.seed)
        line = {
            **self._key,
            "seeds": seeds,
            "virtual_s": round(tally.virtual_s, 3),
            "cpu_s": round(tally.cpu_s, 3),
            "checks": tally.checks,
            "counts": dict(tally.counts),
            "failed": tally.failed,
        }
        with self._path.open("a") as file:
            file.write("\n" * self._is_torn() + json.dumps(line) + "\n")

    def _is_torn(self) -> bool:
        """Did a crash leave the last line unfinished?"""
        if not self._path.exists() or self._path.stat().st_size == 0:
            return False
        with self._path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) != b"\n"
