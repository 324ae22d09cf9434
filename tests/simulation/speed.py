"""How fast the simulation is: 6 hosts, 12 groups of 3, 5 s monitors, 1 s heartbeats, all checks on,
and a fault every 20 virtual seconds."""

from __future__ import annotations

import time
from typing import Any

from tests.simulation.model import Action, GroupPlan, Scenario
from tests.simulation.runner import quiet, run

VIRTUAL_S = 3600.0
KINDS = ("power_off", "die", "agent_crash", "hole", "manager_crash", "reset")


def scenario(watches: bool) -> Scenario:
    """The yardstick."""
    hosts = {f"h{n}": {"watches": watches} for n in range(6)}
    groups = tuple(
        GroupPlan(
            (f"h{n // 2}", f"h{(n // 2) ^ 1}"),
            ((f"g{n}", ""), (f"g{n}.0", f"g{n}"), (f"g{n}.1", f"g{n}.0")),
        )
        for n in range(12)
    )
    actions = []
    for number in range(int(VIRTUAL_S / 20) - 3):
        at, host = 20.0 * (number + 1), f"h{number % 6}"
        every: dict[str, dict[str, Any]] = {
            "power_off": {"host": host, "back_s": 10.0},
            "die": {"resource": f"g{number % 12}.1"},
            "agent_crash": {"host": host, "for_s": 5.0},
            "hole": {"host": host, "way": "both", "for_s": 2.0},
            "manager_crash": {"steps": 3, "down_s": 1.0, "observe": False},
            "reset": {"host": host},
        }
        kind = KINDS[number // 6 % len(KINDS)]
        actions.append(Action(at, kind, every[kind]))
    return Scenario(
        seed=1,
        hosts=hosts,
        groups=groups,
        settings={"fence_limit": 1000, "watch_interval_s": 5.0},
        actions=tuple(actions),
        duration_s=VIRTUAL_S,
        options={"operator_s": 20.0, "repair_s": 15.0},
    )


def measure() -> list[str]:
    """One line for agents that are polled, one for agents that watch."""
    lines = []
    for watches in (False, True):
        with quiet():
            began = time.process_time()
            result = run(scenario(watches))
            cpu_s = time.process_time() - began
        how = "agents that watch" if watches else "agents that are polled"
        verdict = result.violations[0] if result.violations else "no violation"
        lines.append(
            f"{how}: {result.virtual_s / cpu_s:.0f} virtual seconds per second of one core "
            f"({result.virtual_s:.0f} virtual s, {result.steps} steps, {result.checks} checks, "
            f"{verdict})"
        )
    return lines
