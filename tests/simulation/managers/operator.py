"""The operator of several managers: gives commands to the one that leads."""

from __future__ import annotations

from tests.simulation.operator import Operator, Pending


class ManagersOperator(Operator):
    """A command of a leader that was replaced meanwhile counts as one without an answer."""

    def _answered(self, entry: Pending, outcome: str, answer: str = "") -> None:
        if entry in self.pending:
            super()._answered(entry, outcome, answer)
        else:
            self.world.counts["answers of earlier leaders"] += 1
