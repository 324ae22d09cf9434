"""The journal medium in etcd.

All work on etcd runs in a thread with an event loop of its own. So the medium opens and reads like
that of a file, a busy manager does not miss the renewal of its lease, and the end of the leadership
is noticed even if the manager's own loop stands still.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import structlog

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import EtcdError, NoGateway, NotAllowed
from halo.adapters.etcd.leadership import LEASE_S, Holder, Leadership
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.log import EtcdLog
from halo.adapters.etcd.terms import Raised, raise_base
from halo.adapters.journal.encoding import encoded
from halo.core.errors import LeadershipError, RecordError, StateError
from halo.ports import JournalRecord

MAX_PENDING = 1000  # batches that wait for etcd before appends are refused
PATIENCE_S = 3.0 * LEASE_S
"""How long the key of another manager is waited for, while etcd answers and keeps its own leader.

A manager that died leaves its key for the time of its lease. etcd extends that whenever its leader
changes, so then the time counts afresh. To give up too early would leave no manager at all, because
systemd does not restart one that exits with 64."""
RETRY_S = 1.0
CLOSE_DEADLINE_S = 30.0
END_GRACE_S = 1.0
"""How long a manager that lost its leadership may take to end by itself."""

HANG_LIMIT_S = 60.0
"""For how long the manager's event loop may stand still. Its lease is renewed meanwhile, so without
this limit a manager that hangs would lead for ever."""
HANG_LOOK_S = 5.0

Tell = Callable[[str], None]
T = TypeVar("T")

log = structlog.get_logger("halo.etcd")


class _LoopThread:
    """A daemon thread that runs an event loop."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()
        self.loop.close()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)


