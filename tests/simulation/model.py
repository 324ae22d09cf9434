"""A scenario as data: the cluster, and what happens to it when. Made from a seed, or by hand.

A scenario is all there is to a run: the same one runs the same way, and leaving actions out of it
is how a failing run is shrunk.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from halo.core.model import (
    Cluster,
    Company,
    FenceDevice,
    Host,
    LossPolicy,
    Resource,
    ResourceGroup,
    SecondCopyPolicy,
    Settings,
    StartFailurePolicy,
)


def disk_of(name: str) -> str:
    """The service behind a resource, whatever the config calls it: see `config_changes`."""
    return name.partition("~")[0]


@dataclass(frozen=True)
class Action:
    """One thing that happens: a command, a fault, or the mending of one.

    `at`: virtual seconds. With `trigger`, it is armed at `at` and happens `delay` seconds after the
    next event of that name (see :meth:`World.tell`).
    """

    at: float
    kind: str
    args: dict[str, Any] = field(default_factory=dict)
    trigger: str = ""
    delay: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data, without what is default."""
        found: dict[str, Any] = {"at": self.at, "kind": self.kind, **self.args}
        if self.trigger:
            found["trigger"], found["delay"] = self.trigger, self.delay
        return found

    @staticmethod
    def from_json(raw: dict[str, Any]) -> Action:
        """The reverse of :meth:`to_json`."""
        args = {k: v for k, v in raw.items() if k not in ("at", "kind", "trigger", "delay")}
        return Action(raw["at"], raw["kind"], args, raw.get("trigger", ""), raw.get("delay", 0.0))


@dataclass(frozen=True)
class GroupPlan:
    """One group: its candidates in order, its own resources as a tree, and what it shares.

    `tree` holds (resource, parent) in start order, the root first with parent "". `shared` holds
    (resource, parent) of leaves that other groups have too.
    """

    candidates: tuple[str, ...]
    tree: tuple[tuple[str, str], ...]
    shared: tuple[tuple[str, str], ...] = ()
    on_start_failure: str = "move"
    second_copy: str = "report"
    after: tuple[str, ...] = ()  # the roots of the groups that it is started after, as disks
    needs: int = 0  # of what its hosts have of one thing
    priority: int = 0
    company: dict[str, list[str]] = field(default_factory=dict)  # roots, as disks
    preempt: bool = False

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data, without an order or company if there is none."""
        found: dict[str, Any] = {
            "candidates": self.candidates,
            "tree": self.tree,
            "shared": self.shared,
            "on_start_failure": self.on_start_failure,
            "second_copy": self.second_copy,
        }
        keys = ("after", "needs", "priority", "company", "preempt")
        more = {key: getattr(self, key) for key in keys}
        return {**found, **{key: value for key, value in more.items() if value}}


@dataclass(frozen=True)
class Scenario:
    """Everything about one run."""

    seed: int
    hosts: dict[str, dict[str, Any]]  # options: on_loss, legacy, fence (levels of device kinds)
    groups: tuple[GroupPlan, ...]
    settings: dict[str, Any]
    actions: tuple[Action, ...]
    duration_s: float = 120.0
    monitor_interval_s: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)  # of the people around it: see `plan`

    def to_json(self) -> str:
        """One line that `--replay` takes."""
        return json.dumps(
            {
                "seed": self.seed,
                "hosts": self.hosts,
                "groups": [group.to_json() for group in self.groups],
                "settings": self.settings,
                "duration_s": self.duration_s,
                "monitor_interval_s": self.monitor_interval_s,
                "options": self.options,
                "actions": [action.to_json() for action in self.actions],
            }
        )

    @staticmethod
    def from_json(text: str) -> Scenario:
        """The reverse of :meth:`to_json`."""
        raw = json.loads(text)
        groups = tuple(
            GroupPlan(
                tuple(g["candidates"]),
                tuple((r, p) for r, p in g["tree"]),
                tuple((r, p) for r, p in g["shared"]),
                g["on_start_failure"],
                g["second_copy"],
                tuple(g.get("after", ())),
                g.get("needs", 0),
                g.get("priority", 0),
                g.get("company", {}),
                g.get("preempt", False),
            )
            for g in raw["groups"]
        )
        return Scenario(
            raw["seed"],
            raw["hosts"],
            groups,
            raw["settings"],
            tuple(Action.from_json(a) for a in raw["actions"]),
            raw["duration_s"],
            raw.get("monitor_interval_s", {}),
            raw.get("options", {}),
        )

    def cluster(self) -> Cluster:
        """The manager's own model of it, as the config loader would make it."""
        resources = self._resources()
        groups = {}
        roots = {disk_of(plan.tree[0][0]): plan.tree[0][0] for plan in self.groups}
        for plan in self.groups:
            names = [name for name, _ in plan.tree] + [name for name, _ in plan.shared]
            groups[names[0]] = ResourceGroup(
                names[0],
                tuple(resources[name] for name in names),
                plan.candidates[0],
                plan.candidates[1:],
                StartFailurePolicy(plan.on_start_failure),
                SecondCopyPolicy(plan.second_copy),
                after=tuple(roots[disk] for disk in plan.after if disk in roots),
                company=self._company(plan, roots),
                needs={"memory": Decimal(plan.needs)} if plan.needs else {},
                priority=plan.priority,
                preempt=plan.preempt,
            )
        hosts = {name: self._host(name, options) for name, options in self.hosts.items()}
        return Cluster("simulation", hosts, groups, Settings(**self.settings))

    @staticmethod
    def _company(plan: GroupPlan, roots: dict[str, str]) -> Company:
        found = {
            key: tuple(roots[disk] for disk in disks if disk in roots)
            for key, disks in plan.company.items()
        }
        return Company(**found)

    def _resources(self) -> dict[str, Resource]:
        parents: dict[str, list[str]] = {}
        dependents: dict[str, list[str]] = {}
        shared = {name for plan in self.groups for name, _ in plan.shared}
        for plan in self.groups:
            for name, parent in (*plan.tree, *plan.shared):
                parents.setdefault(name, [])
                dependents.setdefault(name, [])
                if parent:
                    parents[name].append(parent)
                    dependents.setdefault(parent, []).append(name)
        return {
            name: Resource(
                name,
                "simulated/Thing",
                {"disk": disk_of(name)},
                tuple(dependents[name]),
                tuple(parents[name]),
                name in shared,
                self.monitor_interval_s.get(name),
                5.0,
                8.0,
                8.0,
            )
            for name in parents
        }

    @staticmethod
    def _host(name: str, options: dict[str, Any]) -> Host:
        levels = tuple(
            tuple(
                FenceDevice(kind, kind, {"plug": name, "device": f"{name}/{level}.{number}"})
                for number, kind in enumerate(kinds)
            )
            for level, kinds in enumerate(options.get("fence", [["bmc"]]))
        )
        return Host(
            name,
            name,
            fence_levels=levels,
            on_loss=LossPolicy(options.get("on_loss", "fence")),
            capacity={"memory": Decimal(options["capacity"])} if "capacity" in options else {},
            max_starts=options.get("max_starts"),
        )
