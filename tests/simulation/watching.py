"""A simulated agent's watch: it looks by itself and reports what changes (`docs/watching.md`).

What it tells and when is kept by the agent's own :class:`halo.remote.reports.Reports`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from halo.core.model import Operation
from halo.core.outcomes import OperationResult, ReportBatch, ReportedResult, WatchItem
from halo.ports import ReportSink
from halo.remote.reports import Reports
from halo.remote.watch import FIRST_ROUND_S, GATHER_FULL_S, GATHER_S, REPORT_DEADLINE_S
from tests.simulation.hosts import SimCall

if TYPE_CHECKING:
    from tests.simulation.network import SimConnection

HUNG_AGENT_S = 0.5
"""How often a stopped process's appointments are looked at again."""


class Look(SimCall):
    """A monitor that nobody asked for."""

    __slots__ = ("generation", "item", "operations", "watch")

    def __init__(self, watch: SimWatch, item: WatchItem, now: float) -> None:
        super().__init__(watch.connection, item.resource, Operation.MONITOR, now)
        self.watch = watch
        self.item = item
        self.generation = 0
        self.operations = 0

    def begins(self) -> None:
        """The resource is free."""
        self.generation = self.watch.reports.generation
        self.operations = self.connection.ended_operations.get(self.resource.id, 0)
        world = self.connection.world
        self.lie = bool(world.script_faults) and world.oracle.may_lie(self)

    def ended(self, result: OperationResult) -> None:
        """The agent has the result."""
        watch = self.watch
        watch.again(self.item)
        if not watch.ended:
            found = ReportedResult(self.resource.id, self.operations, result)
            watch.reports.note(found, self.generation)
            watch.tell()


class SimWatch:
    """One watch of one connection."""

    def __init__(
        self,
        connection: SimConnection,
        items: Sequence[WatchItem],
        sink: ReportSink,
        digest_interval_s: float,
    ) -> None:
        self.connection = connection
        self.clock = connection.world.clock
        self.items = items
        self.sink = sink
        self.interval_s = digest_interval_s
        self.reports = Reports(item.resource.id for item in items)
        self.ended = False
        self._told_at = 0.0
        self._under_way = 0  # the number of the batch without an answer
        self._batches = 0

    def begin(self) -> None:
        """The call arrived at the agent."""
        random = self.connection.world.random
        for item in self.items:
            self.clock.after(random.random() * min(item.period_s, FIRST_ROUND_S), self._look, item)
        self._told_at = self.clock.now
        self.clock.after(self.interval_s, self._digest_due)

    def _is_over(self) -> bool:
        self.ended = self.ended or self.connection.loss is not None
        return self.ended or not self.connection.agent.alive

    # --- looking -----------------------------------------------------------------------------

    def again(self, item: WatchItem) -> None:
        """Make the next appointment."""
        self.clock.after(item.period_s, self._look, item)

    def _look(self, item: WatchItem) -> None:
        if self._is_over():
            return
        if self.connection.agent.hung:
            self.clock.after(HUNG_AGENT_S, self._look, item)
        else:
            self.connection.agent.enqueue(Look(self, item, self.clock.now))

    # --- telling -----------------------------------------------------------------------------

    def tell(self) -> None:
        """Send what is to be told, unless a batch is under way."""
        if not self._under_way and self.reports.pressing and not self._is_over():
            self._send()

    def _digest_due(self) -> None:
        if self._is_over():
            return
        due = self._told_at + self.interval_s
        if not self._under_way and not self.reports.refused and self.clock.now >= due - 0.001:
            self._send()
        self.clock.at(max(self._told_at + self.interval_s, self.clock.now + 0.1), self._digest_due)

    def _send(self) -> None:
        if self.connection.agent.hung:
            self.clock.after(HUNG_AGENT_S, self.tell)
            return
        self._batches += 1
        self._under_way = self._batches
        self._told_at = self.clock.now
        batch, host = self.reports.next_batch(), self.connection.host
        if host.reports_to_lose and batch.results:
            host.reports_to_lose -= 1
            host.world.say(host.id, f"a report of {len(batch.results)} results is lost")
            batch = replace(batch, results=())
        self.connection.deliver_batch(self, batch, self._batches)
        self.clock.after(REPORT_DEADLINE_S, self.answered, self._batches, False)

    def answered(self, number: int, accepted: bool) -> None:
        """The manager's answer to a batch arrives, or does not come any more."""
        if self._under_way != number or self._is_over():
            return
        self._under_way = 0
        self._told_at = self.clock.now
        if not accepted:
            self.reports.refuse()
        pause = GATHER_FULL_S if self.reports.in_full_report else GATHER_S
        self.clock.after(pause, self.tell)

    def heartbeat(self) -> None:
        """The manager sent one: after a refusal, begin afresh."""
        if self.reports.refused and not self._under_way:
            self.reports.begin_afresh()

    def take(self, batch: ReportBatch, number: int) -> None:
        """At the manager: hand a batch over, and send its answer back."""
        connection = self.connection
        if (
            connection.loss is None
            and connection.watching is self
            and not connection.connector.dead
        ):
            accepted = self.sink.report(batch)
            if accepted:
                connection.world.reported(connection, batch)
            delay = connection.world.latency(connection.host)
            self.clock.after(delay, self.answered, number, accepted)
