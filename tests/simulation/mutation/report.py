"""What came of a hunt: a table by module, the survivors, or everything as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from tests.simulation.mutation.hunt import Finding

OUTCOMES = ("killed by simulation", "killed by core tests", "survived", "unreached")
HEADS = ("mutants", "simulation", "core tests", "survived", "unreached", "score")


def score(counts: Counter[str]) -> float | None:
    """The part of all mutants that something kills; None without any."""
    total = sum(counts.values())
    return (counts[OUTCOMES[0]] + counts[OUTCOMES[1]]) / total if total else None


def table(findings: Sequence[Finding]) -> Iterator[str]:
    """One line for each module, and one for all."""
    modules: dict[str, Counter[str]] = {}
    for finding in findings:
        modules.setdefault(finding.mutant.module, Counter())[finding.outcome] += 1
    yield f"{'module':<38}" + "".join(f"{head:>11}" for head in HEADS)
    for name, counts in sorted(modules.items()):
        yield _row(name.removeprefix("halo."), counts)
    yield _row("all", sum(modules.values(), Counter()))
    yield from _rules(findings)


def _row(name: str, counts: Counter[str]) -> str:
    numbers = [sum(counts.values()), *(counts[outcome] for outcome in OUTCOMES)]
    part = score(counts)
    shown = "-" if part is None else f"{part:.0%}"
    return f"{name:<38}" + "".join(f"{number:>11}" for number in numbers) + f"{shown:>11}"


def _rules(findings: Sequence[Finding]) -> Iterator[str]:
    rules = Counter(
        str(finding.simulation["rule"])
        for finding in findings
        if finding.simulation is not None and finding.simulation["verdict"] == "killed"
    )
    if rules:
        yield "found by " + ", ".join(f"{rule} {count}" for rule, count in rules.most_common())
    unseen = sum(_is_without_effect(finding) for finding in findings)
    yield f"survivors that changed no run: {unseen}"


def _is_without_effect(finding: Finding) -> bool:
    line = finding.simulation
    return finding.outcome == "survived" and line is not None and not line["changed"]


def survivors(findings: Sequence[Finding]) -> Iterator[str]:
    """Each mutant that nothing killed, with its diff, those that changed the most runs first."""
    kept = [f for f in findings if f.outcome in ("survived", "unreached")]
    for finding in sorted(kept, key=lambda f: -_part_changed(f)):
        line, mutant = finding.simulation, finding.mutant
        what = f"{line['changed']} of {line['runs']} runs changed" if line else "unreached"
        yield f"\n{mutant.id}  (line {mutant.line}; {what})"
        yield f"    {mutant.diff}"


def _part_changed(finding: Finding) -> float:
    line = finding.simulation
    return line["changed"] / max(line["runs"], 1) if line else -1.0


def as_json(findings: Sequence[Finding], seeds: int, problems: Sequence[str]) -> dict[str, Any]:
    """Everything, for programs."""
    totals = Counter(finding.outcome for finding in findings)
    return {
        "seeds": seeds,
        "mutants": len(findings),
        **{outcome.replace(" ", "_"): totals[outcome] for outcome in OUTCOMES},
        "score": score(totals),
        "problems": list(problems),
        "findings": [_finding(finding) for finding in findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    mutant, line, tests = finding.mutant, finding.simulation or {}, finding.core or {}
    return {
        "id": mutant.id,
        "module": mutant.module,
        "function": mutant.function,
        "kind": mutant.kind,
        "line": mutant.line,
        "before": mutant.before,
        "after": mutant.after,
        "outcome": finding.outcome,
        **{name: line.get(name) for name in ("rule", "text", "seed", "runs", "changed")},
        "test": tests.get("test"),
    }
