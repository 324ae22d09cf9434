"""Watching: the agent monitors resources without being asked, and reports changes.

Each resource has its own moment within its period, by a hash of its id. So monitors are spread, and
keep their moments when other resources come or go. If a monitor takes longer than its period, the
resource skips some monitors. Nothing here starts or stops a resource.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

from halo.core.errors import HaloError
from halo.core.model import ResourceId
from halo.core.outcomes import OperationResult, ReportBatch, ReportedResult
from halo.core.peers.bounds import ITEM_LIMIT
from halo.core.peers.calls import WatchRequest
from halo.remote.reports import Reports
from halo.remote.scripts.operations import BUSY_LIMIT, Monitor
from halo.telling import PeerLog

log = PeerLog()

AT_ONCE = 32
"""Monitors of a watch that run at once."""

HUNG_S = 2.0
"""A monitor that takes longer than this waits for something, and uses no processor. It does not
count for :data:`AT_ONCE` any more, so that it delays no other monitor."""

BUSY_SHARE = BUSY_LIMIT - 50
"""If so many resources are busy, a watch leaves the rest to the manager's own operations."""

PERIOD_MIN_S = 0.1
DIGEST_INTERVAL_MIN_S = 0.1
FIRST_ROUND_S = 1.0
"""The first monitors of all resources are spread over at most this time."""

GRACE_S = 10.0
"""A watch continues this long after its connection has ended. Its results are then dropped."""

REPORT_DEADLINE_S = 30.0
GATHER_S = 0.05
GATHER_FULL_S = 0.2
"""Pauses between batches, after a change and in a full report, so that a few hold many changes."""


class WatchRefused(HaloError):
    """Nothing is watched. The text is one sentence that says why."""


class Monitoring(Protocol):
    """Carries monitors out: :class:`halo.remote.scripts.operations.Operations`."""

    @property
    def busy(self) -> int: ...

    async def monitor(
        self, monitor: Monitor, begin: Callable[[], bool], found: Callable[[OperationResult], None]
    ) -> None: ...


class Observer(Protocol):
    """The receiver of reports."""

    async def report(self, batch: ReportBatch) -> bool: ...


