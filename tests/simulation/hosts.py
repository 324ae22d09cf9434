"""Simulated hosts: power, services, agents, and the scripts that agents run.

Truthful to DESIGN "Agent": one operation a resource at a time; a lost call does not abandon its
script; what was not begun when its connection ends is dropped; a successor of a crashed agent waits
for the scripts that its predecessor left; a host without power keeps nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from halo.core.model import Operation, Resource
from halo.core.outcomes import OperationResult, Outcome
from tests.simulation.model import disk_of

if TYPE_CHECKING:
    from tests.simulation.network import SimConnection
    from tests.simulation.world import World

DEFAULT_TIMEOUT_S = 20.0
"""What a script advertises where the config sets no timeout."""

NOT_RUNNING = 7


class SimCall:
    """One call of `operation`, from its sending to its end."""

    __slots__ = ("abandoned", "answered", "connection", "lie", "operation", "resource", "sent_at",
                 "term", "waiter")  # fmt: skip

    def __init__(
        self, connection: SimConnection, resource: Resource, operation: Operation, sent_at: float
    ) -> None:
        self.connection = connection
        self.resource = resource
        self.operation = operation
        self.sent_at = sent_at
        self.waiter: Any = None  # the manager's future
        self.abandoned = False  # nobody waits for the answer: it is not begun any more
        self.answered = False
        self.lie = False  # a monitor that may say 7 of a running resource, by fault
        self.term = 0  # of the leadership that it was sent under, if there are several managers

    def begins(self) -> None:
        """Its script begins."""

    def ended(self, result: OperationResult) -> None:
        """The agent has the result: it goes to whoever asked."""
        self.connection.deliver_result(self, result)


class Script:
    """One running script; it belongs to its host and outlives its agent."""

    __slots__ = ("begun_at", "boot", "call", "deadline", "done", "effect_done", "operation",
                 "outcome", "resource")  # fmt: skip

    def __init__(self, call: SimCall, boot: int, now: float, deadline: float) -> None:
        self.call = call
        self.resource = call.resource
        self.operation = call.operation
        self.boot = boot
        self.begun_at = now
        self.deadline = deadline
        self.outcome: OperationResult | None = None  # once it ended
        self.done = False
        self.effect_done = False


class Copy:
    """One running resource on one host."""

    __slots__ = ("by_hand", "since")

    def __init__(self, since: float, by_hand: bool) -> None:
        self.since = since
        self.by_hand = by_hand


class SimAgent:
    """The agent's process on one host."""

    def __init__(self, host: SimHost) -> None:
        self.host = host
        self.world = host.world
        self.hung = False
        self.busy_until = 0.0  # another manager is served until then
        self.served: SimConnection | None = None
        self.waiting: dict[str, deque[SimCall]] = {}
        self.inbox: list[tuple[Any, ...]] = []  # what the kernel holds while it hangs

    @property
    def alive(self) -> bool:
        """Does this process still run?"""
        return self.host.agent is self

    # --- messages ----------------------------------------------------------------------------

    def receive(self, what: str, connection: SimConnection, call: Any) -> None:
        """Take in one message of a connection."""
        if self.hung:
            self.inbox.append((what, connection, call))
        elif what == "operation":
            self._operation(connection, call)
        elif what == "heartbeat":
            connection.deliver_heartbeat(call)
        elif what == "hello":
            self._hello(connection)
        elif what == "cancel":
            self._drop(lambda waiting: waiting is call, call.resource.id)
        elif what == "watch":
            connection.begin_watch(call)
        elif what == "close":
            self.closed(connection)

    def resume(self) -> None:
        """Wake from a stop signal: what the kernel kept is read in order."""
        if not self.hung:
            return
        self.hung = False
        for script in list(self.host.scripts.values()):
            if script.outcome is not None:
                self._script_ended(script)
        inbox, self.inbox = self.inbox, []
        for message in inbox:
            self.receive(*message)

    def _hello(self, connection: SimConnection) -> None:
        if self.busy_until > self.world.clock.now:
            connection.answer_hello("busy")
            return
        older = self.served
        self.served = connection
        if older is not None and older is not connection:
            self._drop_all(older)
            older.end_from_host()
        connection.answer_hello("welcome")

    def closed(self, connection: SimConnection) -> None:
        """A connection ended: what it asked for and was not begun is dropped."""
        if self.served is connection:
            self.served = None
        self._drop_all(connection)

    def _drop_all(self, connection: SimConnection) -> None:
        for name in list(self.waiting):
            self._drop(lambda waiting: waiting.connection is connection, name)

    def _drop(self, is_dropped: Any, name: str) -> None:
        queue = self.waiting.get(name)
        if queue is not None:
            for call in queue:
                if is_dropped(call):
                    call.connection.operation_is_over(call)
            self.waiting[name] = deque(call for call in queue if not is_dropped(call))

    # --- scripts -----------------------------------------------------------------------------

    def _operation(self, connection: SimConnection, call: SimCall) -> None:
        if self.served is not connection:
            connection.operation_is_over(call)
            connection.deliver_refusal(call)
            return
        self.enqueue(call)

    def enqueue(self, call: SimCall) -> None:
        """Begin it, or let it wait for its resource."""
        name = call.resource.id
        if name in self.host.scripts:
            self.waiting.setdefault(name, deque()).append(call)
        else:
            self.host.begin(call)

    def script_ended(self, script: Script) -> None:
        """A script of this agent, or of its predecessor, ended."""
        if not self.hung:
            self._script_ended(script)

    def _script_ended(self, script: Script) -> None:
        name = script.resource.id
        if self.host.scripts.get(name) is script:
            del self.host.scripts[name]
        call = script.call
        if call.connection.agent is self and script.outcome is not None:
            call.connection.operation_is_over(call)
            call.ended(script.outcome)
        queue = self.waiting.get(name)
        while queue:
            following = queue.popleft()
            if not following.abandoned:
                self.host.begin(following)
                return
            following.connection.operation_is_over(following)


