"""Nothing waits longer than its documented bound once all facts are there.

What has to be done is derived, once a second, from what crossed the ports. It is a violation if the
same has to be done for a whole bound, without a pause, and nothing is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from halo.core.model import Cluster, ResourceGroup, StartFailurePolicy
from tests.simulation.oracles.due_hosts import QUIET_S, HostsDue

if TYPE_CHECKING:
    from tests.simulation.oracle import HostWatch
    from tests.simulation.world import World

RULE = "late"
BOUND_S = 4.0
SHARED_S = 10.0
"""More, where a stop may have to wait for a look at the other groups of a shared resource."""

ANSWERED_S = 1.0
"""A monitor without an answer for so long is a fault: its group may have to wait for it."""


class DueOracle:
    """Keeps what has to be done, and since when."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.oracle = world.oracle
        self.clock = world.clock
        self._hosts = HostsDue(world)
        self._since: dict[tuple[str, str], float] = {}
        self.asked: dict[tuple[str, str], float] = {}  # monitors without an answer, and when
        self._mine: dict[str, list[str]] = {}  # the exclusive resources of each group

    def take_config(self, cluster: Cluster) -> None:
        """The next life of the manager has this config."""
        self._mine = {
            name: [r.id for r in group.exclusive] for name, group in cluster.groups.items()
        }

    def begin(self) -> None:
        """A new life of the manager."""
        self._since.clear()
        self.asked.clear()

    # --- what happens ------------------------------------------------------------------------

    def link_changed(self, host: str) -> None:
        """A connection begins or ends: what was asked over the last one is void."""
        for key in [key for key in self.asked if key[0] == host]:
            del self.asked[key]

    def acted(self, groups: list[ResourceGroup]) -> None:
        """A start or stop is sent for one of these."""
        names = {group.id for group in groups}
        for key in [key for key in self._since if key[0] in names]:
            del self._since[key]

    # --- looking -----------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a second."""
        now, before = self.clock.now, self._since
        self._since = {}
        if self.world.manager_is_away() or self._was_away_lately() or self.oracle.observe_only:
            return
        due = self._hosts.links_due()
        if not (self.oracle.orders.frozen.may_be(True) or self.world.oracles.has_pending()):
            for group in self.world.cluster.groups.values():
                if (what := self._due(group)) is not None:
                    due.append((group.id, what))
        for key in due:
            since = self._since[key] = before.get(key, now)
            has_shared = key[0] in self._mine and len(self._mine[key[0]]) < len(
                self.world.cluster.groups[key[0]].resources
            )
            if now - since > (SHARED_S if has_shared else BOUND_S):
                self.world.violated(RULE, f"{key[0]} waits since {since:.1f} s: {key[1]}")

    def _was_away_lately(self) -> bool:
        absences = self.world.absences
        return bool(absences) and self.clock.now - absences[-1][1] < BOUND_S

    # --- groups ------------------------------------------------------------------------------

    def _due(self, group: ResourceGroup) -> str | None:
        """What has to be done for this group, as far as that is plain."""
        name, orders = group.id, self.oracle.orders
        page, at = self.world.oracles.memory.book.group(name), self._holder(group)
        if not orders.managed[name].surely(True) or self.world.oracles.acts.is_disturbed(name):
            return None
        if not self.world.oracles.memory.is_settled:
            return None  # what the manager noted may not be on the disk yet
        if page.former:
            return None  # a former host counts, too: it has to be proven stopped there
        if page.error is not None or (at is not None and page.left_alone):
            return None
        is_stay = group.on_start_failure is StartFailurePolicy.STAY
        if page.start_failures and (at is not None or is_stay):
            return None
        if orders.wanted[name].surely(True) and at is not None:
            shown, stays = self.oracle.hosts[at].shown, orders.active[at].surely(True)
            runs = all(shown.get(resource) == 0 for resource in self._mine[name])
            if runs and stays and page.target is None:
                return None
        if self._is_busy(group):
            return None
        if orders.wanted[name].surely(False):
            return self._due_of_stopped(group, at)
        if not orders.wanted[name].surely(True) or not page.wanted:
            return None
        return self._due_at_desk(group) if at is None else self._due_where_it_is(group, at, page)

    def _holder(self, group: ResourceGroup) -> str | None:
        holder: str | None = self.oracle.manager.state.groups[group.id].managed_on
        return holder

    def _is_busy(self, group: ResourceGroup) -> bool:
        """Is an operation under way, or a monitor without an answer for long, or a host slow?"""
        now, under_way = self.clock.now, self.world.oracles.shown.under_way
        for host in group.candidates:
            sim, calls = self.world.hosts[host], under_way[host]
            if self.world.oracles.is_being_fenced(host):
                return True
            if sim.powered and not sim.answers_promptly:
                return True
            for resource in group.resources:
                if resource.id in calls or resource.id in sim.scripts:
                    return True
                if now - self.asked.get((host, resource.id), now) > ANSWERED_S:
                    return True
        return False

    def _due_of_stopped(self, group: ResourceGroup, at: str | None) -> str | None:
        if at is None:
            page = self.world.oracles.memory.book.group(group.id)
            is_stopped = all(self.is_stopped(group, host) for host in group.candidates)
            return "to be noted as at rest" if is_stopped and not page.at_rest else None
        return "a stop, as ordered" if self._some_run(group, at) and self.is_up(at) else None

    def _due_at_desk(self, group: ResourceGroup) -> str | None:
        hosts = group.candidates
        running = [host for host in hosts if self.runs(group, host)]
        stopped = [host for host in hosts if self.is_stopped(group, host)]
        if len(running) == 1 and len(stopped) == len(hosts) - 1:
            return f"to be managed on {running[0]}"
        lacking = [host for host in hosts if host not in stopped]
        failures = self.world.oracles.memory.book.group(group.id).start_failures
        able = [
            host
            for host in stopped
            if self.oracle.orders.active[host].surely(True) and host not in failures
        ]
        if group.needs and not lacking and not self._waits_for_others(group):
            has_turns = self._has_turns(group)
            is_plain = any(self.oracle.placing.has_plain_room(group, host) for host in able)
            return "a start: there is plainly room for it" if is_plain and not has_turns else None
        has_wishes = self._has_wishes(group)  # `settle` waits for such groups
        if not able or len(lacking) > 1 or has_wishes:
            return None
        if not lacking or self._hosts.is_proven_off(lacking[0]):
            before = map(self.world.cluster.groups.__getitem__, group.after)
            has_its_turn = all(map(self._runs_for_sure, before))
            return "a start: it is proven stopped everywhere" if has_its_turn else None
        return self._hosts.due_fence(lacking[0]) if not running else None

    def _has_wishes(self, group: ResourceGroup) -> bool:
        """Do other groups count for when and where it is started?"""
        return bool(group.needs or group.company.all or self._has_turns(group))

    def _waits_for_others(self, group: ResourceGroup) -> bool:
        """May it have to wait for other groups, although there is room for it?"""
        return bool(group.after or group.company.all or self._has_turns(group))

    def _has_turns(self, group: ResourceGroup) -> bool:
        hosts = self.world.cluster.hosts
        return any(hosts[host].max_starts for host in group.candidates)

    def _runs_for_sure(self, group: ResourceGroup) -> bool:
        """Does the manager know that the whole group should run, and runs?"""
        return self.oracle.orders.wanted[group.id].surely(True) and any(
            self.runs(group, host)
            and not any(self.oracle.order.is_under_way(host, r.id) for r in group.resources)
            for host in group.candidates
        )

    def _due_where_it_is(self, group: ResourceGroup, at: str, page: Any) -> str | None:
        others = [host for host in group.candidates if host != at]
        if not self.is_up(at) or not all(self.is_stopped(group, host) for host in others):
            return None
        whole = self.runs(group, at)
        if page.target == at:
            return "its move to be noted as done" if whole else None
        active = self.oracle.orders.active
        has_wishes = self._has_wishes(group)  # its target may not suit it any more
        if page.target in others and whole and not has_wishes:
            can = active[page.target].surely(True)
            return f"a stop, to move to {page.target}" if can else None
        if active[at].surely(False) and whole and not has_wishes:
            able = any(active[host].surely(True) for host in others)
            return f"a stop, to leave {at}" if able else None
        if page.target is None and active[at].surely(True) and self._some_are_gone(group, at):
            return "a start of what does not run"
        return None

    # --- facts -------------------------------------------------------------------------------

    def is_up(self, host: str) -> bool:
        """Is it connected for a while, and was it heard?"""
        watch = self.oracle.hosts[host]
        return (
            watch.connection is not None
            and self.clock.now - watch.connection.opened_at > QUIET_S
            and (watch.heard_over is watch.connection or self.oracle.is_legacy(host))
        )

    def _said(self, watch: HostWatch, name: str) -> int | None:
        """The last word, if it stands for a while and nothing contradicts it."""
        word, reported = watch.shown.get(name), watch.reported.get(name)
        is_news = self.clock.now - watch.changed_at.get(name, self.clock.now) < QUIET_S
        known = watch.words.get(name)
        if is_news or (reported is not None and reported != word):
            return None
        return word if known is None or known.code == word else None

    def _all_said(self, group: ResourceGroup, host: str, code: int) -> bool:
        watch = self.oracle.hosts[host]
        return self.is_up(host) and all(
            self._said(watch, name) == code for name in self._mine[group.id]
        )

    def is_stopped(self, group: ResourceGroup, host: str) -> bool:
        """Is the whole group plainly seen stopped there?"""
        return self._all_said(group, host, 7)

    def runs(self, group: ResourceGroup, host: str) -> bool:
        """Is the whole group plainly seen running there?"""
        watch = self.oracle.hosts[host]
        shared = all(watch.shown.get(r.id) == 0 for r in group.resources if r.shared)
        return shared and self._all_said(group, host, 0)

    def _some_run(self, group: ResourceGroup, host: str) -> bool:
        watch = self.oracle.hosts[host]
        said = [self._said(watch, name) for name in self._mine[group.id]]
        return 0 in said and set(said) <= {0, 7}

    def _some_are_gone(self, group: ResourceGroup, host: str) -> bool:
        watch = self.oracle.hosts[host]
        said = [self._said(watch, name) for name in self._mine[group.id]]
        return 7 in said and set(said) <= {0, 7}
