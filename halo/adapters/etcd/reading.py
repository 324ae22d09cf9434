"""Reads the journal in etcd without leading, also while a manager writes it."""

from __future__ import annotations

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.reader import EtcdReader
from halo.core.errors import StateError
from halo.ports import JournalRecord


async def records_in(store: Store) -> list[JournalRecord]:
    """All records, as of one moment. Raises EtcdError, and StateError for damage or no journal."""
    client = EtcdClient(store)
    try:
        found = await EtcdReader(client, store).advance()
    finally:
        await client.close()
    if found is None:
        raise StateError(f"{store}: there is no journal; check the prefix")
    return found.records
