"""One run of one scenario: the driver that lets the world and the manager step on one clock."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from heapq import heappop
from typing import Any

from halo.core.errors import InvariantError
from halo.manager.manager import Manager
from tests.simulation.config_changes import ConfigChanges
from tests.simulation.devices import SimFenceDevices
from tests.simulation.disk import SimMedium
from tests.simulation.faults import Faults
from tests.simulation.loop import Clock, VirtualLoop
from tests.simulation.model import Scenario
from tests.simulation.network import SimConnector
from tests.simulation.operator import Operator
from tests.simulation.world import World

NEVER = float("inf")
STEPS_AT_ONCE = 100_000
STEP_S = 1e-7
"""What a step of the manager takes: with a clock that stands still, loops appear that none has."""

NOTICED_S = 2.0
"""A standstill so long is noticed by every timer of the manager, whenever it was due."""


class Incarnation:
    """One life of the manager, from its start to its crash."""

    def __init__(self, world: World, observe_only: bool, on_end: Callable[[], None]) -> None:
        self.world = world
        self.on_end = on_end
        # typeshed calls methods abstract that asyncio's own base class does not.
        self.loop = VirtualLoop(world.clock, self._loop_error)  # type: ignore[abstract]  # above
        self.connector = SimConnector(world, self.loop)
        self.devices = SimFenceDevices(world, self.loop)
        self.medium = SimMedium(world, self.loop)
        self.dead = False
        self.is_ending = False
        self.kept: list[Any] = []
        self.loop.enter()
        try:
            self.manager = Manager(
                world.cluster,
                self.connector,
                self.devices,
                self.medium,
                world.wall,
                observe_only=observe_only,
            )
            world.oracle.begin(self.manager, observe_only)
            world.oracles.begin(self.manager)
            self.task = self.loop.create_task(self.manager.run())
        finally:
            self.loop.leave()
        self.task.add_done_callback(self._ended)

    def _loop_error(self, text: str) -> None:
        if not self.dead:
            self.world.violated("defect", text)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self.dead:
            return
        if task.cancelled():
            self.world.clock.after(0.0, self.on_end)
            return
        error = task.exception()
        rule = "fatal" if isinstance(error, InvariantError) else "defect"
        self.world.violated(rule, f"the manager ended: {error!r}")

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run something in the manager's loop, as its HTTP server would."""
        return self.loop.create_task(work)

    def kill(self) -> None:
        """The process is gone between two steps; nothing of it runs any more."""
        self.dead = True
        self.connector.dead = self.devices.dead = True
        # Coroutines that are dropped now would run their `finally` parts when collected.
        self.kept.append((asyncio.all_tasks(self.loop), self.loop.ready, self.loop.timers))
        self.loop.ready, self.loop.timers = type(self.loop.ready)(), []
        self.medium.crash()
        for host in self.world.hosts.values():
            for connection in list(host.connections):
                if connection.connector is self.connector:
                    connection.manager_gone()
        self.loop.shut()


