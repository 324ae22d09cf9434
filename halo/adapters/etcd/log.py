"""The journal's entries in etcd: written under guard, compacted in one step.

Only :meth:`EtcdLog._commit` writes. Its transaction holds only if this manager leads, and if the
head is the one that this manager knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.entries import (
    Entry,
    Head,
    before_generation,
    everything,
    first_entry,
    new_id,
    next_entry,
)
from halo.adapters.etcd.errors import EtcdError, NoAnswer, NoSpace
from halo.adapters.etcd.leadership import Leadership
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.reader import EtcdReader, head_of
from halo.adapters.etcd.terms import base_key
from halo.adapters.etcd.values import (
    Json,
    after,
    delete_range,
    get,
    is_absent,
    put,
    transaction,
    value_is,
)
from halo.core.errors import RecordError, StateError
from halo.ports import JournalRecord

COMMIT_DEADLINE_S = 3.0
RETRY_S = 0.1

log = structlog.get_logger("halo.etcd")


class EtcdLog:
    """The entries of one store, as the manager that leads writes them."""

    def __init__(self, client: EtcdClient, store: Store, leadership: Leadership) -> None:
        self._client = client
        self._store = store
        self._leads = leadership
        self._head: Head | None = None

    @property
    def head(self) -> Head | None:
        """What is committed, as far as this manager wrote or saw."""
        return self._head

    async def open(self) -> None:
        """Find the head, or begin a new journal. Raises EtcdError, StateError."""
        key = self._store.key("head")
        found = await self._client.range(key)
        if found.value is None:
            await self._require_nothing_else()
            await self._commit([], Head.first())
            log.warning(
                "new journal in etcd",
                store=str(self._store),
                meaning="nothing is remembered: every group is managed and wanted",
            )
        else:
            self._head = head_of(self._store, found.value)
        await self._sweep()

    @property
    def is_empty(self) -> bool:
        """Is there no record, as far as this manager wrote or saw?"""
        return self._head is None or self._head.records == 0

    async def append(self, texts: Sequence[str]) -> None:
        """Add one entry with these records. Raises RecordError if nothing was written, and
        LeadershipError if this manager must end."""
        await self._write(next_entry(self._store, self._known_head, texts))

    async def replace(self, texts: Sequence[str]) -> None:
        """Replace all records by these, in one step. Raises as :meth:`append`."""
        head = self._known_head
        if texts:
            await self._write(first_entry(self._store, head, texts))
        else:
            await self._commit([], Head(head.generation + 1, 0, 0, new_id()))
        await self._sweep()

    @property
    def _known_head(self) -> Head:
        if self._head is None:
            raise RecordError(f"{self._store}: the journal is not open")
        return self._head

    async def _write(self, entry: Entry) -> None:
        for key, part in entry.parts:
            await self._commit([put(key, part)], None)
        await self._commit([put(entry.key, entry.value)], entry.head)

    async def _commit(self, writes: list[Json], becomes: Head | None) -> None:
        """Write under guard, and make the head `becomes` (None: it stays).

        Tries again until the outcome is known. Raises RecordError only if nothing was written, for
        certain; LeadershipError if the outcome may stay unknown, or somebody else has written."""
        head = self._store.key("head")
        was = is_absent(head) if self._head is None else value_is(head, self._head.value())
        then = writes if becomes is None else [*writes, put(head, becomes.value())]
        body = transaction([self._leads.condition, was], then, [get(head), get(self._leads.key)])
        unknown = False
        while True:
            self._leads.require()
            try:
                outcome = await self._client.txn(body, deadline_s=COMMIT_DEADLINE_S)
            except EtcdError as error:
                written: bool | None = False
                if isinstance(error, NoSpace):
                    written = await self._is_written(becomes)
                    if written:
                        break
                if not unknown and isinstance(error, NoAnswer) and error.unknown:
                    unknown = True
                    log.warning(
                        "etcd did not say whether it wrote a record: trying until it does",
                        store=str(self._store),
                        problem=str(error),
                    )
                if written is False and not unknown:
                    raise RecordError(f"{self._store}: could not be written: {error}") from error
                await asyncio.sleep(RETRY_S)
                continue
            if not outcome.succeeded:
                head_now, leader_now = (found.value for found in outcome.found)
                self._require_earlier_success(head_now, leader_now, becomes)
            break
        if becomes is not None:
            self._head = becomes

    async def _is_written(self, becomes: Head | None) -> bool | None:
        """Is this the head now? None: there is no answer. Parts alone (None) change nothing."""
        if becomes is None:
            return False
        try:
            found = await self._client.range(self._store.key("head"), deadline_s=COMMIT_DEADLINE_S)
        except EtcdError:
            return None
        return found.value == becomes.value()

    def _require_earlier_success(
        self, head: bytes | None, leader: bytes | None, becomes: Head | None
    ) -> None:
        """The guard did not hold. Was that because an earlier try of this transaction did?"""
        if becomes is not None and head == becomes.value():
            return
        if not self._leads.is_ours(leader):
            self._leads.lose("another manager leads, or the key of the leadership was removed")
        else:
            self._leads.lose("the journal in etcd was changed by another program")
        self._leads.require()

    async def _require_nothing_else(self) -> None:
        begin, end = everything(self._store)
        own = {self._leads.key, base_key(self._leads.key)}
        managers = self._store.key("managers/")
        before = await self._client.range(begin, managers, limit=2)
        behind = await self._client.range(after(managers), end, limit=2)
        keys = [key.key for key in (*before.keys, *behind.keys)]
        if others := [key for key in keys if key not in own]:
            raise StateError(
                f"{self._store}: there is no journal, but there are other keys, such as "
                f"{others[0][:200]!r}; give another prefix with --store, or restore the journal"
            )

    async def _sweep(self) -> None:
        """Remove earlier generations. If that fails, the next compaction or start does it."""
        ranges = before_generation(self._store, self._known_head.generation)
        body = transaction([self._leads.condition], [delete_range(*found) for found in ranges])
        try:
            await self._client.txn(body)
        except EtcdError as error:
            log.warning("earlier journal in etcd not removed", problem=str(error))

    async def read(self) -> list[JournalRecord]:
        """All records in order, as of one moment. Raises EtcdError, and StateError for damage."""
        found = await EtcdReader(self._client, self._store).advance()
        return found.records if found else []
