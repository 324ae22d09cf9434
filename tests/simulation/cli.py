"""The command line of the simulator: ``python -m tests.simulation``."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import count
from pathlib import Path

import click

from tests.simulation.model import Scenario
from tests.simulation.mutants import MUTANTS, hunt
from tests.simulation.plan import scenario as planned
from tests.simulation.runner import Result, quiet, run, shrink
from tests.simulation.speed import measure

BATCH = 25
DAY_S = 86_400.0


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=int, help="Replay one seed, with its timeline.")
@click.option("--seeds", metavar="A..B", help="Run the seeds A to B-1.")
@click.option("--replay", type=click.Path(exists=True), help="Replay a scenario from a JSON file.")
@click.option("--seconds", type=float, help="Run fresh seeds for so long.")
@click.option("--jobs", type=int, default=1, show_default=True, help="Processes side by side.")
@click.option("--duration", type=float, default=120.0, show_default=True, help="Virtual seconds.")
@click.option("--sparse", is_flag=True, help="A fault every few minutes, not seconds.")
@click.option("--shrink/--no-shrink", "shrinks", default=True, help="Shrink failing scenarios.")
@click.option("--speed", is_flag=True, help="Measure the simulation's own speed.")
@click.option("--mutants", metavar="SEEDS", type=int, help="Hunt each mutant over so many seeds.")
@click.option("--mutant", multiple=True, help="Hunt only this mutant.")
@click.option("--keep-going", is_flag=True, help="Do not stop at 10 failing seeds.")
def main(
    seed: int | None,
    seeds: str | None,
    replay: str | None,
    seconds: float | None,
    jobs: int,
    duration: float,
    sparse: bool,
    shrinks: bool,
    speed: bool,
    mutants: int | None,
    mutant: tuple[str, ...],
    keep_going: bool,
) -> None:
    """Hunt for a second start: whole clusters, the real manager, a virtual clock."""
    if speed:
        for line in measure():
            click.echo(line)
        sys.exit(0)
    if mutants:
        sys.exit(_hunt_mutants(mutant or tuple(MUTANTS), mutants, jobs))
    if replay:
        sys.exit(_show(Scenario.from_json(Path(replay).read_text()), shrinks=False))
    if seed is not None:
        sys.exit(_show(planned(seed, duration, sparse), shrinks))
    if seeds:
        first, last = (int(part) for part in seeds.split(".."))
        numbers: Iterable[int] = range(first, last)
    else:
        first = int(time.time())
        click.echo(f"fresh seeds from {first}")
        numbers = count(first)
    sys.exit(_many(numbers, seconds, jobs, duration, sparse, shrinks, keep_going))


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


def _hunt_mutants(names: tuple[str, ...], limit: int, jobs: int) -> int:
    missed = 0
    with ProcessPoolExecutor(jobs) as pool:
        hunts = {name: pool.submit(hunt, name, limit) for name in names}
        for name, task in hunts.items():
            found = task.result()
            missed += found is None
            shown = f"{found[0]:>5}  {found[1][:90]}" if found else "    -  NOT FOUND"
            click.echo(f"{name:<52}{shown}")
            sys.stdout.flush()
    return 1 if missed else 0


def batch(numbers: list[int], duration: float, sparse: bool) -> list[Result]:
    """Run some seeds in one process."""
    found = []
    with quiet():
        for number in numbers:
            try:
                result = run(planned(number, duration, sparse))
            except Exception as error:
                result = Result(number, [f"crash: {error!r}"], 0.0, 0.0, 0, 0)
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


class Tally:
    """The sums over many runs."""

    def __init__(self) -> None:
        self.runs = 0
        self.virtual_s = self.wall_s = 0.0
        self.checks = 0
        self.counts: Counter[str] = Counter()
        self.failed: list[Result] = []

    def add(self, result: Result) -> None:
        """Take one run in."""
        self.runs += 1
        self.virtual_s += result.virtual_s
        self.wall_s += result.wall_s
        self.checks += result.checks
        self.counts += result.counts
        if result.violations:
            self.failed.append(result)
            click.echo(f"seed {result.seed}: {result.violations[0]}")

    def show(self) -> None:
        """Print the sums."""
        click.echo(
            f"{self.runs} runs, {self.virtual_s / DAY_S:.2f} virtual days, {self.checks} checks, "
            f"{self.virtual_s / max(self.wall_s, 1e-9):.0f} virtual seconds per wall second"
        )
        for name, number in sorted(self.counts.items()):
            click.echo(f"  {name:<28}{number:>10}")
        seeds = " ".join(str(result.seed) for result in self.failed)
        click.echo(f"failing seeds: {seeds or 'none'}")


def _many(
    numbers: Iterable[int],
    seconds: float | None,
    jobs: int,
    duration: float,
    sparse: bool,
    shrinks: bool,
    keep_going: bool,
) -> int:
    tally = Tally()
    deadline = time.monotonic() + seconds if seconds else float("inf")
    size = 1 if duration > 3600 else BATCH
    with ProcessPoolExecutor(jobs) as pool:
        waiting = _batches(numbers, size)
        running: set[Future[list[Result]]] = set()
        over = False
        while True:
            while not over and len(running) < jobs:
                numbers_now = next(waiting, None)
                if numbers_now is None:
                    over = True
                    break
                running.add(pool.submit(batch, numbers_now, duration, sparse))
            if not running:
                break
            done = next(iter(running))
            running.discard(done)
            for result in done.result():
                tally.add(result)
            over = over or time.monotonic() > deadline
            over = over or (len(tally.failed) >= 10 and not keep_going)
    tally.show()
    for result in tally.failed[:2] if shrinks else []:
        if result.rule != "crash":
            with quiet():
                small = shrink(planned(result.seed, duration, sparse), result.rule, click.echo)
            click.echo(f"seed {result.seed}, shrunk: {small.to_json()}")
    return 1 if tally.failed else 0
