"""How fast groups start in their order: `python -m benchmarks.order`.

A thousand groups on ten hosts, in chains of ten: each is started after one on another host. Each
start takes a set time in its endpoint (see `endpoints`), so ten of them are the least that a chain
can take. What is shown is the time beyond that:

- a cold start of the manager, from its start to the end of the last start;
- `halo start --all` after `halo stop --all`, from the command to the end of the last start;
- half of the hosts die at once: from the last "declared lost" to the end of the last start.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.report import Row, machine
from benchmarks.scale import DEADLINE_S, SETTINGS, monotonic
from benchmarks.site import Shape, Site

BAR_S = 1.0


def measure(shape: Shape, start_s: float, folder: Path) -> dict[str, float]:
    """The seconds beyond the starts of one chain, by what happened. The last start takes the same
    time in all cases, so its beginning is what counts."""
    least_s = (shape.depth - 1) * start_s
    dying, staying = shape.names[0::2], shape.names[1::2]
    over: dict[str, float] = {}
    with Site(shape, folder, SETTINGS, start_s=start_s) as site:
        site.serve(dying)
        site.serve(staying)
        site.start_manager()
        groups = shape.hosts * shape.groups_per_host
        began = site.started_at
        over["cold start of the manager"] = _last_start(site, groups, began) - began - least_s
        _halo(site, "stop", "--all", "--wait", str(DEADLINE_S))
        began = time.monotonic()
        _halo(site, "start", "--all")
        over["halo start --all"] = _last_start(site, groups, began) - began - least_s
        _halo(site, "status")  # all are recorded as running before the hosts die
        began = time.monotonic()
        os.kill(site.endpoints[dying[0]].pid, signal.SIGSTOP)
        lost = len(dying) * shape.groups_per_host
        last = _last_start(site, lost, began)
        verdicts = [monotonic(line["timestamp"]) for line in site.log_lines("declared lost")]
        over["takeover, from the last verdict"] = last - max(verdicts) - least_s
        _check_order(site, shape, began, start_s)
    return over


def _last_start(site: Site, groups: int, after: float) -> float:
    """When the start of the last of so many groups was sent, all of them after that moment."""

    def starts() -> dict[str, float]:
        return {start.resource: start.at for start in site.starts() if start.at > after}

    site.wait(lambda: len(starts()) >= groups, DEADLINE_S, f"{groups} starts")
    return max(starts().values())


def _halo(site: Site, *command: str) -> None:
    halo = str(Path(sys.executable).with_name("halo"))
    program = [halo, "--socket", site.socket, *command]
    subprocess.run(program, check=True, stdout=subprocess.DEVNULL, timeout=2 * DEADLINE_S)


def _check_order(site: Site, shape: Shape, after: float, start_s: float) -> None:
    """Raises RuntimeError if a group was started before the start of its predecessor was over."""
    at = {start.resource: start.at for start in site.starts() if start.at > after}
    wrong: Counter[str] = Counter()
    for number in range(shape.hosts):
        for group in range(shape.groups_per_host):
            name, before = f"pool{number}-{group}", shape.before(number, group)
            if (
                before is not None
                and name in at
                and before in at
                and at[name] < at[before] + start_s
            ):
                wrong[name] += 1
    if wrong:
        raise RuntimeError(f"started out of order: {', '.join(wrong)}")


def main() -> int:
    """Measure a few runs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=10)
    parser.add_argument("--groups", type=int, default=100, help="groups on each host")
    parser.add_argument("--depth", type=int, default=10, help="groups in a chain")
    parser.add_argument("--start", type=float, default=1.0, help="seconds that a start takes")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(machine())
    shape = Shape(options.hosts, options.groups, 1, options.depth)
    found: dict[str, list[float]] = {}
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory(prefix="halo-order-") as folder:
            for what, over_s in measure(shape, options.start, Path(folder)).items():
                found.setdefault(what, []).append(over_s)
    groups = options.hosts * options.groups
    print(f"{groups} groups in chains of {options.depth}; beyond {options.depth} starts:")
    rows = [Row(what, values, "s", BAR_S) for what, values in found.items()]
    for row in rows:
        print(row)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
