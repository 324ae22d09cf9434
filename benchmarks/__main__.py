"""Every figure that can be measured on loopback, beside its bar: `make bench`.

    python -m benchmarks [--runs 5] [--hosts 1000] [--rest 60] [--only failover,move,...]

Run it on a machine that does nothing else. What takes hosts that really lose power is measured by
`benchmarks.failover`, which needs root.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import in_etcd, managers, scale, small
from benchmarks.report import Row, machine
from benchmarks.site import Shape
from tests.simulation.runner import quiet, run
from tests.simulation.speed import VIRTUAL_S, scenario

Rows = Iterator[Row]


def failover_rows(options: argparse.Namespace) -> Rows:
    """A power cut of the active host of a pair, for both loss budgets."""
    decisions: list[float] = []
    for budget_s, limit_s in ((3.0, 3.3), (0.5, 0.8)):
        found = small.failovers(budget_s, options.runs)
        decisions += found.decision
        yield Row(f"power cut -> start command, budget {budget_s:g} s", found.total, "s", limit_s)
    milliseconds = [1000 * value for value in decisions]
    yield Row("declared lost -> start command, 2 hosts", milliseconds, "ms", 50.0)


def move_rows(options: argparse.Namespace) -> Rows:
    """A planned move, scripts that take no time."""
    milliseconds = [1000 * value for value in small.moves(2 * options.runs)]
    yield Row("planned move, besides the scripts", milliseconds, "ms", 50.0)


def cold_start_rows(options: argparse.Namespace) -> Rows:
    """Two real agents and a manager, all started at once."""
    yield Row("cold start -> start script ran", small.cold_starts(options.runs), "s", 2.0)


def agent_rows(options: argparse.Namespace) -> Rows:
    """One real agent, 10 resources at 5 s."""
    cpu, memory = small.one_agent(options.rest)
    yield Row("agent, 10 resources at 5 s: CPU a minute", [cpu], "s", 0.3)
    yield Row("agent, 10 resources at 5 s: memory", [memory], "MB", 60.0)


def status_rows(options: argparse.Namespace) -> Rows:
    """The status command: plain, and where it needs the command-line parser."""
    times = small.status_commands(4 * options.runs)
    yield Row("halo status, 100 resources, whole process", times, "ms", 80.0)
    with_options = small.status_commands(2 * options.runs, "-e", "5")
    yield Row("the same with an option", with_options, "ms")
    as_json = small.status_commands(2 * options.runs, "--json")
    yield Row("the same as JSON", as_json, "ms")


def journal_rows(options: argparse.Namespace) -> Rows:
    """One record, flushed."""
    yield Row("journal, one record on disk", small.journal_writes(20 * options.runs), "ms")


def etcd_rows(options: argparse.Namespace) -> Rows:
    """The journal in etcd, three members that flush to this disk. Nothing without etcd."""
    if in_etcd.is_here():
        yield Row("journal in etcd, one record", in_etcd.journal_writes(20 * options.runs), "ms")
        times = in_etcd.commands(20 * options.runs)
        yield Row("journal in etcd, one command over the socket", times, "ms", 10.0)


def managers_rows(options: argparse.Namespace) -> Rows:
    """Several managers on a journal in etcd. Nothing without etcd."""
    if not in_etcd.is_here():
        return
    for lease_s, limit_s in ((2, 2.5), (5, 5.5), (10, 10.5)):
        found = managers.takeovers(lease_s, signal.SIGKILL, options.runs)
        times = [takeover.starts for takeover in found]
        yield Row(f"leader killed -> start by the next, lease {lease_s} s", times, "s", limit_s)
    found = managers.takeovers(10, signal.SIGTERM, 2 * options.runs)
    times = [takeover.starts for takeover in found]
    yield Row("leader ended in order -> start by the next", times, "s", 0.5)
    for number, name, limit_s in (
        (signal.SIGKILL, "killed, lease 2 s", 2.5),
        (signal.SIGTERM, "ended in order", 0.5),
    ):
        found = managers.takeovers(2, number, max(1, options.runs // 2), managers.LARGE)
        leads, starts = [one.leads for one in found], [one.starts for one in found]
        yield Row(f"10,000 groups, {name} -> the next leads", leads, "s")
        yield Row(f"10,000 groups, {name} -> its first start", starts, "s", limit_s)
    for count in (1, 3):
        times = managers.commands(count, 20 * options.runs)
        yield Row(f"one command, managers: {count}", times, "ms", 10.0)


def scale_rows(options: argparse.Namespace) -> Rows:
    """Many hosts; once, since it takes minutes."""
    for mode in ("polled", "watched"):
        with tempfile.TemporaryDirectory(prefix="halo-scale-") as folder:
            found = scale.measure(Shape(options.hosts), mode, options.rest, Path(folder))
        for name, value, unit, limit in scale.rows(found):
            yield Row(f"{found.hosts} hosts {mode}: {name}", [value], unit, limit)


def simulation_rows(options: argparse.Namespace) -> Rows:
    """Simulated seconds a second of one core: 6 hosts, 12 groups, with faults and all checks."""
    for watches in (False, True):
        yield Row(
            f"simulated time, agents that {'watch' if watches else 'are polled'}",
            [_simulated(watches) for _ in range(max(1, options.runs // 2))],
            "x",
            300.0,
            at_least=True,
        )


def _simulated(watches: bool) -> float:
    with quiet():
        began = time.process_time()
        result = run(scenario(watches))
        spent_s = time.process_time() - began
    if result.violations:
        raise SystemExit(f"the simulation found: {result.violations[0]}")
    return VIRTUAL_S / spent_s


PARTS: dict[str, Callable[[argparse.Namespace], Rows]] = {
    "failover": failover_rows,
    "status": status_rows,
    "move": move_rows,
    "cold": cold_start_rows,
    "agent": agent_rows,
    "journal": journal_rows,
    "etcd": etcd_rows,
    "managers": managers_rows,
    "simulation": simulation_rows,
    "scale": scale_rows,
}


def main() -> int:
    """Print the rows as they are measured; 1 where a bar was missed."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="of each figure (default: 5)")
    parser.add_argument("--hosts", type=int, default=1000, help="of the large cluster")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds measured at rest")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts: {', '.join(PARTS)}")
    options = parser.parse_args()
    print(machine())
    print(f"{'':<74} {'min':>8} {'median':>8} {'max':>8}")
    missed = 0
    for name in options.only.split(","):
        for row in PARTS[name](options):
            print(row, flush=True)
            missed += not row.met
    print(f"{missed} bars missed" if missed else "every bar was met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
