"""Probes of a host: monitors outside of any group task. They need no token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from halo.core.cluster.knowledge import Presence
from halo.core.errors import LinkError
from halo.core.model import GroupId, HostId, Resource, ResourceGroup, ResourceId
from halo.core.outcomes import OperationResult, Outcome
from halo.core.spreading import spread
from halo.manager.common.context import Context
from halo.manager.groups.operations import monitor
from halo.manager.hosts.watcher import FEATURE, ReportTaker, Watcher
from halo.ports import AgentConnection

_CERTAIN = (Presence.RUNNING, Presence.STOPPED)

log = structlog.get_logger("halo.survey")

PROBES_AT_ONCE = 64
"""Groups probed side by side on one host. A hung script occupies only its own place."""


class Surveyor:
    """Probes the groups of one host over one connection, when asked and by the clock."""

    def __init__(
        self,
        context: Context,
        host: HostId,
        connection: AgentConnection,
        epoch: int,
        is_managed_here: Callable[[GroupId], bool],
        take_report: ReportTaker,
        sight_changed: Callable[[], None],
    ) -> None:
        self._context = context
        self._state = context.state
        self._host = host
        self._connection = connection
        self._epoch = epoch
        self._is_managed_here = is_managed_here
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(PROBES_AT_ONCE)
        self._in_flight: dict[GroupId, asyncio.Task[None]] = {}
        self._looked_at: dict[GroupId, float] = {}
        self._rounds: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._watcher: Watcher | None = None
        if FEATURE in connection.identity.features:
            self._watcher = Watcher(
                context, host, connection, epoch, take_report, sight_changed, self._look_through
            )

    def start(self) -> None:
        """Probe everything once, and then again and again."""
        self._rounds = self._context.spawn(self._run())
        if self._watcher is not None:
            self._watching = self._context.spawn(self._watcher.run())

    def operation_ended(self, resource: ResourceId) -> None:
        """A start or stop was answered."""
        if self._watcher is not None:
            self._watcher.operation_ended(resource)

    def stop(self) -> None:
        """The connection is gone."""
        for task in (self._rounds, self._watching, *self._in_flight.values()):
            if task is not None:
                task.cancel()

    def probe(self, group_id: GroupId) -> None:
        """Monitor a group's resources now, unless that is under way already."""
        if group_id not in self._in_flight:
            self._spawn(self._state.cluster.groups[group_id])

    def _spawn(self, group: ResourceGroup) -> asyncio.Task[None]:
        task = self._loop.create_task(self._look(group))
        self._in_flight[group.id] = task
        task.add_done_callback(lambda done: self._ended(group.id, done))
        return task

    def _ended(self, group: GroupId, task: asyncio.Task[None]) -> None:
        self._in_flight.pop(group, None)
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._context.fatal(error)
            return
        self._context.placer.learnt([group])

    async def _run(self) -> None:
        """Probe everything once, and then run the rounds."""
        groups = list(self._state.groups_of(self._host))
        if groups and self._watcher is None:
            await self._look_at_all(groups)
            log.info("looked through", host=self._host, groups=len(groups))
        tick_s = self._state.settings.monitor_interval_s
        self._spread_rounds(groups)
        await asyncio.sleep(tick_s * spread(self._host))
        while True:
            for group in groups:
                if self._is_due(group):
                    self.probe(group.id)
            await asyncio.sleep(tick_s)

    async def _look_at_all(self, groups: list[ResourceGroup]) -> None:
        """Probe all groups, once. (In `_run` itself, the ended tasks would live as long as it.)"""
        await asyncio.wait([self._spawn(group) for group in groups])

    def _look_through(self) -> None:
        """The agent does not watch any more, or not yet: probe every group that no task manages."""
        for group in self._state.groups_of(self._host):
            if not self._is_managed_here(group.id):
                self.probe(group.id)

    def _spread_rounds(self, groups: list[ResourceGroup]) -> None:
        """Spread the first probes of the rounds, so that each group has its own moment."""
        now, interval_s = self._loop.time(), self._state.settings.survey_interval_s
        for group in groups:
            self._looked_at[group.id] = now - interval_s * spread(group.id)

    def _is_due(self, group: ResourceGroup) -> bool:
        """Groups that no host manages are probed in each period. So are groups that people may move
        by hand. Other groups are probed now and then.

        On a watched host, only groups in doubt are probed. The agent reports changes, but it does
        not report again what the manager has forgotten."""
        if self._state.hosts[self._host].watched:
            return self._is_in_doubt(group)
        if self._is_managed_here(group.id):
            return False
        if self._state.groups[group.id].managed_on is None:
            return True
        if not self._state.memory_of(group).managed:
            return True
        age = self._loop.time() - self._looked_at.get(group.id, float("-inf"))
        return age >= self._state.settings.survey_interval_s

    def _is_in_doubt(self, group: ResourceGroup) -> bool:
        """Is something of the group in doubt? This is asked of every group, so it must be cheap."""
        at, watcher = self._state.hosts[self._host], self._watcher
        known = self._state.knowledge.on_host(self._host)
        for resource in group.resources:
            settled = at.settled_operations(resource.id)
            if settled is None:
                continue
            sighting = known.get(resource.id)
            if sighting is None or sighting.presence not in _CERTAIN:
                return True  # an error of our own probe may be unknown to the agent
            if watcher is not None and watcher.contradicts(resource.id, sighting.presence, settled):
                return True
        return False

    async def _look(self, group: ResourceGroup) -> None:
        async with self._slots:
            began = self._looked_at[group.id] = self._loop.time()
            look = _Look(self._loop, len(group.resources))
            for resource in group.resources:
                self._monitor(group, resource, look)
            if not await look.ended:
                return
        at = self._state.hosts[self._host]
        if at.epoch == self._epoch:
            at.answered_at = max(at.answered_at, began)

    def _monitor(self, group: ResourceGroup, resource: Resource, look: _Look) -> None:
        began = self._loop.time()

        def take(resource: Resource, answer: OperationResult | LinkError) -> None:
            if isinstance(answer, LinkError):
                # The connection may still stand. Note that the agent was asked in vain. Otherwise
                # the placer would have it asked again at once, for ever.
                self._state.observe(
                    group,
                    resource,
                    self._host,
                    Presence.ERROR,
                    epoch=self._epoch,
                    begun_at=began,
                    reason=f"no answer: {answer}",
                )
            look.take(answer)

        monitor(
            self._context,
            self._connection,
            group,
            resource,
            self._host,
            epoch=self._epoch,
            taker=take,
        )


class _Look:
    """The monitors of one probe of a group. `ended`: all were answered, and the host is there.

    A monitor that timed out does not show that the host is there. Another monitor has to."""

    __slots__ = ("_complete", "_is_there", "_left", "ended")

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self._left = count
        self._complete, self._is_there = True, False
        self.ended: asyncio.Future[bool] = loop.create_future()

    def take(self, answer: OperationResult | LinkError) -> None:
        """One monitor was answered."""
        self._left -= 1
        if isinstance(answer, LinkError):
            self._complete = False
        elif answer.outcome is not Outcome.TIMED_OUT:
            self._is_there = True
        if self._left == 0 and not self.ended.done():
            self.ended.set_result(self._complete and self._is_there)
