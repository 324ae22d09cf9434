"""The manager's end of watching: takes the batches that an agent reports over one connection.

See `docs/watching.md`. A report is shown. It may lead to a restart or an adoption, and may reveal a
second copy. It is never proof (S1). Anything that makes the results doubtful ends the watch: a gap,
another digest, no batch for too long, or an operation whose end is uncertain. Polling takes over in
the same step, and a new watch is requested.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from halo.core.cluster.knowledge import Presence
from halo.core.cluster.state import ClusterState
from halo.core.errors import LinkError, Loss, LossKind
from halo.core.groups.results import is_of_setup
from halo.core.model import HostId, Operation, Resource, ResourceGroup, ResourceId
from halo.core.outcomes import OperationResult, ReportBatch, ReportedResult, WatchItem
from halo.core.peers.bounds import ITEM_LIMIT, name
from halo.core.peers.digest import DigestKeeper
from halo.manager.common.context import Context
from halo.manager.groups.operations import taught
from halo.ports import AgentConnection
from halo.telling import PeerLog

FEATURE = "watch"
BATCHES_MISSED = 3
"""After so many digest intervals without a batch, sight is lost."""

RETRY_S = 10.0
CALL_DEADLINE_S = 10.0
"""Deadline for the answer to `watch`, which the agent gives before its first monitor."""

UNCERTAIN = "a start or stop was not answered in time, so its end cannot be counted"

log = PeerLog("halo.watch")

ReportTaker = Callable[[ResourceGroup, ResourceId, OperationResult], None]


def watch_period_s(state: ClusterState, resource: Resource) -> float:
    """The time between two monitors of a resource that its agent watches."""
    settings = state.settings
    return resource.monitor_interval_s or min(
        settings.watch_interval_s, settings.monitor_interval_s
    )


class _Sight:
    """The results of one watch. Implements :class:`halo.ports.ReportSink`."""

    def __init__(
        self, wants: Callable[[], bool], take: Callable[[ReportBatch], bool], now: float
    ) -> None:
        self._wants = wants
        self._take = take
        self.last: dict[ResourceId, ReportedResult] = {}
        self.presence: dict[ResourceId, Presence] = {}  # what `last` says
        self.sequence = 0
        self.complete = False
        self.digest = DigestKeeper()
        self.heard_at = now
        self.lost: str | None = None
        self.was_refused = False

    def wants_reports(self) -> bool:
        """Is a batch accepted now?"""
        return self._wants()

    def report(self, batch: ReportBatch) -> bool:
        """Take one batch. False: the host is not ready, and the agent has to begin again."""
        return self._take(batch)


class Watcher:
    """Watches one host's resources through its agent, as long as one connection stands."""

    def __init__(
        self,
        context: Context,
        host: HostId,
        connection: AgentConnection,
        epoch: int,
        take_report: ReportTaker,
        sight_changed: Callable[[], None],
        look_through: Callable[[], None],
    ) -> None:
        self._context = context
        self._state = context.state
        self._host = host
        self._connection = connection
        self._epoch = epoch
        self._take_report = take_report
        self._sight_changed = sight_changed
        self._look_through = look_through
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._sight: _Sight | None = None
        self._owners: dict[ResourceId, list[ResourceGroup]] = {}  # a shared one has several
        for group in self._state.groups_of(host):
            for resource in group.resources:
                self._owners.setdefault(resource.id, []).append(group)

    async def run(self) -> None:
        """Watch until cancelled. Whenever sight is lost, poll for a while, and try again."""
        if (count := len(self._owners)) > ITEM_LIMIT:
            why = f"it has {count} resources, and a watch takes at most {ITEM_LIMIT}; HALO polls it"
            log.warning("not watched", host=self._host, reason=why)
            self._look_through()
            return
        had_sight = True  # nothing was seen yet, but probe after a refusal, as after a loss
        while self._state.hosts[self._host].counts_certain:
            try:
                had_sight |= await self._watch()
            except LinkError as error:
                log.warning("not watched", host=self._host, reason=str(error))
            if had_sight:
                self._look_through()
            had_sight = False
            await asyncio.sleep(RETRY_S)

    async def _watch(self) -> bool:
        """One watch, from the call to the loss of sight. Was everything in sight meanwhile?"""
        interval_s = self._state.settings.digest_interval_s
        sight = _Sight(self._wants_reports, self._batch, self._loop.time())
        self._sight = sight
        items = [
            WatchItem(resource, watch_period_s(self._state, resource), resource.monitor_timeout_s)
            for resource in (owners[0].by_id[id] for id, owners in self._owners.items())
        ]
        try:
            await self._ask(items, sight, interval_s)
            while sight.lost is None:
                self._wake.clear()
                left = sight.heard_at + BATCHES_MISSED * interval_s - self._loop.time()
                if left <= 0:
                    sight.lost = f"no report for {BATCHES_MISSED * interval_s:g} s"
                    break
                try:
                    async with asyncio.timeout(left):
                        await self._wake.wait()
                except TimeoutError:
                    continue
            log.warning("sight lost", host=self._host, reason=sight.lost)
        finally:
            self._sight = None
            self._set_watched(False)
        return sight.complete

    async def _ask(self, items: list[WatchItem], sight: _Sight, interval_s: float) -> None:
        try:
            async with asyncio.timeout(CALL_DEADLINE_S):
                await self._connection.watch(items, sink=sight, digest_interval_s=interval_s)
        except TimeoutError:
            text = f"no answer to `watch` within {CALL_DEADLINE_S:g} s"
            raise LinkError(Loss(LossKind.PROTOCOL, text)) from None

    def _set_watched(self, watched: bool) -> None:
        at = self._state.hosts[self._host]
        if at.epoch == self._epoch and at.watched is not watched:
            at.watched = watched
            self._sight_changed()

    def _wants_reports(self) -> bool:
        """Reports are ignored if the host is not ready, or after sight was lost."""
        at, sight = self._state.hosts[self._host], self._sight
        if sight is None or not at.ready or at.epoch != self._epoch:
            if sight is not None:
                sight.was_refused = True
            return False
        return sight.lost is None

    def _batch(self, batch: ReportBatch) -> bool:
        """Take a batch in."""
        sight = self._sight
        if not self._wants_reports() or sight is None:
            return False
        problem = self._doubt(sight, batch)
        if problem is not None:
            self._lose(sight, problem)
            return True
        sight.heard_at = self._loop.time()
        for reported in batch.results:
            sight.last[reported.resource] = reported
            sight.presence[reported.resource] = taught(Operation.MONITOR, reported.result)[0]
        self._take(batch.results)
        if batch.complete and not sight.complete:
            sight.complete = True
            log.info("watching", host=self._host, resources=len(sight.last))
            self._set_watched(True)
            self._context.placer.changed(self._context.groups_of(self._host))
        return True

    def _lose(self, sight: _Sight, why: str) -> None:
        """Poll from this step on."""
        sight.lost = why
        self._set_watched(False)
        self._wake.set()

    def _doubt(self, sight: _Sight, batch: ReportBatch) -> str | None:
        """Why this batch shows that something was missed; None if nothing was."""
        if not self._state.hosts[self._host].counts_certain:
            return UNCERTAIN
        if sight.was_refused:  # the agent begins again, with a full report
            sight.was_refused = sight.complete = False
            sight.sequence, sight.digest = 0, DigestKeeper()
            sight.last, sight.presence = {}, {}
            self._set_watched(False)
        if batch.sequence != sight.sequence + 1:
            return f"batch {batch.sequence} came after {sight.sequence}"
        sight.sequence = batch.sequence
        for reported in batch.results:
            if reported.resource not in self._owners:
                return f"it reports {name(reported.resource)}, which it was not asked to watch"
            sight.digest.set(reported)
        if sight.digest.value != batch.digest:
            return "the agent's results differ from the manager's"
        return None

    def operation_ended(self, resource: ResourceId) -> None:
        """A start or stop was answered: a report that came before the answer counts now."""
        sight = self._sight
        if sight is None or sight.lost is not None:
            return
        if not self._state.hosts[self._host].counts_certain:
            self._lose(sight, UNCERTAIN)
        elif resource in sight.last:
            self._take([sight.last[resource]])

    def contradicts(self, resource: ResourceId, known: Presence, operations: int) -> bool:
        """Did the agent's last result differ from what is `known`, after the same operations?

        What is known comes from a monitor of ours. The agent would never report that it is wrong,
        because the agent's own results have not changed."""
        sight = self._sight
        if sight is None or sight.presence.get(resource, known) is known:
            return False
        # Else the agent's result is from before the last start or stop.
        return sight.last[resource].operations == operations

    def _take(self, results: Sequence[ReportedResult]) -> None:
        """Act only on results that were sampled after the last answered operation.

        All results are noted before HALO acts on any of them: one result may ask for a start of
        something that another result shows running."""
        at = self._state.hosts[self._host]
        found = [
            (group, group.by_id[reported.resource], reported.result)
            for reported in results
            if at.settled_operations(reported.resource) == reported.operations
            for group in self._owners[reported.resource]
        ]
        revealing = [
            group for group, resource, result in found if self._learn(group, resource, result)
        ]
        for group, resource, result in found:
            self._take_report(group, resource.id, result)
        for group in revealing:
            self._context.placer.second_copy(group.id)

    def _learn(self, group: ResourceGroup, resource: Resource, result: OperationResult) -> bool:
        """Note one result. Does it reveal a second copy?"""
        presence, reason = taught(Operation.MONITOR, result)
        is_copy = presence is Presence.RUNNING  # else it reveals none: do not count the copies
        may_reveal = is_copy and len(self._state.knowledge.running_on(group)) < 2
        self._state.observe_report(
            group,
            resource,
            self._host,
            presence,
            epoch=self._epoch,
            reason=reason,
            of_setup=presence is Presence.ERROR and is_of_setup(result),
        )
        return may_reveal and len(self._state.knowledge.running_on(group)) > 1
