"""No act without its record: what the journal must hold after an act that crossed the ports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from halo.core.model import Operation, SecondCopyPolicy
from halo.core.outcomes import FenceAction, OperationResult, Outcome

if TYPE_CHECKING:
    from tests.simulation.hosts import SimCall
    from tests.simulation.network import SimConnection
    from tests.simulation.oracles.records import RecordOracle
    from tests.simulation.world import World

RULE = "unrecorded"
AT_ONCE_S = 0.05
WRITTEN_S = 2.0
"""When a record that was noted at once has to be on a disk that works."""

DISTURBED_S = 12.0
"""So long after a command may a group's task be another one than before."""

DECIDED_S = 0.05
"""So long before its first off may a fence have been decided, and the outcome been made: a command
that cancels it waits for the disk, too."""

OUTCOMES = ("fence", "fence-failed", "fence-cancel")


@dataclass(frozen=True)
class Owed:
    """A record that has to be made within `at` and a step after it."""

    event: str
    object: str
    at: float
    due: float
    why: str


class ActOracle:
    """Waits for the record of each act."""

    def __init__(self, world: World, records: RecordOracle) -> None:
        self.world = world
        self.clock = world.clock
        self.records = records
        self._owed: list[Owed] = []
        self._attempts: dict[str, tuple[Any, float]] = {}
        self._ended: list[tuple[str, float, float]] = []  # fences whose outcome has to be found
        self.ran: dict[tuple[str, str], tuple[SimConnection, float]] = {}  # seen running, since
        self._crashed: dict[tuple[str, str], tuple[SimConnection, float]] = {}

    def begin(self) -> None:
        """A new life of the manager: what the old one owed is lost."""
        self._owed.clear()
        self._attempts.clear()
        self._ended.clear()
        self.ran.clear()
        self._crashed.clear()

    # --- acts --------------------------------------------------------------------------------

    def _owe(self, event: str, name: str, why: str) -> None:
        if not self.world.manager_is_away():
            now = self.clock.now
            self._owed.append(Owed(event, name, now, now + WRITTEN_S, why))

    def connected(self, connection: SimConnection) -> None:
        """A connection stands."""
        host = connection.host.id
        self._owe("reconnect", host, "a connection was made")
        if connection.identity.legacy:
            self._owe("connect", host, "an old agent was greeted")

    def beat_answered(self, connection: SimConnection) -> None:
        """The first heartbeat over a connection was answered."""
        self._owe("connect", connection.host.id, "its first heartbeat was answered")

    def disconnected(self, connection: SimConnection) -> None:
        """A connection ended: what it owed just now may not be noted any more."""
        host, just = connection.host.id, self.clock.now - AT_ONCE_S
        is_just_made = any(o.object == host and o.at >= just for o in self._owed)
        self._owed = [o for o in self._owed if o.object != host or o.at < just]
        if not is_just_made:
            self._owe("disconnect", host, "its connection ended")

    def sent(self, call: SimCall) -> None:
        """A start or stop leaves."""
        if call.operation is Operation.STOP:
            key = call.connection.host.id, call.resource.id
            self.ran.pop(key, None)
            self._crashed.pop(key, None)

    def answered(self, call: SimCall, result: OperationResult | None) -> None:
        """An answer to an operation; without a result, none came in time."""
        host, resource = call.connection.host.id, call.resource
        code = result.code if result is not None and result.outcome is Outcome.COMPLETED else -1
        group = self.world.oracle.groups_with[resource.id][0]
        if call.operation is Operation.MONITOR or resource.shared:
            if call.operation is Operation.MONITOR:
                self.seen(call.connection, resource.id, code)
            return
        at = self.world.oracle.manager.state.groups[group.id]
        if (
            at.managed_on != host
            or call.connection not in self.world.oracles.links
            or self.is_disturbed(group.id)
        ):
            return
        name = resource.id
        if call.operation is Operation.START and code != 0:
            self._owe("start-failed", group.id, f"the start of {name} on {host} failed")
        elif call.operation is Operation.STOP and code not in (0, 7):
            self._owe("error", group.id, f"the stop of {name} on {host} failed")
        elif call.operation is Operation.START:
            crashed = self._crashed.pop((host, name), None)
            is_known = crashed is not None and crashed[0] is call.connection
            if crashed is not None and is_known and at.managed_since < crashed[1]:
                self._owe("restarted", group.id, f"{name} had stopped on {host}")
            self.ran[host, name] = call.connection, self.clock.now

    def seen(self, connection: SimConnection, name: str, code: int) -> None:
        """A monitor of the manager was answered."""
        key = connection.host.id, name
        if name in self.world.oracles.shown.under_way[key[0]]:
            return  # sampled before it, or in the middle of it
        ran = self.ran.get(key)
        if code == 0 and ran is None:
            self.ran[key] = connection, self.clock.now
        elif code == 7 and ran is not None:
            del self.ran[key]
            group = self.world.oracle.groups_with[name][0]
            since = self.world.oracle.manager.state.groups[group.id].managed_since
            resource = group.by_id[name]
            period_s = resource.monitor_interval_s or self.world.cluster.settings.monitor_interval_s
            its_task_knew = self.clock.now - ran[1] > period_s + 1.0  # not only a survey
            if ran[0] is connection and since < ran[1] and its_task_knew:
                self._crashed[key] = connection, ran[1]

    def is_disturbed(self, group: str) -> bool:
        """May a command have taken the group from its task just now?"""
        dropped_at = self.world.oracles.shown.dropped_at.get(group, float("-inf"))
        return self.clock.now - dropped_at < DISTURBED_S or self.world.oracles.has_pending()

    def fence_begins(self, host: str, action: FenceAction) -> None:
        """A fence program begins: its intent is on the disk, if the disk works."""
        attempt = self.world.oracle.manager.fence_runner.attempt_of(host)
        if action is not FenceAction.OFF or attempt is None:
            return
        if self._attempts.get(host, (None, 0.0))[0] is not attempt:
            self._attempts[host] = attempt, self.clock.now
        page = self.world.oracles.memory.book.host(host)
        if not page.intent and not self.world.oracles.memory.disk_was_bad():
            self.world.violated(RULE, f"{host} is powered off, and no intent is on the disk")

    # --- looking -----------------------------------------------------------------------------

    def tick(self) -> None:
        """Once a second: is everything written down?"""
        if self.world.oracles.memory.disk_was_bad() or self.world.manager_is_away():
            return
        self._look_at_fences()
        if self._owed and self._owed[0].due <= self.clock.now:
            due = [owed for owed in self._owed if owed.due <= self.clock.now]
            self._owed = [owed for owed in self._owed if owed.due > self.clock.now]
            for owed in due:
                self._check(owed)
        self._look_at_copies()

    def _check(self, owed: Owed) -> None:
        latest = owed.at + AT_ONCE_S
        if (
            not self.records.knows_when
            or self.world.was_away(owed.at)
            or self.world.was_away(latest)
        ):
            return
        if not self.records.landed.may_be_within(owed.at - 1e-3, latest, owed.event, owed.object):
            text = (
                f"{owed.why} at {owed.at:.3f}, and no record {owed.event} of {owed.object} says so"
            )
            self.world.violated(RULE, text)

    def _look_at_fences(self) -> None:
        desk = self.world.oracle.manager.fence_runner
        for host, (attempt, began) in list(self._attempts.items()):
            if desk.attempt_of(host) is not attempt:
                del self._attempts[host]
                self._ended.append((host, began, self.clock.now + WRITTEN_S))
        for entry in [entry for entry in self._ended if entry[2] <= self.clock.now]:
            self._ended.remove(entry)
            host, began, _ = entry
            if self.records.knows_when and not any(
                self.records.landed.may_be_within(began - DECIDED_S, self.clock.now, event, host)
                for event in OUTCOMES
            ):
                self.world.violated(
                    RULE, f"the fence of {host} has ended, and no outcome is recorded"
                )

    def _look_at_copies(self) -> None:
        """Two copies that stay, under the policy `report`, are an error on record."""
        oracle = self.world.oracle
        for name, (first_at, _, _) in oracle.copies_seen.items():
            group = self.world.cluster.groups[name]
            page = self.world.oracles.memory.book.group(name)
            if (
                group.second_copy is not SecondCopyPolicy.REPORT
                or self.clock.now - first_at < 10.0
                or oracle.observe_only
                or page.kind == "second-copy"
                or not oracle.orders.managed[name].surely(True)
                or self.is_disturbed(name)
            ):
                continue
            seen = [
                host
                for host in group.candidates
                if any(oracle.hosts[host].word(r.id) in (0, 8, 190, 191) for r in group.exclusive)
                and min(
                    self.clock.now - oracle.hosts[host].changed_at.get(r.id, self.clock.now)
                    for r in group.exclusive
                ) > 10.0
            ]  # fmt: skip
            if len(seen) > 1:
                text = f"{name} is seen on {seen} for long, and no second copy is recorded"
                self.world.violated(RULE, text)