class EtcdMedium:
    """Keeps journal records in etcd. Implements :class:`halo.ports.JournalMedium`.

    Appends are carried out in the order of their calls. A cancelled append is still written."""

    def __init__(self, store: Store, lease_s: int, patience_s: float) -> None:
        """Use :meth:`open` or :meth:`open_patiently`."""
        self._store = store
        self._patience_s = patience_s
        self._thread = _LoopThread(f"journal {store.prefix}")
        self._thread.submit(self._make(lease_s)).result()
        self._order = asyncio.Lock()
        self._pending = 0
        self._closed = False
        self._keeping: asyncio.Task[None] | None = None
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
        medium = cls(store, lease_s, 0.0)
        try:
            medium._thread.submit(medium._open(None)).result()
        except BaseException:
            medium._thread.submit(medium._shut()).result()
            medium._thread.stop()
            raise
        return medium

    @classmethod
    async def open_patiently(
        cls, store: Store, tell: Tell, lease_s: int = LEASE_S, patience_s: float = PATIENCE_S
    ) -> EtcdMedium:
        """Like :meth:`open`, but wait for etcd without limit, and `patience_s` for the key of
        another manager. `tell` is told on this loop what is waited for. Cancelling ends it."""
        loop = asyncio.get_running_loop()
        medium = cls(store, lease_s, patience_s)

        def tell_here(text: str) -> None:
            with contextlib.suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(tell, text)

        try:
            await asyncio.wrap_future(medium._thread.submit(medium._open(tell_here)))
        except BaseException:
            shut = asyncio.wrap_future(medium._thread.submit(medium._shut()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(shut), CLOSE_DEADLINE_S)
            medium._thread.stop()
            raise
        return medium

    def when_lost(
        self,
        tell: Callable[[LeadershipError], None],
        end_process: Callable[[], None],
        hang_limit_s: float = HANG_LIMIT_S,
    ) -> None:
        """Have `tell` called on this loop if the leadership is lost. If the medium is not closed
        within :data:`END_GRACE_S` then, `end_process` is called from another thread.

        From now on, the leadership also ends if this loop stands still for `hang_limit_s`."""
        loop = asyncio.get_running_loop()

        def tell_here(error: LeadershipError) -> None:
            with contextlib.suppress(RuntimeError):  # that loop has ended
                loop.call_soon_threadsafe(tell, error)

        async def register() -> None:
            self._tell_lost, self._end_process = tell_here, end_process
            if self._lost is not None:
                self._act_on_loss(self._lost)
            self._watching = asyncio.ensure_future(self._watch(loop, hang_limit_s))

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
    def is_empty(self) -> bool:
        """Is there no record? As of the opening, or the last write since."""
        return self._log.is_empty

    async def read_ahead(self) -> None:
        """Read all records for the next :meth:`read`, which then does not block. Raises as it."""
        try:
            self._ahead = await asyncio.wrap_future(self._thread.submit(self._read()))
        except EtcdError as error:
            raise LeadershipError(f"{self._store}: cannot be read: {error}") from error

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

    async def raise_base(self, above: int, reason: str, at: float) -> Raised:
        """Have the leaders after this one get terms above this number.

        Raises EtcdError, StateError, LeadershipError."""
        leads = self._leadership.condition
        work = raise_base(self._client, self._store, above, reason, at=at, leads=leads)
        return await asyncio.wrap_future(self._thread.submit(work))

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
        self._client = EtcdClient(self._store)
        key = self._store.key("leader")
        self._leadership = Leadership(self._client, key, lease_s=lease_s)
        self._log = EtcdLog(self._client, self._store, self._leadership)

    async def _open(self, tell: Tell | None) -> None:
        waited_s, term = 0.0, 0
        while True:
            try:
                holder = await self._leadership.take()
                if holder is None:
                    await self._log.open()
                    break
            except (NotAllowed, NoGateway) as error:
                raise StateError(f"{self._store}: {error}") from error
            except (EtcdError, RecordError, LeadershipError) as error:
                if tell is None:
                    raise
                tell(f"waiting for etcd ({self._store}): {error}")
                await asyncio.sleep(RETRY_S)
                continue
            if holder.term != term:
                waited_s, term = 0.0, holder.term
            if tell is None or waited_s >= self._patience_s:
                raise _in_use(self._store, holder)
            tell(f"waiting for the leadership in etcd ({self._store}), which {holder} holds")
            waited_s += await self._wait_for_change(holder)
        self._keeping = asyncio.ensure_future(self._keep())

    async def _wait_for_change(self, holder: Holder) -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await self._client.wait_for_change(self._leadership.key, holder.revision, RETRY_S)
        return loop.time() - begun

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

    async def _watch(self, loop: asyncio.AbstractEventLoop, limit_s: float) -> None:
        """End the leadership if the manager's loop does not turn."""
        here, turned = asyncio.get_running_loop(), asyncio.Event()

        def answer() -> None:
            with contextlib.suppress(RuntimeError):  # this loop has ended
                here.call_soon_threadsafe(turned.set)

        with contextlib.suppress(RuntimeError):  # that loop has ended
            while True:
                turned.clear()
                loop.call_soon_threadsafe(answer)
                try:
                    async with asyncio.timeout(limit_s):
                        await turned.wait()
                except TimeoutError:
                    self._leadership.lose(f"its event loop stood still for {limit_s:g} s")
                    return
                await asyncio.sleep(min(HANG_LOOK_S, limit_s))

    def _act_on_loss(self, error: LeadershipError) -> None:
        log.critical("leadership lost: ending, a restart is safe", problem=str(error))
        self._tell_lost(error)
        asyncio.get_running_loop().call_later(END_GRACE_S, self._end_if_still_open)

    def _end_if_still_open(self) -> None:
        if not self._closed and self._end_process is not None:
            log.critical("the manager does not end by itself: ending the process")
            self._end_process()

    async def _read(self) -> list[JournalRecord]:
        return await self._log.read() or []

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
        await self._leadership.release()
        await self._client.close()


def _in_use(store: Store, holder: Holder) -> StateError:
    return StateError(
        f"{store}: in use by {holder}, probably another manager; stop that manager first, or give "
        "this one its own prefix with --store"
    )
