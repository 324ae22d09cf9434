"""A manager's end of a watch, for tests: takes batches, and checks each against the contract."""

from __future__ import annotations

import time

from halo.core.model import ResourceId
from halo.core.outcomes import OperationResult, Outcome, ReportBatch, ReportedResult, WatchItem
from halo.core.peers.digest import DigestKeeper
from tests.unit.remote_helpers import resource

STATEFUL = """
name=$OCF_RESKEY_name
case "$1" in
start) touch "$OUT/up.$name" ;;
stop) rm -f "$OUT/up.$name" ;;
monitor)
    echo "$name" >> $OUT/looks
    [ -e "$OUT/up.$name" ] || exit 7
    ;;
esac
"""
"""A resource that runs while its file is there, and counts how often it is looked at."""


def item(
    name: str, period_s: float = 0.2, timeout_s: float | None = 10.0, kind: str = "test/Script"
) -> WatchItem:
    """A resource to watch, by name."""
    asked = resource(kind, {"name": name}, id=name, timeout_s=timeout_s)
    return WatchItem(asked, period_s, timeout_s)


def bare(entry: ReportedResult) -> tuple[int, Outcome, int]:
    """All of a result whose change is told."""
    return entry.operations, entry.result.outcome, entry.result.code


class Reader:
    """Takes batches and keeps the picture that they make; a :class:`halo.ports.ReportSink`.

    What an agent may never send ends up in `faults`, since an exception here would only be logged.
    """

    def __init__(self) -> None:
        self.picture: dict[ResourceId, ReportedResult] = {}
        self.history: list[ReportedResult] = []
        self.batches: list[ReportBatch] = []
        self.heard_at: dict[ResourceId, float] = {}
        self.complete = False
        self.accepts = True
        self.faults: list[str] = []
        self._keeper = DigestKeeper()
        self._sequence = 0

    def wants_reports(self) -> bool:
        return True

    def report(self, batch: ReportBatch) -> bool:
        """One batch."""
        self.batches.append(batch)
        if self.accepts:
            self.read(batch)
        return self.accepts

    def read(self, batch: ReportBatch) -> None:
        """Take a batch in."""
        if batch.sequence == 1:  # a new full report
            self.picture, self._keeper = {}, DigestKeeper()
            self._sequence, self.complete = 0, False
        self._sequence += 1
        self._check(batch.sequence == self._sequence, f"a gap before {batch.sequence}")
        for entry in batch.results:
            known = self.picture.get(entry.resource)
            self._check(known is None or bare(known) != bare(entry), f"told twice: {entry}")
            self.picture[entry.resource] = entry
            self.heard_at[entry.resource] = time.monotonic()
            self.history.append(entry)
            self._keeper.set(entry)
        self._check(not (batch.complete and self.complete), "complete twice")
        self.complete = self.complete or batch.complete
        self._check(batch.digest == self._keeper.value, f"another digest: {batch}")

    def _check(self, holds: bool, fault: str) -> None:
        if not holds:
            self.faults.append(fault)

    def code(self, name: str) -> int | None:
        """The exit code last told of a resource; None where nothing is known."""
        entry = self.picture.get(name)
        return entry.result.code if entry else None

    def shows(self, name: str, code: int, operations: int) -> bool:
        """Whether this is what was last told of a resource."""
        entry = self.picture.get(name)
        return entry is not None and bare(entry) == (operations, Outcome.COMPLETED, code)


def completed(code: int = 0, message: str = "") -> OperationResult:
    """The result of a script that ended by itself."""
    return OperationResult(Outcome.COMPLETED, code, message)
