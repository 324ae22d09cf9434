"""``python -m tests.simulation.mutate``: how many small mistakes does the simulation find?

See :mod:`tests.simulation.mutation`, and "How good is the hunter" in ``docs/simulation.md``.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tests.simulation.mutation import report, scope
from tests.simulation.mutation.derive import Mutant, derive, flags_of
from tests.simulation.mutation.hunt import CORE, SIMULATION, Hunt
from tests.simulation.mutation.kinds import KINDS
from tests.simulation.mutation.results import ResultsFile


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seeds", type=int, default=400, show_default=True, help="Seeds 0 to N-1.")
@click.option("--jobs", type=int, default=1, show_default=True, help="Processes side by side.")
@click.option("--only", multiple=True, metavar="MODULE", help="Only this module or package.")
@click.option("--kind", multiple=True, type=click.Choice(list(KINDS)), help="Only this kind.")
@click.option("--mutant", multiple=True, metavar="ID", help="Only this one.")
@click.option("--sample", type=int, metavar="N", help="N of them by chance.")
@click.option("--random-seed", type=int, default=1, show_default=True, help="Of that chance.")
@click.option("--limit", type=int, metavar="N", help="The first N of them.")
@click.option("--core-tests/--no-core-tests", default=True, help="Try survivors with tests/core.")
@click.option("--list", "lists", is_flag=True, help="List the mutants; run nothing.")
@click.option("--show", is_flag=True, help="Show the diff of each survivor.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("mutation-results.jsonl"),
    show_default=True,
    help="Append to this file, and do not run again what it has of the same source.",
)
def main(
    seeds: int,
    jobs: int,
    only: tuple[str, ...],
    kind: tuple[str, ...],
    mutant: tuple[str, ...],
    sample: int | None,
    random_seed: int,
    limit: int | None,
    core_tests: bool,
    lists: bool,
    show: bool,
    as_json: bool,
    results: Path,
) -> None:
    """Break the deciding code in many small ways, and count what the simulation finds."""
    mutants = selected(only, kind, mutant)
    if not mutants:
        raise click.UsageError("no such mutant")
    if sample is not None and sample < len(mutants):
        chosen = set(random.Random(random_seed).sample(sorted(m.id for m in mutants), sample))
        mutants = [m for m in mutants if m.id in chosen]
    mutants = mutants[:limit]
    if lists:
        for one in mutants:
            click.echo(f"{one.id}  (line {one.line})\n    {one.diff}")
        return
    versions = {SIMULATION: scope.simulation_version(), CORE: scope.core_tests_version()}
    hunt = Hunt(ResultsFile(results, versions), seeds, jobs, _say)
    findings = hunt.run(mutants, core_tests)
    if as_json:
        click.echo(json.dumps(report.as_json(findings, seeds, hunt.problems), indent=1))
    else:
        click.echo("\n".join(report.table(findings)))
        if show:
            click.echo("\n".join(report.survivors(findings)))
    for problem in hunt.problems:
        _say(problem)
    sys.exit(1 if hunt.problems else 0)


def selected(only: Sequence[str], kind: Sequence[str], ids: Sequence[str]) -> list[Mutant]:
    """The mutants that were asked for; without a condition, all."""
    modules = scope.modules()
    flags = flags_of(module.source for module in modules)
    names = [_as_module(name) for name in only]
    return [
        mutant
        for module in modules
        if not names or any(f"{module.short}.".startswith(f"{name}.") for name in names)
        for mutant in derive(module.name, module.source, flags)
        if (not kind or mutant.kind in kind) and (not ids or mutant.id in ids)
    ]


def _as_module(name: str) -> str:
    """A module as people may write it, also as a path."""
    return name.removesuffix(".py").replace("/", ".").removeprefix("halo.")


def _say(text: str) -> None:
    click.echo(text, err=True)


if __name__ == "__main__":
    main()
