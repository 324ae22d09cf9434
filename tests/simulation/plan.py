"""From a seed to a scenario: a cluster, an operator's commands, and faults.

Swarm testing: each seed switches most kinds of faults off, so that rare ones meet each other
undisturbed (Groce et al., "Swarm Testing", 2012).
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from halo.manager.api.routes import CLUSTER_COMMANDS, GROUP_COMMANDS
from tests.simulation import config_changes
from tests.simulation.further import Cluster, further_actions
from tests.simulation.model import Action, GroupPlan, Scenario

SITES = (1, 2, 2, 2, 2, 3, 3, 4)

FAULTS = {
    # kind: weight
    "power_off": 6,
    "agent_crash": 4,
    "agent_hang": 4,
    "hole": 6,
    "delay": 3,
    "handshake": 2,
    "refuse": 2,
    "reset": 3,
    "local": 2,
    "busy": 1,
    "script": 8,
    "die": 5,
    "hand_start": 2,
    "boot_services": 1,
    "device": 5,
    "miswire": 1,
    "manager_crash": 5,
    "manager_term": 1,
    "manager_stall": 2,
    "disk_full": 2,
    "disk_slow": 2,
    "disk_hang": 2,
    "clock_step": 1,
    "report_lost": 2,
}

COMMANDS = {
    "manage": 4,
    "unmanage": 3,
    "start": 3,
    "stop": 3,
    "move": 5,
    "cleanup": 3,
    "failback": 3,
    "fence": 3,
    "confirm-off": 2,
    "cancel-fence": 2,
    "activate": 3,
    "deactivate": 3,
    "reset": 4,
    "freeze": 1,
    "thaw": 2,
    "clear_events": 1,
}

PLACING_SHARE = 0.3
"""In so many sites, hosts have limited room, or groups wishes about their company."""

TURNS_SHARE = 0.15
"""In so many seeds, hosts start one or two groups at a time."""
PREEMPT_SHARE = 0.5
"""Of the groups with needs and a priority, so many have groups of a lower one give way to them."""

TIGHT_SHARE = 0.7
"""Of the sites with limited room, and without wishes, so many have just enough of it."""

CROWD = "crowd"
"""With this word in the focus, each site has just enough room."""

ORDER_SHARE = 0.25
"""In so many seeds, groups are started after others."""

SLOW_FENCE_TIMEOUT_S = 61.0
"""Where devices take up to 50 s, and a fifth more."""

TRIGGERS = (
    "start", "stop", "start-script", "stop-script", "started", "stopped", "start-answered",
    "stop-answered", "fence-off", "fence-off-ended", "fence-status", "fence-status-ended",
    "connected", "disconnected", "off", "command", "crash",
)  # fmt: skip

TRIGGERED = frozenset(
    {"power_off", "agent_crash", "agent_hang", "hole", "manager_crash", "manager_stall", "reset",
     "disk_hang", "disk_full", "command", "die", "local"}
)  # fmt: skip


def scenario(
    seed: int, duration_s: float = 120.0, sparse: bool = False, focus: tuple[str, ...] = ()
) -> Scenario:
    """The scenario of a seed. `sparse`: a fault every few minutes instead of every few seconds.

    `focus`: only these kinds of faults and commands."""
    return _Planner(seed, duration_s, sparse, focus).make()


class _Planner:
    def __init__(self, seed: int, duration_s: float, sparse: bool, focus: tuple[str, ...]) -> None:
        self.seed = seed
        self.focus = focus
        self.random = Random(seed)
        self.duration_s = duration_s
        self.sparse = sparse
        self.hosts: dict[str, dict[str, Any]] = {}
        self.groups: list[GroupPlan] = []
        self.resources: list[tuple[str, tuple[str, ...]]] = []
        # Of its own, so that what was added later leaves the other choices as they were.
        self.later = Random(f"{seed}, slow devices")
        self.slow_share = self.later.choice([0.0, 0.0, 0.0, 0.3, 1.0])
        self.dead_share = self.later.choice([0.0, 0.0, 0.5])
        self.steady_s = self.later.choice([0.0, 0.0, round(self.later.uniform(5.0, 50.0), 1)])
        self.sharing = Random(f"{seed}, sharing")
        self.shares_all = self.sharing.random() < 0.2
        self.order = Random(f"{seed}, order")
        self.placing = Random(f"{seed}, placing")
        self.turns = Random(f"{seed}, turns")
        self.preempting = Random(f"{seed}, preempting")

    def make(self) -> Scenario:
        random = self.random
        self._cluster()
        self._order()
        self._placing()
        self._turns()
        settings: dict[str, Any] = {
            "monitor_interval_s": random.choice([2.0, 5.0, 5.0, 10.0]),
            "loss_budget_s": random.choice([0.5, 1.0, 3.0, 3.0, 3.0]),
            "operation_deadline_s": 30.0,
            "fence_timeout_s": random.choice([4.0, 8.0, 15.0]),
            "fence_retry_min_s": 2.0,
            "fence_retry_max_s": 15.0,
            "device_check_interval_s": random.choice([30.0, 3600.0]),
            "restart_limit": random.choice([2, 5]),
            "restart_window_s": 60.0,
            "fence_limit": random.choice([2, 10, 10]),
            "fence_limit_window_s": random.choice([60.0, 600.0]),
            "fence_on_connection_close": random.random() < 0.08,
            "survey_interval_s": random.choice([10.0, 30.0]),
            "watch_interval_s": random.choice([1.0, 2.0, 5.0]),
        }
        if self.sparse:
            settings.update(fence_limit=10, fence_limit_window_s=600.0, restart_limit=5)
        intervals = {
            name: random.choice([1.0, 3.0, 20.0])
            for name, _ in self.resources
            if random.random() < 0.1
        }
        is_slow = any(options.get("slow_s") for options in self.hosts.values())
        if is_slow:
            settings["fence_timeout_s"] = SLOW_FENCE_TIMEOUT_S
        further = further_actions(
            self.seed,
            self.duration_s,
            self.sparse,
            self.focus,
            Cluster(self.hosts, self.groups, self.resources),
        )
        changes = self._config_changes()
        if changes:  # an older state file knows nothing of a config that was changed since
            further = [action for action in further if action.kind != "backup"]
        actions = sorted([*self._actions(), *further, *changes], key=lambda action: action.at)
        extra: dict[str, Any] = {
            "repair_s": random.choice([0.0, 15.0, 30.0]) if not self.sparse else 120.0,
            "operator_s": random.choice([0.0, 0.0, 20.0]) if not self.sparse else 120.0,
            "leave_off": random.random() < 0.5,
            "observe": random.random() < 0.03 and not self.sparse,
            "script_time_s": random.choice([0.2, 1.0, 3.0]),
        }
        if is_slow and self.later.random() < 0.7:
            extra.update(leave_off=True, repair_s=0.0)  # what a slow device proves is needed
        return Scenario(
            self.seed,
            self.hosts,
            tuple(self.groups),
            settings,
            tuple(actions),
            self.duration_s,
            intervals,
            extra,
        )

    # --- the cluster -------------------------------------------------------------------------

    def _cluster(self) -> None:
        random = self.random
        wanted = random.choice([2, 2, 2, 3, 4, 4, 5, 6, 8, 12])
        while len(self.hosts) < wanted:
            size = min(random.choice(SITES), 12 - len(self.hosts))
            members = [f"h{len(self.hosts) + n}" for n in range(size)]
            for name in members:
                self.hosts[name] = self._host()
            self._site(members)

    def _host(self) -> dict[str, Any]:
        random = self.random
        options: dict[str, Any] = {}
        fence = random.random()
        if fence < 0.1:
            options["fence"] = [["pdu", "pdu"]]
        elif fence < 0.2:
            options["fence"] = [["bmc"], ["pdu"]]
        elif fence < 0.24:
            options["fence"] = []
        loss = random.random()
        if loss < 0.08:
            options["on_loss"] = "reboot"
        elif loss < 0.14:
            options["on_loss"] = "wait"
        if random.random() < 0.05:
            options["legacy"] = True
        if random.random() < 0.6:
            options["watches"] = True
        self._devices(options)
        return options

    def _devices(self, options: dict[str, Any]) -> None:
        """Devices that are slow by nature, and levels that are dead."""
        if self.later.random() < self.slow_share:
            options["slow_s"] = [self._slow_s(), self._slow_s()]
            if self.steady_s:
                options["steady"] = True
        if self.later.random() < self.dead_share and options.get("fence") != []:
            options["fence"] = [["bmc"], ["pdu"]]
            options["dead_level"] = True

    def _slow_s(self) -> float:
        if self.steady_s:
            return self.steady_s
        quick = self.later.random() < 0.3
        return round(self.later.uniform(0.5, 5.0) if quick else self.later.uniform(5.0, 50.0), 1)

    def _site(self, members: list[str]) -> None:
        random = self.random
        shared = f"s{len(self.groups)}" if random.random() < 0.3 else ""
        for home in members:
            for _ in range(random.choice([0, 1, 1, 1, 2, 3])):
                others = [host for host in members if host != home]
                random.shuffle(others)
                if len(others) > 1 and random.random() < 0.3:
                    others = others[: random.randrange(1, len(others))]
                name = f"g{len(self.groups)}"
                tree = [(name, "")]
                for number in range(random.choice([0, 1, 2, 2, 3, 4])):
                    tree.append((f"{name}.{number}", random.choice(tree)[0]))
                leaves: tuple[tuple[str, str], ...]
                leaves = ((shared, name),) if shared and random.random() < 0.7 else ()
                if self.shares_all:
                    leaves = self._leaves(members, tree)
                self.groups.append(
                    GroupPlan(
                        (home, *others),
                        tuple(tree),
                        leaves,
                        random.choice(["move", "move", "move", "stay"]),
                        random.choice(["report", "stop", "fence"]),
                    )
                )
                self.resources += [(r, (home, *others)) for r, _ in (*tree, *leaves)]
        if not self.groups:
            self._site(members)

    def _order(self) -> None:
        """In some clusters, groups are started after others, of any site."""
        if self.order.random() >= ORDER_SHARE:
            return
        share = self.order.choice([0.3, 0.7, 1.0])
        for number, plan in enumerate(self.groups):
            if number and self.order.random() < share:
                count = min(number, self.order.choice([1, 1, 2]))
                before = self.order.sample(range(number), count)
                names = tuple(self.groups[each].tree[0][0] for each in sorted(before))
                self.groups[number] = replace(plan, after=names)

    def _placing(self) -> None:
        """In some sites, room is limited, or groups have wishes about their company.

        When all hosts are up, a place is left for every group in any case: a host has room for all
        but one of the groups of its site, and one wish at most is made, in a site of its own."""
        if self._config_changes():
            return  # a group that loses candidates may find no place any more
        sites: dict[frozenset[str], list[int]] = {}
        for number, plan in enumerate(self.groups):
            sites.setdefault(frozenset(plan.candidates), []).append(number)
        for members, numbers in sites.items():
            if len(members) > 1 and len(numbers) > 1 and CROWD in self.focus:
                self._limit(members, numbers)
                self._tighten(members, numbers)
                continue
            if self.placing.random() >= PLACING_SHARE or len(members) < 2 or len(numbers) < 2:
                continue
            one, other = self.placing.sample(numbers, 2)
            kind = self.placing.choice(["room", "room", "apart", "together"])
            if kind == "room":
                self._limit(members, numbers)
            if kind == "apart" or (kind == "room" and self.placing.random() < 0.5):
                self._wish(one, "apart_from", other)
            elif kind == "room" and self.preempting.random() < TIGHT_SHARE:
                self._tighten(members, numbers)
            if kind == "together":  # an order points to earlier groups, too: no circle
                self._wish(max(one, other), "together_with", min(one, other))

    def _turns(self) -> None:
        """In some clusters, each host starts one or two groups at a time."""
        if self.turns.random() < TURNS_SHARE:
            for options in self.hosts.values():
                options["max_starts"] = self.turns.choice([1, 1, 2])

    def _limit(self, members: frozenset[str], numbers: list[int]) -> None:
        here = [plan for plan in self.groups if not members.isdisjoint(plan.candidates)]
        if any(not members.issuperset(plan.candidates) for plan in here):
            return  # one of them needs room elsewhere, too
        for host in members:
            self.hosts[host]["capacity"] = len(numbers) - 1
        for number in numbers:
            priority = self.placing.choice([0, 0, 1, 2])
            preempt = priority > 0 and self.preempting.random() < PREEMPT_SHARE
            self.groups[number] = replace(
                self.groups[number], needs=1, priority=priority, preempt=preempt
            )

    def _tighten(self, members: frozenset[str], numbers: list[int]) -> None:
        """Just enough room when all hosts are up, so that groups have to give way without one. If
        several groups are at home on a host, one of them needs nothing: a host whose groups have no
        room elsewhere is not fenced, and then nothing proves that they are stopped."""
        needy: dict[str, list[int]] = {}
        for number in numbers:
            needy.setdefault(self.groups[number].candidates[0], []).append(number)
        for at_home in needy.values():
            if len(at_home) > 1:
                first = at_home.pop(0)
                self.groups[first] = replace(self.groups[first], needs=0, priority=0, preempt=False)
        count = sum(map(len, needy.values()))
        for host in members:
            if "capacity" in self.hosts[host]:
                self.hosts[host]["capacity"] = -(-count // len(members))

    def _wish(self, one: int, key: str, other: int) -> None:
        company = {key: [self.groups[other].tree[0][0]]}
        if key == "apart_from":  # the config makes it count in both directions
            back = {key: [self.groups[one].tree[0][0]]}
            self.groups[other] = replace(self.groups[other], company=back)
        self.groups[one] = replace(self.groups[one], company=company)

    def _leaves(
        self, members: list[str], tree: list[tuple[str, str]]
    ) -> tuple[tuple[str, str], ...]:
        """Shared by nearly all groups of a site, below any of their resources."""
        number = members[0][1:]
        leaves = [(f"s{number}", self.sharing.choice(tree)[0])]
        if self.sharing.random() < 0.4:
            leaves.append((f"t{number}", self.sharing.choice(tree)[0]))
        return tuple(leaves) if self.sharing.random() < 0.9 else ()

    # --- what happens ------------------------------------------------------------------------

    def _actions(self) -> list[Action]:
        random = self.random
        share = 0.5 if self.sparse else random.choice([0.15, 0.3, 0.3, 0.5])
        faults = {kind: weight for kind, weight in FAULTS.items() if random.random() < share}
        if not faults:
            faults["power_off"] = 1
        commands = {kind: weight for kind, weight in COMMANDS.items() if random.random() < 0.5}
        if self.focus:
            faults = {k: FAULTS[k] for k in self.focus if k in FAULTS}
            commands = {k: COMMANDS[k] for k in self.focus if k in COMMANDS}
            if not faults and not commands:
                return []
        pause_s = random.choice([2.0, 4.0, 8.0, 15.0]) * (60.0 if self.sparse else 1.0)
        command_share = random.choice([0.0, 0.2, 0.5, 0.8]) if commands else 0.0
        if commands and not faults:
            command_share = 1.0
        at = random.choice([0.0, 8.0])
        actions: list[Action] = []
        if random.random() < 0.15 and "power_off" in faults:
            back_s = random.choice([0.0, 30.0])
            args = {"host": random.choice(list(self.hosts)), "back_s": back_s}
            actions.append(Action(0.0, "power_off", args))
        while True:
            at += random.expovariate(1 / pause_s)
            if at >= self.duration_s:
                return actions
            for _ in range(random.choice([1, 1, 1, 2, 3])):
                if random.random() < command_share:
                    actions.append(self._command(at, _pick(random, commands)))
                else:
                    actions.append(self._fault(at, _pick(random, faults)))

    def _config_changes(self) -> list[Action]:
        if self.sparse or (self.focus and "config" not in self.focus):
            return []
        return config_changes.actions(self.seed, self.duration_s, always=bool(self.focus))

    def _shaped(self, at: float, kind: str, args: dict[str, Any]) -> Action:
        random = self.random
        at = round(at, 3)
        if kind in TRIGGERED and random.random() < 0.35:
            if "host" in args and random.random() < 0.7:
                args["host"] = "*"
            delay = random.choice([0.0, 0.0, 0.001, 0.01, 0.3, 1.0])
            return Action(at, kind, args, random.choice(TRIGGERS), delay)
        return Action(at, kind, args)

    def _command(self, at: float, name: str) -> Action:
        random = self.random
        args: dict[str, Any] = {"name": name, "force": random.random() < 0.2}
        if name in ("manage", "unmanage", *GROUP_COMMANDS):
            group = random.choice(self.groups)
            args["object"] = group.tree[0][0]
            if name == "move":
                every = group.candidates if random.random() < 0.9 else tuple(self.hosts)
                args["to"] = random.choice(every)
        elif name not in (*CLUSTER_COMMANDS, "clear_events"):
            args["object"] = random.choice(list(self.hosts))
        if name == "freeze":
            args["for_s"] = random.choice([0.5, 5.0, 20.0])
        return self._shaped(at, "command", args)

    def _fault(self, at: float, kind: str) -> Action:
        return self._shaped(at, kind, self._fault_args(kind))

    def _fault_args(self, kind: str) -> dict[str, Any]:
        random = self.random
        host = random.choice(list(self.hosts))
        lasts_s = round(
            random.choice([0.3, 1.0, 2.5, 4.0, 10.0, 30.0]) * random.uniform(0.7, 1.3), 3
        )
        resource, candidates = random.choice(self.resources)
        match kind:
            case "power_off":
                back_s = random.choice([0.0, 0.0, 5.0, 20.0, 40.0])
                return {"host": host, "back_s": back_s}
            case "agent_crash" | "agent_hang" | "refuse" | "busy":
                return {"host": host, "for_s": lasts_s}
            case "hole":
                every = random.random() < 0.25
                names = list(self.hosts)
                chosen = names if every else random.sample(names, random.randint(1, len(names)))
                if not every and random.random() < 0.6:
                    return {"host": host, "way": random.choice(["to", "from", "both"]),
                            "for_s": lasts_s}  # fmt: skip
                return {"hosts": sorted(chosen), "way": random.choice(["to", "from", "both"]),
                        "for_s": lasts_s}  # fmt: skip
            case "delay":
                return {"host": host, "delay_s": random.choice([0.02, 0.2, 0.9, 2.0]),
                        "for_s": lasts_s}  # fmt: skip
            case "handshake":
                return {"host": host, "delay_s": random.choice([0.5, 1.2, 3.0]), "for_s": lasts_s}
            case "reset":
                return {"host": host}
            case "local":
                loss = random.choice(["DNS", "LOCAL", "NO_ROUTE_TO_NETWORK", "TLS", "PROTOCOL"])
                return {"host": host, "loss": loss, "for_s": lasts_s}
            case "script":
                operation = random.choice(["start", "start", "stop", "monitor", "monitor"])
                faults = {
                    "start": ["fail", "no-effect-fail", "hang", "slow", "not-run"],
                    "stop": ["fail", "no-effect-fail", "hang", "slow", "not-run", "lies"],
                    "monitor": ["fail", "hang", "slow", "not-run", "says-7", "says-7"],
                }
                where = random.choice([random.choice(candidates), ""])
                name = resource if where == "" or random.random() < 0.6 else ""
                return {"host": where, "resource": name, "operation": operation,
                        "fault": random.choice(faults[operation]),
                        "count": random.choice([1, 1, 2, 3, 8])}  # fmt: skip
            case "die":
                return {"resource": resource}
            case "hand_start":
                return {"resource": resource, "host": random.choice(candidates)}
            case "boot_services":
                mine = [r for r, hosts in self.resources if host in hosts]
                return {"host": host, "resources": random.sample(mine, min(len(mine), 2))}
            case "device":
                return {"host": host, "level": random.randrange(2), "number": random.randrange(2),
                        "fault": random.choice(["fail", "hang", "late", "no-effect", "unplugged"]),
                        "for_s": lasts_s}  # fmt: skip
            case "miswire":
                return {"host": host, "to": random.choice(list(self.hosts)), "for_s": 30.0}
            case "manager_crash":
                return {"steps": random.choice([0, 0, 1, 2, 3, 5, 8, 13, 30]),
                        "down_s": random.choice([0.1, 1.0, 5.0, 20.0]),
                        "observe": random.random() < 0.05}  # fmt: skip
            case "manager_term":
                return {"down_s": random.choice([0.1, 2.0])}
            case "manager_stall":
                return {"for_s": random.choice([0.3, 1.0, 2.0, 4.0, 12.0])}
            case "disk_slow":
                return {"delay_s": random.choice([0.2, 0.9, 3.0]), "for_s": lasts_s}
            case "disk_full" | "disk_hang":
                return {"for_s": lasts_s}
            case "report_lost":
                return {"host": host, "count": random.choice([1, 1, 2])}
            case "clock_step":
                return {"by_s": random.choice([-3600.0, -1.0, 1.0, 86400.0])}
        raise ValueError(f"unknown fault {kind}")


def _pick(random: Random, weights: dict[str, int]) -> str:
    return random.choices(list(weights), list(weights.values()))[0]
