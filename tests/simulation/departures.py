"""Nothing is stopped that could start nowhere: written a second time, from what crosses the ports.

A planned stop (a move, a failback, a host that was deactivated) begins only where another candidate
could take the group, and none is left that could not be proven to run nothing of it; nor is a fence
carried out that a command asked for, without force, of a host whose groups could go nowhere. What
a rule on failures stops, and what `halo stop` stops, is none of this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from halo.core.model import ResourceGroup
from halo.core.outcomes import FenceAction

if TYPE_CHECKING:
    from tests.simulation.hosts import SimCall
    from tests.simulation.operator import Pending
    from tests.simulation.oracle import HostWatch, Oracle

KNOWN_S = 0.1
"""What was decided before something was learnt is sent within this."""

RULE = "stranded"


class DepartureOracle:
    """Watches the first stop of every planned departure, and every off that a command asked for."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.world = oracle.world
        self.clock = oracle.clock
        self._fences: dict[
            Pending, list[ResourceGroup]
        ] = {}  # commands under way -> what they would strand

    def stop_sent(self, call: SimCall) -> None:
        """A stop leaves the manager, and is not counted yet."""
        group = self.oracle.groups_with[call.resource.id][0]
        host = call.connection.host.id
        if call.resource.shared or not self._is_first(group, host):
            return
        if self.oracle.manager.state.groups[group.id].gives_way_to is not None:
            why = self._unproven(group, host)  # it may have to wait for room
            if why:
                self.world.violated(RULE, f"{group.id} gives way on {host}, and {why}")
        elif self._is_planned(group, host):
            self.world.counts["planned stops"] += 1
            why = self._nowhere(group, host)
            if why:
                text = f"{group.id} is stopped on {host}, and could start nowhere: {why}"
                self.world.violated(RULE, text)

    def _is_planned(self, group: ResourceGroup, host: str) -> bool:
        """Does it have to leave the host, for no other reason than a plan?"""
        target = self.oracle.manager.state.memory_of(group).move_target
        return target not in (None, host) or not self.oracle.orders.active[host].surely(True)

    def _is_first(self, group: ResourceGroup, host: str) -> bool:
        """Is this the first stop of a group that runs well?"""
        state, orders = self.oracle.manager.state, self.oracle.orders
        if state.groups[group.id].managed_on != host or not orders.wanted[group.id].surely(True):
            return False
        watch, names = self.oracle.hosts[host], [resource.id for resource in group.resources]
        runs_well = all(watch.shown.get(n) == 0 and self._is_old(watch, n) for n in names)
        at_rest = all(watch.sent.get(n, 0) == watch.answered.get(n, 0) for n in names)
        return runs_well and at_rest and not watch.start_failed & set(names)

    # --- fences by command -------------------------------------------------------------------

    def fence_heard(self, entry: Pending) -> None:
        """The manager hears a command to fence. It may wait a moment for candidates that it is
        looking at, so what it lacks now has to be lacking still when it begins."""
        state, orders = self.oracle.manager.state, self.oracle.orders
        for group in self.world.cluster.groups_of_host.get(entry.object, ()):
            is_there = state.groups[group.id].managed_on == entry.object
            if is_there and orders.wanted[group.id].surely(True) and not entry.force:
                why = self._nowhere(group, entry.object)
                if why:
                    self._fences.setdefault(entry, []).append(group)

    def fence_answered(self, entry: Pending) -> None:
        """A command to fence has its answer."""
        self._fences.pop(entry, None)

    def fence_begins(self, host: str, action: FenceAction) -> None:
        """A fence program begins; by command, where one is under way."""
        if action is FenceAction.OFF:
            begun = [entry for entry in self._fences if entry.object == host]
            for entry in begun:  # a later level's off is no decision of its own
                for group in self._fences.pop(entry):
                    why = self._nowhere(group, host)
                    if why:
                        text = f"{host} is fenced without force, and {group.id} could start nowhere"
                        self.world.violated(RULE, f"{text}: {why}")

    # --- where could it go? ------------------------------------------------------------------

    def _nowhere(self, group: ResourceGroup, leaving: str) -> str:
        """Why the group could plainly start nowhere but on `leaving`; empty where it may do so."""
        others = [host for host in group.candidates if host != leaving]
        lack = self._unproven(group, leaving)
        if lack or self.world.disk.is_behind or self.oracle.just_woke:
            return lack
        unable = [why for host in others if (why := self._cannot_take(group, host))]
        return "; ".join(unable) or "no candidate besides" if len(unable) == len(others) else ""

    def _unproven(self, group: ResourceGroup, leaving: str) -> str:
        """On which host it could plainly not be proven stopped; empty if it may be."""
        self.oracle.fences.read_disk()
        if self.world.disk.is_behind or self.oracle.just_woke:
            return ""
        lacks = (self._lacks_proof(group, host) for host in group.candidates if host != leaving)
        return next(filter(None, lacks), "")

    def _lacks_proof(self, group: ResourceGroup, host: str) -> str:
        watch = self.oracle.hosts[host]
        if watch.connection is None:
            if self.clock.now - watch.ended_at < KNOWN_S or self._may_be_off(host):
                return ""
            return f"{host} is out of sight, and no fence of it was confirmed"
        if self.clock.now - watch.connection.opened_at < KNOWN_S:
            return ""
        if watch.heard_over is not watch.connection and not self.oracle.is_legacy(host):
            return f"{host} is not heard of yet"
        for resource in group.exclusive:
            word, reported = watch.words.get(resource.id), watch.reported.get(resource.id)
            if (word is not None and word.code == 7) or reported == 7:
                continue  # nobody can tell which of the two is younger
            if self._is_old(watch, resource.id):
                said = "nothing" if word is None else word.code
                return f"{resource.id} on {host} answered {said}, and was reported as {reported}"
        return ""

    def _may_be_off(self, host: str) -> bool:
        fences = self.oracle.fences
        return bool(
            fences.disk.off.get(host)
            or self.oracle.orders.confirming.get(host)
            or self.clock.now - fences.proven_at.get(host, float("-inf")) < 60.0
        )

    def _cannot_take(self, group: ResourceGroup, host: str) -> str:
        watch, orders = self.oracle.hosts[host], self.oracle.orders
        if watch.connection is None and self.clock.now - watch.ended_at >= KNOWN_S:
            return f"{host} is not connected"
        if orders.active[host].surely(False):
            return f"{host} is deactivated"
        failed = host in self.oracle.fences.disk.start_failures.get(group.id, ())
        if failed and not orders.cleanups[group.id]:
            return f"its start failed on {host}"
        return ""

    def _is_old(self, watch: HostWatch, resource: str) -> bool:
        """Has nothing new been heard of it for long enough to have been acted on?"""
        return self.clock.now - watch.changed_at.get(resource, float("-inf")) >= KNOWN_S
