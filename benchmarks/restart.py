"""How soon a restarted manager starts a group that is down: `python -m benchmarks.restart`.

A manager that takes over does the same after its election. All groups run, except one that crashed
while no manager was there. Times count from the moment at which the manager is made, in seconds of
the clock and of the manager's processor time. The second says more on a busy machine.
"""

from __future__ import annotations

import argparse
import bisect
import os
import signal
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.report import machine
from benchmarks.scale import SETTINGS, monotonic
from benchmarks.site import Shape, Site

DEADLINE_S = 300.0
REST_S = 3.0
SAMPLE_S = 0.005


class _Processor(threading.Thread):
    """The processor time of a process's first thread, as it grows."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._path = Path(f"/proc/{pid}/schedstat")
        self._ended = threading.Event()
        self._at: list[float] = []
        self._spent: list[float] = []

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_S):
            self._spent.append(int(self._path.read_text().split()[0]) / 1e9)
            self._at.append(time.monotonic())

    def end(self) -> None:
        self._ended.set()
        self.join()

    def spent(self, at: float) -> float:
        """Until this moment, in seconds."""
        return self._spent[min(bisect.bisect(self._at, at), len(self._at) - 1)]


def _restart(site: Site, number: int) -> str:
    """Kill the manager, let a group crash, start the manager, and say what came when."""
    assert site.manager is not None
    site.manager.kill()
    site.manager.wait()
    (site.folder / "manager.log").rename(site.folder / f"manager.log.{number}")
    before, shape = len(site.starts()), site.shape
    os.kill(site.endpoints[shape.names[0]].pid, signal.SIGUSR1)
    site.start_manager()
    processor = _Processor(site.pid)
    processor.start()
    groups = shape.hosts * shape.groups_per_host

    def seen(event: str, key: str) -> list[float]:
        return [monotonic(line["timestamp"]) for line in site.log_lines(event) if key in line]

    site.wait(lambda: len(seen("watching", "host")) >= shape.hosts, DEADLINE_S, "all known")
    site.wait(lambda: len(seen("managing", "group")) >= groups, DEADLINE_S, "all managed")
    site.wait(lambda: len(site.starts()) > before, DEADLINE_S, "the first start")
    processor.end()
    [made] = seen("managing", "pid")
    moments = {
        "all hosts known": max(seen("watching", "host")),
        "first start": min(start.at for start in site.starts()[before:]),
        "all groups managed": max(seen("managing", "group")),
    }
    return ", ".join(
        f"{what} {at - made:.2f} s ({processor.spent(at) - processor.spent(made):.2f} s)"
        for what, at in moments.items()
    )


def main() -> int:
    """Measure one size."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--groups", type=int, default=100, help="per host")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(machine())
    shape = Shape(options.hosts, options.groups, resources_per_group=1)
    with (
        tempfile.TemporaryDirectory(prefix="halo-restart-") as folder,
        Site(shape, Path(folder) / "site", SETTINGS) as site,
    ):
        site.serve(shape.names)
        site.start_manager()
        site.wait(lambda: len(site.starts()) >= shape.resources, DEADLINE_S, "all started")
        for number in range(options.runs):
            time.sleep(REST_S)
            print(_restart(site, number), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
