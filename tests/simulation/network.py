"""The simulated network between the manager and the agents: implements the ports AgentConnector
and AgentConnection.

Each direction keeps its order. What meets a hole is kept, as TCP keeps it, and arrives some time
after the hole is mended, unless the sender closed the connection meanwhile. An agent may answer the
calls of one connection in any order, so one that is tardy holds some of its answers back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from halo import __version__
from halo.core.errors import LinkError, Loss, LossKind
from halo.core.model import Host, Operation, Resource
from halo.core.outcomes import AgentIdentity, OperationResult, Outcome, ReportBatch, WatchItem
from halo.ports import AnswerTaker, GreetingTurn, ReportSink
from tests.simulation.hosts import SimCall, SimHost
from tests.simulation.watching import HUNG_AGENT_S, SimWatch

if TYPE_CHECKING:
    from tests.simulation.loop import VirtualLoop
    from tests.simulation.world import World

KEEPALIVE_S = 11.0
"""How long the kernel watches a dead path before it gives a connection up."""


class SimConnector:
    """Connects one incarnation of the manager."""

    def __init__(self, world: World, loop: VirtualLoop) -> None:
        self.world = world
        self.loop = loop
        self.dead = False  # its manager is gone
        self.connection_type: type[SimConnection] = SimConnection

    async def connect(
        self, host: Host, deadline_s: float, turn: GreetingTurn | None = None
    ) -> SimConnection:
        """Connect and exchange greetings. Raises LinkError. No cluster here is so large that one
        would have to wait for its turn."""
        sim = self.world.hosts[host.id]
        connection = self.connection_type(self, sim)
        waiter = self.loop.create_future()
        connection.greeting = waiter
        timer = self.loop.call_later(deadline_s, connection.greeting_late)
        self.world.probe_sent(self, host.id)
        try:
            self._open(connection, sim)
            answer = await waiter
        except BaseException:
            connection.close()
            raise
        finally:
            timer.cancel()
        if isinstance(answer, Loss):
            connection.close()
            self.world.connect_failed(self, host.id, answer)
            raise LinkError(answer)
        connection.is_up = True
        self.world.connected(connection)
        return connection

    def _open(self, connection: SimConnection, sim: SimHost) -> None:
        if sim.local_trouble or self.world.runs_short("connections"):
            kind = sim.local_trouble or "LOCAL"
            loss = Loss(LossKind[kind], "simulated")
            self.world.clock.after(0.001, connection.settle_greeting, loss)
        else:
            self.world.clock.after(self.world.latency(sim), connection.syn_arrives)


class SimConnection:
    """One connection. `boot` and `agent`: whose it is at the other end, once it is accepted."""

    def __init__(self, connector: SimConnector, host: SimHost) -> None:
        self.connector = connector
        self.loop = connector.loop
        self.world = connector.world
        self.host = host
        self.identity = AgentIdentity()
        self.greeting: Any = None
        self.boot = 0
        self.agent: Any = None
        self.loss: Loss | None = None
        self.ended_at_host = False
        self.opened_at = 0.0
        self._closed: asyncio.Future[Loss] = connector.loop.create_future()
        self._calls: dict[SimCall, None] = {}
        self._beats: dict[asyncio.Future[None], float] = {}
        self._held_out: list[tuple[str, Any]] = []
        self._held_in: list[tuple[Any, ...]] = []
        self._held_beats: list[asyncio.Future[None]] = []
        self.is_up = False
        self.watching: SimWatch | None = None
        self.watch_waiter: Any = None
        self.ended_operations: dict[str, int] = {}
        self._arrival_out = 0.0
        self._arrival_in = 0.0
        self._dead_path_since: float | None = None

    def __repr__(self) -> str:
        return f"<SimConnection {self.host.id} {self.loss or 'open'}>"

    # --- the port ----------------------------------------------------------------------------

    async def operation(
        self, resource: Resource, operation: Operation, deadline_s: float
    ) -> OperationResult:
        call, timer = self._call(resource, operation, deadline_s)
        try:
            result: OperationResult = await call.waiter
            return result
        finally:
            self._call_ended(call, timer)

    def monitor(self, resource: Resource, deadline_s: float, take: AnswerTaker) -> None:
        if self.loss is not None:
            self.loop.call_soon(take, LinkError(self.loss))
            return
        call, timer = self._call(resource, Operation.MONITOR, deadline_s)

        def answered(waiter: asyncio.Future[OperationResult]) -> None:
            self._call_ended(call, timer)
            error = waiter.exception()
            take(waiter.result() if error is None else cast("LinkError", error))

        call.waiter.add_done_callback(answered)

    def _call(
        self, resource: Resource, operation: Operation, deadline_s: float
    ) -> tuple[SimCall, Any]:
        if self.loss is not None:
            raise LinkError(self.loss)
        call = SimCall(self, resource, operation, self.world.clock.now)
        self.world.operation_sent(call)
        call.waiter = self.loop.create_future()
        self._calls[call] = None
        timer = self.loop.call_later(deadline_s, self._late, call)
        self._send("operation", call)
        return call, timer

    def _call_ended(self, call: SimCall, timer: Any) -> None:
        timer.cancel()
        self._calls.pop(call, None)
        if not call.answered and self.loss is None and not self.connector.dead:
            call.abandoned = True
            self._send("cancel", call)

    async def heartbeat(self) -> None:
        if self.loss is not None:
            raise LinkError(self.loss)
        waiter: asyncio.Future[None] = self.loop.create_future()
        self._beats[waiter] = self.world.clock.now
        self.world.probe_sent(self.connector, self.host.id)
        # One event for the round trip: a heartbeat lost on either way is lost all the same.
        self.world.clock.after(2 * self.world.latency(self.host), self._beat_arrives, waiter)
        try:
            await waiter
        finally:
            self._beats.pop(waiter, None)

    async def watch(
        self, items: Sequence[WatchItem], sink: ReportSink, digest_interval_s: float
    ) -> None:
        if self.loss is not None:
            raise LinkError(self.loss)
        self.watch_waiter = self.loop.create_future()
        self.watching = SimWatch(self, items, sink, digest_interval_s)
        self._send("watch", self.watching)
        await self.watch_waiter

    async def wait_closed(self) -> Loss:
        return await asyncio.shield(self._closed)

    def close(self) -> None:
        if self.connector.dead:
            return
        self._end(Loss(LossKind.STALE, "closed by us"))
        if not self.ended_at_host and self.agent is not None:
            self.ended_at_host = True
            self._held_out.clear()
            self.world.clock.after(self.world.latency(self.host), self._close_arrives)

    # --- how it ends -------------------------------------------------------------------------

    def _end(self, loss: Loss) -> None:
        if self.loss is not None:
            return
        self.loss = loss
        if self in self.host.connections:
            self.host.connections.remove(self)
        if self.connector.dead:
            return
        if self.is_up:
            self.world.disconnected(self)
        for call in self._calls:
            if not call.waiter.done():
                call.waiter.set_exception(LinkError(loss))
        for waiter in self._beats:
            if not waiter.done():
                waiter.set_exception(LinkError(loss))
        if self.watch_waiter is not None and not self.watch_waiter.done():
            self.watch_waiter.set_exception(LinkError(loss))
        if not self._closed.done():
            self._closed.set_result(loss)

    def _close_arrives(self) -> None:
        if self.host.hole_to or self.agent is None or not self.agent.alive:
            return  # the reset is lost: the agent's end stays half open
        self.agent.receive("close", self, None)

    def end_from_host(self) -> None:
        """The agent, or its host's kernel, ends the connection."""
        self.ended_at_host = True
        self._send_back("reset", None, None)

    def manager_gone(self) -> None:
        """The manager's process ended: its kernel closes the connection."""
        self.loss = self.loss or Loss(LossKind.STALE, "the manager is gone")
        if self in self.host.connections:
            self.host.connections.remove(self)
        if not self.ended_at_host and self.agent is not None:
            self.ended_at_host = True
            self.world.clock.after(self.world.latency(self.host), self._close_arrives)

    # --- greeting ----------------------------------------------------------------------------

    def syn_arrives(self) -> None:
        """The first packet reaches the host, or does not."""
        host = self.host
        if self.loss is not None or host.hole_to or not host.powered or host.runs_short():
            if host.powered or not self.world.random.random() < 0.2:
                return  # silence
            self.settle_greeting(Loss(LossKind.NO_ROUTE_TO_HOST, "simulated"))
            return
        if host.refuses or host.agent is None:
            self._greeting_after(0.0, Loss(LossKind.REFUSED))
            return
        self.boot, self.agent = host.boot, host.agent
        host.connections.append(self)
        self.world.clock.after(host.handshake_s + 0.0005, self._hello_arrives)

    def _hello_arrives(self) -> None:
        if self.host.hole_to or self.agent is None or not self.agent.alive:
            return
        if self.loss is None or self.ended_at_host:
            self.agent.receive("hello", self, None)
            if self.loss is not None:  # given up meanwhile: its end follows at once
                self.agent.receive("close", self, None)

    def answer_hello(self, answer: str) -> None:
        """What the agent says to a greeting."""
        if answer == "busy":
            self._greeting_after(0.0, Loss(LossKind.BUSY, "another manager"))
            return
        host = self.host
        features = frozenset({"watch"}) if host.watches and not host.legacy else frozenset()
        if host.legacy:
            self.identity = AgentIdentity(legacy=True)
        else:
            self.identity = AgentIdentity(
                __version__, f"boot-{host.boot}", False, features, f"start-{host.agents_started}"
            )
        self._when_let_go("hello", self._greeting_after, 0.0, None)

    def _greeting_after(self, extra_s: float, answer: Loss | None) -> None:
        delay = self.world.latency(self.host) + extra_s
        self.world.clock.after(delay, self._greeting_arrives, answer)

    def _greeting_arrives(self, answer: Loss | None) -> None:
        if not self.host.hole_from:
            self.settle_greeting(answer)

    def settle_greeting(self, answer: Loss | None) -> None:
        """The manager learns what came of its attempt."""
        if self.connector.dead or self.greeting.done() or self.loss is not None:
            return
        if answer is None:
            self.opened_at = self.world.clock.now
            if self.identity.legacy:
                self.world.clock.after(2.0, self._keepalive)
        self.greeting.set_result(answer)

    def greeting_late(self) -> None:
        """The deadline of the attempt."""
        if not self.greeting.done():
            self.greeting.set_result(Loss(LossKind.SILENT, "no answer in time"))

    def _keepalive(self) -> None:
        """An old agent sends no heartbeats; the kernel's own probes end a dead connection."""
        if self.loss is not None or self.connector.dead:
            return
        now = self.world.clock.now
        dead = self.host.hole_to or self.host.hole_from or not self.host.powered
        if not dead:
            self._dead_path_since = None
            if self.host.boot != self.boot:
                self._end(Loss(LossKind.RESET, "the host was booted again"))
                return
        elif self._dead_path_since is None:
            self._dead_path_since = now
        elif now - self._dead_path_since >= KEEPALIVE_S:
            self._end(Loss(LossKind.SILENT, "keepalive"))
            return
        self.world.clock.after(2.0, self._keepalive)

    # --- from the manager to the host --------------------------------------------------------

    def _send(self, what: str, call: Any) -> None:
        arrival = max(self.world.clock.now + self.world.latency(self.host), self._arrival_out)
        self._arrival_out = arrival
        self.world.clock.at(arrival, self._arrives, what, call)

    def _arrives(self, what: str, call: Any) -> None:
        host = self.host
        if host.hole_to or self._held_out:
            if self.loss is None:
                self._held_out.append((what, call))
            return
        if not host.powered:
            return
        if host.boot != self.boot or not self.agent.alive:
            self._send_back("reset", None, None)
        elif not self.ended_at_host or self.loss is not None:
            # Sent before our own close: the two arrive in order.
            self.agent.receive(what, self, call)

    def _beat_arrives(self, waiter: asyncio.Future[None]) -> None:
        if self.loss is not None or waiter.done():
            return
        host = self.host
        if host.hole_to or host.hole_from:
            self._held_beats.append(waiter)
        elif host.powered:
            if host.boot != self.boot or not self.agent.alive:
                self._end_by_reset()
            else:
                self.agent.receive("heartbeat", self, waiter)

    def path_mended(self) -> None:
        """A hole is gone: what TCP kept is sent again."""
        if self.loss is None:
            host = self.host
            if not host.hole_to and self._held_out:
                held, self._held_out = self._held_out, []
                for what, call in held:
                    self._arrives(what, call)
            if not host.hole_from and self._held_in:
                kept, self._held_in = self._held_in, []
                for what, subject, result in kept:
                    self._arrives_back(what, subject, result)
            if not host.hole_from and not host.hole_to and self._held_beats:
                beats, self._held_beats = self._held_beats, []
                for waiter in beats:
                    self._beat_arrives(waiter)

    # --- from the host to the manager --------------------------------------------------------

    def deliver_result(self, call: SimCall, result: OperationResult) -> None:
        """An answer leaves the host."""
        self._when_let_go(call.operation.value, self._send_back, "result", call, result)

    def _when_let_go(self, kind: str, send: Callable[..., None], *what: Any) -> None:
        """Send at once, or later where the agent holds this back; others overtake it then."""
        held_s = self.host.held_back_s(kind) if self.host.tardy else 0.0
        if held_s:
            self.world.clock.after(held_s, self._let_go, send, *what)
        else:
            send(*what)

    def _let_go(self, send: Callable[..., None], *what: Any) -> None:
        """What an agent holds back ends with it."""
        if self.host.boot != self.boot or not self.host.powered or not self.agent.alive:
            return
        if self.agent.hung:
            self.world.clock.after(HUNG_AGENT_S, self._let_go, send, *what)
        else:
            send(*what)

    def operation_is_over(self, call: SimCall) -> None:
        """At the agent: a start or stop of this connection ended, or will not begin."""
        if call.operation is not Operation.MONITOR:
            name = call.resource.id
            self.ended_operations[name] = self.ended_operations.get(name, 0) + 1

    def begin_watch(self, watch: SimWatch) -> None:
        """At the agent: the call to watch arrived."""
        watch.begin()
        self._when_let_go("watching", self._send_back, "watching", watch, None)

    def deliver_batch(self, watch: SimWatch, batch: ReportBatch, number: int) -> None:
        """A report leaves the host."""
        self._when_let_go("batch", self._send_back, "batch", watch, (batch, number))

    def deliver_refusal(self, call: SimCall) -> None:
        """The connection is not the one served."""
        self._send_back("refusal", call, None)

    def deliver_heartbeat(self, waiter: asyncio.Future[None]) -> None:
        """A heartbeat is answered (its way back was counted in already)."""
        if self.watching is not None:
            self.watching.heartbeat()
        if self.host.tardy:
            self._when_let_go("heartbeat", self._beat_arrives_back, waiter)
        else:
            self._beat_arrives_back(waiter)

    def _beat_arrives_back(self, waiter: asyncio.Future[None]) -> None:
        if self.loss is not None or self.connector.dead or waiter.done():
            return
        if self.host.hole_from:
            self._held_beats.append(waiter)
            return
        self.world.beat_answered(self, self._beats[waiter])
        waiter.set_result(None)

    def _send_back(self, what: str, subject: Any, result: Any) -> None:
        arrival = max(self.world.clock.now + self.world.latency(self.host), self._arrival_in)
        self._arrival_in = arrival
        self.world.clock.at(arrival, self._arrives_back, what, subject, result)

    def _arrives_back(self, what: str, subject: Any, result: Any) -> None:
        if self.loss is not None or self.connector.dead:
            return
        if self.host.hole_from or self._held_in:
            self._held_in.append((what, subject, result))
            return
        if what == "reset":
            self._end_by_reset()
        elif what == "watching":
            if subject is self.watching and not self.watch_waiter.done():
                self.watch_waiter.set_result(None)
        elif what == "batch":
            self.loop.call_soon(subject.take, *result)
        elif not subject.waiter.done():
            subject.answered = True
            if what == "refusal":
                subject.waiter.set_exception(LinkError(Loss(LossKind.BUSY, "not served")))
                return
            self.world.operation_answered(subject, result)
            subject.waiter.set_result(result)

    def cut(self) -> None:
        """A reset arrives at this very moment."""
        self._end_by_reset()

    def _end_by_reset(self) -> None:
        if not self.greeting.done():
            self.greeting.set_result(Loss(LossKind.RESET, "simulated"))
        self._end(Loss(LossKind.RESET, "simulated"))

    def _late(self, call: SimCall) -> None:
        if not call.waiter.done():
            self.world.operation_late(call)
            call.waiter.set_result(
                OperationResult(Outcome.TIMED_OUT, message="no answer from the agent")
            )
