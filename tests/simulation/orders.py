"""What the operator was told, as the simulation remembers it: the model that the manager's memory
is compared with, after every answer and every restart.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tests.simulation.model import disk_of

if TYPE_CHECKING:
    from halo.core.model import Cluster
    from tests.simulation.operator import Pending
    from tests.simulation.world import World

T = TypeVar("T")


class Told(Generic[T]):
    """One remembered value: several are possible while a command's fate is unknown."""

    __slots__ = ("pending", "possible")

    def __init__(self, value: T) -> None:
        self.possible: list[T] = [value]
        self.pending: list[T] = []  # of commands without an answer yet

    def surely(self, value: T) -> bool:
        """Is it this, whatever became of commands under way?"""
        return self.possible == [value] and all(p == value for p in self.pending)

    def may_be(self, value: T) -> bool:
        """Can it be this now?"""
        return value in self.possible or value in self.pending

    def asked(self, value: T) -> None:
        """A command that would set it was sent."""
        self.pending.append(value)

    def settled(self, value: T, outcome: str) -> None:
        """Its answer: `done`, `refused` (nothing was changed), or `unknown`."""
        if value in self.pending:
            self.pending.remove(value)
        if outcome == "done":
            self.possible = [value]
        elif outcome == "unknown" and value not in self.possible:
            self.possible.append(value)


Remembered = list[tuple[Told[bool], list[bool]]]
"""Everything that was told, with the values that the disk may hold."""


class Orders:
    """The model of everything an administrator can set."""

    def __init__(self, world: World) -> None:
        self.world = world
        hosts = world.cluster.hosts
        self.managed: dict[str, Told[bool]] = {}
        self.wanted: dict[str, Told[bool]] = {}
        self.active = {host: Told(True) for host in hosts}
        self.frozen: Told[bool] = Told(False)
        self.fencing: dict[str, int] = dict.fromkeys(hosts, 0)  # commands under way
        self.fences_asked: set[str] = set()  # by a command that may end all tries
        self.confirming: dict[str, list[Pending]] = {}  # commands under way
        self.cleanups: dict[str, int] = {}
        self._owners: dict[str, str] = {}  # the group of each exclusive disk
        self._ever: dict[str, str] = {}  # the same, of every config so far
        self.reset_at: dict[str, float] = {}
        self.failing: dict[str, float] = {}

    def take_config(self, cluster: Cluster) -> None:
        """What was told of a group holds for its name, also while the config lacks it. A new name
        has the orders of the groups that its disks come from."""
        before, known = self._owners, {*self._owners.values()}
        self._owners = {}
        for name, group in cluster.groups.items():
            disks = [disk_of(resource.id) for resource in group.exclusive]
            self._owners |= dict.fromkeys(disks, name)
            for told in (self.managed, self.wanted):
                own = told.setdefault(name, Told(True))
                if name not in known:
                    self._inherit(told, own, name, disks, before)
            self.cleanups.setdefault(name, 0)
        self._ever |= self._owners

    def _inherit(
        self,
        told: dict[str, Told[bool]],
        own: Told[bool],
        name: str,
        disks: list[str],
        before: dict[str, str],
    ) -> None:
        for disk in disks:
            owner = before.get(disk) or self._ever.get(disk, name)
            if owner == name:
                continue
            other = {*told[owner].possible, *told[owner].pending}
            both = [a and b for a in own.possible for b in other]
            # A group that left the config earlier may have been forgotten.
            forgotten = [] if disk in before else own.possible
            own.possible = list(dict.fromkeys([*both, *forgotten]))

    def remembered(self) -> Remembered:
        """What a copy of the disk holds now: of a command under way, nobody knows it."""
        every = [*self.managed.values(), *self.wanted.values(), *self.active.values(), self.frozen]
        return [(told, list({*told.possible, *told.pending})) for told in every]

    def restore(self, remembered: Remembered) -> None:
        """The disk holds that copy again: what was told since is forgotten."""
        for told, values in remembered:
            told.possible, told.pending = list(values), []

    def is_settled(self, group: str, host: str) -> bool:
        """Does nothing that was ordered make the group leave this host?"""
        manager = self.world.oracle.manager
        found = self.world.cluster.groups[group]
        if not (self.wanted[group].surely(True) and self.active[host].surely(True)):
            return False
        gives_way = manager.state.groups[group].gives_way_to is not None
        return manager.state.memory_of(found).move_target is None and not gives_way

    def error_may_hold(self, group: str) -> bool:
        """Is the group kept by an error (a failed stop is followed by starts, in place)?"""
        found = self.world.cluster.groups[group]
        return self.world.oracle.manager.state.memory_of(found).error is not None

    def compare(self, status: dict[str, Any]) -> None:
        """Check that the manager remembers what it said was done."""
        for group in status["groups"]:
            name = group["id"]
            wanted = group["wanted"] == "started"
            if not self.managed[name].may_be(group["managed"]):
                self._forgot(f"{name} is shown as managed={group['managed']}")
            if not self.wanted[name].may_be(wanted):
                self._forgot(f"{name} is shown as wanted={wanted}")
        for host in status["hosts"]:
            if not self.active[host["id"]].may_be(host["active"]):
                self._forgot(f"{host['id']} is shown as active={host['active']}")
        if not self.frozen.may_be(status["manager"]["frozen"]):
            self._forgot(f"frozen is shown as {status['manager']['frozen']}")

    def _forgot(self, text: str) -> None:
        self.world.violated("S7", f"{text}, against what the operator was told")


