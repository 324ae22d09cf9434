"""No group is started before the groups that it is started after, by what the manager could know.

Where the ports have told two things of a resource, the one that lets it run counts.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from halo.core.model import Operation, ResourceGroup
from halo.core.outcomes import OperationResult

if TYPE_CHECKING:
    from tests.simulation.hosts import SimCall
    from tests.simulation.oracle import Oracle

RULE = "order"
PRESENT = (0, 8, 190, 191)


class OrderOracle:
    """Watches the starts of roots."""

    def __init__(self, oracle: Oracle) -> None:
        self.world = oracle.world
        self.oracle = oracle
        self.moving: set[str] = set()  # ran, and were stopped for a planned move
        # When a stop of the root was sent that it was not seen running after.
        self.stopped_at: dict[str, float] = {}
        # Starts and stops without an answer, by host and resource.
        self.under_way: Counter[tuple[str, str]] = Counter()

    def begin(self) -> None:
        """A new life of the manager: it knows of no move."""
        self.moving.clear()
        self.stopped_at.clear()
        self.under_way.clear()

    def connected(self, host: str) -> None:
        """Over a new connection nothing is under way."""
        for key in [key for key in self.under_way if key[0] == host]:
            del self.under_way[key]

    def sent(self, call: SimCall) -> None:
        """A start or stop leaves the manager."""
        self.under_way[call.connection.host.id, call.resource.id] += 1
        group = self.oracle.groups_with[call.resource.id][0]
        if call.resource.id != group.root or not group.after:
            return
        if call.operation is Operation.STOP:
            self.stopped_at[group.id] = self.world.clock.now
            return
        if self._is_in_place(group, call) or group.id in self.moving:
            self.world.counts["starts without waiting for an order"] += 1
            return
        for name in group.after:
            before = self.world.cluster.groups[name]
            if not self.may_run(before):
                where = call.connection.host.id
                self.world.violated(
                    RULE, f"{group.id} is started on {where}, and {name} does not run"
                )
            self.world.counts["starts in order"] += 1

    def _is_in_place(self, group: ResourceGroup, call: SimCall) -> bool:
        """Was its root seen here, and has the group not left its task since?"""
        managed_since = self.oracle.manager.state.groups[group.id].managed_since
        has_left = self.stopped_at.get(group.id, managed_since) < managed_since
        return self.oracle.root_seen.get(group.id) is call.connection and not has_left

    def root_runs(self, group: ResourceGroup, host: str) -> None:
        """The root is seen running: what was stopped before that has been started since."""
        if not self.is_under_way(host, group.root):
            self.stopped_at.pop(group.id, None)

    def answered(self, call: SimCall, result: OperationResult | None) -> None:
        """A root was stopped: by request, or for a planned move. Or a root that was moved runs.

        Without a result, no answer came in time."""
        if call.operation is Operation.MONITOR:
            return
        name, group = call.resource.id, self.oracle.groups_with[call.resource.id][0].id
        self.under_way[call.connection.host.id, name] -= 1
        told = self.oracle.orders.wanted[group]
        if call.resource.shared:
            return
        if call.operation is Operation.STOP:
            # Of a group whose root has crashed, only the rest is stopped for a move.
            ran = name == group or self.oracle.root_seen.get(group) is call.connection
            if ran and told.may_be(True):
                self.moving.add(group)
            elif name == group:
                self.moving.discard(group)
        elif name == group and result is not None and result.code == 0:
            self.moving.discard(group)

    def may_run(self, group: ResourceGroup) -> bool:
        """May the manager know that the whole group should run, and runs on one host?"""
        return any(self.may_run_on(group, host) for host in group.candidates)

    def may_run_on(self, group: ResourceGroup, host: str) -> bool:
        """May the manager know that the whole group should run, and runs on this host?"""
        return not self.oracle.orders.wanted[group.id].surely(False) and all(
            self._may_be_present(host, each.id) and not self.is_under_way(host, each.id)
            for each in group.resources
        )

    def is_under_way(self, host: str, name: str) -> bool:
        """Is a start or stop of the resource without an answer?"""
        return self.under_way[host, name] > 0

    def _may_be_present(self, host: str, name: str) -> bool:
        watch = self.oracle.hosts[host]
        if watch.connection is None and not self.oracle.just_woke:
            return False
        word = watch.words.get(name)
        told = (watch.shown.get(name), watch.reported.get(name), word.code if word else None)
        return any(code in PRESENT for code in told)
