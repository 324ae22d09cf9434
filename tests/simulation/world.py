"""The simulated world: hosts, network, devices and disk, and everyone who watches them.

Whatever happens is told here once: to the timeline (for people), to the watchers (the oracles),
and to the faults that wait for such a moment.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from halo.core.errors import Loss
from halo.core.model import Cluster, FenceDevice, Operation, Resource, ResourceGroup
from halo.core.outcomes import FenceAction, FenceResult, OperationResult, ReportBatch
from tests.simulation.devices import Outlets
from tests.simulation.disk import SimDisk
from tests.simulation.hosts import Script, SimCall, SimHost
from tests.simulation.loop import Clock
from tests.simulation.model import Scenario, disk_of
from tests.simulation.oracle import Oracle
from tests.simulation.oracles.all import oracles_for

if TYPE_CHECKING:
    from tests.simulation.network import SimConnection, SimConnector


class WallTime:
    """The manager's time of day, which faults may step."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.offset_s = 1_700_000_000.0
        self.offsets = {self.offset_s}  # every one so far

    def step(self, seconds: float) -> None:
        """A fault, or somebody who sets the clock."""
        self.offset_s += seconds
        self.offsets.add(self.offset_s)

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock.now + self.offset_s


class World:
    """Everything but the manager."""

    host_type: type[SimHost] = SimHost

    def __init__(self, scenario: Scenario, clock: Clock) -> None:
        self.scenario = scenario
        self.clock = clock
        self.random = Random(scenario.seed * 2 + 1)
        self.further = Random(f"{scenario.seed}, further")  # for what was added later
        self.shortage: dict[str, float] = {}  # of the manager's programs, connections: that fail
        self.cluster = scenario.cluster()
        self.known_hosts = self.cluster.hosts  # of every config
        self.ever_candidates: dict[str, set[str]] = {}  # of a disk, in any config so far
        self.last_disks: dict[str, set[str]] = {}  # of a group, in the last config that had it
        self.hosts = {n: self.host_type(self, n, o) for n, o in scenario.hosts.items()}
        self.outlets = Outlets(self)
        self.disk = SimDisk()
        self.wall = WallTime(clock)
        self.script_time_s = scenario.options.get("script_time_s", 1.0)
        self.script_faults: dict[tuple[str, str, str], list[Any]] = {}
        self.counts: Counter[str] = Counter()
        self.touched_by_hand: set[str] = set()  # groups of which somebody started something
        self.violations: list[str] = []
        self.timeline: list[str] | None = None
        self.waiting: dict[str, list[Callable[[str], None]]] = {}  # armed faults, by trigger
        self.oracle = Oracle(self)
        self.manager_is_away: Callable[[], bool] = lambda: False
        self.absences: list[tuple[float, float]] = []  # in which the manager stood still
        self.oracles = oracles_for(self)
        self.take_config(self.cluster)

    def take_config(self, cluster: Cluster) -> None:
        """From now on, the manager has this config. Hosts run on as they did."""
        self.cluster = cluster
        for group in cluster.groups.values():
            self.last_disks[group.id] = {disk_of(resource.id) for resource in group.exclusive}
            for resource in group.resources:
                hosts = self.ever_candidates.setdefault(disk_of(resource.id), set())
                hosts.update(group.candidates)
        self.oracle.take_config(cluster)
        self.oracles.take_config(cluster)

    def groups_with_disk(self, disk: str) -> list[ResourceGroup]:
        """The groups whose resources are this disk."""
        found = self.oracle.groups_with
        return [group for name, groups in found.items() if disk_of(name) == disk
                for group in groups]  # fmt: skip

    def runs(self, host: SimHost, resource: Resource) -> bool:
        """Does the resource run on this host, under whatever name it was started?"""
        return disk_of(resource.id) in host.running

    def is_shared(self, resource: str) -> bool:
        """Do several groups have it?"""
        return len(self.oracle.groups_with[resource]) > 1

    # --- telling -----------------------------------------------------------------------------

    def say(self, who: str, what: str) -> None:
        """A line for people."""
        if self.timeline is not None:
            self.timeline.append(f"{self.clock.now:10.3f}  {who:<10} {what}")

    def violated(self, rule: str, text: str) -> None:
        """An invariant is broken: the run ends."""
        line = f"{rule}: {text}"
        self.violations.append(line)
        self.say("CHECK", f"VIOLATION {line}")

    def tell(self, event: str, host: str = "") -> None:
        """Something happened that a fault may wait for."""
        armed = self.waiting.pop(event, None) if self.waiting else None
        if armed is not None:
            for act in armed:
                act(host)

    def recorded(self, texts: list[str]) -> None:
        """Records are on the disk, and the manager does not know it yet."""
        for text in texts if self.waiting else ():
            record = json.loads(text)
            self.tell(f"record-{record['event']}", self._host_of(record["object"]))

    def _host_of(self, name: str) -> str:
        """Of a group: where HALO acts on it, or its first candidate."""
        group = self.cluster.groups.get(name)
        if group is None or self.oracle.manager is None:
            return name
        return self.oracle.manager.state.groups[name].managed_on or group.candidates[0]

    def runs_short(self, of: str) -> bool:
        """Is there no descriptor or no memory for a connection or a program of the manager's?"""
        return bool(self.shortage) and self.further.random() < self.shortage.get(of, 0.0)

    def latency(self, host: SimHost) -> float:
        """One way to a host or back, in seconds."""
        return self.random.random() * 0.002 + 0.0002 + host.delay_s

    def was_away(self, at: float) -> bool:
        """Did the manager stand still then, or had it just woken?"""
        return any(begun <= at <= ended + 0.1 for begun, ended in self.absences)

    def noticed_at(self, at: float) -> float:
        """When the manager could first notice what came at `at`: then, or when it goes on."""
        return max([at, *(end for begun, end in self.absences if begun <= at <= end)])

    def take_script_fault(self, host: str, call: SimCall) -> str:
        """The fault that this run of a script meets, if any."""
        name, operation = disk_of(call.resource.id), call.operation.value
        for key in ((host, name, operation), ("", name, operation), (host, "", operation)):
            entry = self.script_faults.get(key)
            if entry is None:
                continue
            kind: str = entry[0]
            if kind == "says-7" and not call.lie:
                continue
            entry[1] -= 1
            if entry[1] <= 0:
                del self.script_faults[key]
            self.say(host, f"{operation} of {name} meets: {kind}")
            return kind
        return ""

    # --- what the ports tell -----------------------------------------------------------------

    def probe_sent(self, connector: SimConnector, host: str) -> None:
        """A heartbeat or a connection attempt leaves the manager."""
        self.oracles.probe_sent(host)

    def beat_answered(self, connection: SimConnection, sent_at: float) -> None:
        """A heartbeat was answered."""
        self.oracle.answered(connection.host.id, sent_at)
        watch = self.oracle.hosts[connection.host.id]
        is_first = watch.heard_over is not connection
        watch.heard_over, watch.beat_at = connection, self.clock.now
        self.oracles.beat_answered(connection, is_first)

    def connect_failed(self, connector: SimConnector, host: str, loss: Loss) -> None:
        """A connection attempt failed."""
        self.oracle.connect_failed(host, loss)
        self.oracles.connect_failed(host, loss)

    def connected(self, connection: SimConnection) -> None:
        """A connection stands."""
        self.say("manager", f"connected to {connection.host.id}")
        self.oracle.connected(connection)
        self.oracles.connected(connection)
        if connection.loss is not None:  # it ended while the manager stood still
            self.oracle.disconnected(connection)
            self.oracles.disconnected(connection)
        self.tell("connected", connection.host.id)

    def disconnected(self, connection: SimConnection) -> None:
        """A connection is gone, as the manager sees it."""
        self.say("manager", f"disconnected from {connection.host.id}: {connection.loss}")
        self.oracle.disconnected(connection)
        self.oracles.disconnected(connection)
        self.tell("disconnected", connection.host.id)

    def operation_sent(self, call: SimCall) -> None:
        """The manager asks an agent for something."""
        self.oracles.sent(call)
        if call.operation is Operation.MONITOR:
            call.lie = bool(self.script_faults) and self.oracle.may_lie(call)
            return
        host = call.connection.host.id
        self.say("manager", f"{call.operation.value} {call.resource.id} on {host}")
        self.counts[call.operation.value] += 1
        self.oracle.operation_sent(call)
        self.tell(call.operation.value, host)

    def operation_answered(self, call: SimCall, result: OperationResult) -> None:
        """The answer reaches the manager."""
        if call.operation is not Operation.MONITOR:
            text = f"{result.outcome.value} {result.code}"
            host = call.connection.host.id
            self.say("manager", f"{call.operation.value} {call.resource.id} on {host}: {text}")
            self.tell(f"{call.operation.value}-answered", host)
        else:
            self.tell("monitor-answered", call.connection.host.id)
        self.oracle.operation_answered(call, result)
        self.oracles.answered(call, result)

    def reported(self, connection: SimConnection, batch: ReportBatch) -> None:
        """The manager took a report."""
        self.oracle.reported(connection, batch)
        self.oracles.reported(connection, batch)
        self.tell("reported", connection.host.id)

    def operation_late(self, call: SimCall) -> None:
        """The manager gave up waiting for an answer."""
        self.oracle.operation_late(call)
        self.oracles.answered(call, None)

    def script_begins(self, host: SimHost, script: Script) -> None:
        """A start or stop script begins."""
        self.say(host.id, f"{script.operation.value} script of {script.resource.id} begins")
        if script.operation is Operation.START:
            self.oracle.start_begins(host, script)
        else:
            self.oracle.stop_begins(host, script)
        self.tell(f"{script.operation.value}-script", host.id)

    def script_ended(self, host: SimHost, script: Script, result: OperationResult) -> None:
        """A start or stop script ended."""
        text = f"{result.outcome.value} {result.code}"
        self.say(host.id, f"{script.operation.value} script of {script.resource.id} ends: {text}")

    def fence_begins(self, device: FenceDevice, action: FenceAction) -> None:
        """The manager runs a fence program."""
        plug, name = device.parameters["plug"], device.parameters["device"]
        self.say("manager", f"fence device {name} ({plug}): {action.value}")
        self.counts[f"fence {action.value}"] += 1
        self.oracle.fence_begins(plug, name, action)
        self.oracles.fence_begins(plug, name, action)
        self.tell(f"fence-{action.value}", plug)

    def fence_ends(
        self, device: FenceDevice, action: FenceAction, result: FenceResult | None, began: float
    ) -> None:
        """A fence program ended; without a result it was killed."""
        name = device.parameters["device"]
        what = "killed" if result is None else f"{result.succeeded} {result.power.value}"
        self.say("manager", f"fence device {name}: {action.value} ended: {what}")
        self.oracle.fence_ends(device.parameters["plug"], name, action, result, began)
        self.oracles.fence_ends(device.parameters["plug"], name, action, result)
        self.tell(f"fence-{action.value}-ended", device.parameters["plug"])
