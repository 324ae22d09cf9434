"""How long a full pass of the garbage collector stops the manager, before and after it spares what
is here to stay: `python -m benchmarks.collector [--hosts 300]`.

The manager is the real one, in a process that makes a full pass when it is told by a signal. The
cluster is that of `benchmarks.scale`, watched. `objects`: what such a pass walks.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import machine
from benchmarks.scale import SETTINGS
from benchmarks.site import Shape, Site

REPORT = "HALO_BENCHMARK_COLLECTOR"
DEADLINE_S = 240.0
PASSES = 5


def measured_manager() -> None:
    """Be the manager, and make a timed full pass whenever SIGUSR2 comes."""
    from halo.manager.main import main

    report = Path(os.environ[REPORT])

    def full_pass(*_: object) -> None:
        objects = len(gc.get_objects())
        began = time.perf_counter()
        garbage = gc.collect()
        took_ms = (time.perf_counter() - began) * 1000
        with report.open("a") as file:
            file.write(json.dumps({"ms": took_ms, "objects": objects, "garbage": garbage}) + "\n")

    signal.signal(signal.SIGUSR2, full_pass)
    main()


def passes(site: Site, report: Path) -> list[dict[str, Any]]:
    """Have some full passes made; the first also finds what garbage there was."""
    found: list[dict[str, Any]] = []
    for _ in range(PASSES):
        expected = len(_lines(report)) + 1
        os.kill(site.pid, signal.SIGUSR2)
        site.wait(partial(_has_lines, report, expected), DEADLINE_S, "a full pass")
        found.append(json.loads(_lines(report)[-1]))
        time.sleep(0.5)
    return found


def _lines(report: Path) -> list[str]:
    return report.read_text().splitlines() if report.exists() else []


def _has_lines(report: Path, expected: int) -> bool:
    return len(_lines(report)) >= expected


def show(when: str, found: list[dict[str, Any]]) -> None:
    """One line on some passes."""
    took = sorted(entry["ms"] for entry in found)
    print(
        f"  {when:<28} {took[len(took) // 2]:>8.1f} ms (max {took[-1]:.1f}), "
        f"{found[-1]['objects']:,} objects, garbage {found[0]['garbage']:,}"
    )


def measure(hosts: int, folder: Path) -> None:
    """One size of cluster."""
    shape, report = Shape(hosts), folder / "passes"
    os.environ[REPORT] = str(report)
    with Site(shape, folder, SETTINGS, program="benchmarks.collector") as site:
        site.serve(shape.names)
        site.start_manager()
        site.wait(lambda: len(site.starts()) >= shape.resources, DEADLINE_S, "every start")
        print(f"\n{hosts} hosts, {shape.resources} resources, watched")
        show("all started", passes(site, report))
        site.wait(lambda: bool(site.log_lines("settled")), DEADLINE_S, "the second freeze")
        line = site.log_lines("settled")[0]
        print(f"  freezing took {line['took_ms']} ms; {line['objects_spared']:,} objects spared")
        show("frozen", passes(site, report))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", default="300", help="sizes, by comma")
    return parser.parse_args()


if __name__ == "__main__":
    if REPORT in os.environ and "--manage-resources" in sys.argv:
        measured_manager()
    else:
        arguments = parse()
        print(machine())
        for size in arguments.hosts.split(","):
            with tempfile.TemporaryDirectory() as scratch:
                measure(int(size), Path(scratch))
