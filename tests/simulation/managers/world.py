"""The world of several managers: hosts and devices as ever, and a store in the place of a disk."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from halo.core.model import Operation
from tests.simulation.hosts import Script, SimHost
from tests.simulation.loop import Clock
from tests.simulation.managers.agents import TermedHost
from tests.simulation.managers.etcd.gateway import Ways
from tests.simulation.managers.etcd.store import SimStore
from tests.simulation.managers.leaders import Leaders
from tests.simulation.managers.process import Process
from tests.simulation.model import Scenario
from tests.simulation.oracles.all import _Silence
from tests.simulation.world import World

DRIFT = 0.05
"""How much faster or slower than true time a clock may go."""


class ManagersWorld(World):
    """Everything but the managers."""

    host_type = TermedHost
    begins_to_lead: Callable[[Process], None]

    def __init__(self, scenario: Scenario, clock: Clock) -> None:
        super().__init__(scenario, clock)
        own = self.etcd_random = Random(f"{scenario.seed}, etcd")
        self.oracles: Any = _Silence()  # they know one manager
        self.speaker = "manager"
        self.cut_hosts: set[tuple[str, str]] = set()  # node, host: nothing gets through
        self.waits_for_operator = False  # the store was rebuilt, and its terms are not raised yet
        self.leaders = Leaders(self)
        rate = own.choice([1.0, 1.0 - DRIFT, 1.0 + DRIFT])
        self.store = SimStore(clock, own, self.leaders.committed, rate)
        self.ways = Ways(clock, own, self.store)

    def say(self, who: str, what: str) -> None:
        super().say(self.speaker if who == "manager" else who, what)

    def script_begins(self, host: SimHost, script: Script) -> None:
        """The rules on stops are those of the manager that leads."""
        connection: Any = script.call.connection
        if script.operation is Operation.STOP and connection.process.manager is not (
            self.oracle.manager
        ):
            self.say(host.id, f"stop script of {script.resource.id} begins, of an earlier leader")
            return
        super().script_begins(host, script)
