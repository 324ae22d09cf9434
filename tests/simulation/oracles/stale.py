"""An off that waited through a standstill of the manager comes after a new look at the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from halo.core.fencing.steps import Kind, Stage
from halo.core.outcomes import FenceAction

if TYPE_CHECKING:
    from tests.simulation.world import World

RULE = "S3"
BEFORE_THE_OFF = (Stage.RECORDING, Stage.GATHERING, Stage.QUEUED)


class StaleOracle:
    """Notes what the manager was about to do when it stood still."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._decided: dict[str, tuple[Any, float]] = {}  # the attempt, and when it may go on
        self._look_began: dict[str, float] = {}

    def begin(self) -> None:
        """A new life of the manager."""
        self._decided.clear()
        self._look_began.clear()

    def stands_still(self, until: float) -> None:
        """The manager stands still for long."""
        for host in self.world.cluster.hosts:
            machine = self.world.oracle.manager.fence_runner._machines[host]
            attempt = machine.attempt
            if (
                attempt is not None
                and attempt.kind is Kind.AUTOMATIC
                and machine.stage in BEFORE_THE_OFF
            ):
                self._decided[host] = attempt, until

    def probe_sent(self, host: str) -> None:
        """A look at the host begins."""
        self._look_began[host] = self.world.clock.now

    def looked(self, host: str) -> None:
        """A look at the host ended. One that began before the standstill does not count."""
        _, awake_at = self._decided.get(host, (None, 0.0))
        if self._look_began.get(host, -1.0) >= awake_at:
            self._decided.pop(host, None)

    def fence_begins(self, host: str, action: FenceAction) -> None:
        """A fence program begins."""
        if action is not FenceAction.OFF:
            return
        attempt, awake_at = self._decided.pop(host, (None, 0.0))
        under_way = self.world.oracle.manager.fence_runner.attempt_of(host)
        if attempt is under_way is not None and self.world.clock.now >= awake_at:
            self.world.violated(
                RULE,
                f"{host} is switched off as decided at {attempt.begun_at:.3f}, without a look at "
                f"it since the manager stood still until {awake_at:.3f}",
            )
