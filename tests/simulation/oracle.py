"""The rules S1, S3, S4, S5 and S9, written a second time: from what crosses the ports alone.

It reads no decision of the manager and calls none of `halo.core`'s: only operations sent and
answered, heartbeats, fence programs, records on the disk, and commands with their answers. Where it
cannot know what the manager knew at that instant, it gives it the benefit of the doubt, so that
each violation is one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from halo.core.errors import Loss, LossKind
from halo.core.model import Cluster, Operation, ResourceGroup, SecondCopyPolicy
from halo.core.outcomes import (
    FenceAction,
    FenceResult,
    OperationResult,
    Outcome,
    PowerState,
    ReportBatch,
)
from tests.simulation.departures import DepartureOracle
from tests.simulation.fences import FenceOracle
from tests.simulation.hosts import Script, SimCall, SimHost
from tests.simulation.model import disk_of
from tests.simulation.orders import Orders
from tests.simulation.placing import PlacingOracle
from tests.simulation.starts_in_order import OrderOracle

if TYPE_CHECKING:
    from tests.simulation.network import SimConnection
    from tests.simulation.world import World

TURN_S = 0.001
"""Within this a manager that stood still has looked at all that came in."""

SAMPLE_AGE_S = 45.0
"""A monitor that was older than this when the group was handed to the host is no proof, however the
decision went: it may be 20 s old, and twice that where the looking itself took so long."""

PROOF_AGE_S = 10.05
"""A device's word that a host is off holds so long (S1b), and a step of the loop longer."""

COPIES_KNOWN_S = 0.1
"""What was decided before a second copy was seen is sent within this."""

_PRESENT = (0, 8, 190, 191)
_SILENCE = (LossKind.SILENT, LossKind.NO_ROUTE_TO_HOST)
_CLOSED = (LossKind.REFUSED, LossKind.RESET)
_PROVE_NOTHING = (LossKind.DNS, LossKind.LOCAL, LossKind.NO_ROUTE_TO_NETWORK)


class Word:
    """The last answer about one resource on one host."""

    __slots__ = ("code", "connection", "sent_at")

    def __init__(self, code: int, sent_at: float, connection: SimConnection) -> None:
        self.code = code
        self.sent_at = sent_at
        self.connection = connection


class HostWatch:
    """What crossed the ports of one host."""

    def __init__(self) -> None:
        self.connection: SimConnection | None = None
        self.last_connection: SimConnection | None = None
        self.words: dict[str, Word] = {}  # answers to what was asked: they may be proof
        self.reported: dict[str, int] = {}  # the last code that a watching agent reported
        self.heard_over: SimConnection | None = None  # a heartbeat was answered over it
        self.shown: dict[str, int] = {}  # the last word from anywhere, over the connection
        self.changed_at: dict[str, float] = {}  # when that was another than before
        self.sent: dict[str, int] = {}  # starts and stops over the connection
        self.answered: dict[str, int] = {}
        self.started_at: dict[str, float] = {}  # when the last start was sent
        self.start_failed: set[str] = set()  # what the last start of it left has to go
        self.last_seen: dict[str, int] = {}  # the last 0 or 7, over any connection
        self.sign_at = float("-inf")  # the last sign of life, or a reason to count afresh
        self.life_at = float("-inf")  # the last sign of life alone
        self.answered_sent_at = float("-inf")  # when the last answered probe was sent
        self.closed_at = float("-inf")  # when its port was last found closed
        self.closed_since: float | None = None  # and it was never silent since
        self.heard_at = float("-inf")  # when its agent last gave a sign of life
        self.beat_at = float("-inf")  # when its last heartbeat was answered
        self.ended_at = float("-inf")  # when its last connection ended
        self.connected_now = False  # was connected by this incarnation since its last reset
        self.quiet_since: float | None = None  # a silence that was a verdict already
        self.attempts = 0

    def word(self, resource: str) -> int | None:
        """The last code over the standing connection; None without one."""
        return None if self.connection is None else self.shown.get(resource)


