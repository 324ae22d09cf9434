"""Which results of a watch the manager was told, and which come next.

Plain and synchronous code. `docs/watching.md` has the contract.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from halo.core.model import ResourceId
from halo.core.outcomes import OperationResult, ReportBatch, ReportedResult
from halo.core.peers.bounds import BATCH_LIMIT
from halo.core.peers.digest import DigestKeeper

MESSAGE_LIMIT = 2048
"""Characters of one message. Of a longer message, the end is sent. Together with
:data:`BATCH_LIMIT`, this limits a batch to a few megabytes."""


class Reports:
    """Invariant: a resource waits to be reported exactly if the outcome, code or `operations` of
    its latest result differ from those last reported."""

    def __init__(self, resources: Iterable[ResourceId]) -> None:
        self._resources = frozenset(resources)
        self.generation = 0
        self.begin_afresh()

    def begin_afresh(self) -> None:
        """The next batches are a new full report. Only results sampled from now on are taken."""
        self.generation += 1
        self._sequence = 0
        self._complete = False
        self._refused = False
        self._digest = DigestKeeper()
        self._told: dict[ResourceId, tuple[int, OperationResult]] = {}
        self._waiting: dict[ResourceId, ReportedResult] = {}

    def refuse(self) -> None:
        """The manager did not accept the last batch: send nothing until :meth:`begin_afresh`."""
        self._refused = True
        self._waiting.clear()

    @property
    def refused(self) -> bool:
        return self._refused

    @property
    def in_full_report(self) -> bool:
        """Whether the full report is not complete yet."""
        return not self._complete

    @property
    def pressing(self) -> bool:
        """Whether there is something to report now, and not only a digest when it is due."""
        return not self._refused and (bool(self._waiting) or self._is_last_of_full(0))

    def note(self, reported: ReportedResult, generation: int) -> None:
        """Take a result. `generation` is the generation when the monitor began."""
        if generation != self.generation or self._refused:
            return
        resource, result = reported.resource, reported.result
        if len(result.message) > MESSAGE_LIMIT:
            reported = replace(
                reported, result=replace(result, message=result.message[-MESSAGE_LIMIT:])
            )
        # Messages may hold times and numbers. A change of the message alone is not reported.
        bare = (reported.operations, OperationResult(result.outcome, result.code))
        if self._told.get(resource) == bare:
            self._waiting.pop(resource, None)
        else:
            self._waiting[resource] = reported

    def next_batch(self) -> ReportBatch:
        """The next batch, which counts as sent. It may hold only a digest."""
        results = []
        for resource in list(self._waiting)[:BATCH_LIMIT]:
            reported = self._waiting.pop(resource)
            results.append(reported)
            result = OperationResult(reported.result.outcome, reported.result.code)
            self._told[resource] = (reported.operations, result)
            self._digest.set(reported)
        ends_full = self._is_last_of_full(len(self._waiting))
        self._complete = self._complete or ends_full
        self._sequence += 1
        return ReportBatch(self._sequence, ends_full, self._digest.value, tuple(results))

    def _is_last_of_full(self, waiting: int) -> bool:
        return not self._complete and waiting == 0 and len(self._told) == len(self._resources)
