"""The command line of the simulator: ``python -m tests.simulation``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import count
from pathlib import Path

import click

from tests.simulation.managers import mutants as managers_mutants
from tests.simulation.managers.plan import scenario as planned_with
from tests.simulation.model import Scenario
from tests.simulation.mutants import MUTANTS, hunt
from tests.simulation.plan import scenario as planned
from tests.simulation.results import ResultsFile, Tally
from tests.simulation.runner import Result, quiet, run, shrink
from tests.simulation.speed import measure

BATCH = 25


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, help="Replay one seed, with its timeline.")
@click.option("--seeds", metavar="A..B", help="Run the seeds A to B-1.")
@click.option("--replay", type=click.Path(exists=True), help="Replay a scenario from a JSON file.")
@click.option("--seconds", type=float, help="Run fresh seeds for so long.")
@click.option("--jobs", type=int, default=1, show_default=True, help="Processes side by side.")
@click.option("--duration", type=float, default=120.0, show_default=True, help="Virtual seconds.")
@click.option("--sparse", is_flag=True, help="A fault every few minutes, not seconds.")
@click.option("--managers", type=click.IntRange(2, 5), help="So many managers, over etcd.")
@click.option("--shrink/--no-shrink", "shrinks", default=True, help="Shrink failing scenarios.")
@click.option("--speed", is_flag=True, help="Measure the simulation's own speed.")
@click.option("--mutants", metavar="SEEDS", type=int, help="Hunt each mutant over so many seeds.")
@click.option("--mutant", multiple=True, help="Hunt only this mutant.")
@click.option("--keep-going", is_flag=True, help="Do not stop at 10 failing seeds.")
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append to this file after every batch, and leave out the seeds that it has.",
)
def main(
    seed: int | None,
    seeds: str | None,
    replay: str | None,
    seconds: float | None,
    jobs: int,
    duration: float,
    sparse: bool,
    managers: int | None,
    shrinks: bool,
    speed: bool,
    mutants: int | None,
    mutant: tuple[str, ...],
    keep_going: bool,
    results: Path | None,
) -> None:
    """Hunt for a second start: whole clusters, the real manager, a virtual clock."""
    if results and managers:
        raise click.UsageError("--results counts runs of one manager only")
    if speed:
        for line in measure():
            click.echo(line)
        sys.exit(0)
    if mutants:
        of_managers = bool(managers)
        names = mutant or tuple(managers_mutants.MUTANTS if of_managers else MUTANTS)
        sys.exit(_hunt_mutants(names, mutants, jobs, of_managers))
    if replay:
        sys.exit(_show(Scenario.from_json(Path(replay).read_text()), shrinks=False))
    if seed is not None:
        sys.exit(_show(plan(seed, duration, sparse, managers), shrinks))
    if seeds:
        first, last = (int(part) for part in seeds.split(".."))
        numbers: Iterable[int] = range(first, last)
    else:
        first = int(time.time())
        click.echo(f"fresh seeds from {first}")
        numbers = count(first)
    sys.exit(
        _many(numbers, seconds, jobs, duration, sparse, managers, shrinks, keep_going, results)
    )


def plan(seed: int, duration: float, sparse: bool, managers: int | None) -> Scenario:
    """The scenario of a seed: with one manager on a disk, or with several."""
    if managers:
        return planned_with(seed, duration, sparse, managers=managers)
    return planned(seed, duration, sparse)


def _show(scenario: Scenario, shrinks: bool) -> int:
    with quiet():
        result = run(scenario, timeline=True)
        click.echo("\n".join(result.timeline))
        click.echo(
            f"seed {scenario.seed}: {result.virtual_s:.0f} virtual s in {result.wall_s:.2f} s,"
            f" {result.steps} steps, {result.checks} checks, digest {result.digest}"
        )
        for violation in result.violations:
            click.echo(f"VIOLATION {violation}")
        if result.violations and shrinks:
            click.echo(shrink(scenario, result.rule, click.echo).to_json())
    return 1 if result.violations else 0


def _hunt_mutants(names: tuple[str, ...], limit: int, jobs: int, of_managers: bool) -> int:
    missed = 0
    how = managers_mutants.hunt if of_managers else hunt
    with ProcessPoolExecutor(jobs) as pool:
        hunts = {name: pool.submit(how, name, limit) for name in names}
        for name, task in hunts.items():
            found = task.result()
            missed += found is None
            shown = f"{found[0]:>5}  {found[1][:90]}" if found else "    -  NOT FOUND"
            click.echo(f"{name:<52}{shown}")
            sys.stdout.flush()
    return 1 if missed else 0


def batch(
    numbers: list[int], duration: float, sparse: bool, managers: int | None = None
) -> list[Result]:
    """Run some seeds in one process."""
    found = []
    with quiet():
        for number in numbers:
            try:
                result = run(plan(number, duration, sparse, managers))
            except Exception as error:
                result = Result(number, [f"crash: {error!r}"], 0.0, 0.0, 0.0, 0, 0)
            found.append(result)
    return found


def _batches(numbers: Iterable[int], size: int) -> Iterator[list[int]]:
    gathered: list[int] = []
    for number in numbers:
        gathered.append(number)
        if len(gathered) == size:
            yield gathered
            gathered = []
    if gathered:
        yield gathered


def _many(
    numbers: Iterable[int],
    seconds: float | None,
    jobs: int,
    duration: float,
    sparse: bool,
    managers: int | None,
    shrinks: bool,
    keep_going: bool,
    results: Path | None,
) -> int:
    tally = Tally()
    file = ResultsFile(results, duration, sparse) if results else None
    if file is not None:
        done_before = set()
        for line in file.earlier():
            tally.add_line(line)
            done_before.update(line["seeds"])
        numbers = (number for number in numbers if number not in done_before)
        click.echo(f"{results}: {len(done_before)} runs of this code so far")
    deadline = time.monotonic() + seconds if seconds else float("inf")
    waiting = _batches(numbers, 1 if duration > 3600 else BATCH)
    with ProcessPoolExecutor(jobs) as pool:
        running: set[Future[list[Result]]] = set()
        over = False
        while True:
            while not over and len(running) < jobs:
                numbers_now = next(waiting, None)
                if numbers_now is None:
                    over = True
                    break
                running.add(pool.submit(batch, numbers_now, duration, sparse, managers))
            if not running:
                break
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                _take(future.result(), tally, file)
            over = over or time.monotonic() > deadline
            over = over or (len(tally.failed) >= 10 and not keep_going)
    for text in tally.lines():
        click.echo(text)
    for number, text in list(tally.failed.items())[:2] if shrinks else []:
        rule = text.split(":")[0]
        if rule != "crash":
            with quiet():
                small = shrink(plan(number, duration, sparse, managers), rule, click.echo)
            click.echo(f"seed {number}, shrunk: {small.to_json()}")
    return 1 if tally.failed else 0


def _take(batch: list[Result], tally: Tally, file: ResultsFile | None) -> None:
    if file is not None:
        file.append(batch)
    for result in batch:
        tally.add(result)
        if result.violations:
            click.echo(f"seed {result.seed}: {result.violations[0]}")