class Oracle:
    """Watches every start, stop and fence."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = world.clock
        self.cluster = world.cluster
        self.orders = Orders(world)
        self.manager: Any = None
        self.observe_only = False
        self.started_at = 0.0
        self.fresh_at = 0.0  # start of the manager, or the end of its last long standstill
        self.still_since = 0.0  # the beginning of that
        self.checks = 0
        self.hosts = {host: HostWatch() for host in self.cluster.hosts}
        self.fences = FenceOracle(self)
        self.departures = DepartureOracle(self)
        self.order = OrderOracle(self)
        self.placing = PlacingOracle(self)
        self.root_seen: dict[str, SimConnection] = {}
        self.copies_seen: dict[str, tuple[float, float, set[str]]] = {}  # first, last, where
        self.groups_with: dict[str, list[ResourceGroup]] = {}

    def take_config(self, cluster: Cluster) -> None:
        """The next incarnation has this config."""
        self.cluster = cluster
        self.groups_with = {}
        for group in cluster.groups.values():
            for resource in group.resources:
                self.groups_with.setdefault(resource.id, []).append(group)
        self.orders.take_config(cluster)

    def begin(self, manager: Any, observe_only: bool) -> None:
        """A new incarnation of the manager."""
        self.manager = manager
        self.observe_only = observe_only
        self.started_at = self.fresh_at = self.clock.now
        for host in list(self.hosts):
            self.hosts[host] = HostWatch()
        self.root_seen.clear()
        self.copies_seen.clear()
        self.fences.begin()
        self.order.begin()
        self.placing.begin()

    def is_legacy(self, host: str) -> bool:
        """Does its agent, as the manager met it last, know no heartbeats?"""
        connection = self.hosts[host].last_connection
        if connection is None:
            return self.world.hosts[host].legacy
        return connection.identity.legacy

    # --- signs of life -----------------------------------------------------------------------

    def answered(self, host: str, sent_at: float) -> None:
        """A probe that was sent at `sent_at` was answered."""
        watch = self.hosts[host]
        watch.sign_at = watch.life_at = watch.heard_at = self.clock.now
        watch.quiet_since = watch.closed_since = None
        if sent_at > watch.answered_sent_at:
            watch.answered_sent_at = sent_at

    def connect_failed(self, host: str, loss: Loss) -> None:
        """An attempt failed: a sign of life, or of nothing."""
        watch = self.hosts[host]
        if loss.kind in _SILENCE:
            watch.closed_since = None
            return
        being_fenced = self.manager is not None and self.manager.fence_runner.attempt_of(host)
        port_counts = not self.cluster.settings.fence_on_connection_close
        if loss.kind in _CLOSED and being_fenced:
            # Heard by the probe of a fence: only an answer of the agent ends the verdict then.
            watch.closed_at = self.clock.now
            if port_counts:  # else it is a dead host by itself, and no news
                watch.closed_since = watch.closed_since or self.clock.now
            return
        self._keep_verdict(host)
        watch.sign_at = self.clock.now
        if loss.kind not in _PROVE_NOTHING and (port_counts or loss.kind not in _CLOSED):
            watch.life_at = self.clock.now
            watch.quiet_since = None
            if loss.kind not in _CLOSED:
                watch.heard_at = self.clock.now
            elif watch.closed_since is None:
                watch.closed_since = self.clock.now
        if loss.kind in _CLOSED:
            watch.closed_at = self.clock.now

    def silent_since(self, host: str) -> float:
        """Since when the silence of a host counts."""
        watch = self.hosts[host]
        if watch.quiet_since is not None:
            return watch.quiet_since
        return max(watch.sign_at, self.fresh_at)

    def _keep_verdict(self, host: str, now: float | None = None) -> None:
        """What comes now makes the count begin afresh, but undoes no verdict."""
        since = self.silent_since(host)
        now = self.clock.now if now is None else now
        if now - since >= self.cluster.settings.loss_budget_s:
            self.hosts[host].quiet_since = since

    def fenced(self, host: str) -> None:
        """A fence was confirmed: nothing runs there any more."""
        watch = self.hosts[host]
        for name in watch.last_seen:
            watch.last_seen[name] = 7

    def stands_still(self, since: float) -> None:
        """The manager stands still for long: it saw no silence after `since`."""
        for host in self.hosts:
            self._keep_verdict(host, since)

    def wakes(self, stood_since: float) -> None:
        """The manager stood still since then, and goes on now."""
        self.still_since, self.fresh_at = stood_since, self.clock.now

    def connected(self, connection: SimConnection) -> None:
        """A connection stands: all words of the host are void."""
        self.order.connected(connection.host.id)
        self.placing.link_changed(connection.host.id)
        watch = self.hosts[connection.host.id]
        watch.connection = watch.last_connection = connection
        for known in (watch.words, watch.reported, watch.shown, watch.sent, watch.answered):
            known.clear()
        watch.changed_at.clear()
        watch.connected_now = True
        self.answered(connection.host.id, connection.opened_at)

    def disconnected(self, connection: SimConnection) -> None:
        """A connection is gone."""
        self.placing.link_changed(connection.host.id)
        watch = self.hosts[connection.host.id]
        if watch.connection is connection:
            watch.connection = None
            watch.ended_at = self.clock.now
        if connection.loss is not None and connection.loss.kind in (LossKind.RESET,):
            watch.sign_at = watch.life_at = watch.closed_at = watch.heard_at = self.clock.now

    # --- operations --------------------------------------------------------------------------

    def may_lie(self, call: SimCall) -> bool:
        """May this monitor say 7 of a running resource? Only on the host that has the token."""
        state = self.manager.state
        for group in self.groups_with[call.resource.id]:
            host = call.connection.host.id
            here = state.groups[group.id].managed_on == host
            if here and self.orders.is_settled(group.id, host):
                return True
        return False

    def operation_sent(self, call: SimCall) -> None:
        """A start or stop leaves the manager."""
        self.checks += 1
        host, resource = call.connection.host.id, call.resource
        self._check_hands_off(call)
        self._check_second_copy(call)
        self.manager.check_invariants()
        if call.operation is Operation.START and not resource.shared:
            self._check_start(self.groups_with[resource.id][0], host, call.connection)
            self._check_needs_a_start(host, resource.id)
        self.order.sent(call)
        self.placing.sent(call)
        if call.operation is Operation.STOP:
            self.departures.stop_sent(call)
        sent = self.hosts[host].sent
        sent[resource.id] = sent.get(resource.id, 0) + 1
        if call.operation is Operation.START:
            self.hosts[host].shown[resource.id] = -1
            self.hosts[host].start_failed.discard(resource.id)
            self.hosts[host].started_at[resource.id] = self.clock.now

    def operation_answered(self, call: SimCall, result: OperationResult) -> None:
        """An answer: what is known now."""
        self.order.answered(call, result)
        self.placing.answered(call, result)
        host, name = call.connection.host.id, call.resource.id
        watch = self.hosts[host]
        watch.life_at = watch.heard_at = self.clock.now  # no heartbeat: the silence is counted on
        watch.answered_sent_at = max(watch.answered_sent_at, call.sent_at)
        if self.is_legacy(host):  # no other sign is to be had of it
            watch.sign_at, watch.quiet_since = self.clock.now, None
        old = watch.words.get(name)
        if call.operation is Operation.MONITOR:
            code = result.code if result.outcome is Outcome.COMPLETED else -1
            if old is not None and old.sent_at > call.sent_at:
                self.world.counts["older answers after newer ones"] += 1
                return
        else:
            watch.answered[name] = watch.answered.get(name, 0) + 1
            code = 0 if call.operation is Operation.START and result.code == 0 else -1
            if call.operation is Operation.START and code != 0:
                watch.start_failed.add(name)
        watch.words[name] = Word(code, call.sent_at, call.connection)
        self._seen(watch, host, name, code)

    def _seen(self, watch: HostWatch, host: str, name: str, code: int) -> None:
        if watch.shown.get(name) != code:
            watch.changed_at[name] = self.clock.now
        watch.shown[name] = code
        if code in _PRESENT:
            watch.last_seen[name] = 0
            group = self.groups_with[name][0]
            if not group.by_id[name].shared:
                self._seen_running(group, name, host)
        elif code == 7:
            watch.last_seen[name] = 7

    def reported(self, connection: SimConnection, batch: ReportBatch) -> None:
        """A report was taken: it counts where no start or stop is in between."""
        host = connection.host.id
        watch = self.hosts[host]
        if watch.heard_over is not connection:
            self.world.violated("ready", f"a report of {host} is taken before a heartbeat")
        if self.manager.fence_runner.attempt_of(host) is not None:
            self.world.violated("S3", f"a report of {host} is taken while it is being fenced")
        for found in batch.results:
            name, result = found.resource, found.result
            watch.reported[name] = result.code if result.outcome is Outcome.COMPLETED else -1
            if watch.sent.get(name, 0) == watch.answered.get(name, 0) == found.operations:
                code = result.code if result.outcome is Outcome.COMPLETED else -1
                self._seen(watch, host, name, code)

    def operation_late(self, call: SimCall) -> None:
        """No answer within the deadline: it proves nothing."""
        self.order.answered(call, None)
        self.placing.answered(call, None)
        watch = self.hosts[call.connection.host.id]
        watch.words[call.resource.id] = Word(-1, call.sent_at, call.connection)

    def _seen_running(self, group: ResourceGroup, resource: str, host: str) -> None:
        connection = self.hosts[host].connection
        elsewhere = [c for c in group.candidates if c != host and self._is_seen(group, c)]
        known = self.root_seen.get(group.id)
        if elsewhere:
            now = self.clock.now
            first_at = self.copies_seen.get(group.id, (now,))[0]
            earlier = self.copies_seen.get(group.id, (now, now, set()))[2]
            self.copies_seen[group.id] = (first_at, now, earlier | {host, *elsewhere})
        if resource == group.root and connection is not None:
            self.root_seen[group.id] = connection
            self.order.root_runs(group, host)
        elif known is not None and known.host.id != host:
            del self.root_seen[group.id]

    def _is_seen(self, group: ResourceGroup, host: str) -> bool:
        return any(self.hosts[host].word(r.id) in _PRESENT for r in group.exclusive)

    # --- S4 ----------------------------------------------------------------------------------

    def _check_hands_off(self, call: SimCall) -> None:
        what = f"{call.operation.value} of {call.resource.id} on {call.connection.host.id}"
        if self.observe_only:
            self.world.violated("S4", f"{what} in observe mode")
        if self.orders.frozen.surely(True):
            self.world.violated("S4", f"{what} while frozen")
        groups = self.groups_with[call.resource.id]
        if all(self.orders.managed[group.id].surely(False) for group in groups):
            self.world.violated("S4", f"{what} while {groups[0].id} is unmanaged")
        if call.operation is Operation.START and all(
            self.orders.wanted[group.id].surely(False) and self._stop_is_old(group)
            for group in groups
        ):
            self.world.violated("orders", f"{what} while {groups[0].id} is stopped")

    def _check_second_copy(self, call: SimCall) -> None:
        """S9: where two copies are seen, by policy `report` nothing is done."""
        group = self.groups_with[call.resource.id][0]
        if call.resource.shared or group.second_copy is not SecondCopyPolicy.REPORT:
            return
        seen = [c for c in group.candidates if self._is_seen(group, c)]
        since = self.copies_seen.get(group.id, (self.clock.now,))[0]
        if len(seen) < 2:
            self.copies_seen.pop(group.id, None)
        elif self.clock.now - since > COPIES_KNOWN_S:
            text = (
                f"{call.operation.value} of {call.resource.id} while {group.id} is seen on {seen}"
            )
            self.world.violated("S9", text)

    def _stop_is_old(self, group: ResourceGroup) -> bool:
        return not self.orders.error_may_hold(group.id)

    # --- S1 ----------------------------------------------------------------------------------

    def _check_start(self, group: ResourceGroup, host: str, connection: SimConnection) -> None:
        holder = self.manager.state.groups[group.id].managed_on
        if holder != host:
            self.world.violated("S2", f"{group.id} is started on {host} without its token")
        elsewhere = [c for c in group.candidates if c != host and self._is_seen(group, c)]
        if elsewhere:
            self.world.violated("S1", f"{group.id} starts on {host}, and is seen on {elsewhere}")
        in_place = self.root_seen.get(group.id) is connection
        for other in group.candidates:
            if other != host:
                lack = self._lack_in_place(group, other) if in_place else self._lack(group, other)
                if lack:
                    self.world.violated("S1", f"{group.id} starts on {host} without proof: {lack}")

    def _check_needs_a_start(self, host: str, resource: str) -> None:
        """What runs is adopted as it is: nothing that every last word calls running is started."""
        watch = self.hosts[host]
        word = watch.words.get(resource)
        if word is not None and word.code == 0 and watch.reported.get(resource, 0) == 0:
            self.world.violated("adoption", f"{resource} is started on {host}, and is seen there")

    def _lack_in_place(self, group: ResourceGroup, host: str) -> str:
        """In place less is asked: that it was not last seen running where nobody can look."""
        watch = self.hosts[host]
        if watch.connection is not None or all(
            watch.last_seen.get(r.id) != 0 for r in group.exclusive
        ):
            return ""
        lack = self.fences.lacks_power_proof(host)
        return f"last seen running on {host}; {lack}" if lack else ""

    def _lack(self, group: ResourceGroup, host: str) -> str:
        watch, now = self.hosts[host], self.clock.now
        handed_at = self.manager.state.groups[group.id].managed_since
        if watch.connection is None and not self._is_just_learnt(watch, host):
            return self.fences.lacks_power_proof(host)
        for resource in group.exclusive:
            word = watch.words.get(resource.id)
            if word is None or word.connection is not watch.last_connection:
                return f"{resource.id} was not looked at on {host} over this connection"
            if word.code != 7:
                return f"{resource.id} on {host} answered {word.code}"
            if word.sent_at < watch.started_at.get(resource.id, -1.0):
                return f"{resource.id} on {host} was started after it was looked at"
            if handed_at - max(word.sent_at, self.fresh_at) > SAMPLE_AGE_S:
                return f"{resource.id} on {host} was last looked at {now - word.sent_at:.1f} s ago"
        return ""

    # --- the world's truth -------------------------------------------------------------------

    def start_begins(self, host: SimHost, script: Script) -> None:
        """A start script begins: nothing else may run, or start, on another host."""
        self.checks += 1
        name = script.resource.id
        if script.resource.shared or name not in self.groups_with:
            return  # the script of an older config began late
        group = self.groups_with[name][0]
        # S1's exception: where the root is seen a group may be completed, though another copy runs
        # that this manager never saw; it takes a root that somebody started by hand.
        root, disk = disk_of(group.root), disk_of(name)
        in_place = root in self.world.touched_by_hand and root in host.running
        for other in self.world.hosts.values():
            if other is host or not other.powered:
                continue
            if in_place and self.hosts[other.id].last_seen.get(name) != 0:
                continue
            copy = other.running.get(disk)
            if copy is not None and not copy.by_hand:
                self.world.violated(
                    "second start", f"{name} starts on {host.id}, runs on {other.id}"
                )
            if any(
                running.operation is Operation.START and not running.done
                for lane, running in other.scripts.items()
                if disk_of(lane) == disk
            ):
                self.world.violated(
                    "second start", f"{name} starts on {host.id} and on {other.id} at once"
                )

    def awake_since(self, at: float) -> float:
        """For how long the manager was awake since then, but for its last long standstill."""
        stood_s = self.fresh_at - self.still_since if at <= self.still_since else 0.0
        return self.clock.now - at - stood_s

    @property
    def just_woke(self) -> bool:
        """Has the manager stood still until just now? All that came in meanwhile is there at once,
        and none of it is the first."""
        return self.clock.now - self.fresh_at < TURN_S

    def _is_just_learnt(self, watch: HostWatch, host: str) -> bool:
        """Did its connection end while the manager stood still, and has that just woken? Or within
        this turn, and the manager has not come to it yet?"""
        unnoticed_s = self.clock.now - self.world.noticed_at(watch.ended_at)
        if unnoticed_s < TURN_S and self.manager.state.hosts[host].connected:
            return True
        return self.still_since <= watch.ended_at <= self.fresh_at and self.just_woke

    def stop_begins(self, host: SimHost, script: Script) -> None:
        """A stop script begins: a shared resource must not be needed by another group, but for one
        whose own start of it failed."""
        self.checks += 1
        if self.manager is None:
            return
        if not script.resource.shared:
            self._check_left_behind(host, script)
            return
        state = self.manager.state
        users = [
            group.id
            for group in self.groups_with[script.resource.id]
            if host.id in group.candidates
            and state.groups[group.id].managed_on == host.id
            and self.orders.is_settled(group.id, host.id)
            and all(self.hosts[host.id].word(r.id) == 0 for r in group.exclusive)
            and all(
                self.world.runs(host, p) for p in group.parents_of(group.by_id[script.resource.id])
            )
        ]
        runs = self.world.runs(host, script.resource)
        if len(users) > 1 and runs:
            self.world.counts["shared restarts"] += 1
        stopping = [
            group.id
            for group in self.groups_with[script.resource.id]
            if state.groups[group.id].managed_on == host.id
            and not self.orders.is_settled(group.id, host.id)
        ]
        failed = script.resource.id in self.hosts[host.id].start_failed
        if users and stopping and not failed and runs:
            self.world.violated(
                "shared",
                f"{script.resource.id} is stopped on {host.id} for {stopping}, needed by {users}",
            )

    def _check_left_behind(self, host: SimHost, script: Script) -> None:
        """A shared resource stays where its parent stops only for a group that is there, too. Here
        all others are surely gone: HALO acts on them elsewhere, and each resource of theirs was
        last seen stopped. A leaf that somebody started, or that scripts lie about, may be news."""
        group, state = self.groups_with[script.resource.id][0], self.manager.state
        if state.groups[group.id].managed_on != host.id:
            return  # a second copy that is stopped by policy
        shown = self.hosts[host.id].shown
        for leaf in group.dependents_of(script.resource):
            copy = host.running.get(leaf.id)
            is_known = leaf.shared and shown.get(leaf.id) in _PRESENT
            if copy is None or copy.by_hand or not is_known:
                continue
            others = [g for g in self.groups_with[leaf.id] if g is not group]
            where = {state.groups[other.id].managed_on for other in others}
            if host.id in where:
                self.world.counts["shared left to another group"] += 1
            elif None not in where and all(
                shown.get(r.id, 7) == 7 for other in others for r in other.exclusive
            ):
                text = f"{leaf.id} still runs on {host.id} as {script.resource.id} is stopped"
                self.world.violated("shared", f"{text}, and no other group needs it there")

    # --- fences ------------------------------------------------------------------------------

    def fence_begins(self, host: str, device: str, action: FenceAction) -> None:
        """A fence program begins."""
        self.checks += 1
        self.departures.fence_begins(host, action)
        self.fences.run_begins(host, device, action)

    def fence_ends(
        self,
        host: str,
        device: str,
        action: FenceAction,
        result: FenceResult | None,
        began: float,
    ) -> None:
        """A fence program ended."""
        succeeded = result is not None and result.succeeded
        says_off = result is not None and result.power is PowerState.OFF
        self.fences.run_ends(host, device, action, succeeded, says_off, began)
