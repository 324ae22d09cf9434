"""Changes of the config, as an administrator makes them: edit the file, restart the manager.

A service is the same however the config names it: a resource `g0.1~2` is the disk `g0.1`, renamed.
Hosts run disks. So the oracle sees a second start of a disk, whatever its resources are called.

The administrator keeps to the handbook in two things: no change while the journal is in trouble,
and no new name for a resource whose script runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulation.model import Action, GroupPlan, Scenario, disk_of

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

SHARE = 0.25
"""In so many seeds the config changes."""

EDITS = {
    # what: weight
    "drop_candidate": 6,
    "add_candidate": 4,
    "reorder": 2,
    "drop_host": 3,
    "restore_host": 3,
    "rename": 4,
    "rename_elsewhere": 4,
    "give": 4,
    "unshare": 1,
    "share": 1,
    "drop_group": 2,
    "restore": 2,
    "drop_leaf": 2,
    "take_leaf": 2,
}


def actions(seed: int, duration_s: float, always: bool = False) -> list[Action]:
    """The changes of a seed. They are drawn apart, so that the rest of the seed stays as it is."""
    random = Random(f"{seed}, changes of the config")
    if random.random() >= SHARE and not always:
        return []
    found = []
    for _ in range(random.choice([1, 2, 3, 5])):
        edits = [
            [random.choices(list(EDITS), list(EDITS.values()))[0], random.randrange(60),
             random.randrange(60)]
            for _ in range(random.choice([1, 1, 2, 3]))
        ]  # fmt: skip
        args = {
            "edits": edits,
            "kill": random.random() < 0.5,
            "down_s": random.choice([0.1, 1.0, 5.0]),
        }
        found.append(Action(round(random.uniform(5.0, duration_s * 0.9), 3), "config", args))
    return found


class ConfigChanges:
    """The config of one simulation, and the edits that wait for the next start of the manager."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.world = simulation.world
        self.first: Scenario = simulation.scenario
        self.now: Scenario = simulation.scenario
        self.renamed = 0
        self.waiting: list[list[Any]] = []
        self.is_new = False  # the file was written since the manager read it
        self._edits: dict[str, Callable[[int, int], Scenario | None]] = {
            "drop_candidate": self._drop_candidate,
            "add_candidate": self._add_candidate,
            "reorder": self._reorder,
            "drop_host": self._drop_host,
            "restore_host": self._restore_host,
            "rename": self._rename,
            "rename_elsewhere": self._rename_elsewhere,
            "give": self._give,
            "unshare": self._unshare,
            "share": self._share,
            "drop_group": self._drop_group,
            "restore": lambda a, b: self.first,
            "drop_leaf": self._drop_leaf,
            "take_leaf": self._take_leaf,
        }

    def order(self, args: dict[str, Any]) -> None:
        """Edit the config, and restart the manager."""
        simulation = self.simulation
        if simulation.current is None or self.is_in_trouble:
            return
        self.waiting = args["edits"]
        simulation.down_s = args["down_s"]
        if args["kill"]:
            simulation.kill_manager()
        else:
            simulation.terminate_manager()

    @property
    def is_in_trouble(self) -> bool:
        """Does the status say, or is it about to say, that the journal cannot be written?"""
        disk, current = self.world.disk, self.simulation.current
        trouble = current is not None and current.manager.state.journal_trouble is not None
        return trouble or disk.full or disk.hangs or disk.delay_s > 0

    def manager_ends(self) -> None:
        """The administrator gives up a change when the journal is in trouble."""
        if self.waiting and self.is_in_trouble:
            self.waiting = []

    def write(self, config: Scenario) -> None:
        """Write the file. The next start of the manager reads it."""
        self.now, self.is_new = config, True

    def apply(self) -> None:
        """The manager is about to start: it reads the config."""
        edits, self.waiting = self.waiting, []
        for what, a, b in edits:
            changed = self._edits[what](a, b)
            if changed is not None and changed.groups and self._may_be_renamed(changed):
                self.write(changed)
                self.world.say("operator", f"edits the config: {what}")
                self.world.counts[f"config {what}"] += 1
        if self.is_new:
            self.is_new = False
            self.world.take_config(self.now.cluster())

    def _may_be_renamed(self, changed: Scenario) -> bool:
        """No script of a resource runs whose name changes."""
        before, after = _names(self.now), _names(changed)
        running = {
            disk_of(name)
            for host in self.world.hosts.values()
            for name, script in host.scripts.items()
            if not script.done
        }
        return all(before[d] == after[d] for d in running if d in before and d in after)

    # --- edits -------------------------------------------------------------------------------

    def _with(self, index: int, plan: GroupPlan) -> Scenario:
        groups = list(self.now.groups)
        groups[index] = plan
        return replace(self.now, groups=tuple(groups))

    def _group(self, a: int) -> tuple[int, GroupPlan]:
        index = a % len(self.now.groups)
        return index, self.now.groups[index]

    def _drop_candidate(self, a: int, b: int) -> Scenario | None:
        index, plan = self._group(a)
        if len(plan.candidates) < 2:
            return None
        gone = plan.candidates[b % len(plan.candidates)]
        return self._with(index, _without_host(plan, gone))

    def _add_candidate(self, a: int, b: int) -> Scenario | None:
        index, plan = self._group(a)
        others = [host for host in self.now.hosts if host not in plan.candidates]
        if not others:
            return None
        new = others[b % len(others)]
        return self._with(index, replace(plan, candidates=(*plan.candidates, new)))

    def _reorder(self, a: int, b: int) -> Scenario | None:
        index, plan = self._group(a)
        first = b % len(plan.candidates)
        order = plan.candidates[first:] + plan.candidates[:first]
        return self._with(index, replace(plan, candidates=order))

    def _drop_host(self, a: int, b: int) -> Scenario | None:
        gone = list(self.now.hosts)[a % len(self.now.hosts)]
        groups = [_without_host(plan, gone) for plan in self.now.groups]
        hosts = {host: options for host, options in self.now.hosts.items() if host != gone}
        return replace(self.now, hosts=hosts, groups=tuple(g for g in groups if g.candidates))

    def _restore_host(self, a: int, b: int) -> Scenario | None:
        return replace(self.now, hosts=self.first.hosts)

    def _rename(self, a: int, b: int) -> Scenario | None:
        index, plan = self._group(a)
        old = plan.tree[b % len(plan.tree)][0]
        self.renamed += 1
        new = f"{disk_of(old)}~{self.renamed}"
        return self._with(index, _renamed(plan, old, new))

    def _rename_elsewhere(self, a: int, b: int) -> Scenario | None:
        """A group gets another name, and loses a candidate."""
        index, plan = self._group(a)
        if len(plan.candidates) < 2:
            return None
        self.renamed += 1
        new = f"{disk_of(plan.tree[0][0])}~{self.renamed}"
        fewer = _without_host(plan, plan.candidates[b % len(plan.candidates)])
        return self._with(index, _renamed(fewer, plan.tree[0][0], new))

    def _give(self, a: int, b: int) -> Scenario | None:
        """A leaf goes to another group."""
        index, plan = self._group(a)
        to, other = self._group(b)
        leaves = _leaves(plan)
        if index == to or not leaves:
            return None
        leaf = leaves[b % len(leaves)]
        groups = list(self.now.groups)
        groups[index] = replace(plan, tree=tuple(e for e in plan.tree if e != leaf))
        groups[to] = replace(other, tree=(*other.tree, (leaf[0], other.tree[0][0])))
        return replace(self.now, groups=tuple(groups))

    def _drop_leaf(self, a: int, b: int) -> Scenario | None:
        """A leaf is in no group any more. It runs on, and nobody monitors it."""
        index, plan = self._group(a)
        leaves = _leaves(plan)
        if not leaves:
            return None
        leaf = leaves[b % len(leaves)]
        return self._with(index, replace(plan, tree=tuple(e for e in plan.tree if e != leaf)))

    def _take_leaf(self, a: int, b: int) -> Scenario | None:
        """A group gets a leaf that is in no group."""
        index, plan = self._group(a)
        known = _names(self.now)
        lost = [e for each in self.first.groups for e in _leaves(each) if e[0] not in known]
        if not lost:
            return None
        leaf = lost[b % len(lost)][0]
        return self._with(index, replace(plan, tree=(*plan.tree, (leaf, plan.tree[0][0]))))

    def _unshare(self, a: int, b: int) -> Scenario | None:
        index, plan = self._group(a)
        return self._with(index, replace(plan, shared=())) if plan.shared else None

    def _share(self, a: int, b: int) -> Scenario | None:
        index, plan = self._group(a)
        names = sorted({name for group in self.now.groups for name, _ in group.shared})
        if plan.shared or not names:
            return None
        entry = (names[b % len(names)], plan.tree[0][0])
        return self._with(index, replace(plan, shared=(entry,)))

    def _drop_group(self, a: int, b: int) -> Scenario | None:
        index, _ = self._group(a)
        groups = tuple(g for n, g in enumerate(self.now.groups) if n != index)
        return replace(self.now, groups=groups)


def _names(scenario: Scenario) -> dict[str, str]:
    """The name of each disk in a config."""
    return {
        disk_of(name): name for plan in scenario.groups for name, _ in (*plan.tree, *plan.shared)
    }


def _leaves(plan: GroupPlan) -> list[tuple[str, str]]:
    """The resources of a group, without its root, that nothing depends on."""
    parents = {parent for _, parent in (*plan.tree, *plan.shared)}
    return [entry for entry in plan.tree[1:] if entry[0] not in parents]


def _without_host(plan: GroupPlan, host: str) -> GroupPlan:
    return replace(plan, candidates=tuple(each for each in plan.candidates if each != host))


def _renamed(plan: GroupPlan, old: str, new: str) -> GroupPlan:
    def name(text: str) -> str:
        return new if text == old else text

    return replace(
        plan,
        tree=tuple((name(resource), name(parent)) for resource, parent in plan.tree),
        shared=tuple((resource, name(parent)) for resource, parent in plan.shared),
    )