class Watch:
    """One watch of one connection. `operations_of` gives the number of starts and stops of a
    resource that have ended over that connection. Needs a running event loop."""

    def __init__(
        self,
        operations: Monitoring,
        items: Sequence[WatchRequest],
        observer: Observer,
        digest_interval_s: float,
        operations_of: Callable[[ResourceId], int],
    ) -> None:
        """Raises WatchRefused for items that cannot be watched."""
        self._items = _checked(items)
        self._operations = operations
        self._observer = observer
        self._digest_interval_s = max(digest_interval_s, DIGEST_INTERVAL_MIN_S)
        self._operations_of = operations_of
        self._reports = Reports(item.id for item in self._items)
        self._loop = asyncio.get_running_loop()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._timers: dict[ResourceId, asyncio.TimerHandle] = {}
        self._looking: set[asyncio.Task[None]] = set()
        self._pressing = asyncio.Event()
        self._heard = asyncio.Event()
        self._ended = False
        self._grace: asyncio.TimerHandle | None = None
        self._reporter: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Monitor everything once, soon, and then again and again."""
        now = self._loop.time()
        for item in self._items:
            self._look_at(now + item.phase * min(item.period_s, FIRST_ROUND_S), item)
        self._reporter = self._loop.create_task(self._report())
        log.info("watching", resources=len(self._items))

    def end(self) -> None:
        """End the watch. Monitors under way end by themselves, and are not reported."""
        self._ended = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._grace is not None:
            self._grace.cancel()
        self._stop_reporting()

    def disconnected(self) -> None:
        """The connection ended: end the watch after a while."""
        self._stop_reporting()
        if not self._ended and self._grace is None:
            self._grace = self._loop.call_later(GRACE_S, self._end_of_grace)

    def heartbeat(self) -> None:
        """The manager sent a heartbeat. After a refused report, report everything again."""
        if self._reports.refused:
            self._reports.begin_afresh()
            self._heard.set()

    def _end_of_grace(self) -> None:
        self._grace = None
        self.end()
        log.info("no longer watching: the manager is gone", resources=len(self._items))

    def _stop_reporting(self) -> None:
        if self._reporter is not None:
            self._reporter.cancel()
            self._reporter = None

    # --- looking -----------------------------------------------------------------------------

    def _look_at(self, at: float, item: _Item) -> None:
        self._timers[item.id] = self._loop.call_at(at, self._due, item)

    def _due(self, item: _Item) -> None:
        task = self._loop.create_task(self._look(item))
        self._looking.add(task)
        task.add_done_callback(self._looking.discard)

    async def _look(self, item: _Item) -> None:
        """Monitor one resource, and plan its next monitor."""
        slot = _Slot(self._slots, self._loop)
        try:
            await slot.enter()
            if not self._ended and self._operations.busy < BUSY_SHARE:
                sample = _Sample(self, item)
                await self._operations.monitor(item.monitor, sample.begin, sample.found)
        except Exception:
            log.exception("a monitor failed inside the agent", kind=item.monitor.request.kind)
        finally:
            slot.leave()
            if not self._ended:
                self._look_at(item.next_look(self._loop.time()), item)

    # --- telling -----------------------------------------------------------------------------

    async def _report(self) -> None:
        """Send one batch after the other. Cancelled with the watch or its connection."""
        while True:
            await self._wait_until_due(self._loop.time() + self._digest_interval_s)
            if not await self._tell(self._reports.next_batch()):
                self._reports.refuse()
                self._heard.clear()
                await self._heard.wait()
            await asyncio.sleep(GATHER_FULL_S if self._reports.in_full_report else GATHER_S)

    async def _wait_until_due(self, digest_at: float) -> None:
        """Wait until there is something to report, or a digest is due."""
        while not self._reports.pressing:
            self._pressing.clear()
            try:
                async with asyncio.timeout_at(digest_at):
                    await self._pressing.wait()
            except TimeoutError:
                return

    async def _tell(self, batch: ReportBatch) -> bool:
        try:
            async with asyncio.timeout(REPORT_DEADLINE_S):
                return await self._observer.report(batch)
        except TimeoutError:
            log.warning("the manager takes no reports", seconds=REPORT_DEADLINE_S)
            return False


class _Item:
    """One watched resource."""

    __slots__ = ("id", "monitor", "period_s", "phase")

    def __init__(self, monitor: Monitor, period_s: float) -> None:
        self.id = monitor.request.instance
        self.monitor = monitor
        self.period_s = period_s
        digest = hashlib.blake2b(self.id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self.phase = int.from_bytes(digest, "big") / 2**64

    def next_look(self, now: float) -> float:
        """Its next moment, at most one period away."""
        moment = now - now % self.period_s + self.phase * self.period_s
        return moment if moment > now else moment + self.period_s


class _Sample:
    """One monitor of one resource."""

    __slots__ = ("_generation", "_item", "_operations", "_taken", "_watch")

    def __init__(self, watch: Watch, item: _Item) -> None:
        self._watch = watch
        self._item = item
        self._taken = False

    def begin(self) -> bool:
        """The resource is free."""
        watch = self._watch
        self._generation = watch._reports.generation
        self._operations = watch._operations_of(self._item.id)
        return not watch._ended

    def found(self, result: OperationResult) -> None:
        """Take a result. Only the first one counts."""
        if self._taken or self._watch._ended:
            return
        self._taken = True
        reports = self._watch._reports
        reports.note(ReportedResult(self._item.id, self._operations, result), self._generation)
        if reports.pressing:
            self._watch._pressing.set()


class _Slot:
    """One place among the monitors that run at once. A monitor that hangs gives it back early."""

    __slots__ = ("_held", "_loop", "_slots", "_timer")

    def __init__(self, slots: asyncio.Semaphore, loop: asyncio.AbstractEventLoop) -> None:
        self._slots = slots
        self._loop = loop
        self._held = False
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self) -> None:
        await self._slots.acquire()
        self._held = True
        self._timer = self._loop.call_later(HUNG_S, self.leave)

    def leave(self) -> None:
        """Give the place back. Safe to repeat."""
        if self._held:
            self._held = False
            self._slots.release()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _checked(requests: Sequence[WatchRequest]) -> list[_Item]:
    if len(requests) > ITEM_LIMIT:
        raise WatchRefused(f"{len(requests)} resources are too many; the limit is {ITEM_LIMIT}")
    items: dict[ResourceId, _Item] = {}
    for entry in requests:
        id = entry.request.instance
        if not id or id in items:
            raise WatchRefused(f"each resource needs its own id; {id[:200]!r} is empty or repeated")
        if entry.period_s < PERIOD_MIN_S:
            raise WatchRefused(f"the period of {id[:200]} is below {PERIOD_MIN_S:g} s")
        items[id] = _Item(Monitor(entry.request), entry.period_s)
    return list(items.values())
