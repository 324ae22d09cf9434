"""The ports of one process of a manager: its connections, its fence devices, its journal.

Each act looks at the process' own clock in the step that sends it, as the real adapters do, and
carries its term. What a process sends while its machine stops in this very step leaves the machine
when it goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from halo.core.errors import LinkError, Loss, LossKind
from halo.core.model import FenceDevice, Operation
from halo.core.outcomes import FenceAction, FenceResult, OperationResult
from halo.core.peers.calls import BadTerm, SameTerm, StaleTerm
from halo.ports import JournalRecord
from tests.simulation.hosts import SimCall, SimHost
from tests.simulation.managers.agents import stale
from tests.simulation.network import SimConnection, SimConnector

if TYPE_CHECKING:
    from halo.adapters.etcd.medium import EtcdMedium
    from tests.simulation.managers.process import Process
    from tests.simulation.managers.world import ManagersWorld

CHANGES = (Operation.START, Operation.STOP)


class _HostFromHere:
    """A host as one machine reaches it. Everything else is the host's."""

    def __init__(self, host: SimHost, process: Process) -> None:
        self.__dict__.update(_host=host, _where=(process.node.name, host.id), _world=process.world)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._host, name, value)

    @property
    def hole_to(self) -> bool:
        return self._host.hole_to or self._where in self._world.cut_hosts

    @property
    def hole_from(self) -> bool:
        return self._host.hole_from or self._where in self._world.cut_hosts


class NodeConnection(SimConnection):
    """A connection of one process."""

    def __init__(self, connector: SimConnector, host: SimHost) -> None:
        self.process: Process = connector.world.process  # type: ignore[attr-defined]  # a view
        super().__init__(connector, cast("SimHost", _HostFromHere(host, self.process)))
        self.manager = f"simulation@{self.process.node.name}"
        self.hello_term = self.process.term

    def _send(self, what: str, call: Any) -> None:
        if what == "watch":
            call.term = self.process.term
        self.process.node.out(lambda: SimConnection._send(self, what, call))

    def answer_stale(self, answer: StaleTerm | SameTerm | BadTerm) -> None:
        """The agent refuses the greeting for its term."""
        self._greeting_after(0.0, stale(answer).loss)

    def deliver_watch_refusal(self, why: str) -> None:
        """The agent does not watch for this manager."""
        self._send_back("watch-refused", self.watching, why)

    def _arrives_back(self, what: str, subject: Any, result: Any) -> None:
        if what != "watch-refused" or self.connector.dead:
            super()._arrives_back(what, subject, result)
        elif self.loss is None and subject is self.watching and not self.watch_waiter.done():
            error = LinkError(Loss(LossKind.PROTOCOL, str(result)))
            self.watch_waiter.set_exception(error)


class NodeView:
    """The world as one process meets it. Everything else is the world's."""

    def __init__(self, world: ManagersWorld, process: Process) -> None:
        self.world = world
        self.process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)

    def _tell(self, what: str, *args: Any) -> None:
        """The oracles of a single manager follow the one that leads."""
        self.world.speaker = self.process.node.name
        if self.world.oracle.manager is self.process.manager is not None:
            getattr(self.world, what)(*args)

    def probe_sent(self, connector: SimConnector, host: str) -> None:
        self.world.leaders.contacts(self.process, host)
        self._tell("probe_sent", connector, host)

    def beat_answered(self, connection: SimConnection, sent_at: float) -> None:
        self._tell("beat_answered", connection, sent_at)

    def connect_failed(self, connector: SimConnector, host: str, loss: Loss) -> None:
        self._tell("connect_failed", connector, host, loss)

    def connected(self, connection: SimConnection) -> None:
        self._tell("connected", connection)

    def disconnected(self, connection: SimConnection) -> None:
        self._tell("disconnected", connection)

    def operation_sent(self, call: SimCall) -> None:
        """The step that sends: the look at the clock, the term, and then perhaps a standstill."""
        call.term = self.process.term
        if call.operation in CHANGES:
            self.process.require_leading()
            self.world.leaders.acts(self.process, f"{call.operation.value} {call.resource.id}")
        self._tell("operation_sent", call)
        self.process.node.may_stop_at(call.operation.value)

    def operation_answered(self, call: SimCall, result: OperationResult) -> None:
        self._tell("operation_answered", call, result)

    def operation_late(self, call: SimCall) -> None:
        self._tell("operation_late", call)

    def reported(self, connection: SimConnection, batch: Any) -> None:
        self._tell("reported", connection, batch)

    def fence_begins(self, device: FenceDevice, action: FenceAction) -> None:
        """The step that starts a fence program."""
        if action is not FenceAction.STATUS:
            self.process.require_leading()
            plug = device.parameters["plug"]
            self.world.leaders.acts(self.process, f"fence {action.value} {plug}")
            if action is FenceAction.OFF:
                self.world.leaders.fences(self.process, plug)
        self._tell("fence_begins", device, action)
        self.process.node.may_stop_at(f"fence-{action.value}")

    def fence_ends(
        self, device: FenceDevice, action: FenceAction, result: FenceResult | None, began: float
    ) -> None:
        self._tell("fence_ends", device, action, result, began)


class MachineClock:
    """The clock of programs on one machine: they stand still with it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def now(self) -> float:
        return self._process.world.clock.now

    def after(self, delay: float, function: Callable[..., object], *args: Any) -> None:
        """As the world's clock. What comes due while the machine stands still waits for it."""
        self._process.world.clock.after(delay, self._due, function, args)

    def _due(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        node = self._process.node
        if node.frozen and node.machine_stopped:
            node.held.append(partial(function, *args))
        else:
            function(*args)


class DeviceView(NodeView):
    """The same for fence programs, which run beside the manager."""

    def __init__(self, world: ManagersWorld, process: Process) -> None:
        super().__init__(world, process)
        self.clock = MachineClock(process)


class NotedMedium:
    """The real medium. The simulation's disk is told when a write is under way."""

    def __init__(self, process: Process, medium: EtcdMedium) -> None:
        self._medium = medium
        self._disk = process.world.disk
        self._clock = process.world.clock
        self._in_flight = 0
        self._gone = False

    def read(self) -> Iterable[JournalRecord]:
        return self._medium.read()

    async def append(self, records: Sequence[JournalRecord]) -> None:
        await self._noted(self._medium.append(records))

    async def compact(self, snapshot: Sequence[JournalRecord]) -> None:
        await self._noted(self._medium.compact(snapshot))

    async def close(self) -> None:
        await self._medium.close()

    async def _noted(self, work: Coroutine[Any, Any, None]) -> None:
        self._disk.begins(self._clock.now)
        self._in_flight += 1
        try:
            await work
        finally:
            if not self._gone:
                self._in_flight -= 1
                self._disk.ends(self._clock.now)

    def crash(self) -> None:
        """The process is gone. What it sent may still be carried out."""
        self._gone = True
        for _ in range(self._in_flight):
            self._disk.ends(self._clock.now)
