"""One machine with a manager: its clock, its standstills, and the lives of its process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.managers.process import Process

if TYPE_CHECKING:
    from tests.simulation.managers.simulation import ManagersSimulation
    from tests.simulation.managers.world import ManagersWorld

RESTART_S = 1.0
"""systemd starts a manager again after so long."""

PROCESS, MACHINE, CLOCK = "process", "machine", "clock"
"""What stands still: the manager alone (SIGSTOP); its machine; its machine and its clock."""


class Node:
    """One machine. `rate`: how fast its clock goes."""

    def __init__(self, simulation: ManagersSimulation, number: int, rate: float) -> None:
        self.simulation = simulation
        self.world: ManagersWorld = simulation.managers_world
        self.number = number
        self.name = f"n{number}"
        self.rate = rate
        self.process: Process | None = None
        self._pids = 0
        self.frozen = False
        self.machine_stopped = False
        self.wakes_at = 0.0
        self.held: list[Callable[[], object]] = []  # what leaves the machine when it goes on
        self._clock_stopped_s = 0.0
        self._stopped_at = 0.0
        self._stops_clock = False
        self.clock_stood_at = float("-inf")  # when its clock last stood still
        self._stop_at: tuple[str, float, str] | None = None

    def boot_clock(self) -> float:
        """Seconds on this machine's own clock."""
        stood_s = self._clock_stopped_s
        if self.frozen and self._stops_clock:
            stood_s += self.world.clock.now - self._stopped_at
        return (self.world.clock.now - stood_s) * self.rate + 1000.0 * self.number

    # --- standing still ----------------------------------------------------------------------

    def freeze(self, seconds: float, how: str) -> None:
        """Nothing of the node runs for so long. What it has sent goes on its way."""
        if self.frozen:
            return
        self.world.say(self.name, f"stands still for {seconds:g} s ({how})")
        self.world.counts[f"standstills ({how})"] += 1
        self.frozen, self.machine_stopped = True, how != PROCESS
        self._stopped_at, self._stops_clock = self.world.clock.now, how == CLOCK
        self.wakes_at = self.world.clock.now + seconds
        self.simulation.node_stands_still(self, seconds)
        self.world.clock.at(self.wakes_at, self._due)

    def _due(self) -> None:
        if self.frozen and self.world.clock.now >= self.wakes_at:
            self.wake()

    def wake(self) -> None:
        """Go on. First of all leaves what was sent in the step in which it stopped."""
        if not self.frozen:
            return
        self.world.say(self.name, "goes on")
        if self._stops_clock:
            self._clock_stopped_s += self.world.clock.now - self._stopped_at
            self.clock_stood_at = self.world.clock.now
        self.frozen = False
        held, self.held = self.held, []
        for go in held:
            go()
        if self.machine_stopped and self.process is not None:
            for loop in self.process.loops:
                self.world.counts["late timers"] += loop.scramble(self.world.further)
        self.simulation.node_goes_on(self)

    def stop_at(self, what: str, seconds: float, how: str) -> None:
        """Stand still in the next step that sends this, after it looked at the clock."""
        self._stop_at = (what, seconds, how)

    def may_stop_at(self, what: str) -> None:
        """This is about to be sent."""
        if self._stop_at is not None and self._stop_at[0] == what:
            _, seconds, how = self._stop_at
            self._stop_at = None
            self.world.counts["standstills between look and act"] += 1
            self.freeze(seconds, how)

    def out(self, go: Callable[[], None]) -> None:
        """Let something leave the machine: now, or when it goes on."""
        if self.frozen:
            self.held.append(go)
        else:
            go()

    # --- the process' lives ------------------------------------------------------------------

    def start(self) -> None:
        """Start the process, unless it runs."""
        if self.process is None and not self.world.violations:
            self.world.say(self.name, "the manager starts, and stands by")
            self._pids += 1
            self.process = Process(self, self._pids)

    def kill(self, down_s: float = RESTART_S) -> None:
        """The process dies at once, between two steps."""
        if self.process is not None:
            self.world.say(self.name, "the manager is killed")
            self._ends(self.process, down_s)

    def exits(self, process: Process) -> None:
        """The process has ended by itself."""
        if self.process is process:
            self.world.say(self.name, "the manager has ended")
            self._ends(process, self.simulation.down_s if process.is_ending else RESTART_S)

    def stays_down(self, process: Process, why: str) -> None:
        """It ended with 64: an administrator has to mend something, and starts it then."""
        if self.process is process:
            self.world.say(self.name, f"the manager has ended with 64: {why}")
            self.world.counts["managers that wait for an operator"] += 1
            self._is_gone(process)

    def _ends(self, process: Process, down_s: float) -> None:
        self._is_gone(process)
        self.world.clock.after(down_s, self.start)

    def _is_gone(self, process: Process) -> None:
        self.process = None
        self.held.clear()
        process.gone()
        self.simulation.process_ended(process)
