"""What the manager costs with many hosts: `python -m benchmarks.scale [--hosts 10,100,300,1000]`.

Hosts stand in failover pairs, each at home to ten groups of three resources, with heartbeats as by
default. `watched`: the agents report changes; `polled`: every resource is asked for every 5 s;
`single`: the same by older agents, which take one monitor a call. Endpoints run in processes of
their own (see `endpoints`); all figures are the manager's alone. "Dead" is SIGSTOP of the process
that holds the endpoints of the hosts that die: their kernel still acknowledges, and nothing
answers, as when a host hangs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

from benchmarks.fit import exponent
from benchmarks.report import bar, machine
from benchmarks.site import Shape, Site, cpu_s, rss_mb
from tests.unix_http import get

SETTINGS = {
    "storm_hosts": 100000,
    "fence_limit": 100000,
    "device_check_interval": "744h",
}
DYING_FRACTION = 0.05
STATUS_PAUSE_S = 0.5
DEADLINE_S = 180.0


@dataclass
class Figures:
    """What one size of cluster came to."""

    mode: str
    hosts: int
    resources: int
    known_s: float = 0.0  # from the manager's start until every host was looked through
    started_s: float = 0.0  # until the last start
    cpu_until_started_s: float = 0.0
    cpu_per_minute_s: float = 0.0  # at rest
    rss_mb: float = 0.0
    lag_p50_ms: float = 0.0  # at rest
    lag_p99_ms: float = 0.0
    lag_max_ms: float = 0.0
    status_at_rest_ms: float = 0.0
    lone_death_ms: float = 0.0  # one host: declared lost -> last start command, fences excluded
    deaths: int = 0  # hosts that died at once
    deaths_first_s: float = 0.0  # SIGSTOP -> first start command
    deaths_last_s: float = 0.0  # SIGSTOP -> last root's start command
    verdict_to_last_s: float = 0.0  # the last "declared lost" -> last root's start command
    storm_lag_p99_ms: float = 0.0  # over the last seconds before that start
    storm_lag_max_ms: float = 0.0
    status_meanwhile_ms: list[float] = field(default_factory=list)


def measure(shape: Shape, mode: str, rest_s: float, folder: Path) -> Figures:
    """One size of cluster, from start to the death of one host and then of many."""
    figures = Figures(mode, shape.hosts, shape.resources)
    alone = [shape.names[0]]
    many = [shape.names[n] for n in _dying(shape)]
    others = [name for name in shape.names if name not in (*alone, *many)]
    with Site(shape, folder, SETTINGS, mode=mode) as site:
        for hosts in (alone, many, others):
            if hosts:
                site.serve(hosts)
        site.start_manager()
        _cold_start(site, figures)
        _rest(site, figures, rest_s)
        figures.lone_death_ms = _lone_death(site, alone)
        _many_deaths(site, many, figures)
    return figures


def _dying(shape: Shape) -> list[int]:
    """Home hosts of different pairs, none of them the first pair."""
    count = max(1, round(shape.hosts * DYING_FRACTION))
    return [2 + 2 * n for n in range(count) if 2 + 2 * n < shape.hosts]


def _cold_start(site: Site, figures: Figures) -> None:
    shape = site.shape

    def known() -> list[float]:
        lines = site.log_lines("watching" if figures.mode == "watched" else "looked through")
        return [monotonic(line["timestamp"]) for line in lines]

    site.wait(lambda: len(known()) >= shape.hosts, DEADLINE_S, "every host looked at")
    figures.known_s = max(known()) - site.started_at
    site.wait(lambda: len(site.starts()) >= shape.resources, DEADLINE_S, "every resource started")
    figures.started_s = max(start.at for start in site.starts()) - site.started_at
    figures.cpu_until_started_s = cpu_s(site.pid)


def _rest(site: Site, figures: Figures, rest_s: float) -> None:
    time.sleep(10.0)  # what follows on a start, such as the first round of monitors
    began, cpu = time.monotonic(), cpu_s(site.pid)
    time.sleep(rest_s)
    spent, took = cpu_s(site.pid) - cpu, time.monotonic() - began
    figures.cpu_per_minute_s = spent / took * 60
    lag = site.debug()["loop_lag"]
    figures.lag_p50_ms, figures.lag_p99_ms = lag["p50_ms"], lag["p99_ms"]
    figures.lag_max_ms = lag["max_ms"]
    figures.rss_mb = rss_mb(site.pid)
    figures.status_at_rest_ms = statistics.median(_status_ms(site) for _ in range(3))


def _lone_death(site: Site, hosts: list[str]) -> float:
    """Declared lost -> the last root's start command on the partner, less the fence programs."""
    roots = _roots_of(site.shape, hosts)
    stopped_at = _stop(site, hosts)
    last = _last_restart(site, roots, hosts, stopped_at)
    verdict = max(monotonic(x["timestamp"]) for x in site.log_lines("declared lost"))
    return (last - verdict) * 1000 - _fence_ms(site, hosts[0])


def _many_deaths(site: Site, hosts: list[str], figures: Figures) -> None:
    if not hosts:
        return
    roots = _roots_of(site.shape, hosts)
    figures.deaths = len(hosts)
    watcher = _StatusWatcher(site)
    watcher.start()
    stopped_at = _stop(site, hosts)
    last = _last_restart(site, roots, hosts, stopped_at)
    lag = site.debug()["loop_lag_5s"]
    figures.storm_lag_p99_ms, figures.storm_lag_max_ms = lag["p99_ms"], lag["max_ms"]
    watcher.end()
    verdicts = [monotonic(x["timestamp"]) for x in site.log_lines("declared lost")]
    first = min(s.at for s in site.starts() if s.at > stopped_at)
    figures.deaths_first_s = first - stopped_at
    figures.deaths_last_s = last - stopped_at
    figures.verdict_to_last_s = last - max(v for v in verdicts if v > stopped_at)
    figures.status_meanwhile_ms = watcher.times_ms