class SimHost:
    """One host: power, network, agent, and what runs on it."""

    agent_type: type[SimAgent] = SimAgent

    def __init__(self, world: World, name: str, options: dict[str, Any]) -> None:
        self.world = world
        self.id = name
        self.legacy = bool(options.get("legacy"))
        self.watches = bool(options.get("watches"))
        self.agents_started = 1
        self.powered = True
        self.boot = 1
        self.off_since = 0.0
        self.hold_off_until = 0.0  # an operator keeps it off while he vouches for it
        self.calm_until = 0.0  # no fault may silence it before (the axiom of fencing)
        self.agent: SimAgent | None = self.agent_type(self)
        self.scripts: dict[str, Script] = {}
        self.running: dict[str, Copy] = {}
        self.boot_services: list[str] = []  # started by the host itself at boot, by fault
        self.tardy: dict[str, float] = {}  # kind of answer -> how long it may be held back
        self.shortage = 0.0  # the share of its programs and connections that cannot be had
        self.reports_to_lose = 0  # batches of a watch whose results do not arrive, by fault
        # Network, as seen from the manager.
        self.hole_to = False  # nothing from the manager arrives
        self.hole_from = False  # nothing of it reaches the manager
        self.delay_s = 0.0
        self.handshake_s = 0.0
        self.refuses = False  # a firewall that rejects
        self.local_trouble = ""  # a LossKind by name that proves nothing, for every connect
        self.connections: list[SimConnection] = []

    # --- power -------------------------------------------------------------------------------

    def power_off(self, why: str) -> None:
        """All is lost at once; nobody is told."""
        if not self.powered:
            return
        self.world.say(self.id, f"power off ({why})")
        self.powered = False
        self.off_since = self.world.clock.now
        self.agent = None
        self.scripts.clear()
        self.running.clear()
        self.world.tell("off", self.id)
        repair_s = self.world.scenario.options.get("repair_s", 0.0)
        if repair_s:
            delay = repair_s * self.world.random.uniform(0.5, 1.5)
            self.world.clock.after(delay, self._repaired, self.boot)

    def power_on(
        self, why: str, agent_s: float | None = None, services: Iterable[tuple[str, float]] = ()
    ) -> None:
        """Boot: nothing runs, then what the host starts by itself, then the agent, or the agent
        after `agent_s` and further services each in its time."""
        if self.powered or self.hold_off_until > self.world.clock.now:
            return
        self.world.say(self.id, f"power on ({why})")
        self.powered = True
        self.boot += 1
        clock, random = self.world.clock, self.world.random
        for name in self.boot_services:
            clock.after(random.uniform(0.1, 3.0), self._boot_service, self.boot, name)
        for name, after_s in services:
            clock.after(after_s, self._boot_service, self.boot, name)
        agent_s = random.uniform(0.5, 5.0) if agent_s is None else agent_s
        clock.after(agent_s, self._boot_agent, self.boot)

    def _repaired(self, boot: int) -> None:
        if self.boot == boot:
            self.world.outlets.reconnect(self.id)
            self.power_on("repaired")

    def _boot_service(self, boot: int, name: str) -> None:
        if self.boot == boot and self.powered:
            self.start_by_hand(name, "boot")

    def _boot_agent(self, boot: int) -> None:
        if self.boot == boot and self.powered and self.agent is None:
            self.start_agent()

    # --- the agent's process -----------------------------------------------------------------

    def start_agent(self) -> None:
        """Start it; it waits for what its predecessor left running."""
        if not self.powered or self.agent is not None:
            return
        self.world.say(self.id, "agent starts")
        self.agents_started += 1
        self.agent = self.agent_type(self)
        for script in list(self.scripts.values()):
            if script.outcome is not None:  # it ended while nobody looked
                del self.scripts[script.resource.id]
            else:
                self.world.clock.at(script.deadline, self._kill_at_deadline, script, self.boot)

    def crash_agent(self) -> None:
        """Its process ends; the kernel resets its connections; scripts run on."""
        if self.agent is None:
            return
        self.world.say(self.id, "agent crashes")
        agent, self.agent = self.agent, None
        for name in [n for n, script in self.scripts.items() if script.outcome is not None]:
            del self.scripts[name]
        for connection in list(self.connections):
            if connection.agent is agent:
                connection.end_from_host()

    def hang_agent(self) -> None:
        """A stop signal: the kernel still answers, the agent does not."""
        if self.agent is not None and not self.agent.hung:
            self.world.say(self.id, "agent hangs")
            self.agent.hung = True

    def wake_agent(self) -> None:
        """Let a hung agent go on."""
        if self.agent is not None and self.agent.hung:
            self.world.say(self.id, "agent goes on")
            self.agent.resume()

    @property
    def answers_promptly(self) -> bool:
        """Would its agent answer a fresh connection within a few milliseconds, and stay so?"""
        return (
            self.powered
            and self.agent is not None
            and not self.agent.hung
            and not (self.hole_to or self.hole_from or self.refuses)
            and self.delay_s == 0
            and self.handshake_s == 0
            and not self.local_trouble
            and not self.tardy
            and not (self.shortage or self.world.shortage)
        )

    def held_back_s(self, kind: str) -> float:
        """How long the agent holds an answer of this kind back."""
        further, up_to_s = self.world.further, self.tardy.get(kind, 0.0)
        return further.uniform(0.0, up_to_s) if up_to_s and further.random() < 0.5 else 0.0

    def runs_short(self) -> bool:
        """Is there no descriptor or no memory for this?"""
        return self.shortage > 0 and self.world.further.random() < self.shortage

    # --- services ----------------------------------------------------------------------------

    def start_by_hand(self, name: str, why: str = "hand") -> None:
        """Somebody, or the host itself, starts a resource."""
        if self.powered and name not in self.running:
            self.world.say(self.id, f"{name} started by {why}")
            self.running[name] = Copy(self.world.clock.now, by_hand=True)
            for group in self.world.groups_with_disk(name):
                self.world.touched_by_hand.add(disk_of(group.id))
            self.world.tell("hand-start", self.id)

    def stop_by_itself(self, name: str) -> None:
        """A resource dies, or somebody stops it."""
        if self.running.pop(name, None) is not None:
            self.world.say(self.id, f"{name} stops by itself")

    # --- scripts -----------------------------------------------------------------------------

    def begin(self, call: SimCall) -> None:
        """Start the script of a call; its lane is free."""
        world, now = self.world, self.world.clock.now
        timeout_s = call.resource.timeout_s(call.operation) or DEFAULT_TIMEOUT_S
        script = Script(call, self.boot, now, now + timeout_s)
        self.scripts[call.resource.id] = script
        call.begins()
        short = self.runs_short()
        if call.operation is Operation.MONITOR:
            fault = world.take_script_fault(self.id, call) if world.script_faults else ""
            duration = world.random.random() * 0.03 + 0.005
            if not fault and not short:
                world.clock.after(duration, self._monitor_ends, script)
                return
        else:
            world.script_begins(self, script)
            fault = world.take_script_fault(self.id, call) if world.script_faults else ""
            duration = world.random.uniform(0.05, world.script_time_s)
            effect_at = duration * world.random.random()
            if not short and fault not in ("no-effect-fail", "lies"):
                world.clock.after(effect_at, self._effect, script)
        if short:
            fault = "not-run"
        if fault == "slow":
            duration *= 20
        if fault == "hang":
            duration = timeout_s * 1000
        if now + duration >= script.deadline:
            world.clock.at(script.deadline, self._kill_at_deadline, script, self.boot)
        else:
            world.clock.after(duration, self._ends, script, fault)

    def _is_gone(self, script: Script) -> bool:
        return script.done or script.boot != self.boot or not self.powered

    def _effect(self, script: Script) -> None:
        """The moment at which a start or stop changes something, even if it fails later."""
        if self._is_gone(script):
            return
        script.effect_done = True
        name = disk_of(script.resource.id)
        if script.operation is Operation.STOP:
            if self._has_running_dependents(script.resource):
                return
            if self.running.pop(name, None) is not None:
                self.world.tell("stopped", self.id)
        elif name not in self.running and self._parents_run(script.resource):
            self.running[name] = Copy(self.world.clock.now, by_hand=False)
            self.world.tell("started", self.id)

    def _has_running_dependents(self, resource: Resource) -> bool:
        """Does something hold it? A shared dependent does not: it may stay for another group."""
        return any(
            disk_of(name) in self.running and not self.world.is_shared(name)
            for name in resource.dependents
        )

    def _parents_run(self, resource: Resource) -> bool:
        return not resource.parents or any(
            disk_of(name) in self.running for name in resource.parents
        )

    def _monitor_ends(self, script: Script) -> None:
        if self._is_gone(script):
            return
        runs = disk_of(script.resource.id) in self.running
        self._finish(script, OperationResult(Outcome.COMPLETED, 0 if runs else NOT_RUNNING))

    def _ends(self, script: Script, fault: str) -> None:
        """A start or stop, or a monitor with a fault, ends by itself."""
        if self._is_gone(script):
            return
        name, operation = disk_of(script.resource.id), script.operation
        if fault.endswith("fail"):
            result = OperationResult(Outcome.COMPLETED, 1, "simulated failure")
        elif fault == "not-run":
            result = OperationResult(Outcome.NOT_RUN, message="simulated: no such script")
        elif fault == "lies":
            result = OperationResult(Outcome.COMPLETED, 0)
        elif fault == "says-7":
            result = OperationResult(Outcome.COMPLETED, NOT_RUNNING)
        elif operation is Operation.MONITOR:
            self._monitor_ends(script)
            return
        else:
            wanted = operation is Operation.START
            if (name in self.running) != wanted and not script.effect_done:
                self._effect(script)
            achieved = (name in self.running) == wanted
            result = OperationResult(
                Outcome.COMPLETED, 0 if achieved else 1, "" if achieved else "the tree forbids it"
            )
        self._finish(script, result)

    def _kill_at_deadline(self, script: Script, boot: int) -> None:
        """The agent ends a script at its deadline; without an agent nobody does."""
        if (
            self._is_gone(script)
            or self.boot != boot
            or self.scripts.get(script.resource.id) is not script
        ):
            return
        if self.agent is None or self.agent.hung:
            if self.agent is not None:
                self.world.clock.after(0.5, self._kill_at_deadline, script, boot)
            return
        self._finish(script, OperationResult(Outcome.TIMED_OUT, message="ended at its deadline"))

    def _finish(self, script: Script, result: OperationResult) -> None:
        script.done = True
        script.outcome = result
        if script.operation is not Operation.MONITOR:
            self.world.script_ended(self, script, result)
        if self.agent is not None:
            self.agent.script_ended(script)
        # Without an agent the record stays until a successor finds the process gone.
