"""The leadership alone: who gets it, and by which clock it ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import NoAnswer
from halo.adapters.etcd.leadership import Leadership
from halo.adapters.etcd.location import Store
from halo.core.errors import LeadershipError
from tests.etcd.stand_ins import Wire


async def test_of_many_that_try_at_once_one_gets_it(store: Store) -> None:
    async with AsyncExitStack() as stack:
        tries = []
        for _ in range(8):
            client = EtcdClient(store)
            stack.push_async_callback(client.close)
            tries.append(Leadership(client, store.key("leader")))
        found = await asyncio.gather(*(each.take() for each in tries))
        assert found.count(None) == 1
        leading = tries[found.index(None)]
        leading.require()
        for each in tries:
            if each is not leading:
                with pytest.raises(LeadershipError):
                    each.require()
        await leading.release()


async def test_it_ends_by_the_clock_that_counts_the_sleep_of_the_machine(store: Store) -> None:
    now = [1000.0]
    client = EtcdClient(store)
    leadership = Leadership(client, store.key("leader"), lease_s=60, clock=lambda: now[0])
    assert await leadership.take() is None
    keeping = asyncio.ensure_future(leadership.keep())
    now[0] += 44.9
    leadership.require()
    now[0] += 0.2  # three quarters of the lease since the request for it was sent
    with pytest.raises(LeadershipError, match="the manager itself was late"):
        leadership.require()
    with pytest.raises(LeadershipError):
        await asyncio.wait_for(keeping, 5)
    now[0] -= 30
    with pytest.raises(LeadershipError):  # once lost, it stays lost
        leadership.require()
    await leadership.release()
    await client.close()


async def test_the_time_counts_from_when_the_renewal_was_sent(store: Store) -> None:
    """Not from when the answer came: that may have been long under way."""
    now = [1000.0]

    def clock() -> float:
        now[0] += 1.0  # each look at the clock, so that what comes later is told apart
        return now[0]

    client = EtcdClient(store)
    leadership = Leadership(client, store.key("leader"), lease_s=60, clock=clock)
    begun = now[0]
    assert await leadership.take() is None
    assert leadership._proven_until == begun + 1.0 + 45.0
    await leadership.release()
    await client.close()


async def test_a_lost_answer_to_the_taking_is_no_holder(store: Store) -> None:
    """The manager would wait for itself."""
    wire = Wire(store.members[0])
    wire.loses_answer_to = b"kv/txn"
    async with wire as address:
        client = EtcdClient(Store((address,), store.prefix), attempt_s=0.3)
        leadership = Leadership(client, store.key("leader"), lease_s=60)
        assert await leadership.take() is None
        assert wire.loses_answer_to is None  # it was lost, and the second try found the first
        leadership.require()
        await leadership.release()
        await client.close()


async def test_a_try_without_any_answer_is_recognized_by_the_next(store: Store) -> None:
    wire = Wire(store.members[0])
    wire.loses_answer_to = b"kv/txn"
    async with wire as address:
        client = EtcdClient(Store((address,), store.prefix), attempt_s=6)
        leadership = Leadership(client, store.key("leader"), lease_s=60)
        with pytest.raises(NoAnswer):
            await leadership.take()  # it has the leadership, and does not know
        assert await leadership.take() is None
        leadership.require()
        await leadership.release()
        await client.close()
