"""From a seed to a scenario with several managers: that of one manager, and faults of its own."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from tests.simulation.managers.node import CLOCK, MACHINE, PROCESS
from tests.simulation.model import Action, Scenario
from tests.simulation.plan import scenario as planned

FAULTS = {
    # kind: weight
    "node_freeze": 6,
    "node_stop_at": 6,
    "node_kill": 3,
    "node_term": 3,
    "step_down": 2,
    "node_wake": 4,
    "node_cut": 4,
    "agents_restart": 2,
    "etcd_cut": 5,
    "etcd_down": 2,
    "etcd_slow": 3,
    "etcd_lossy": 3,
    "etcd_quorum": 2,
    "etcd_elect": 2,
    "etcd_depose": 3,
    "etcd_rebuild": 1,
}

WITHOUT = frozenset(
    {"disk_full", "disk_slow", "disk_hang", "backup", "config", "clock_step", "upgrade"}
)
"""Faults of a manager with a disk, and of agents that know no terms."""

TRIGGERS = ("start", "stop", "fence-off", "record-fence-intent", "connected", "leads", "command",
            "record-fence", "record-move")  # fmt: skip

AT_A_CHANGE = frozenset({"node_wake", "agents_restart"})
"""These happen as a manager begins to lead: an earlier leader goes on, all agents are restarted."""

ACTS = ("start", "start", "stop", "fence-off", "fence-on", "kv/txn", "kv/txn", "lease/keepalive")
"""Between the look at the clock and the sending of these, a machine may stop."""


def scenario(
    seed: int,
    duration_s: float = 120.0,
    sparse: bool = False,
    focus: tuple[str, ...] = (),
    managers: int = 3,
) -> Scenario:
    """The scenario of a seed with so many managers. `focus`: only these kinds of faults."""
    base = planned(seed, duration_s, sparse, focus)
    hosts = {
        name: {key: value for key, value in options.items() if key != "legacy"}
        for name, options in base.hosts.items()
    }
    kept = [kept for action in base.actions if (kept := _kept(action)) is not None]
    own = _Planner(seed, duration_s, sparse, focus, managers, list(hosts)).actions()
    options = {**base.options, "managers": managers, "observe": False}
    actions = tuple(sorted([*kept, *own], key=lambda action: action.at))
    return replace(base, hosts=hosts, actions=actions, options=options)


def _kept(action: Action) -> Action | None:
    """The same without what is not simulated here."""
    if action.kind in WITHOUT:
        return None
    if action.kind == "manager_crash":
        return replace(action, args={**action.args, "observe": False})
    if action.kind == "burst":
        faults = [fault for fault in action.args["faults"] if fault["kind"] not in WITHOUT]
        for fault in faults:
            if fault["kind"] == "manager_crash":
                fault["args"]["observe"] = False
        return replace(action, args={**action.args, "faults": faults}) if faults else None
    return action


class _Planner:
    def __init__(
        self,
        seed: int,
        duration_s: float,
        sparse: bool,
        focus: tuple[str, ...],
        managers: int,
        hosts: list[str],
    ) -> None:
        self.random = Random(f"{seed}, managers")
        self.duration_s = duration_s
        self.sparse = sparse
        self.focus = focus
        self.managers = managers
        self.hosts = hosts

    def actions(self) -> list[Action]:
        """In the order of their times."""
        random = self.random
        share = random.choice([0.3, 0.5, 0.8])
        kinds = {kind: weight for kind, weight in FAULTS.items() if random.random() < share}
        if self.focus:
            kinds = {kind: FAULTS[kind] for kind in self.focus if kind in FAULTS}
        if not kinds:
            return []
        pause_s = random.choice([8.0, 15.0, 25.0]) * (40.0 if self.sparse else 1.0)
        found: list[Action] = []
        at = random.choice([0.0, 5.0, 10.0])
        while True:
            at += random.expovariate(1 / pause_s)
            if at >= self.duration_s:
                return found
            kind = random.choices(list(kinds), list(kinds.values()))[0]
            trigger, delay = "", 0.0
            if kind in AT_A_CHANGE:
                trigger, delay = "leads", random.choice([0.0, 0.001, 0.01, 0.03, 0.5])
            elif kind != "node_stop_at" and random.random() < 0.35:
                trigger = random.choice(TRIGGERS)
                delay = random.choice([0.0, 0.0, 0.001, 0.01, 0.3])
            found.append(Action(round(at, 3), kind, self._args(kind), trigger, delay))

    def _args(self, kind: str) -> dict[str, Any]:
        random = self.random
        node: Any = random.choice(["leader", "leader", *range(self.managers)])
        members = random.choice([[0, 1, 2], [0, 1, 2], [0], [1], [2], [0, 1], [1, 2]])
        lasts_s = round(random.choice([1.0, 4.0, 9.0, 12.0, 25.0]) * random.uniform(0.7, 1.3), 3)
        stands_s = round(random.choice([0.5, 3.0, 9.0, 12.0, 20.0]) * random.uniform(0.8, 1.2), 3)
        how = random.choice([PROCESS, PROCESS, MACHINE, CLOCK])
        match kind:
            case "node_freeze":
                return {"node": node, "for_s": stands_s, "how": how}
            case "node_stop_at":
                what = random.choice(ACTS)
                return {"node": "leader", "what": what, "for_s": stands_s, "how": how}
            case "node_kill" | "node_term":
                return {"node": node, "down_s": random.choice([1.0, 1.0, 15.0])}
            case "etcd_cut":
                return {"node": node, "members": members, "for_s": lasts_s}
            case "etcd_down":
                return {"member": random.randrange(3), "for_s": lasts_s}
            case "etcd_slow":
                up_to_s = random.choice([0.2, 1.0, 3.0, 6.0])
                return {"members": members, "up_to_s": up_to_s, "for_s": lasts_s}
            case "etcd_lossy":
                shares = {what: random.choice([0.0, 0.1, 0.5])
                          for what in ("lost", "unanswered", "errors")}  # fmt: skip
                return {**shares, "for_s": lasts_s}
            case "etcd_quorum" | "etcd_depose":
                long_s = lasts_s if kind == "etcd_quorum" else round(random.uniform(0.5, 4.0), 3)
                return {"for_s": long_s}
            case "node_cut":
                hosts = random.sample(self.hosts, random.randint(1, len(self.hosts)))
                return {"node": node, "hosts": sorted(hosts), "every": random.random() < 0.3,
                        "for_s": lasts_s}  # fmt: skip
            case "agents_restart":
                return {"for_s": random.choice([0.1, 0.4, 1.5])}
            case "etcd_elect" | "step_down" | "node_wake":
                return {}
            case "etcd_rebuild":
                return {"for_s": random.choice([5.0, 20.0])}
        raise ValueError(f"unknown fault {kind}")
