"""How much of one agent's reports a manager takes in, over one connection.

The frames of an agent are counted before they are read (:mod:`halo.adapters.rpc.frames`). But the
cost of reading a frame depends on its content.
"""

from __future__ import annotations

from halo.core.errors import LinkError, Loss, LossKind
from halo.core.outcomes import ReportBatch
from halo.core.peers.bounds import REPORT_LIMIT

RESULT_SIZE = 100
"""The cost of a result besides its text, in characters."""

RATE = 1024 * 1024
"""Characters a second over a long time. This is twice the rate of an agent that reports 256 changed
results without texts, twenty times a second."""

BURST = 8 * REPORT_LIMIT
"""Characters at once. A full report of 2,000 resources that all fail with the longest message is
shorter."""

REFUSALS = 3
"""Reports that may be refused between two heartbeats. After a refusal, an agent is silent until the
next heartbeat, but a few reports may be under way."""


class Appetite:
    """Raises LinkError if the agent sends more than an honest agent would."""

    def __init__(self) -> None:
        self._left = float(BURST)
        self._at = 0.0
        self._refused = 0

    def take(self, batch: ReportBatch, now: float) -> None:
        """A report was read. `now` is in seconds of any steady clock."""
        size = sum(
            RESULT_SIZE + len(reported.resource) + len(reported.result.message)
            for reported in batch.results
        )
        self._left = min(BURST, self._left + (now - self._at) * RATE) - size
        self._at = now
        if self._left < 0:
            text = f"it reports more than {RATE} characters a second"
            raise LinkError(Loss(LossKind.PROTOCOL, text))

    def refuse(self) -> None:
        """A report was not accepted, and was not read."""
        self._refused += 1
        if self._refused > REFUSALS:
            text = "it continues to report although its reports are not accepted"
            raise LinkError(Loss(LossKind.PROTOCOL, text))

    def heartbeat(self) -> None:
        """A heartbeat was sent: the agent may begin its report again."""
        self._refused = 0
