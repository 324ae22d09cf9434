"""Reads the journal in etcd without leading, also while a manager writes it."""

from __future__ import annotations

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.holder import holder_of
from halo.adapters.etcd.standby.reader import EtcdReader
from halo.adapters.etcd.values import Found
from halo.core.errors import StateError
from halo.ports import JournalRecord


def holder_in(found: Found) -> str:
    """Who leads, in words, after a read of the leadership's key."""
    return "nobody" if found.value is None else str(holder_of(found.value, found))


async def records_in(store: Store) -> list[JournalRecord]:
    """All records, as of one moment. Raises EtcdError, and StateError for damage or no journal."""
    client = EtcdClient(store)
    try:
        found = await EtcdReader(client, store).advance()
    finally:
        await client.close()
    if found is None:
        raise StateError(
            f"{store}: there is no journal; check the prefix. A manager that leads makes a new "
            "journal, and `halo store import FROM JOURNAL` one with records"
        )
    return found.records
