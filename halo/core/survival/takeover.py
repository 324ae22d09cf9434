"""Where the groups of a host would be started after its loss, and which would stay down.

The forecast starts them as the gate would (:mod:`halo.core.groups.placement`): those with the
higher priority first, each on the first candidate that serves, has room, and suits its company. A
group that needs another one waits for the next round. What was started takes room.

Fencing and proof are left out: the question is whether there is a place for each group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from halo.core.model import Cluster, GroupId, HostId, ResourceGroup

NOTHING = Decimal(0)
HOSTS_TOLD = 4


@dataclass(slots=True)
class Standing:
    """Where the groups are, and what is wrong with a candidate whatever else runs there.

    Add each group once."""

    cluster: Cluster
    not_serving: Callable[[ResourceGroup, HostId], str | None]
    movable: dict[HostId, list[ResourceGroup]] = field(default_factory=dict)
    runs_on: dict[GroupId, HostId] = field(default_factory=dict)
    counts_on: dict[GroupId, Sequence[HostId]] = field(default_factory=dict)
    used: dict[HostId, dict[str, Decimal]] = field(default_factory=dict)
    targets: dict[GroupId, HostId] = field(default_factory=dict)  # of planned moves

    def add(
        self,
        group: ResourceGroup,
        counts_on: Sequence[HostId],
        runs_on: HostId | None,
        *,
        movable: bool,
    ) -> None:
        """The group takes room on the hosts `counts_on`. Others may rely on it where it `runs_on`.

        `movable`: after the loss of that host, HALO would start it on another one."""
        self.counts_on[group.id] = counts_on
        for host in counts_on if group.needs else ():
            used = self.used.setdefault(host, {})
            for name, need in group.needs.items():
                used[name] = used.get(name, NOTHING) + need
        if runs_on is not None:
            self.runs_on[group.id] = runs_on
            if movable:
                self.movable.setdefault(runs_on, []).append(group)


class Takeover:
    """The starts of these groups after the loss of the host where they are.

    With `lost` None they are nowhere yet, and no host is lost."""

    def __init__(
        self, standing: Standing, groups: Sequence[ResourceGroup], lost: HostId | None
    ) -> None:
        self.started: dict[GroupId, HostId] = {}
        self.down: dict[GroupId, str] = {}  # with the reason
        self._standing = standing
        self._lost = lost
        self._groups = {group.id: group for group in groups}
        self._order = {group.id: (-group.priority, at) for at, group in enumerate(groups)}
        self._change: dict[HostId, dict[str, Decimal]] = {}  # of what is used on a host
        self._lacks = {group.id: self._not_running(group) for group in groups}
        self._behind: dict[GroupId, list[GroupId]] = {}
        for name, lacks in self._lacks.items():
            for other in lacks:
                self._behind.setdefault(other, []).append(name)
        for group in groups:
            for host in standing.counts_on.get(group.id, ()):
                if host != lost:
                    self._leave(host, group)

    def steps(self) -> Iterator[None]:
        """Decide on one group in each step."""
        ready = [name for name, lacks in self._lacks.items() if not lacks]
        while ready:
            running = []
            for name in sorted(ready, key=self._order.__getitem__):
                host = self._choose(self._groups[name])
                if host is not None:
                    self.started[name] = host
                    self._take(host, self._groups[name])
                    running.append(name)
                yield
            ready = [name for other in running for name in self._freed_by(other)]
        for name in self._groups.keys() - self.started.keys() - self.down.keys():
            self.down[name] = self._waits_for(self._groups[name])
        self.down = {
            name: self.down[name] for name in sorted(self.down, key=self._order.__getitem__)
        }

    def _not_running(self, group: ResourceGroup) -> set[GroupId]:
        """The groups that have to run before this one is started, and do not run at first."""
        named = group.after + group.company.together_with
        runs_on = self._standing.runs_on
        return {
            name
            for name in named
            if name in self._groups or runs_on.get(name) in (None, self._lost)
        }

    def _freed_by(self, other: GroupId) -> Iterator[GroupId]:
        """The groups that lack nothing any more, now that `other` runs."""
        for name in self._behind.get(other, ()):
            self._lacks[name].discard(other)
            if not self._lacks[name]:
                yield name

    def _take(self, host: HostId, group: ResourceGroup) -> None:
        change = self._change.setdefault(host, {})
        for name, need in group.needs.items():
            change[name] = change.get(name, NOTHING) + need

    def _leave(self, host: HostId, group: ResourceGroup) -> None:
        change = self._change.setdefault(host, {})
        for name, need in group.needs.items():
            change[name] = change.get(name, NOTHING) - need

    def _choose(self, group: ResourceGroup) -> HostId | None:
        """The host that the group is started on. If there is none, it stays down."""
        target, company = self._standing.targets.get(group.id), group.company
        first_will_do = not (target or company.prefer_together_with or company.prefer_apart_from)
        able, why_not = [], []
        for host in group.candidates:
            if host == self._lost:
                continue
            obstacle = self._obstacle(group, host)
            if obstacle is not None:
                why_not.append(obstacle)
            elif first_will_do:
                return host
            else:
                able.append(host)
        if not able:
            self.down[group.id] = _some(why_not)
            return None
        return target if target in able else min(able, key=lambda h: self._unwelcome(group, h))

    def _obstacle(self, group: ResourceGroup, host: HostId) -> str | None:
        return (
            self._standing.not_serving(group, host)
            or self._conflict(group, host)
            or self._lacking_room(group, host)
        )

    def _lacking_room(self, group: ResourceGroup, host: HostId) -> str | None:
        if not group.needs:
            return None
        capacity = self._standing.cluster.hosts[host].capacity
        used, change = self._standing.used.get(host, {}), self._change.get(host, {})
        for name, need in group.needs.items():
            if need == NOTHING or name not in capacity:
                continue
            free = capacity[name] - used.get(name, NOTHING) - change.get(name, NOTHING)
            if need > free:
                return (
                    f"{host} would have {max(free, NOTHING)} of {capacity[name]} {name} free, and "
                    f"{group.id} needs {need}"
                )
        return None

    def _conflict(self, group: ResourceGroup, host: HostId) -> str | None:
        for other in group.company.apart_from:
            if self._is_on(other, host):
                return f"{other} would be on {host}, and {group.id} has to be apart from it"
        for other in group.company.together_with:
            runs_on = self.started.get(other) or self._standing.runs_on.get(other)
            if runs_on != host:
                return f"{other} would run on {runs_on}, and {group.id} has to be together with it"
        return None

    def _unwelcome(self, group: ResourceGroup, host: HostId) -> int:
        company = group.company
        return sum(self._is_on(other, host) for other in company.prefer_apart_from) - sum(
            self._is_on(other, host) for other in company.prefer_together_with
        )

    def _is_on(self, other: GroupId, host: HostId) -> bool:
        if other in self._groups:
            return self.started.get(other) == host
        return host in self._standing.counts_on.get(other, ())

    def _waits_for(self, group: ResourceGroup) -> str:
        lacks = self._lacks[group.id]
        for other in group.after:
            if other in lacks:
                return f"{other} would not run, and {group.id} is started after it"
        other = next(name for name in group.company.together_with if name in lacks)
        return f"{other} would not run, and {group.id} has to be together with it"


def _some(reasons: Sequence[str]) -> str:
    told = list(reasons[:HOSTS_TOLD])
    if len(reasons) > HOSTS_TOLD:
        told.append(f"and {len(reasons) - HOSTS_TOLD} more hosts")
    return "; ".join(told) or "it has no other candidate"
