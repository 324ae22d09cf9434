"""What members say only in rare moments: over the quota, or while their leader changes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.leadership import Leadership
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.medium import EtcdMedium
from halo.core.errors import RecordError, StateError
from tests.conformance.journal_medium import record
from tests.etcd.one_member import OneMember
from tests.etcd.stand_ins import gateway


async def until(holds: Callable[[], object]) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.02)


async def opened(address: str) -> EtcdMedium:
    return await EtcdMedium.open_patiently(Store((address,), "/x"), lambda _text: None, lease_s=60)


async def test_a_record_that_fills_etcd_and_is_written_is_not_refused() -> None:
    """The operator would be told that nothing was changed, and a restart would find the order."""
    member = OneMember()
    async with gateway(member.answer) as address:
        medium = await opened(address)
        member.overflows = True
        await medium.append([record(1)])
        member.full = False  # compacted, defragmented and disarmed
        await medium.append([record(2)])
        await medium.close()
        assert json.loads(member.value("/x/head"))["records"] == 2


async def test_it_is_read_until_there_is_an_answer_whether_a_record_was_written() -> None:
    member = OneMember()
    async with gateway(member.answer) as address:
        medium = await opened(address)
        member.overflows, member.silent_ranges = True, 100
        append = asyncio.ensure_future(medium.append([record(1)]))
        await until(lambda: member.silent_ranges <= 90)
        assert not append.done()
        member.silent_ranges = 0
        await append
        member.full = True
        with pytest.raises(RecordError, match="space exceeded"):
            await medium.append([record(2)])
        member.full = False
        await medium.append([record(3)])
        await medium.close()
        assert json.loads(member.value("/x/head"))["records"] == 2


async def test_a_renewal_by_a_member_that_was_deposed_does_not_count() -> None:
    """The new leader of etcd does not know of it, and ends the lease earlier."""
    member = OneMember()
    now = [1000.0]
    async with gateway(member.answer) as address:
        client = EtcdClient(Store((address,), "/x"))
        leadership = Leadership(client, "/x/leader", lease_s=1, clock=lambda: now[0])
        assert await leadership.take() is None
        proven_until = leadership._proven_until
        now[0] += 0.5
        member.term, member.term_of_renewals = 3, 2
        keeping = asyncio.ensure_future(leadership.keep())
        await until(lambda: member.asked.count("lease/keepalive") >= 3)
        assert leadership._proven_until == proven_until
        member.term_of_renewals = 3
        await until(lambda: leadership._proven_until > proven_until)
        keeping.cancel()
        await client.close()


async def test_the_key_of_a_dead_manager_is_waited_for_while_etcd_changes_its_leader() -> None:
    """Each change extends the lease. If the manager exits with 64, systemd does not restart it."""
    member = OneMember()
    member.write("/x/leader", b"a dead one")
    told: list[str] = []
    async with gateway(member.answer) as address:
        store = Store((address,), "/x")
        waiting = asyncio.ensure_future(
            EtcdMedium.open_patiently(store, told.append, lease_s=60, patience_s=0.5)
        )
        for _ in range(10):
            member.term += 1
            await asyncio.sleep(0.2)
        assert not waiting.done()
        with pytest.raises(StateError, match="in use by an unknown program"):
            await asyncio.wait_for(waiting, 20)


async def test_a_head_that_a_manager_would_write_otherwise_is_damage() -> None:
    """Each append would fail at its condition, and end the manager again and again."""
    member = OneMember()
    async with gateway(member.answer) as address:
        medium = await opened(address)
        await medium.append([record(1)])
        await medium.close()
        member.keys.pop(member.name("/x/leader"))
        said = json.loads(member.value("/x/head"))
        member.write("/x/head", json.dumps({**said, "by": "hand"}).encode())
        with pytest.raises(StateError, match="head is not one of HALO"):
            await opened(address)
