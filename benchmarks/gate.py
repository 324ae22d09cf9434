"""What one decision of the gate costs in a large cluster: `python -m benchmarks.gate`.

A thousand hosts in failover pairs, ten groups of three resources on each. What is asked is what the
placer asks: `decide`, and `search` if proof is missing. `plain`: groups without wishes. `wishes`:
hosts with room for all groups, and groups with needs, each started after another one. Seconds of
processor time, in one thread.

- *all run*: a new leader has looked at all hosts, and every group runs;
- *all start*: every group is proven stopped, and is started;
- *all wait*: one host of each pair is silent, so every group waits for proof;
- *one group*: one decision, in the median of those three.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.report import Row, machine
from halo.core.groups.placement import decide
from halo.core.groups.proof_search import search
from halo.core.model import ResourceGroup
from tests.core.builders import World, amounts, make_group

PASS_BAR_S = 0.020
ONE_BAR_S = 0.001
ROOM = 1000


def cluster(hosts: int, groups: int, *, wishes: bool) -> World:
    """The groups of each host, at home there, with the other host of the pair to fail over to."""
    found: list[ResourceGroup] = []
    for number in range(hosts):
        pair = (f"h{number}", f"h{number ^ 1}")
        for each in range(groups):
            name = f"g{number}-{each}"
            more: dict[str, Any] = {}
            if wishes:
                before = (f"g{number}-{each - 1}",) if each else ()
                more = {"needs": amounts({"memory": 1}), "after": before}
            tree = {name: [f"{name}/a", f"{name}/b"]}
            found.append(make_group(name, pair, tree, **more))
    names = [f"h{number}" for number in range(hosts)]
    capacity = {name: {"memory": ROOM} for name in names} if wishes else {}
    return World(*found, capacity=capacity)


def all_run(world: World) -> None:
    """Each group runs at home."""
    for host in world.cluster.hosts:
        at_home = [g.id for g in world.state.groups_of(host) if g.home_host == host]
        world.up(host, running=at_home)


def all_start(world: World) -> None:
    """Each group is stopped on both hosts."""
    world.up(*world.cluster.hosts)


def all_wait(world: World) -> None:
    """Every other host is silent."""
    world.up(*world.cluster.hosts)
    world.lose(*list(world.cluster.hosts)[1::2])


CASES: tuple[Callable[[World], None], ...] = (all_run, all_start, all_wait)


def one_pass(world: World) -> list[float]:
    """Decide on every group once. The seconds that each took."""
    state, now, spent = world.state, world.now, []
    for group in world.cluster.groups.values():
        began = time.process_time()
        seen = state.candidates_of(group)
        decision = decide(state, group, seen, now, now)
        search(state, group, seen, decision.unproven, now)
        spent.append(time.process_time() - began)
    return spent


def main() -> int:
    """Measure each case a few times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=10, help="groups on each host")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    rows: list[Row] = []
    for wishes in (False, True):
        what = "wishes" if wishes else "plain"
        alone: list[float] = []
        for happens in CASES:
            world = cluster(options.hosts, options.groups, wishes=wishes)
            happens(world)
            passes = [one_pass(world) for _ in range(options.runs)]
            alone += [1000 * statistics.median(spent) for spent in passes]
            times = [1000 * sum(spent) for spent in passes]
            name = happens.__name__.replace("_", " ")
            rows.append(Row(f"{what}: a pass, {name}", times, "ms", 1000 * PASS_BAR_S))
        rows.append(Row(f"{what}: one group", alone, "ms", 1000 * ONE_BAR_S))
    for row in rows:
        print(row)
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
