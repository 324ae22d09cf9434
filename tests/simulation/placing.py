"""No group is started where there is no room for it, where its company does not suit it, or out of
turn.

What counts is what the manager must know: a group is on a host from the start of its root there
until the root is stopped, a start of it fails, it is found stopped, or the connection ends.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from halo.core.model import Operation, ResourceGroup
from halo.core.outcomes import OperationResult

if TYPE_CHECKING:
    from tests.simulation.hosts import SimCall
    from tests.simulation.oracle import Oracle

ROOM, COMPANY, TURN = "room", "company", "turn"


class PlacingOracle:
    """Watches the starts of roots."""

    def __init__(self, oracle: Oracle) -> None:
        self.world = oracle.world
        self.oracle = oracle
        self.on: dict[str, str] = {}  # where the root of a group was started
        self._started_at: dict[str, float] = {}  # when that was answered
        self._under_way: dict[str, tuple[str, set[str]]] = {}  # host, and starts in flight

    def begin(self) -> None:
        """A new life of the manager."""
        self.on.clear()
        self._under_way.clear()

    def link_changed(self, host: str) -> None:
        """A connection begins or ends."""
        self.on = {group: where for group, where in self.on.items() if where != host}
        under_way = self._under_way.items()
        self._under_way = {group: found for group, found in under_way if found[0] != host}

    def sent(self, call: SimCall) -> None:
        """A start or stop leaves the manager."""
        group = self.oracle.groups_with[call.resource.id][0]
        if call.operation is Operation.START and group.id in self._under_way:
            self._under_way[group.id][1].add(call.resource.id)
        if call.resource.id != group.root or call.operation is not Operation.START:
            return
        host, known = call.connection.host.id, self.on.get(group.id)
        in_place = known == host or self.oracle.root_seen.get(group.id) is call.connection
        self.on[group.id] = host
        self._started_at[group.id] = float("inf")
        if in_place:
            return
        self._check_room(group, host)
        self._check_company(group, host)
        self._check_turn(group, host)

    def answered(self, call: SimCall, result: OperationResult | None) -> None:
        """A root was stopped, or could not be started. Without a result, no answer came in time."""
        group = self.oracle.groups_with[call.resource.id][0]
        if call.operation is Operation.START and group.id in self._under_way:
            in_flight = self._under_way[group.id][1]
            in_flight.discard(call.resource.id)
            if not in_flight:  # for a moment, at least
                del self._under_way[group.id]
        if call.resource.id != group.root or call.operation is Operation.MONITOR:
            return
        is_up = call.operation is Operation.START and result is not None and result.code == 0
        if is_up:
            self._started_at[group.id] = self.world.clock.now
        else:
            self.on.pop(group.id, None)

    def _check_room(self, group: ResourceGroup, host: str) -> None:
        for name, total in self.world.cluster.hosts[host].capacity.items():
            if not group.needs.get(name):
                continue
            there = [other for other in self._on(host) if name in other.needs]
            taken = sum((other.needs[name] for other in there), Decimal(0))
            self.world.counts["starts with room"] += 1
            if taken > total:
                names = ", ".join(other.id for other in there)
                self.world.violated(ROOM, f"{host} has {total} {name}, and {names} are there")

    def _check_turn(self, group: ResourceGroup, host: str) -> None:
        if not self.oracle.manager.state.groups[group.id].starting:
            return  # a part of it was found running here: the rest is started in place
        most = self.world.cluster.hosts[host].max_starts
        others = [name for name, (where, _) in self._under_way.items() if where == host]
        self._under_way[group.id] = (host, {group.root})
        if most is None:
            return
        self.world.counts["starts in turn"] += 1
        if len(others) >= most:
            text = f"{group.id} is started on {host}, which starts {', '.join(others)} already"
            self.world.violated(TURN, text)

    def _check_company(self, group: ResourceGroup, host: str) -> None:
        for other in self._on(host):
            if other.id in group.company.apart_from:
                self.world.violated(COMPANY, f"{group.id} is started on {host} beside {other.id}")
        for name in group.company.apart_from:
            self.world.counts["starts apart"] += name in self.on
        is_moving = group.id in self.oracle.order.moving  # its company may be on its way, too
        for name in group.company.together_with if not is_moving else ():
            other = self.world.cluster.groups[name]
            self.world.counts["starts together"] += 1
            if not self.oracle.order.may_run_on(other, host):
                text = f"{group.id} is started on {host}, and {name} does not run there"
                self.world.violated(COMPANY, text)

    def _on(self, host: str) -> list[ResourceGroup]:
        groups = self.world.cluster.groups
        return [
            groups[name]
            for name, where in self.on.items()
            if where == host and not self._was_found_stopped(name, host)
        ]

    def _was_found_stopped(self, root: str, host: str) -> bool:
        """Did it stop by itself? The group may have left its host since."""
        word = self.oracle.hosts[host].words.get(root)
        return word is not None and word.code == 7 and word.sent_at > self._started_at[root]
