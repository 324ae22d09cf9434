"""When a watch looks at what: spread, bounded, and nobody waits for one that hangs."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from halo.core.model import Operation
from halo.core.outcomes import OperationResult, ReportBatch
from halo.core.peers.calls import Request, WatchRequest
from halo.remote.scripts.operations import Monitor
from halo.remote.watch import AT_ONCE, BUSY_SHARE, Watch
from tests.unit.remote_helpers import until
from tests.unit.watch_helpers import Reader, completed


class Host:
    """Scripts that take as long as told; stands in for the agent's operations."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.busy = 0
        self.takes_s = takes_s
        self.running = 0
        self.most = 0
        self.began_at: dict[str, list[float]] = defaultdict(list)
        self.hung: set[str] = set()
        self.fails: set[str] = set()

    async def monitor(
        self, monitor: Monitor, begin: Callable[[], bool], found: Callable[[OperationResult], None]
    ) -> None:
        name = monitor.request.instance
        if not begin():
            return
        self.began_at[name].append(asyncio.get_running_loop().time())
        if name in self.fails:
            raise ZeroDivisionError
        self.running += 1
        self.most = max(self.most, self.running)
        if name in self.hung:
            await asyncio.Event().wait()
        await asyncio.sleep(self.takes_s)
        self.running -= 1
        found(completed())


class Observer:
    """A manager at no distance."""

    def __init__(self) -> None:
        self.reader = Reader()

    async def report(self, batch: ReportBatch) -> bool:
        return self.reader.report(batch)


def watch(host: Host, names: list[str], observer: Observer, period_s: float = 1.0) -> Watch:
    items = [WatchRequest(Request("test/X", Operation.MONITOR, {}, n), period_s) for n in names]
    made = Watch(host, items, observer, 10.0, lambda id: 0)
    made.begin()
    return made


def names(count: int, prefix: str = "r") -> list[str]:
    return [f"{prefix}{n}" for n in range(count)]


async def test_no_more_than_so_many_run_at_once() -> None:
    host, observer = Host(takes_s=0.1), Observer()
    watching = watch(host, names(4 * AT_ONCE), observer, 0.1)
    await until(lambda: observer.reader.complete, "the full report")
    assert host.most == AT_ONCE
    watching.end()


async def test_they_are_spread_over_the_period_and_stay_where_they_are() -> None:
    host, observer = Host(), Observer()
    watching = watch(host, names(100), observer)
    await until(lambda: min(len(host.began_at[n]) for n in names(100)) >= 3, "three rounds")
    watching.end()
    moments = {name: began[2] % 1.0 for name, began in host.began_at.items()}
    assert len(set(moments.values())) == 100
    # Of all rounds: a machine that stands still for a moment empties a tenth of one.
    tenths = {int(at % 1.0 * 10) for began in host.began_at.values() for at in began}
    assert tenths == set(range(10))

    again = Host()
    watching = watch(again, [*names(100), *names(20, "new")], Observer())
    await until(lambda: len(again.began_at["r7"]) >= 3, "three rounds")
    watching.end()
    apart = abs(again.began_at["r7"][2] % 1.0 - moments["r7"])
    assert min(apart, 1 - apart) < 0.25  # the machine that runs the tests may be late


async def test_many_that_hang_delay_no_other() -> None:
    host, observer = Host(), Observer()
    host.hung = set(names(2 * AT_ONCE, "hung"))
    watching = watch(host, [*sorted(host.hung), *names(5)], observer, 0.2)
    await until(lambda: min(len(host.began_at[n]) for n in names(5)) >= 10, "ten looks at each")
    assert set(observer.reader.picture) == set(names(5))
    assert all(len(host.began_at[name]) == 1 for name in host.hung)
    watching.end()


async def test_a_busy_host_is_left_to_the_managers_own_operations() -> None:
    host, observer = Host(), Observer()
    host.busy = BUSY_SHARE
    watching = watch(host, names(3), observer, 0.1)
    await asyncio.sleep(0.5)  # five periods
    assert not host.began_at
    host.busy = 0
    await until(lambda: observer.reader.complete, "the full report")
    watching.end()


async def test_a_defect_at_one_resource_leaves_the_others_watched() -> None:
    host, observer = Host(), Observer()
    host.fails = {"r0"}
    watching = watch(host, names(3), observer, 0.1)
    await until(lambda: len(host.began_at["r0"]) >= 3, "further attempts")
    await until(lambda: set(observer.reader.picture) == {"r1", "r2"}, "the others")
    watching.end()


async def test_an_ended_watch_tells_nothing_and_leaves_no_task() -> None:
    host, observer = Host(takes_s=0.3), Observer()
    before = asyncio.all_tasks()
    watching = watch(host, names(5), observer, 0.2)
    await until(lambda: host.running, "a monitor under way")
    watching.end()
    told = len(observer.reader.batches)
    await until(lambda: asyncio.all_tasks() == before, "the tasks to end")
    assert len(observer.reader.batches) == told
