"""One life of a manager's process: it stands by, takes the leadership, leads once, and ends.

The parts are those of the program, put together as in `halo.manager.serving`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from halo import __version__
from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.medium import EtcdMedium
from halo.adapters.etcd.standby.means import Means
from halo.core.errors import CommandFailed, InvariantError, LeadershipError, StateError
from halo.manager.leadership.standing import StoreStanding
from halo.manager.manager import Manager
from halo.ports import ManagerSeen
from tests.simulation.devices import SimFenceDevices
from tests.simulation.loop import VirtualLoop
from tests.simulation.managers.etcd.gateway import Sent, SimGateway
from tests.simulation.managers.etcd.store import LOCATION
from tests.simulation.managers.etcd.thread import SimThread
from tests.simulation.managers.ports import DeviceView, NodeConnection, NodeView, NotedMedium
from tests.simulation.network import SimConnector

if TYPE_CHECKING:
    from tests.simulation.managers.node import Node

END_S = 3.0
"""How long the end of the program waits for its journal to be closed."""


class Process:
    """One process. Its loops, that of the program and that of the journal's thread, stand still
    while its machine does."""

    def __init__(self, node: Node, pid: int) -> None:
        world = self.world = node.world
        self.node = node
        self.pid = pid
        # typeshed calls methods abstract that asyncio's own base class does not.
        self.loop = VirtualLoop(world.clock, self._loop_error)  # type: ignore[abstract]  # above
        self.thread_loop = VirtualLoop(world.clock, self._loop_error)  # type: ignore[abstract]  # above
        self.loops = (self.loop, self.thread_loop)
        self.dead = False
        self.is_ending = False
        self.clients = 0
        self._reason = ""
        self.manager: Manager | None = None
        self.noted: NotedMedium | None = None
        self.connector: SimConnector | None = None
        self.devices: SimFenceDevices | None = None
        self.kept: list[Any] = []
        self.loop.enter()
        try:
            means = Means(
                lambda _name: SimThread(self.thread_loop, self.loop),
                self._client,
                node.boot_clock,
                members=None,  # nothing is decided on what they would say
            )
            now = world.clock.now
            own = ManagerSeen(node.name, node.name, pid, None, __version__, now, 0, False)
            self.medium = EtcdMedium(LOCATION, own=own, means=means)
            assert self.medium.beside is not None
            self.standing = StoreStanding(self.medium.beside, node.name, world.wall)
            self.task = self.loop.create_task(self._serve())
        finally:
            self.loop.leave()
        self.task.add_done_callback(self._ended)

    def __repr__(self) -> str:
        return f"<process {self.pid} of {self.node.name}>"

    @property
    def term(self) -> int:
        """The term that it acts under."""
        return self.medium.term

    @property
    def leads(self) -> bool:
        """Has it begun to lead, and not ended since?"""
        return self.manager is not None and not self.dead

    def require_leading(self) -> None:
        """Look at the clock. Raises LeadershipError."""
        self.medium.require_leading()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something in the process' loop, as its HTTP server would."""
        return self.loop.create_task(work)

    def _client(self, store: Store, attempt_s: float) -> EtcdClient:
        """A way to etcd. The first one is that of the leadership and the journal."""
        node = self.node
        gateway = SimGateway(self.world.ways, self.thread_loop, node.name, self, node.out)
        self.clients += 1
        if self.clients == 1:
            gateway.asked, gateway.heard = self._asked, self._heard
        return EtcdClient(store, attempt_s=attempt_s, gateway=gateway)

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
        await self.medium.stand_by(self._waits, self.standing.take)
        try:
            await self._lead()
        finally:
            self._close_connections()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await self.medium.close()

    def _waits(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            self.world.say(self.node.name, reason)

    async def _lead(self) -> None:
        world = self.world
        view: Any = NodeView(world, self)
        device_view: Any = DeviceView(world, self)
        self.connector = SimConnector(view, self.loop)
        self.connector.connection_type = NodeConnection
        self.devices = SimFenceDevices(device_view, self.loop)
        self.noted = NotedMedium(self, self.medium)
        manager = Manager(
            world.cluster,
            self.connector,
            self.devices,
            self.noted,
            world.wall,
            term=lambda: self.term,
        )
        self.manager = manager
        self.medium.when_lost(self._lost, lambda: self.node.exits(self))
        self.standing.lead(manager.state.remembered, manager.fatal)
        world.begins_to_lead(self)
        await manager.run()

    def _lost(self, error: LeadershipError) -> None:
        self.world.say(self.node.name, f"leads no more: {error}")
        assert self.manager is not None
        self.manager.fatal(error)

    # --- how it ends -------------------------------------------------------------------------

    def _loop_error(self, text: str) -> None:
        if not self.dead:
            self.world.violated("defect", f"{self.node.name}: {text}")

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.dead:
            return
        error = None if task.cancelled() else task.exception()
        if isinstance(error, StateError) and self.world.waits_for_operator:
            self.node.stays_down(self, str(error))
            return
        if error is not None and not isinstance(error, LeadershipError):
            rule = "fatal" if isinstance(error, InvariantError) else "defect"
            self.world.violated(rule, f"the manager on {self.node.name} ended: {error!r}")
            return
        if error is not None:
            self.world.say(self.node.name, f"ends: {error}")
        self.world.clock.after(0.0, self.node.exits, self)

    def step_down(self) -> None:
        """`halo managers step-down`, if it leads."""
        if self.manager is not None:
            self.spawn(self._step_down(self.manager))

    async def _step_down(self, manager: Manager) -> None:
        with contextlib.suppress(CommandFailed):  # it is not recorded, so it goes on leading
            await manager.operations.record_step_down(self.node.name, "simulated")
            await self.standing.step_down("simulated")

    def terminate(self) -> None:
        """SIGTERM."""
        self.is_ending = True
        self.task.cancel()

    def _connections(self) -> list[Any]:
        return [
            connection
            for host in self.world.hosts.values()
            for connection in list(host.connections)
            if connection.connector is self.connector
        ]

    def _close_connections(self) -> None:
        for connection in self._connections():
            connection.close()

    def gone(self) -> None:
        """The process is gone between two steps; nothing of it runs any more."""
        self.dead = True
        for loop in self.loops:
            # Coroutines that are dropped now would run their `finally` parts when collected.
            self.kept.append((asyncio.all_tasks(loop), loop.ready, loop.timers))
            loop.ready, loop.timers = type(loop.ready)(), []
        if self.noted is not None:
            self.noted.crash()
        if self.devices is not None:
            self.devices.dead = True
        if self.connector is not None:
            self.connector.dead = True
            for connection in self._connections():
                connection.manager_gone()
        for loop in self.loops:
            loop.shut()