class Simulation:
    """Drives one scenario to its end, or to the first violation."""

    def __init__(
        self, scenario: Scenario, timeline: bool = False, world_type: type[World] = World
    ) -> None:
        self.scenario = scenario
        self.clock = Clock()
        self.world = world_type(scenario, self.clock)
        self.world.manager_is_away = self._is_away
        if timeline:
            self.world.timeline = []
        self.current: Incarnation | None = None
        self.graveyard: list[Incarnation] = []
        self.steps = 0
        self.kill_in: int | None = None  # steps left to the next crash
        self.meanwhile: list[tuple[int, Callable[[], None]]] = []  # at which step, what
        self.stalled_until = 0.0
        self.awake_since = 0.0  # the end of the last standstill
        self.still_since = 0.0  # when the present standstill began, or the last one
        self.observe_only = bool(scenario.options.get("observe"))
        self.down_s = 1.0
        self.operator = Operator(self)
        self.config = ConfigChanges(self)
        self.faults = Faults(self)

    def _is_away(self) -> bool:
        """Does the manager stand still, or is it about to end?"""
        is_ending = self.current is not None and self.current.is_ending
        return self.clock.now < self.stalled_until or is_ending

    def tick(self) -> None:
        """Once a virtual second: what has to be looked at by the clock."""
        self.operator.check_deadlines()
        self.world.oracle.fences.read_disk()
        current = self.current
        if current is not None:
            self.world.oracle.checks += 1
            current.manager.check_invariants()
            self.world.oracles.tick(current.manager)
        self.clock.after(1.0, self.tick)

    # --- the manager's lives -----------------------------------------------------------------

    def start_manager(self) -> None:
        """Start an incarnation, unless one runs."""
        if self.current is None and not self.world.violations:
            self.config.apply()
            self.world.say("manager", "starts" + (" (observing)" if self.observe_only else ""))
            self.current = Incarnation(self.world, self.observe_only, self.kill_manager)
            self.clock.after(0.05, self.compare_orders, self.current)

    def compare_orders(
        self, incarnation: Incarnation, status: dict[str, Any] | None = None
    ) -> None:
        """Does the manager remember what it told the operator? `status`: of this step, if known."""
        if self.current is not incarnation or incarnation.dead:
            return
        if self.clock.now < self.stalled_until:
            self.clock.at(self.stalled_until + 0.05, self.compare_orders, incarnation)
        else:
            status = status or incarnation.manager.operations.status()
            self.world.oracle.orders.compare(status)

    def kill_manager(self) -> None:
        """The manager dies at once, between two steps."""
        if self.current is not None:
            self.world.say("manager", "crashes")
            self.config.manager_ends()
            self.current.kill()
            self.graveyard.append(self.current)
            self.current = None
            self.kill_in = None
            self.operator.manager_gone(self.graveyard[-1])
            self.clock.after(self.down_s, self.start_manager)
            self.world.tell("crash")

    def terminate_manager(self) -> None:
        """SIGTERM: the manager ends in order."""
        current = self.current
        if current is not None and not current.dead:
            self.world.say("manager", "is told to end")
            current.is_ending = True
            current.task.cancel()
            self.clock.after(5.0, self._must_have_ended, current)

    def _must_have_ended(self, incarnation: Incarnation) -> None:
        if self.current is incarnation:
            awake_at = max(self.stalled_until, self.awake_since)
            if self.clock.now - awake_at >= 5.0:
                self.world.violated("API", "the manager did not end within 5 s of SIGTERM")
            else:
                self.clock.at(awake_at + 5.0, self._must_have_ended, incarnation)

    def stall_manager(self, seconds: float) -> None:
        """The manager's process stands still."""
        self.world.say("manager", f"stands still for {seconds:g} s")
        if max(self.stalled_until, self.awake_since) < self.clock.now:
            self.still_since = self.clock.now  # else it goes on with one that stands, or just ends
        self.stalled_until = max(self.stalled_until, self.clock.now + seconds)
        self.world.absences.append((self.clock.now, self.stalled_until))
        if self.stalled_until - self.still_since > NOTICED_S:
            self.world.oracle.stands_still(self.still_since)
            if self.current is not None:
                self.world.oracles.stands_still(self.stalled_until)
            self.clock.at(self.stalled_until, self._goes_on)

    def pause_machine(self, seconds: float) -> None:
        """Its machine is paused: then all its timers are late at once, and fire in any order."""
        self.stall_manager(seconds)
        self.clock.at(self.stalled_until, self._all_late)

    def _all_late(self) -> None:
        if self.clock.now < self.stalled_until:
            self.clock.at(self.stalled_until, self._all_late)
        elif self.current is not None:
            self.world.counts["late timers"] += self.current.loop.scramble(self.world.further)

    def between_steps(self, steps: int, happen: Callable[[], None]) -> None:
        """Let something happen after so many further steps of the manager, in the middle of what it
        does."""
        self.meanwhile.append((self.steps + steps, happen))

    def _in_between(self, loop: VirtualLoop) -> None:
        due = [happen for step, happen in self.meanwhile if step <= self.steps]
        if due:
            self.meanwhile = [entry for entry in self.meanwhile if entry[0] > self.steps]
            loop.leave()
            for happen in due:
                self.world.counts["faults between two steps"] += 1
                happen()
            loop.enter()

    def _goes_on(self) -> None:
        if self.stalled_until and self.clock.now >= self.stalled_until:
            if self.clock.now - self.still_since >= NOTICED_S:  # else cut short
                self.world.oracle.wakes(self.still_since)
            self.awake_since = self.clock.now
            self.stalled_until = 0.0

    def wake_manager(self) -> None:
        """End a standstill before its time."""
        if self.stalled_until > self.clock.now:
            self.stalled_until = self.clock.now
            self._goes_on()

    def dispose(self) -> None:
        """Let go of all incarnations. What was left suspended cannot end well any more, and the
        interpreter need not say so."""
        if self.current is not None:
            self.kill_manager()
        hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
        try:
            self.graveyard.clear()
            self.world.oracle.manager = None
            self.clock.heap.clear()
            gc.collect()
        finally:
            sys.unraisablehook = hook

    # --- the driver --------------------------------------------------------------------------

    def run_until(self, end: float) -> None:
        """Let time pass; returns early at the first violation."""
        clock, world = self.clock, self.world
        heap = clock.heap
        while not world.violations:
            current = self.current
            if current is not None and clock.now >= self.stalled_until:
                if current.loop.ready:
                    self._steps(current)
                    continue
                timer = current.loop.next_timer()
            elif current is not None:
                timer = max(self.stalled_until, clock.now)
                if not current.loop.ready:
                    timer = max(timer, current.loop.next_timer())
            else:
                timer = NEVER
            event = heap[0][0] if heap else NEVER
            if event <= timer:
                if event > end:
                    break
                clock.now = max(clock.now, event)
                _, _, function, args = heappop(heap)
                function(*args)
            else:
                if timer > end:
                    break
                clock.now = max(clock.now, timer)
                if current is not None and clock.now >= self.stalled_until:
                    current.loop.wake_timers()
        clock.now = max(clock.now, end) if not world.violations else clock.now

    def _steps(self, current: Incarnation) -> None:
        """Run what is ready, step by step; a crash may come between any two."""
        loop, world, clock = current.loop, self.world, self.clock
        ready, limit = loop.ready, self.steps + STEPS_AT_ONCE
        loop.enter()
        try:
            while ready:
                if self.meanwhile:
                    self._in_between(loop)
                    if current.dead:
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
                if self.kill_in is not None:
                    self.kill_in -= 1
                    if self.kill_in < 0:
                        break
                if world.violations:
                    return
        except InvariantError as error:
            world.violated("fatal", str(error))
        finally:
            loop.leave()
        if self.kill_in is not None and self.kill_in < 0:
            self.kill_manager()
