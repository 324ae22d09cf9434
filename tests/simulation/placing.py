"""No group is started where there is no room for it, where its company does not suit it, or out of
turn. And no group has to give way without need.

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

KNOWN_S = 0.01
"""What was decided before something was learnt is sent within this. A stop that has to wait for a
monitor is looked at again before it is sent."""

SHOWN_OFF_S = 12.0
"""A host was shown to be off so lately when a group began to give way: ten seconds before the last
decision on the other group, which is taken each second."""

LOOKED_AT_S = 60.0
"""A group has another one give way only if it was just proven stopped, and these looks at it are no
older: 20 s, twice that if a look takes so long, and then a stop may wait for a monitor."""


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

    # --- giving way --------------------------------------------------------------------------

    def may_give_way(self, group: ResourceGroup, host: str) -> bool:
        """Is there a group of a higher priority that should run, is proven stopped, and lacks only
        the room that this one takes here?"""
        return any(
            other.preempt
            and other.priority > group.priority
            and host in other.candidates
            and not other.needs.keys().isdisjoint(group.needs)
            and self._is_due(other)
            and not any(self._could_go(other, each) for each in other.candidates)
            for other in self.world.cluster.groups.values()
        )

    def _is_due(self, group: ResourceGroup) -> bool:
        orders, proven = self.oracle.orders, self._is_proven_stopped
        return (
            orders.wanted[group.id].may_be(True)
            and orders.managed[group.id].may_be(True)
            and all(proven(group, host) for host in group.candidates)
        )

    def _is_proven_stopped(self, group: ResourceGroup, host: str) -> bool:
        watch, now = self.oracle.hosts[host], self.world.clock.now
        if self.oracle.just_woke or now - watch.ended_at < KNOWN_S:
            return True  # nobody can tell what was known in the moment of the decision
        if watch.connection is None:
            return not self.oracle.fences.lacks_power_proof(host, SHOWN_OFF_S)
        return all(
            now - watch.changed_at.get(each.id, float("-inf")) < KNOWN_S
            or self._was_seen_stopped(each.id, host)
            for each in group.exclusive
        )

    def _was_seen_stopped(self, resource: str, host: str) -> bool:
        watch = self.oracle.hosts[host]
        word = watch.words.get(resource)
        return (
            word is not None
            and word.connection is watch.connection
            and word.code == 7
            and self.world.clock.now - max(word.sent_at, self.oracle.fresh_at) < LOOKED_AT_S
        )

    def _could_go(self, group: ResourceGroup, host: str) -> bool:
        """Is it plain that the host could take the group without that?"""
        page = self.world.oracles.memory.book.group(group.id)
        return (
            self.world.oracles.due.is_up(host)
            and self.oracle.orders.active[host].surely(True)
            and host not in page.start_failures
            and not group.company.apart_from
            and self.has_plain_room(group, host)
        )

    def has_plain_room(self, group: ResourceGroup, host: str) -> bool:
        """Is there room for the group, also for all that may be there, or may come, besides?"""
        groups = self.world.cluster.groups_of_host[host]
        others = [other for other in groups if other is not group and self._may_come(other, host)]
        return all(
            group.needs[name]
            + sum((each.needs.get(name, Decimal(0)) for each in others), Decimal(0))
            <= total
            for name, total in self.world.cluster.hosts[host].capacity.items()
            if name in group.needs
        )

    def _may_come(self, group: ResourceGroup, host: str) -> bool:
        """May it be there, or be started there? Not if it is plain that it is to stay elsewhere, or
        is to be stopped."""
        due, state = self.world.oracles.due, self.oracle.manager.state
        if not due.is_stopped(group, host):
            return True
        if self.oracle.orders.wanted[group.id].surely(False):
            return False
        elsewhere = [other for other in group.candidates if other != host]
        stays = state.memory_of(group).move_target is None
        return not (stays and any(due.runs(group, other) for other in elsewhere))

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
