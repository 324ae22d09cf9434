"""How long failovers take on hosts that really lose power (tests/hosts), and of what that consists.

    python -m benchmarks.failover [--runs 20] [--only NAME ...] [--json FILE]      (as root)

Two hosts, one group of one `heartbeat/Dummy`, all settings but the loss budget at their defaults.
The figures are differences of timestamps: of the power switch, of the manager's log, of the
agents' logs. "instant BMC" is a fence program that switches the outlet itself; what fence programs
took is their own run time as the manager saw it, shown beside and not part of the bars.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.timeline import Log, Series, report
from tests.hosts.bmc import IpmiBmc
from tests.hosts.cluster import HostCluster, dummy

ROOT = Path(__file__).resolve().parents[1]
FENCE_MAINS = ROOT / "tests" / "hosts" / "fence_mains.py"
HOSTS = ("h1", "h2")
GROUP = "g1"
DETECTION_SLACK_S = 0.3
DECISION_BAR_S = 0.05
MOVE_BAR_S = 0.05
COLD_BAR_S = 2.0
MONITOR_PERIOD_S = 5.0
NOTICE_SLACK_S = 0.1


class Bench:
    """A running cluster, and where its group is."""

    def __init__(self, cluster: HostCluster) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.log = Log(cluster.manager_log)
        self.active = "h1"

    @property
    def other(self) -> str:
        return "h2" if self.active == "h1" else "h1"

    def agent_log(self, host: str) -> Log:
        """What the scripts of a host took."""
        log = Log(self.world.logs / f"agent_{host}_log")
        log.read()
        return log

    def script_s(self, host: str, operation: str, since: float) -> float:
        """The run time of the first such script since then, as its agent saw it."""
        done = self.agent_log(host).until(f"{operation} completed", since)
        return float(done["seconds"])

    def programs_s(self, since: float, until: float) -> float:
        """The run time of all fence programs in between; they run one after another."""
        lines = self.log.find("fence program ended", since)
        return sum(float(line["seconds"]) for line in lines if line["at"] <= until)

    def moved(self) -> None:
        """The group is on the other host now."""
        self.active = self.other

    def settle(self, host: str) -> None:
        """Get a dead host back, and let a moment pass that is no fraction of any period."""
        self.cluster.bring_back(host)
        time.sleep(random.uniform(0.5, 1.5))


def instant_bmc(cluster: HostCluster) -> Mapping[str, dict[str, Any]]:
    """A fence program that switches at once."""
    program = cluster.world.ground / "fence_instant"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -S {FENCE_MAINS}\n")
    program.chmod(0o755)
    mains = str(cluster.world.ground / "mains")
    return {
        host: {"fence_agent": str(program), "fence_parameters": {"mains": mains, "port": host}}
        for host in HOSTS
    }


def ipmi_bmc(cluster: HostCluster) -> Mapping[str, dict[str, Any]]:
    """The bundled agent `ipmi` and a simulated BMC."""
    found = {}
    for host in HOSTS:
        bmc = IpmiBmc(cluster.world, host)
        bmc.start()
        device = bmc.device()
        for key in ("timeout", "power_timeout"):  # the agent's defaults
            device["fence_parameters"].pop(key)
        found[host] = device
    return found


@contextmanager
def running(
    name: str,
    budget_s: float = 3.0,
    bmc: Callable[[HostCluster], Mapping[str, dict[str, Any]]] = instant_bmc,
    *,
    start: bool = True,
) -> Iterator[Bench]:
    """A cluster with default settings but for the loss budget and what limits repeated faults."""
    cluster = HostCluster(name, [dummy(GROUP)], {h: {} for h in HOSTS})
    cluster.settings = {"loss_budget": budget_s, "fence_limit": 1000, "restart_limit": 1000}
    cluster.world.environment["HALO_LOG"] = "info"
    cluster.world.agent_options = ["--log-format", "json"]
    with cluster:
        cluster.fencing = dict(bmc(cluster))
        bench = Bench(cluster)
        if start:
            cluster.start()
            time.sleep(1)
        yield bench


def power_cut(runs: int, budget_s: float, bmc: str) -> Series:
    """The active host is dead at once; its BMC lives."""
    makers = {"instant": instant_bmc, "ipmi": ipmi_bmc}
    series = Series(
        f"power cut, loss budget {budget_s:g} s, {bmc} BMC",
        {
            "cut → start command, without fence programs": budget_s + DETECTION_SLACK_S,
            "declared lost → start command, without fence programs": DECISION_BAR_S,
        },
    )
    with running(f"bench_cut_{budget_s}_{bmc}", budget_s, makers[bmc]) as bench:
        for _ in range(runs):
            cut = bench.world.crash(bench.active)
            ended = bench.log.until("start ended", cut, group=GROUP, host=bench.other)
            lost = bench.log.until("declared lost", cut, host=bench.active)["at"]
            fenced = bench.log.until("fenced", cut, host=bench.active)["at"]
            start = bench.log.until("start", cut, group=GROUP, host=bench.other)["at"]
            programs = bench.programs_s(cut, fenced)
            series.add(
                **{
                    "cut → declared lost (detection)": lost - cut,
                    "declared lost → fenced, without fence programs": fenced - lost - programs,
                    "fence programs": programs,
                    "fenced → start command": start - fenced,
                    "start script": bench.script_s(bench.other, "start", start - 0.01),
                    "cut → running": ended["at"] - cut,
                    "cut → start command, without fence programs": start - cut - programs,
                    "declared lost → start command, without fence programs": start
                    - lost
                    - programs,
                }
            )
            dead = bench.active
            bench.moved()
            bench.settle(dead)
    return series


def agent_crash(runs: int) -> Series:
    """`kill -9` of the agent on the active host; its init starts it again after a second."""
    series = Series("agent crash (its unit restarts it after 1 s)")
    with running("bench_agent") as bench:
        for _ in range(runs):
            code = "kill -9 $(pgrep -o -f 'halo_remote --network') && date +%s.%N"
            killed = float(bench.world.do(bench.active, "sh", "-c", code))
            gone = bench.log.until("disconnected", killed - 0.05, host=bench.active)["at"]
            back = bench.log.until("connected", killed, host=bench.active)["at"]
            managed = bench.log.until("managing", killed, host=bench.active)["at"]
            listens = bench.agent_log(bench.active).until("listening", killed)["at"]
            assert not bench.log.find("start", killed), "the resource was started again"
            series.add(
                **{
                    "kill → noticed": max(gone - killed, 0.0),
                    "kill → agent listens again": listens - killed,
                    "agent listens again → connected": back - listens,
                    "connected again → managed again": managed - back,
                    "outage of the resource": 0.0,
                }
            )
            time.sleep(random.uniform(0.5, 1.5))
    return series


def resource_crash(runs: int) -> Series:
    """The resource stops by itself; monitors run at their default period of 5 s."""
    series = Series(
        f"resource crash, monitored every {MONITOR_PERIOD_S:g} s",
        {"crash → noticed (start command)": MONITOR_PERIOD_S + NOTICE_SLACK_S},
    )
    with running("bench_resource") as bench:
        for _ in range(runs):
            code = f"rm /run/dummy-{GROUP} && date +%s.%N"
            crashed = float(bench.world.do(bench.active, "sh", "-c", code))
            start = bench.log.until("start", crashed, group=GROUP)["at"]
            ended = bench.log.until("start ended", crashed, group=GROUP)["at"]
            series.add(
                **{
                    "crash → noticed (start command)": start - crashed,
                    "start script": bench.script_s(bench.active, "start", start - 0.01),
                    "crash → running": ended - crashed,
                }
            )
            time.sleep(random.uniform(0.5, 5.5))  # another phase of the period
    return series


def planned_move(runs: int) -> Series:
    """The administrator moves the group: `failback` home, `move` away again."""
    series = Series("planned move (failback)", {"beside the scripts": MOVE_BAR_S})
    with running("bench_move") as bench:
        for _ in range(runs):
            for command in (("move", GROUP, "--to", "h2"), ("failback", "--onto", "h1")):
                asked = time.time()
                done = bench.cluster.halo(*command)
                assert done.code == 0, done
                ended = bench.log.until("start ended", asked, group=GROUP, host=bench.other)["at"]
                told = bench.log.until("command", asked)["at"]
                stop = bench.script_s(bench.active, "stop", told)
                start = bench.script_s(bench.other, "start", told)
                if command[0] == "failback":
                    series.add(
                        **{
                            "command → running": ended - told,
                            "stop script": stop,
                            "start script": start,
                            "beside the scripts": ended - told - stop - start,
                        }
                    )
                bench.moved()
                time.sleep(random.uniform(0.2, 0.7))
    return series


def bmc_dead(runs: int) -> Series:
    """The active host dies and its BMC does not answer; it is mended after the first failure."""
    series = Series("BMC dead (agent ipmi), mended after the first failure")
    with running("bench_bmc", bmc=ipmi_bmc) as bench:
        for _ in range(runs):
            bench.world.deaf(bench.world.bmc_address(bench.active))
            cut = bench.world.crash(bench.active)
            failed = bench.log.until("fence failed", cut, host=bench.active)["at"]
            lost = bench.log.until("declared lost", cut, host=bench.active)["at"]
            mended = time.time()
            bench.world.undeaf()
            start = bench.log.until("start", cut, group=GROUP, host=bench.other)["at"]
            assert start > mended, "started without a fence"
            series.add(
                **{
                    "cut → declared lost": lost - cut,
                    "declared lost → operator told": failed - lost,
                    "mended → start command": start - mended,
                }
            )
            dead = bench.active
            bench.moved()
            bench.settle(dead)
    return series


def manager_killed(runs: int) -> Series:
    """`kill -9` of the manager as it begins to fence, and started again at once."""
    series = Series("manager killed as it begins to fence, restarted at once")
    with running("bench_manager") as bench:
        for _ in range(runs):
            cut = bench.world.crash(bench.active)
            bench.log.until("fencing", cut, host=bench.active)
            killed = bench.cluster.kill_manager()
            bench.cluster.start_manager()
            start = bench.log.until("start", cut, group=GROUP, host=bench.other)["at"]
            ready = bench.log.until("managing", killed, cluster="halo")["at"]
            series.add(
                **{
                    "kill → manager runs": ready - killed,
                    "manager runs → start command": max(start - ready, 0.0),
                    "cut → start command": start - cut,
                }
            )
            dead = bench.active
            bench.moved()
            bench.settle(dead)
    return series


def cold_start(runs: int) -> Series:
    """Both hosts are powered on and the manager is started, all at once."""
    series = Series("cold start", {"power on → running, without the start script": COLD_BAR_S})
    for number in range(runs):
        with running(f"bench_cold_{number % 2}", start=False) as bench:
            begun = time.time()
            bench.cluster.start(settled=False)
            ended = bench.log.until("start ended", begun, group=GROUP)["at"]
            ready = bench.log.until("managing", begun, cluster="halo")["at"]
            up = max(bench.log.until("connected", begun, host=host)["at"] for host in HOSTS)
            script = bench.script_s("h1", "start", begun)
            series.add(
                **{
                    "power on → manager runs": ready - begun,
                    "power on → all connected": up - begun,
                    "power on → running": ended - begun,
                    "start script": script,
                    "power on → running, without the start script": ended - begun - script,
                }
            )
    return series


SCENARIOS: Mapping[str, Callable[[int], Series]] = {
    "cut-3": lambda runs: power_cut(runs, 3.0, "instant"),
    "cut-0.5": lambda runs: power_cut(runs, 0.5, "instant"),
    "cut-ipmi": lambda runs: power_cut(runs, 3.0, "ipmi"),
    "agent": agent_crash,
    "resource": resource_crash,
    "move": planned_move,
    "bmc": bmc_dead,
    "manager": manager_killed,
    "cold": cold_start,
}


def main() -> int:
    """Exit status 0 when every bar was kept in every run, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--only", nargs="*", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--json", type=Path, help="write all runs there, too")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("hosts are made as root only")
    found = []
    for name in options.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found.append(SCENARIOS[name](options.runs))
        print(found[-1].table(), file=sys.stderr, flush=True)
    if options.json:
        text = json.dumps({one.title: one.runs for one in found}, indent=1)
        options.json.write_text(text)
    print(report(found))
    return 1 if any(one.missed() for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
