"""All oracles of this folder, told of what crosses the ports, and asked to look at a status."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

from halo.core.errors import Loss
from halo.core.model import Cluster, Operation
from halo.core.outcomes import (
    FenceAction,
    FenceResult,
    OperationResult,
    Outcome,
    PowerState,
    ReportBatch,
)
from tests.simulation.oracles.acts import ActOracle
from tests.simulation.oracles.commands import TAKES_EFFECT_LATE, CommandOracle
from tests.simulation.oracles.derived import DerivedOracle
from tests.simulation.oracles.due import DueOracle
from tests.simulation.oracles.facts import Facts
from tests.simulation.oracles.memory import MemoryOracle
from tests.simulation.oracles.needless import NeedlessOracle
from tests.simulation.oracles.pace import SHORT_S, PaceOracle
from tests.simulation.oracles.records import RecordOracle
from tests.simulation.oracles.shown import ShownOracle
from tests.simulation.oracles.stale import StaleOracle
from tests.simulation.oracles.words import WordsOracle

if TYPE_CHECKING:
    from tests.simulation.hosts import SimCall
    from tests.simulation.network import SimConnection
    from tests.simulation.operator import Pending
    from tests.simulation.world import World

LONG_TICKS = 10
"""There, what is due is derived every so many seconds."""

SWITCH = "HALO_SIMULATION_ORACLES"
"""With `none` in this variable of the environment, these oracles do not judge."""

DROPS = {"manage", "cleanup", "thaw"}
"""Commands after which groups are probed again."""


def oracles_for(world: World) -> Oracles:
    """All of them, or what says nothing if they are switched off."""
    if os.environ.get(SWITCH) == "none":
        return cast("Oracles", _Silence())
    return Oracles(world)


class _Silence:
    """Stands for oracles that do not judge."""

    def __getattr__(self, name: str) -> Any:
        return self if name in ("commands", "memory", "records") else _say_nothing


def _say_nothing(*_: Any, **__: Any) -> None:
    return None


class Oracles:
    """Hands on what happens to whom it concerns."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.memory = MemoryOracle(world)
        self.records = RecordOracle(world, self.memory)
        self.acts = ActOracle(world, self.records)
        self.commands = CommandOracle(world)
        self.derived = DerivedOracle(world)
        self.shown = ShownOracle(world)
        self.words = WordsOracle(world)
        self.pace = PaceOracle(world)
        self.due = DueOracle(world)
        self.needless = NeedlessOracle(world)
        self.stale = StaleOracle(world)
        self.pending: dict[Pending, None] = {}  # the operator's commands without an answer
        self.links: set[SimConnection] = set()  # the others are probes of a fence
        self._is_long = world.scenario.duration_s > SHORT_S
        self._every_s = 120.0 if self._is_long else 3.0
        self._next_look = 0.0
        self.command_at = float("-inf")  # when the last command was heard or answered
        self._one_is_late = False
        self._ticks = self._commands = self._looks = 0

    def take_config(self, cluster: Cluster) -> None:
        """The next life of the manager has this config."""
        self.due.take_config(cluster)

    def restored(self) -> None:
        """An older copy is on the disk: what was recorded since is forgotten."""
        self.memory.restored()
        self.records.restored()

    def begin(self, manager: Any) -> None:
        """A new life of the manager."""
        self.links.clear()
        self._one_is_late = False
        for oracle in (
            self.memory,
            self.acts,
            self.shown,
            self.words,
            self.pace,
            self.due,
            self.needless,
            self.stale,
        ):
            oracle.begin()

    def judges(self, entry: Pending) -> bool:
        """Is this command judged? In long scenarios, one of ten."""
        self._commands += 1
        return not self._is_long or self._commands % 10 == 1

    def has_pending(self) -> bool:
        """Is a command without an answer?"""
        return bool(self.pending)

    def is_being_fenced(self, host: str) -> bool:
        """Is a fence of this host under way?"""
        is_known = host in self.world.cluster.hosts
        return is_known and self.world.oracle.manager.fence_runner.attempt_of(host) is not None

    # --- looking -----------------------------------------------------------------------------

    def tick(self, manager: Any) -> None:
        """Once a virtual second."""
        self._ticks += 1
        if self._is_long and self._ticks % LONG_TICKS:
            return
        now = self.world.clock.now
        for entry in self.pending:
            if entry.name in DROPS:  # done in this second, it may be: others held it up
                self._dropped(entry.name, entry.object)
        self.acts.tick()
        self.due.tick()
        due = now >= self._next_look or self.words.is_suspicious
        if due and not self.world.manager_is_away():
            self._next_look = now + self._every_s
            self.look(manager)

    def look(self, manager: Any) -> None:
        """The operator reads a status, and every other time HALO (Rust)'s form of it, too."""
        self.world.oracle.checks += 1
        self._looks += 1
        status = manager.operations.status()
        facts = Facts(status, self.memory.book.elsewhere())
        self.memory.check(status)
        self.derived.check(facts)
        if self._looks % 2:
            self.derived.check_root(manager.operations.root_status(), facts)
        self.shown.check(facts)
        self.words.check(facts)

    def stands_still(self, until: float) -> None:
        """The manager stands still for long."""
        self.stale.stands_still(until)

    # --- what happens ------------------------------------------------------------------------

    def written(self) -> None:
        """Something was written to the disk."""
        if self._one_is_late:  # a command that was given up may take effect: all is probed again
            self._one_is_late = False
            self._dropped("thaw", "")
        for record in self.memory.new_on_disk():
            self.records.judge(record)
            self.pace.recorded(record, self.records.made_at(record))
            self.memory.book.take(record)
            self.words.changed(record["object"])
            if record["event"] in DROPS:
                self._dropped(record["event"], record["object"])

    def command(self, entry: Pending, answer: str = "") -> None:
        """A command is heard, or answered."""
        self.command_at = self.world.clock.now
        self._one_is_late = self._one_is_late or TAKES_EFFECT_LATE in answer
        if entry.name in DROPS:
            self._dropped(entry.name, entry.object)

    def _dropped(self, name: str, group: str) -> None:
        self.shown.dropped(list(self.world.cluster.groups) if name == "thaw" else [group])

    def connected(self, connection: SimConnection) -> None:
        """A connection stands."""
        host = connection.host.id
        self.words.changed(host)
        self.stale.looked(host)
        self.records.note("connected", host)
        if connection.identity.legacy:
            self.records.note("ready", host)
        if not self.is_being_fenced(host):
            self.links.add(connection)
            self._link_changed(host)
            self.shown.connected(host)
            self.acts.connected(connection)
        else:  # a probe of the fence, or a link while the intent waits for the disk
            self.shown.changed_at.pop(host, None)

    def _link_changed(self, host: str) -> None:
        self.pace.link_changed(host)
        self.due.link_changed(host)
        self.needless.link_changed(host)

    def probe_sent(self, host: str) -> None:
        """A heartbeat or an attempt leaves."""
        self.pace.probe_sent(host)
        self.stale.probe_sent(host)

    def beat_answered(self, connection: SimConnection, is_first: bool) -> None:
        """A heartbeat was answered."""
        host = connection.host.id
        self.records.note("beat", host)
        if is_first:
            self.records.note("ready", host)
            if connection in self.links and not self.is_being_fenced(host):
                self.acts.beat_answered(connection)

    def connect_failed(self, host: str, loss: Loss) -> None:
        """An attempt failed."""
        self.records.connect_failed(host, loss)
        self.pace.connect_failed(host, loss)
        self.stale.looked(host)
        if not loss.kind.is_silence:
            self.shown.excused_at[host] = self.world.clock.now

    def disconnected(self, connection: SimConnection) -> None:
        """A connection is gone."""
        host = connection.host.id
        self.words.changed(host)
        self.records.note("disconnected", host)
        if connection in self.links:
            self.links.discard(connection)
            self._link_changed(host)
            self.shown.disconnected(host)
            self.acts.disconnected(connection)
        else:
            self.shown.changed_at.pop(host, None)

    def sent(self, call: SimCall) -> None:
        """The manager asks an agent for something."""
        if call.operation is Operation.MONITOR:
            if not self._is_long:
                self.pace.monitored(call)
            self.due.asked.setdefault((call.connection.host.id, call.resource.id), call.sent_at)
            return
        self.needless.sent(call)
        self.shown.sent(call)
        self.acts.sent(call)
        self.due.acted(self.world.oracle.groups_with[call.resource.id])

    def answered(self, call: SimCall, result: OperationResult | None) -> None:
        """The answer, or the end of the wait for it."""
        if call.operation is Operation.MONITOR:
            key = call.connection.host.id, call.resource.id
            self.due.asked.pop(key, None)
            is_well = result is not None and result.code == 0
            if is_well and key in self.acts.ran and key not in self.needless.bad:
                return  # as nearly always
        self.records.answered(call, result)
        self.acts.answered(call, result)
        self.needless.answered(call, result)
        if call.operation is not Operation.MONITOR:
            self.shown.answered(call)

    def reported(self, connection: SimConnection, batch: ReportBatch) -> None:
        """A report was taken."""
        for found in batch.results:
            self.records.note("reported", connection.host.id, found.resource)
            is_word = found.result.outcome is Outcome.COMPLETED
            code = found.result.code if is_word else -1
            watch, name = self.world.oracle.hosts[connection.host.id], found.resource
            if watch.sent.get(name, 0) == watch.answered.get(name, 0) == found.operations:
                self.acts.seen(connection, name, code)
            if is_word:
                self.needless.said(connection.host.id, found.resource, code)

    def fence_begins(self, host: str, device: str, action: FenceAction) -> None:
        """A fence program begins."""
        self.words.changed(host)
        self.pace.fence_begins(host, device, action)
        self.acts.fence_begins(host, action)
        self.stale.fence_begins(host, action)
        if action is FenceAction.ON and self.memory.book.host(host).owes_power:
            self.records.note("on, as owed", host)

    def fence_ends(
        self, host: str, device: str, action: FenceAction, result: FenceResult | None
    ) -> None:
        """A fence program ended; without a result it was killed."""
        self.words.changed(host)
        if self.is_being_fenced(host):
            self.shown.excused_at[host] = self.world.clock.now
        said_off = None if result is None else result.power is PowerState.OFF
        self.pace.fence_ends(host, device, action, said_off)
        if result is not None and result.succeeded:
            if action is FenceAction.ON:
                self.records.note("switched on", host)
            elif result.power is PowerState.OFF:
                self.records.note("says off", host)
            elif result.power is PowerState.ON:
                self.records.note("says on", host)
