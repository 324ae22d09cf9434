"""The journal medium in etcd.

All work on etcd runs in a thread with an event loop of its own. So the medium opens and reads like
that of a file, a busy manager does not miss the renewal of its lease, and the end of the leadership
is noticed even if the manager's own loop stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import structlog

from halo.adapters.etcd.client import ATTEMPT_S
from halo.adapters.etcd.errors import EtcdError, NoGateway, NotAllowed
from halo.adapters.etcd.leadership import LEASE_S, Leadership
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.log import EtcdLog
from halo.adapters.etcd.standby.beside import Beside, Take
from halo.adapters.etcd.standby.holder import Holder, in_use
from halo.adapters.etcd.standby.means import REAL, Means
from halo.adapters.etcd.standby.seen import as_value
from halo.adapters.journal.encoding import encoded
from halo.adapters.loop_thread import stands_still
from halo.core.errors import LeadershipError, RecordError, StateError
from halo.ports import JournalRecord, ManagerSeen

MAX_PENDING = 1000  # batches that wait for etcd before appends are refused
RETRY_S = 0.5
LOOK_S = 1.0
"""How often a manager that stands by reads the key of the leadership, whatever a watch says."""

CLOSE_DEADLINE_S = 30.0
HANG_LIMIT_S = 60.0
"""For how long the manager's event loop may stand still. Its lease is renewed meanwhile, so without
this limit a manager that hangs would lead for ever."""
HANG_LOOK_S = 5.0
ATTEMPTS_IN_A_LEASE = 6

Tell = Callable[[str], None]

log = structlog.get_logger("halo.etcd")


async def _ignored(_records: Sequence[JournalRecord], _afresh: bool) -> None:
    """For a medium that nobody reads from meanwhile."""


class EtcdMedium:
    """Keeps journal records in etcd. Implements :class:`halo.ports.JournalMedium`.

    Appends are carried out in the order of their calls. A cancelled append is still written."""

    def __init__(
        self,
        store: Store,
        lease_s: int = LEASE_S,
        own: ManagerSeen | None = None,
        means: Means = REAL,
    ) -> None:
        """Call :meth:`stand_by` next, or use :meth:`open` or :meth:`open_patiently`.

        `own` is this manager, as others shall see it. None: it is no manager, and not seen."""
        self._store = store
        self._own = own
        self._beside: Beside | None = None
        self._means = means
        self._thread = means.thread(f"journal {store.prefix}")
        self._thread.submit(self._make(lease_s)).result()
        self._order = asyncio.Lock()
        self._pending = 0
        self._closed = False
        self._keeping: asyncio.Task[None] | None = None
        self._managers_loop: asyncio.AbstractEventLoop | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ahead: list[JournalRecord] | None = None
        self._lost: LeadershipError | None = None
        self._tell_lost: Callable[[LeadershipError], None] = lambda _error: None
        self._end_process: Callable[[], None] | None = None

    @classmethod
    def open(cls, store: Store, lease_s: int = LEASE_S) -> EtcdMedium:
        """Take the leadership and open the journal, or begin a new one (blocks for some seconds).

        Raises StateError if another manager leads, or an administrator must mend something;
        EtcdError if etcd does not answer."""
        medium = cls(store, lease_s)
        try:
            medium._thread.submit(medium._open(None)).result()
        except BaseException:
            medium._thread.submit(medium._shut()).result()
            medium._thread.stop()
            raise
        return medium

    @classmethod
    async def open_patiently(cls, store: Store, tell: Tell, lease_s: int = LEASE_S) -> EtcdMedium:
        """Like :meth:`open`, but wait without limit: see :meth:`stand_by`."""
        medium = cls(store, lease_s)
        await medium.stand_by(tell)
        return medium

    async def stand_by(self, tell: Tell, take: Take = _ignored) -> None:
        """Wait for etcd and for the leadership, without limit, and open the journal.

        `tell` is told on this loop what is waited for. Meanwhile, the journal is read on, and
        `take` is given its records on this loop. A medium without a manager reads at the end only.

        Cancelling ends it. After an exception the medium is closed. Raises StateError if an
        administrator must mend something, and LeadershipError if the leadership was lost again."""
        self._managers_loop = loop = asyncio.get_running_loop()

        def tell_here(text: str) -> None:
            with contextlib.suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(tell, text)

        async def take_there(records: Sequence[JournalRecord], afresh: bool) -> None:
            work = asyncio.run_coroutine_threadsafe(take(records, afresh), loop)
            await asyncio.wrap_future(work)

        try:
            work = self._stand_by(tell_here, take_there)
            await asyncio.wrap_future(self._thread.submit(work))
        except BaseException:
            self._closed = True
            shut = asyncio.wrap_future(self._thread.submit(self._shut()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(shut), CLOSE_DEADLINE_S)
            self._thread.stop()
            raise

    def when_lost(
        self,
        tell: Callable[[LeadershipError], None],
        end_process: Callable[[], None],
        hang_limit_s: float = HANG_LIMIT_S,
    ) -> None:
        """Have `tell` called on this loop if the leadership is lost. If the medium is not closed
        within `Leadership.end_grace_s` then, `end_process` is called from another thread.

        From now on, the leadership also ends if this loop stands still for `hang_limit_s`."""
        loop = asyncio.get_running_loop()

        def tell_here(error: LeadershipError) -> None:
            with contextlib.suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(tell, error)

        async def register() -> None:
            self._tell_lost, self._end_process = tell_here, end_process
            if self._lost is not None:
                self._act_on_loss(self._lost)
            self._watch(loop, hang_limit_s)

        self._thread.submit(register())

    def require_leading(self) -> None:
        """Raise LeadershipError unless this manager can prove that it leads. Call it in the step
        that acts: after a standstill of the machine, nobody has noticed the loss yet. It does not
        wait, and may be called from every thread."""
        self._leadership.require()

    @property
    def term(self) -> int:
        """The term of this leadership, higher than those of all before it."""
        return self._leadership.term

    @property
    def beside(self) -> Beside | None:
        """Who else is there. Its values may be read from every thread."""
        return self._beside

    @property
    def is_empty(self) -> bool:
        """Is there no record? As of the opening, or the last write since."""
        return self._log.is_empty

    def read(self) -> Iterable[JournalRecord]:
        """All records in order (blocks). Raises StateError for damage, LeadershipError if etcd
        gives no answer."""
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        try:
            return self._thread.submit(self._read()).result()
        except EtcdError as error:
            raise LeadershipError(f"{self._store}: cannot be read: {error}") from error

    async def append(self, records: Sequence[JournalRecord]) -> None:
        """Add records in one transaction. On return a majority of etcd's members has them.

        Raises RecordError if nothing was written. While the outcome is unknown, it does not return;
        it raises LeadershipError when this manager does not lead any more."""
        texts = [encoded(record) for record in records]
        if texts:
            await self._run(lambda: self._log.append(texts))

    async def compact(self, snapshot: Sequence[JournalRecord]) -> None:
        """Replace all records by `snapshot` in one step. Raises as :meth:`append`."""
        texts = [encoded(record) for record in snapshot]
        await self._run(lambda: self._log.replace(texts))

    async def close(self) -> None:
        """Write what is pending, give the leadership back. Safe to repeat."""
        if self._closed:
            return
        self._closed = True
        try:
            await asyncio.shield(asyncio.wrap_future(self._thread.submit(self._finish())))
        finally:
            self._thread.stop()

    # --- in the thread --------------------------------------------------------------------------

    async def _make(self, lease_s: int) -> None:
        # A member that hangs must not use up the time in which another one can renew the lease.
        attempt_s = min(ATTEMPT_S, lease_s / ATTEMPTS_IN_A_LEASE)
        self._client = self._means.client(self._store, attempt_s)
        key, manager = self._store.key("leader"), None
        if self._own is not None:
            client = self._means.client(self._store, ATTEMPT_S)
            members = self._means.members(self._store) if self._means.members else None
            self._beside = Beside(client, self._store, self._own, lease_s, members)
            manager = as_value(self._own)
        self._leadership = Leadership(
            self._client, key, lease_s=lease_s, clock=self._means.clock, manager=manager
        )
        self._log = EtcdLog(self._client, self._store, self._leadership)

    async def _stand_by(self, tell: Tell, take: Take) -> None:
        if self._beside is None:
            await self._open(tell)
            return
        tasks = [
            asyncio.ensure_future(work) for work in (self._open(tell), self._run_beside(tell, take))
        ]
        opening, running = tasks
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not opening.done():
            opening.cancel()
            await asyncio.wait([opening])
            running.result()  # it ends only by an exception
        opening.result()

    async def _run_beside(self, tell: Tell, take: Take) -> None:
        assert self._beside is not None
        while True:
            try:
                await self._beside.run(tell, take)
            except StateError as error:
                if self._keeping is None:
                    raise
                log.error("cannot stay registered, but goes on leading", problem=str(error))
            await asyncio.sleep(RETRY_S)

    async def _open(self, tell: Tell | None) -> None:
        if self._beside is not None:
            await self._beside.entered.wait()
        await self._lead(tell)
        self._keeping = asyncio.ensure_future(self._keep())
        if self._managers_loop is not None:
            self._watch(self._managers_loop, HANG_LIMIT_S)
        while True:
            self._leadership.require()
            try:
                await self._begin()
                return
            except (EtcdError, RecordError) as error:
                if tell is None:
                    raise
                tell(f"waiting for etcd ({self._store}): {error}")
                await asyncio.sleep(RETRY_S)

    async def _lead(self, tell: Tell | None) -> None:
        """Take the leadership. Wait for it, unless nobody is to be told what is waited for."""
        answered, warned = False, None
        while True:
            try:
                holder = await self._take()
            except EtcdError as error:
                if isinstance(error, NotAllowed | NoGateway) and not answered:
                    raise StateError(f"{self._store}: {error}") from error
                if tell is None:
                    raise
                tell(f"waiting for etcd ({self._store}): {error}")
                await asyncio.sleep(RETRY_S)
                continue
            answered = True
            if holder is None:
                return
            if tell is None:
                raise in_use(self._store, holder)
            tell(holder.waiting)
            if holder.remedy not in (None, warned):
                warned = holder.remedy
                log.warning("nobody can lead", problem=warned)
            client = self._client if self._beside is None else self._beside.client
            await client.wait_for_change(self._leadership.key, holder.revision, LOOK_S)

    async def _take(self) -> Holder | None:
        """Take the leadership, unless this manager leaves it to another one."""
        other = None if self._beside is None else await self._beside.before_this_one()
        return other or await self._leadership.take()

    async def _begin(self) -> None:
        """As the manager that leads: read the rest of the journal, and open it for writing."""
        if self._beside is None:
            await self._log.open()
            return
        head, records = await self._beside.catch_up()
        await self._log.open()
        if head is not None and self._log.head != head:
            self._leadership.lose("the journal in etcd was changed by another program")
            self._leadership.require()
        self._ahead = records
        self._beside.leads(self._leadership.term)

    async def _keep(self) -> None:
        try:
            await self._leadership.keep()
        except LeadershipError as error:
            self._lost = error
        except Exception as error:  # a defect: without renewal the leadership ends
            log.error("leadership not kept", exc_info=True)
            self._lost = LeadershipError(f"this manager cannot keep its leadership: {error!r}")
        if self._lost is not None and not self._closed:
            self._act_on_loss(self._lost)

    def _watch(self, loop: asyncio.AbstractEventLoop, limit_s: float) -> None:
        """From now on, end the leadership if the manager's loop does not turn."""

        async def watch() -> None:
            if await stands_still(loop, limit_s, HANG_LOOK_S):
                self._leadership.lose(f"its event loop stood still for {limit_s:g} s")

        if self._watching is not None:
            self._watching.cancel()
        self._watching = asyncio.ensure_future(watch())

    def _act_on_loss(self, error: LeadershipError) -> None:
        log.critical("leadership lost: ending, a restart is safe", problem=str(error))
        self._tell_lost(error)
        grace_s = self._leadership.end_grace_s
        asyncio.get_running_loop().call_later(grace_s, self._end_if_still_open)

    def _end_if_still_open(self) -> None:
        if not self._closed and self._end_process is not None:
            log.critical("the manager does not end by itself: ending the process")
            self._end_process()

    async def _read(self) -> list[JournalRecord]:
        return await self._log.read()

    async def _run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._closed:
            raise RecordError(f"{self._store}: the journal is closed")
        if self._pending >= MAX_PENDING:
            raise RecordError(
                f"{self._store}: {MAX_PENDING} writes wait for etcd already; check its members"
            )
        self._ahead = None
        self._pending += 1
        future = asyncio.wrap_future(self._thread.submit(self._in_order(work)))
        future.add_done_callback(self._one_less)
        await asyncio.shield(future)

    def _one_less(self, future: asyncio.Future[None]) -> None:
        self._pending -= 1
        if not future.cancelled():
            future.exception()  # if the caller was cancelled, nobody else takes note of it

    async def _in_order(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with self._order:  # first come, first served
            await work()
            if self._beside is not None:
                self._beside.wrote(self._log.head)

    async def _finish(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_DEADLINE_S), self._order:
                pass  # what came before is written
        await self._shut()

    async def _shut(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        closing = [self._leadership.release()]
        if self._beside is not None:
            closing.append(self._beside.close())
        await asyncio.gather(*closing)
        await self._client.close()
