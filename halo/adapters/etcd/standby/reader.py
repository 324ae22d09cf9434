"""Reads the journal in etcd: all of it at one revision, and afterwards only what is new.

No leadership is needed. A manager may write meanwhile, and may replace the journal by a snapshot.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.entries import (
    About,
    Damaged,
    Head,
    Newer,
    about,
    log_of,
    parts_of,
    records_of,
)
from halo.adapters.etcd.errors import NoAnswer, TooOld
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.values import KeyValue, after
from halo.core.errors import StateError
from halo.ports import JournalRecord

PAGE_ENTRIES = 100
PAGE_PARTS = 8
READ_ATTEMPTS = 5


def head_of(store: Store, value: bytes) -> Head:
    """The head that etcd keeps. Raises StateError."""
    try:
        return Head.of(value)
    except Newer:
        raise StateError(
            f"{store}: a later version of HALO wrote this journal; start that version"
        ) from None
    except Damaged as damage:
        raise _damaged(store, damage) from damage


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that were read at once. `afresh`: they take the place of all that came before."""

    records: list[JournalRecord]
    afresh: bool


class EtcdReader:
    """Reads one store. All methods raise EtcdError, and StateError for damage."""

    def __init__(self, client: EtcdClient, store: Store) -> None:
        self._client = client
        self._store = store
        self.head: Head | None = None
        """What was read so far."""
        self.revision = 0
        """The revision of etcd at the last read."""

    async def advance(self) -> Batch | None:
        """Read what is new, as of one moment. None: nothing is.

        Raises StateError, too, if the journal is not the one any more that was read before."""
        for _ in range(READ_ATTEMPTS):
            try:
                return await self._advance_once()
            except TooOld:  # a compaction of etcd itself overtook us
                continue
            except Damaged as damage:
                raise _damaged(self._store, damage) from damage
        raise NoAnswer("etcd is compacted faster than the journal can be read", unknown=False)

    async def _advance_once(self) -> Batch | None:
        found = await self._client.range(self._store.key("head"))
        if found.value is None:
            if self.head is not None:
                raise self._went_back("is not there any more")
            self.revision = found.revision
            return None
        head, known = head_of(self._store, found.value), self.head
        if head == known:
            self.revision = found.revision
            return None
        if known is not None and (head.generation, head.entries) <= _place(known):
            raise self._went_back("is older than what this manager has read of it")
        since = known if known is not None and known.generation == head.generation else None
        records = await self._read(head, since, found.revision)
        self.head, self.revision = head, found.revision
        return Batch(records, afresh=since is None)

    async def _read(self, head: Head, since: Head | None, revision: int) -> list[JournalRecord]:
        """The records of `head` that come after `since`. That entry is read again: it must be the
        one that was read before."""
        first = max(since.entries, 1) if since else 1
        count = since.records if since else 0
        records: list[JournalRecord] = []
        number, last = first - 1, None
        folder = log_of(self._store, head.generation)
        async for key in self._keys(f"{folder}{first:012d}", after(folder), revision):
            number += 1
            name = f"entry {number} of generation {head.generation}"
            if key.key != f"{folder}{number:012d}":
                raise Damaged(f"{name} is missing")
            last = about(key.value, name)
            if since is not None and number == since.entries:
                if last.id != since.id:
                    raise Damaged(f"{name} is not the one that was read before")
                continue
            if last.first != count + 1:
                raise Damaged(f"{name} begins with the wrong record")
            text = await self._text(last, head.generation, revision)
            new = records_of(last, text, name)
            records += new
            count += len(new)
        if number != head.entries or count != head.records:
            raise Damaged(
                f"{number} entries with {count} records are there, but "
                f"{head.entries} with {head.records} were written"
            )
        if last is not None and last.id != head.id:
            raise Damaged("the last entry is not the one that was written last")
        return records

    async def _text(self, entry: About, generation: int, revision: int) -> bytes:
        if not entry.parts:
            return entry.text
        folder = parts_of(self._store, generation, entry.id)
        keys = self._keys(folder, after(folder), revision, PAGE_PARTS)
        return b"".join([key.value async for key in keys])

    async def _keys(
        self, begin: str, end: str, revision: int, page: int = PAGE_ENTRIES
    ) -> AsyncIterator[KeyValue]:
        while True:
            found = await self._client.range(begin, end, limit=page, revision=revision)
            for key in found.keys:
                yield key
            if not found.more or not found.keys:
                return
            begin = found.keys[-1].key + "\0"

    def _went_back(self, what: str) -> StateError:
        return StateError(
            f"{self._store}: the journal {what}; if etcd was restored from a snapshot on purpose, "
            "start this manager again, and it begins with that"
        )


def _place(head: Head) -> tuple[int, int]:
    return head.generation, head.entries


def _damaged(store: Store, damage: Damaged) -> StateError:
    return StateError(
        f"{store}: the journal is damaged: {damage}; restore etcd from a snapshot, or "
        "give an empty prefix with --store and import a copy with `halo store import` (an "
        "empty journal forgets what was unmanaged, deactivated or fenced)"
    )
