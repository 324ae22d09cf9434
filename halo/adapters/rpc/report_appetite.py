"""How much a manager takes in of what one agent reports, over one connection.

The frames of an agent are counted before anybody reads them (:mod:`halo.adapters.rpc.frames`),
but what one of them costs to read hangs on what it holds.
"""

from __future__ import annotations

from halo.core.errors import LinkError, Loss, LossKind
from halo.core.outcomes import ReportBatch
from halo.core.peers.bounds import REPORT_LIMIT

RESULT_SIZE = 100
"""What a result costs besides its text, in characters."""

RATE = 1024 * 1024
"""Characters a second, over a long time: twice what an agent sends that finds 256 bare results
changed twenty times a second."""

BURST = 8 * REPORT_LIMIT
"""A full report of 2,000 resources that all fail with the longest message is shorter."""

REFUSALS = 3
"""Reports that may come in vain between two heartbeats. An agent whose report is not accepted is
silent until the next one; a few may cross it on the way."""


class Appetite:
    """Raises LinkError where the agent sends more than any honest one would."""

    def __init__(self) -> None:
        self._left = float(BURST)
        self._at = 0.0
        self._refused = 0

    def take(self, batch: ReportBatch, now: float) -> None:
        """A report was read; `now` is in seconds of any steady clock."""
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
        """A report is not accepted, and not read."""
        self._refused += 1
        if self._refused > REFUSALS:
            text = "it continues to report although its reports are not accepted"
            raise LinkError(Loss(LossKind.PROTOCOL, text))

    def heartbeat(self) -> None:
        """One was sent: the agent may begin its report afresh."""
        self._refused = 0
