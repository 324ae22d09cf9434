"""The driver of several managers: one clock, and a loop for each process.

A process that stands still is not run; whatever comes for it is kept in its queues. So one machine
can stop between any two steps, and between the look at its clock and the packet that leaves it,
while everything else goes on.
"""

from __future__ import annotations

from heapq import heappop
from random import Random
from typing import cast

from halo.core.errors import InvariantError
from tests.simulation.loop import VirtualLoop
from tests.simulation.managers.faults import ManagersFaults
from tests.simulation.managers.node import MACHINE, PROCESS, Node
from tests.simulation.managers.operator import ManagersOperator
from tests.simulation.managers.process import Process
from tests.simulation.managers.world import DRIFT, ManagersWorld
from tests.simulation.model import Scenario
from tests.simulation.simulation import NEVER, STEP_S, STEPS_AT_ONCE, Simulation


class ManagersSimulation(Simulation):
    """Drives one scenario with several managers. `current` is the one that leads."""

    current: Process | None  # type: ignore[assignment]  # a process is an incarnation in all that is asked of it

    def __init__(self, scenario: Scenario, timeline: bool = False) -> None:
        super().__init__(scenario, timeline, ManagersWorld)
        self.managers_world = cast("ManagersWorld", self.world)
        self.managers_world.begins_to_lead = self.begins_to_lead
        self.operator = ManagersOperator(self)
        self.faults = ManagersFaults(self)
        random = Random(f"{scenario.seed}, nodes")
        self.nodes = [
            Node(self, number, random.choice([1.0, 1.0 - DRIFT, 1.0 + DRIFT]))
            for number in range(scenario.options["managers"])
        ]
        self._random = random

    # --- the managers' lives -----------------------------------------------------------------

    def start_manager(self) -> None:
        for node in self.nodes:
            self.clock.after(self._random.uniform(0.0, 0.5), node.start)

    def begins_to_lead(self, process: Process) -> None:
        """A process has made its manager, in this step."""
        assert process.manager is not None
        if self.current is not None:
            self.operator.manager_gone(self.current)  # type: ignore[arg-type]  # as above
        self.current = process
        self.stalled_until = 0.0
        self.kill_in = None
        self.managers_world.speaker = process.node.name
        self.world.say("manager", "begins to lead")
        self.world.oracle.begin(process.manager, observe_only=False)
        self.managers_world.leaders.begins(process)
        self.clock.after(0.05, self.compare_orders, process)
        self.world.tell("leads")

    def process_ended(self, process: Process) -> None:
        """Nothing of it runs any more."""
        self.graveyard.append(process)  # type: ignore[arg-type]  # as above
        self.operator.manager_gone(process)  # type: ignore[arg-type]  # as above
        if self.current is process:
            self.current = None
            self.kill_in = None
            self.stalled_until = 0.0
            self.world.tell("crash")

    def kill_manager(self) -> None:
        if self.current is not None:
            self.current.node.kill(self.down_s)

    # --- standstills -------------------------------------------------------------------------

    def stall_manager(self, seconds: float) -> None:
        if self.current is not None:
            self.current.node.freeze(seconds, PROCESS)

    def pause_machine(self, seconds: float) -> None:
        if self.current is not None:
            self.current.node.freeze(seconds, MACHINE)

    def node_stands_still(self, node: Node, seconds: float) -> None:
        """The oracles of a single manager have to know when the leader stands still."""
        if self.current is not None and self.current.node is node:
            super().stall_manager(seconds)

    def node_goes_on(self, node: Node) -> None:
        """And when it goes on."""
        if self.current is not None and self.current.node is node and self.stalled_until:
            self.stalled_until = self.clock.now
            self._goes_on()

    def wake_manager(self) -> None:
        for node in self.nodes:
            node.wake()

    def dispose(self) -> None:
        for node in self.nodes:
            node.kill()
            node.process = None
        self.managers_world.leaders.forget()
        super().dispose()

    # --- the driver --------------------------------------------------------------------------

    def run_until(self, end: float) -> None:
        clock, world = self.clock, self.world
        heap = clock.heap
        while not world.violations:
            awake = [
                node.process for node in self.nodes if node.process is not None and not node.frozen
            ]
            loops = [(process, loop) for process in awake for loop in process.loops]
            ready = next((found for found in loops if found[1].ready), None)
            if ready is not None:
                self._run_loop(*ready)
                continue
            timer = min((loop.next_timer() for _, loop in loops), default=NEVER)
            event = heap[0][0] if heap else NEVER
            if min(event, timer) > end:
                break
            clock.now = max(clock.now, min(event, timer))
            if event <= timer:
                _, _, function, args = heappop(heap)
                function(*args)
            else:
                for _, loop in loops:
                    loop.wake_timers()
        clock.now = max(clock.now, end) if not world.violations else clock.now

    def _run_loop(self, process: Process, loop: VirtualLoop) -> None:
        """Run what is ready, step by step, until the process stands still, is killed or rests."""
        world, clock, node = self.world, self.clock, process.node
        ready, limit = loop.ready, self.steps + STEPS_AT_ONCE
        is_killed = False
        loop.enter()
        try:
            while ready and not node.frozen and not process.dead and not world.violations:
                if self.meanwhile:
                    self._in_between(loop)
                    if process.dead or node.frozen:
                        return
                handle = ready.popleft()
                if handle.cancelled_flag:
                    continue
                self.steps += 1
                clock.now += STEP_S
                if self.steps > limit:
                    world.violated("livelock", f"{STEPS_AT_ONCE} steps without a rest")
                    return
                handle.callback(*handle.args)
                if self.kill_in is not None and process is self.current:
                    self.kill_in -= 1
                    is_killed = self.kill_in < 0
                    if is_killed:
                        break
        except InvariantError as error:
            world.violated("fatal", str(error))
        finally:
            loop.leave()
        if is_killed:
            self.kill_manager()