def _roots_of(shape: Shape, hosts: list[str]) -> set[str]:
    numbers = [shape.names.index(host) for host in hosts]
    return {f"pool{n}-{g}" for n in numbers for g in range(shape.groups_per_host)}


def _stop(site: Site, hosts: list[str]) -> float:
    """Freeze the one process that holds these hosts."""
    process = site.endpoints[hosts[0]]
    assert all(site.endpoints[host] is process for host in hosts)
    stopped_at = time.monotonic()
    os.kill(process.pid, signal.SIGSTOP)
    return stopped_at


def _last_restart(site: Site, roots: set[str], dead: list[str], after: float) -> float:
    """When the last of `roots` was started on a host that lives."""

    def restarts() -> dict[str, float]:
        return {
            start.resource: start.at
            for start in site.starts()
            if start.at > after and start.resource in roots and start.host not in dead
        }

    site.wait(lambda: len(restarts()) == len(roots), 120, f"restart of {len(roots)} groups")
    return max(restarts().values())


def _fence_ms(site: Site, host: str) -> float:
    """How long the fence programs of one host took in all."""
    entries = site.log_lines("fence program ended")
    return float(sum(1000 * entry["seconds"] for entry in entries if entry["host"] == host))


def _status_ms(site: Site) -> float:
    began = time.perf_counter()
    get(site.socket, "/v1/status")
    return (time.perf_counter() - began) * 1000


class _StatusWatcher(threading.Thread):
    """Asks for the status twice a second, as a few operators would."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self._site = site
        self._ended = threading.Event()
        self.times_ms: list[float] = []

    def run(self) -> None:
        while not self._ended.wait(STATUS_PAUSE_S):
            with contextlib.suppress(OSError):
                self.times_ms.append(_status_ms(self._site))

    def end(self) -> None:
        self._ended.set()
        self.join(60)


def monotonic(timestamp: str) -> float:
    """A time of the manager's log, on the clock of the endpoints' records."""
    wall = datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
    return wall - time.time() + time.monotonic()


def rows(f: Figures) -> list[tuple[str, float, str, float | None]]:
    """Name, value, unit, and the bar that holds for 1,000 hosts and fewer."""
    cpu_bar, memory_bar = (12.0 if f.mode == "watched" else 60.0, 300.0)
    return [
        ("start -> all known", f.known_s, "s", 10.0),
        ("start -> all started", f.started_s, "s", None),
        ("CPU until all started", f.cpu_until_started_s, "s", None),
        ("CPU at rest, a minute", f.cpu_per_minute_s, "s", cpu_bar),
        ("memory (RSS)", f.rss_mb, "MB", memory_bar),
        ("loop lag at rest, p50", f.lag_p50_ms, "ms", None),
        ("loop lag at rest, p99", f.lag_p99_ms, "ms", 20.0),
        ("loop lag at rest, max", f.lag_max_ms, "ms", None),
        ("GET /v1/status at rest", f.status_at_rest_ms, "ms", None),
        ("one host lost: verdict -> last start command", f.lone_death_ms, "ms", 250.0),
        ("5 % of the hosts lost: cut -> first start", f.deaths_first_s, "s", None),
        ("5 % of the hosts lost: cut -> last start", f.deaths_last_s, "s", None),
        ("5 % of the hosts lost: last verdict -> last start", f.verdict_to_last_s, "s", 3.0),
        ("loop lag meanwhile, p99", f.storm_lag_p99_ms, "ms", 100.0),
        ("loop lag meanwhile, max", f.storm_lag_max_ms, "ms", None),
        ("GET /v1/status meanwhile, max", max(f.status_meanwhile_ms, default=0.0), "ms", None),
    ]


def show(f: Figures) -> None:
    """Print one size."""
    print(f"\n{f.hosts} hosts, {f.resources // 3} groups, {f.resources} resources, {f.mode}")
    print(f"  (5 % of the hosts: {f.deaths})")
    for name, value, unit, limit in rows(f):
        print(f"  {name:<52} {value:>9.2f} {unit:<3} {bar(value, limit)}")


def growth(found: Sequence[Figures]) -> list[tuple[str, float]]:
    """Each cost of several sizes, and the exponent of its growth with the number of hosts."""
    sizes = [figures.hosts for figures in found]
    columns = zip(*(rows(figures) for figures in found), strict=True)
    return [(column[0][0], exponent(sizes, [row[1] for row in column])) for column in columns]


def main() -> int:
    """Measure the sizes asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", default="10,100,300,1000", help="sizes, comma-separated")
    parser.add_argument("--mode", default="watched,polled", help="how agents are looked at")
    parser.add_argument("--rest", type=float, default=60.0, help="seconds measured at rest")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    print(machine())
    sizes = [int(text) for text in options.hosts.split(",")]
    everything = []
    for mode in options.mode.split(","):
        found = []
        for size in sizes:
            with tempfile.TemporaryDirectory(prefix="halo-scale-") as folder:
                found.append(measure(Shape(size), mode, options.rest, Path(folder)))
            show(found[-1])
        if len(sizes) > 1:
            print(f"\nhow it grows with the number of hosts, {mode} (1 is linear)")
            for name, power in growth(found):
                print(f"  {name:<52} hosts ** {power:5.2f}")
        everything += found
    if options.json:
        options.json.write_text(json.dumps([asdict(figures) for figures in everything], indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
