"""What all tasks of the manager share: the state, the journal, the ports, and the other tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from halo.core.cluster.state import ClusterState
from halo.core.groups.actions import Left
from halo.core.model import GroupId, HostId
from halo.core.tokens import ResourceToken
from halo.manager.common.concurrency_limit import (
    GREETING_PATIENCE_S,
    GREETINGS_AT_ONCE,
    ConcurrencyLimit,
)
from halo.manager.common.journal import Journal
from halo.ports import AgentConnector, FenceDevices

END_DEADLINE_S = 5.0

log = structlog.get_logger("halo.manager")


class Placing(Protocol):
    """The placer, as the host tasks see it: tokens that no host holds wait there."""

    def accept(
        self, token: ResourceToken, detail: str, since: float, why: Left = Left.REVOKED
    ) -> None:
        """Take a token home. Samples that were taken after `since` may serve as proof."""
        ...

    def followed(self, group: GroupId) -> None:
        """A group changed: decide again on those that wait to be started after it."""
        ...

    def room_changed(self, group: GroupId) -> None:
        """A group came to a host, left one, or was started there: decide on those that wait for
        that."""
        ...

    def changed(self, groups: Iterable[GroupId]) -> None:
        """Something changed for these groups: decide them again, with new proof."""
        ...

    def learnt(self, groups: Iterable[GroupId]) -> None:
        """An awaited answer came in: decide these groups again."""
        ...

    def heard(self, groups: Iterable[GroupId]) -> None:
        """A candidate of these groups answered a ping: decide the waiting groups again."""
        ...

    def second_copy(self, group: GroupId) -> None:
        """A group is seen running on two hosts."""
        ...


class DeviceCheck(Protocol):
    """What host tasks need of the device runner."""

    def check_device(self, host: HostId) -> None:
        """Ask the fence device of a host that just connected."""
        ...


@dataclass
class Context:
    """Built once by the manager; tasks reach each other through it."""

    state: ClusterState
    journal: Journal
    connector: AgentConnector
    fence_devices: FenceDevices
    fatal: Callable[[BaseException], None]
    placer: Placing = field(init=False)
    device_check: DeviceCheck = field(init=False)
    greetings: ConcurrencyLimit = field(
        default_factory=lambda: ConcurrencyLimit(GREETINGS_AT_ONCE, GREETING_PATIENCE_S)
    )
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)  # the loop's references are weak

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a background task. If it fails, the manager ends, since a restart is always safe."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._check)
        return task

    def _check(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fatal(error)

    async def end_all(self) -> None:
        """End every background task, at shutdown. On return nothing is under way any more: no fence
        program runs, and nothing waits to be sent. A task that does not end in time is told."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=END_DEADLINE_S)
            for task in late:
                log.error("a task does not end", task=str(task.get_coro()))

    def groups_of(self, host: HostId) -> list[GroupId]:
        """The ids of all groups that may run on a host."""
        return [group.id for group in self.state.groups_of(host)]
