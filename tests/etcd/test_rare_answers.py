"""What members say only in rare moments: over the quota, or while their leader changes."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.leadership import Leadership
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.medium import EtcdMedium
from halo.core.errors import LeadershipError, RecordError, StateError
from halo.manager.leadership import opening
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


class Clock:
    """A clock for a manager that stands by."""

    def now(self) -> float:
        return 1000.0


async def stood_by(store: Store, statefile: Path) -> EtcdMedium:
    medium, standing = opening.open_store(store, opening.Node("1", 60), Clock())
    await opening._open(store, medium, standing, statefile, lambda _text: None)
    return medium


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


async def test_a_key_that_no_manager_wrote_is_waited_for() -> None:
    """If the manager exited with 64, systemd would not restart it, and nobody would lead."""
    member = OneMember()
    member.write("/x/leader", b"by hand")
    told: list[str] = []
    async with gateway(member.answer) as address:
        store = Store((address,), "/x")
        with capture_logs() as logs:
            opening = EtcdMedium.open_patiently(store, told.append, lease_s=60)
            waiting = asyncio.ensure_future(opening)
            await until(lambda: len(told) >= 3)
        assert [line["log_level"] for line in logs if "nobody can lead" in line["event"]] == [
            "warning"
        ]
        [words] = set(told)
        assert "nobody can lead" in words
        assert "the key /x/leader (an unknown program) has no lease" in words
        assert "remove it: etcdctl del /x/leader" in words
        assert not waiting.done()
        member.keys.pop(member.name("/x/leader"))
        await (await asyncio.wait_for(waiting, 20)).close()


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


async def test_a_manager_whose_loop_hangs_does_not_lead_for_ever() -> None:
    """The thread that renews the lease does not hang with it."""
    member, hangs, ended = OneMember(), threading.Event(), threading.Event()
    told: list[LeadershipError] = []

    async def manage(medium: EtcdMedium) -> None:
        medium.when_lost(told.append, ended.set, hang_limit_s=1.0)
        await asyncio.sleep(2.5)
        assert not ended.is_set()  # it turns
        hangs.wait(60)

    async with gateway(member.answer) as address:
        medium = await opened(address)
        manager = asyncio.ensure_future(asyncio.to_thread(asyncio.run, manage(medium)))
        await until(ended.is_set)
        with pytest.raises(LeadershipError, match="stood still for 1 s"):
            await medium.append([record(1)])
        hangs.set()
        await manager
        await medium.close()


async def test_a_manager_that_hangs_while_it_takes_over_does_not_lead_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It leads before it begins to manage. Nobody else watches it yet."""
    monkeypatch.setattr("halo.adapters.etcd.medium.HANG_LIMIT_S", 1.0)
    member, hangs = OneMember(), threading.Event()
    ended: list[LeadershipError] = []

    async def stand_by(medium: EtcdMedium) -> None:
        await medium.stand_by(lambda _text: None)
        hangs.wait(60)
        with pytest.raises(LeadershipError) as error:
            medium.require_leading()
        ended.append(error.value)

    async with gateway(member.answer) as address:
        medium = EtcdMedium(Store((address,), "/x"))
        manager = asyncio.ensure_future(asyncio.to_thread(asyncio.run, stand_by(medium)))
        await until(lambda: medium._lost)
        hangs.set()
        await manager
        assert "stood still for 1 s" in str(ended[0])
        await medium.close()


@pytest.mark.parametrize("lease_s", [2, 3, 10, 60])
async def test_a_process_is_ended_before_its_lease(lease_s: int) -> None:
    """Its fence programs end with it. Nothing of it may act beside the next manager."""
    now = 100.0
    member = OneMember()
    async with gateway(member.answer) as address:
        client = EtcdClient(Store((address,), "/x"))
        leadership = Leadership(client, "/x/leader", lease_s=lease_s, clock=lambda: now)
        assert await leadership.take() is None
        leadership.require()
        now += lease_s - leadership.end_grace_s - 0.1
        with pytest.raises(LeadershipError):
            leadership.require()
        await client.close()


async def test_why_an_append_waits_is_in_the_log() -> None:
    member = OneMember()
    async with gateway(member.answer) as address:
        medium = await opened(address)
        with capture_logs() as logs:
            member.silent_txns = 1000
            append = asyncio.ensure_future(medium.append([record(1)]))
            await until(lambda: logs)
            member.silent_txns = 0
            await append
        assert [entry["problem"] for entry in logs] == [f"{address}: etcdserver: request timed out"]
        await medium.close()


async def test_a_state_file_that_cannot_be_seen_is_not_taken_for_none(tmp_path: Path) -> None:
    """The orders in it would be forgotten, and a group that must stay down would start."""
    loop = tmp_path / "state"
    loop.symlink_to(loop)
    member = OneMember()
    async with gateway(member.answer) as address:
        store = Store((address,), "/x")
        with pytest.raises(StateError, match="cannot be seen: Too many levels of symbolic links"):
            await stood_by(store, loop)
        member.keys.pop(member.name("/x/leader"))
        member.keys.pop(member.name("/x/managers/1"))
        medium = await stood_by(store, tmp_path / "none")
        await medium.close()


async def test_the_loop_of_a_manager_turns_while_its_journal_is_read(tmp_path: Path) -> None:
    """systemd's watchdog may be fed already. It would end the manager, again at each start."""
    member = OneMember()
    async with gateway(member.answer) as address:
        store = Store((address,), "/x")
        medium = await stood_by(store, tmp_path / "none")
        assert list(medium.read()) == []  # the member answers on this loop, so it was read before
        await medium.close()


async def test_what_was_read_before_a_write_does_not_count(tmp_path: Path) -> None:
    member = OneMember()
    async with gateway(member.answer) as address:
        medium = await stood_by(Store((address,), "/x"), tmp_path / "none")
        assert medium._ahead == []
        await medium.append([record(1)])
        assert medium._ahead is None
        await medium.close()
