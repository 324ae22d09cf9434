"""One life of a manager's process: it stands by, takes the leadership, leads once, and ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import EtcdError
from halo.adapters.etcd.leadership import Leadership
from halo.adapters.etcd.log import EtcdLog
from halo.core.errors import InvariantError, LeadershipError, RecordError
from halo.manager.manager import Manager
from tests.simulation.devices import SimFenceDevices
from tests.simulation.loop import VirtualLoop
from tests.simulation.managers.gateway import Sent, SimGateway
from tests.simulation.managers.ports import (
    DeviceView,
    NodeConnection,
    NodeView,
    StoreMedium,
    records_ahead,
)
from tests.simulation.managers.store import LOCATION
from tests.simulation.network import SimConnector

if TYPE_CHECKING:
    from tests.simulation.managers.node import Node

RETRY_S = 1.0
END_GRACE_S = 1.0
"""How long a manager that lost its leadership may take to end by itself."""


class Process:
    """One process. It has a loop of its own, which stands still while its machine does."""

    def __init__(self, node: Node) -> None:
        world = self.world = node.world
        self.node = node
        # typeshed calls methods abstract that asyncio's own base class does not.
        self.loop = VirtualLoop(world.clock, self._loop_error)  # type: ignore[abstract]  # above
        self.dead = False
        self.is_ending = False
        self.manager: Manager | None = None
        self.medium: StoreMedium | None = None
        self.connector: SimConnector | None = None
        self.devices: SimFenceDevices | None = None
        self.kept: list[Any] = []
        self.loop.enter()
        try:
            self.gateway = SimGateway(world.ways, self.loop, node.name, self, node.out)
            self.gateway.asked, self.gateway.heard = self._asked, self._heard
            client = self.client = EtcdClient(LOCATION, gateway=self.gateway)
            self.leadership = Leadership(client, LOCATION.key("leader"), clock=node.boot_clock)
            self.log = EtcdLog(client, LOCATION, self.leadership)
            self.task = self.loop.create_task(self._serve())
        finally:
            self.loop.leave()
        self.task.add_done_callback(self._ended)

    def __repr__(self) -> str:
        return f"<Process of {self.node.name}>"

    @property
    def term(self) -> int:
        """The term that it acts under."""
        return self.world.leaders.term_of(self)

    @property
    def leads(self) -> bool:
        """Has it taken the leadership, and not ended since?"""
        return self.manager is not None and not self.dead

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something in the process' loop, as its HTTP server would."""
        return self.loop.create_task(work)

    def _asked(self, path: str) -> Sent:
        sent = self.node.boot_clock(), self.world.clock.now
        self.node.may_stop_at(path)
        return sent

    def _heard(self, path: str, sent: Sent) -> None:
        if path in ("lease/grant", "lease/keepalive"):
            self.world.leaders.renewed(self, sent[0])
        elif path == "kv/range":
            self.world.leaders.has_read(self, sent[1])

    # --- what it does ------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            await self._stand_by()
        except BaseException:
            await self.leadership.release()
            raise
        keeping = self.loop.create_task(self._keep())
        try:
            await self._lead()
        finally:
            keeping.cancel()
            if self.connector is not None and self.medium is not None:
                for host in self.world.hosts.values():
                    for connection in list(host.connections):
                        if connection.connector is self.connector:
                            connection.close()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(END_GRACE_S):
                        await self.medium.close()

    async def _stand_by(self) -> None:
        """Returns when it leads, and the journal is open."""
        while True:
            try:
                holder = await self.leadership.take()
                if holder is None:
                    await self.log.open()
                    return
            except (EtcdError, RecordError, LeadershipError):
                await asyncio.sleep(RETRY_S)
                continue
            key = self.leadership.key
            await self.client.wait_for_change(key, holder.revision, RETRY_S)

    async def _lead(self) -> None:
        ahead = await records_ahead(self)
        world = self.world
        view: Any = NodeView(world, self)
        device_view: Any = DeviceView(world, self)
        self.connector = SimConnector(view, self.loop)
        self.connector.connection_type = NodeConnection
        self.devices = SimFenceDevices(device_view, self.loop)
        self.medium = StoreMedium(self, ahead)
        self.manager = Manager(world.cluster, self.connector, self.devices, self.medium, world.wall)
        world.begins_to_lead(self)
        await self.manager.run()

    async def _keep(self) -> None:
        try:
            await self.leadership.keep()
        except LeadershipError as error:
            self.world.speaker = self.node.name
            self.world.say("manager", f"leads no more: {error}")
            if self.manager is None:
                self.task.cancel()
                return
            self.manager.fatal(error)
            await asyncio.sleep(END_GRACE_S)
            self.node.exits(self)

    # --- how it ends -------------------------------------------------------------------------

    def _loop_error(self, text: str) -> None:
        if not self.dead:
            self.world.violated("defect", f"{self.node.name}: {text}")

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.dead:
            return
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, LeadershipError):
            rule = "fatal" if isinstance(error, InvariantError) else "defect"
            self.world.violated(rule, f"the manager on {self.node.name} ended: {error!r}")
            return
        self.world.clock.after(0.0, self.node.exits, self)

    def terminate(self) -> None:
        """SIGTERM."""
        self.is_ending = True
        self.task.cancel()

    def gone(self) -> None:
        """The process is gone between two steps; nothing of it runs any more."""
        self.dead = True
        # Coroutines that are dropped now would run their `finally` parts when collected.
        self.kept.append((asyncio.all_tasks(self.loop), self.loop.ready, self.loop.timers))
        self.loop.ready, self.loop.timers = type(self.loop.ready)(), []
        if self.medium is not None:
            self.medium.crash()
        if self.devices is not None:
            self.devices.dead = True
        if self.connector is not None:
            self.connector.dead = True
            for host in self.world.hosts.values():
                for connection in list(host.connections):
                    if connection.connector is self.connector:
                        connection.manager_gone()
        self.loop.shut()
