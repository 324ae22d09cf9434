"""No group is started before the groups that it is started after, by what the manager could know.

Where the ports have told two things of a resource, the one that lets it run counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from halo.core.model import Operation, ResourceGroup
from halo.core.outcomes import OperationResult

if TYPE_CHECKING:
    from tests.simulation.hosts import SimCall
    from tests.simulation.world import World

RULE = "order"
PRESENT = (0, 8, 190, 191)


class OrderOracle:
    """Watches the starts of roots."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.moving: set[str] = set()  # ran, and were stopped for a planned move
        self.stopped_at: dict[str, float] = {}  # when a stop of the root was sent last

    def begin(self) -> None:
        """A new life of the manager: it knows of no move."""
        self.moving.clear()
        self.stopped_at.clear()

    def sent(self, call: SimCall) -> None:
        """A start or stop leaves the manager."""
        group = self.world.oracle.groups_with[call.resource.id][0]
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
        managed_since = self.world.oracle.manager.state.groups[group.id].managed_since
        has_left = self.stopped_at.get(group.id, managed_since) < managed_since
        return self.world.oracle.root_seen.get(group.id) is call.connection and not has_left

    def answered(self, call: SimCall, result: OperationResult | None) -> None:
        """A root was stopped: by request, or for a planned move. Or a root that was moved runs."""
        name = call.resource.id
        told = self.world.oracle.orders.wanted.get(name)
        if told is None or call.resource.shared:
            return
        if call.operation is Operation.STOP and told.may_be(True):
            self.moving.add(name)
        elif call.operation is Operation.STOP or (result is not None and result.code == 0):
            self.moving.discard(name)

    def may_run(self, group: ResourceGroup) -> bool:
        """May the manager know that the whole group should run, and runs on one host?"""
        if self.world.oracle.orders.wanted[group.id].surely(False):
            return False
        under_way = self.world.oracles.shown.under_way
        return any(
            all(
                resource.id not in under_way[host] and self._may_be_present(host, resource.id)
                for resource in group.resources
            )
            for host in group.candidates
        )

    def runs_for_sure(self, group: ResourceGroup) -> bool:
        """Does the manager know that the whole group should run, and runs?"""
        oracle, oracles = self.world.oracle, self.world.oracles
        return oracle.orders.wanted[group.id].surely(True) and any(
            oracles.due.runs(group, host)
            and not any(r.id in oracles.shown.under_way[host] for r in group.resources)
            for host in group.candidates
        )

    def _may_be_present(self, host: str, name: str) -> bool:
        watch = self.world.oracle.hosts[host]
        if watch.connection is None and not self.world.oracle.just_woke:
            return False
        word = watch.words.get(name)
        told = (watch.shown.get(name), watch.reported.get(name), word.code if word else None)
        return any(code in PRESENT for code in told)
