"""A group that runs well and is to stay is left in peace, and what failed is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from halo.core.model import Operation
from halo.core.outcomes import OperationResult, Outcome

if TYPE_CHECKING:
    from tests.simulation.hosts import SimCall
    from tests.simulation.world import World

RULE = "needless"
KNOWN_S = 0.1
BAD_IN_A_ROW = 2
FINE = (0, 7, 8, 190, 191)


class NeedlessOracle:
    """Watches every start and stop."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.clock
        self.bad: dict[tuple[str, str], int] = {}  # monitors that failed, in a row
        self.ran: set[tuple[str, str]] = set()  # it ran by the last monitor that did not fail

    def begin(self) -> None:
        """A new life of the manager."""
        self.bad.clear()
        self.ran.clear()

    def link_changed(self, host: str) -> None:
        """A connection begins or ends."""
        for key in [key for key in self.bad if key[0] == host]:
            del self.bad[key]
        self.ran = {key for key in self.ran if key[0] != host}

    def answered(self, call: SimCall, result: OperationResult | None) -> None:
        """An answer; without a result, none came in time."""
        key = call.connection.host.id, call.resource.id
        if call.operation is not Operation.MONITOR:
            self.bad.pop(key, None)
            self.ran.discard(key)
            is_done = result is not None and (result.outcome, result.code) == (Outcome.COMPLETED, 0)
            if is_done and call.operation is Operation.START:
                self.ran.add(key)
        elif result is not None and result.outcome is Outcome.COMPLETED:
            self.said(*key, result.code)

    def said(self, host: str, resource: str, code: int) -> None:
        """A monitor or a report gave this code."""
        if code in FINE:
            self.bad.pop((host, resource), None)
            self.ran.discard((host, resource))
            if code == 0:
                self.ran.add((host, resource))
        else:
            self.bad[host, resource] = self.bad.get((host, resource), 0) + 1

    def sent(self, call: SimCall) -> None:
        """A start or stop leaves, and is not counted yet."""
        self._check_left_alone(call)
        if call.operation is Operation.STOP and not call.resource.shared:
            self._check_stop(call)

    def _check_left_alone(self, call: SimCall) -> None:
        """What an error names is not touched on its host until cleanup."""
        host, name = call.connection.host.id, call.resource.id
        if call.resource.shared or not self.world.oracles.memory.is_settled:
            return
        group = self.world.oracle.groups_with[name][0]
        page = self.world.oracles.memory.book.group(group.id)
        event, text, _ = page.left_alone.get((host, name), ("", "", 0))
        is_copy = group.id in self.world.oracle.copies_seen
        if event == "error" and not is_copy and not self.world.oracles.has_pending():
            what = f"{call.operation.value} of {name} on {host}"
            self.world.violated(RULE, f"{what}, which is to be left alone: {text}")

    def _check_stop(self, call: SimCall) -> None:
        host, oracle, orders = call.connection.host.id, self.world.oracle, self.world.oracle.orders
        group = oracle.groups_with[call.resource.id][0]
        watch, names = oracle.hosts[host], [resource.id for resource in group.resources]
        page = self.world.oracles.memory.book.group(group.id)
        stays = (
            oracle.manager.state.groups[group.id].managed_on == host
            and orders.wanted[group.id].surely(True)
            and orders.active[host].surely(True)
            and page.target in (None, host)
            and oracle.manager.state.memory_of(group).move_target in (None, host)
            and group.id not in oracle.copies_seen
            and not group.company.together_with  # it may follow
            and not self.world.oracles.has_pending()
        )
        runs_well = all(
            self._is_fine(host, name, watch.shown.get(name))
            and self._is_fine(host, name, watch.reported.get(name, 0))
            and (self._is_old(watch.changed_at.get(name)) or self.bad.get((host, name)) == 1)
            and watch.sent.get(name, 0) == watch.answered.get(name, 0)
            for name in names
        )
        failed = watch.start_failed & set(names)
        if stays and runs_well and not failed:
            if oracle.placing.may_give_way(group, host):
                self.world.counts["groups that gave way"] += 1
                return
            self.world.violated(RULE, f"{call.resource.id} is stopped on {host}, and all runs well")

    def _is_old(self, changed_at: float | None) -> bool:
        return changed_at is not None and self.clock.now - changed_at >= KNOWN_S

    def _is_fine(self, host: str, name: str, code: int | None) -> bool:
        """Does it run, or did one monitor fail after it was seen running?"""
        bad = self.bad.get((host, name), 0)
        if bad >= BAD_IN_A_ROW or code is None:
            return False
        return code == 0 or (bad == 1 and code not in (-1, *FINE) and (host, name) in self.ran)