class DiskFold:
    """A second, small fold of the records on the disk."""

    def __init__(self) -> None:
        self.read = 0
        self.fenced: dict[str, bool] = {}
        self.seen: dict[str, bool] = {}
        self.off: dict[str, bool] = {}  # a fence or an intent, and no connect since
        self.distrusted: dict[str, bool] = {}
        self.rebooted: dict[str, bool] = {}
        self.start_failures: dict[str, set[str]] = {}
        self.connected: dict[str, bool] = {}
        self.fence_records = 0

    def take(self, text: str) -> str:
        """Fold one record in; returns the host of a FENCE record."""
        raw = json.loads(text)
        event, name = raw["event"], raw["object"]
        if event == "snapshot":
            self._snapshot(raw["data"])
        elif event == "fence":
            self.fenced[name] = self.off[name] = True
            self.connected[name] = False
            return str(name)
        elif event == "fence-intent":
            self.off[name] = True
        elif event == "connect":
            self.seen[name] = self.connected[name] = True
            self.off[name] = False
        elif event == "disconnect":
            self.connected[name] = False
        elif event == "reset":
            self.fenced[name] = self.distrusted[name] = self.rebooted[name] = False
            self.seen[name] = self.connected.get(name, False)
        elif event == "distrust":
            self.distrusted[name] = True
            self.off[name] = False
        elif event == "not-off":  # a sign of life since the fence
            self.off[name] = False
        elif event == "power-on":
            self.off[name] = False
            if raw["data"].get("policy"):
                self.rebooted[name] = True
        elif event == "start-failed":
            self.start_failures.setdefault(name, set()).add(raw["data"]["host"])
        elif event == "cleanup":
            self.start_failures.pop(name, None)
        return ""

    def _snapshot(self, data: dict[str, Any]) -> None:
        for name, host in data["hosts"].items():
            self.fenced[name] = host["fenced"]
            self.seen[name] = host["seen"]
            self.connected[name] = host["connected"]
            self.off[name] = host["powered_off"] or host["fence_intent"] is not None
            self.distrusted[name] = host["distrusted"] is not None
            self.rebooted[name] = host["rebooted"]
        for name, group in data["groups"].items():
            self.start_failures[name] = set(group["start_failures"])
