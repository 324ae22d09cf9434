"""The journal medium in etcd: the common contract, and what is special to etcd."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.entries import (
    INLINE_LIMIT_BYTES,
    PART_BYTES,
    Head,
    everything,
    first_entry,
    log_of,
    next_entry,
    parts_of,
)
from halo.adapters.etcd.errors import NoAnswer
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.medium import EtcdMedium
from halo.adapters.etcd.values import delete_range, put, transaction
from halo.core.errors import LeadershipError, RecordError, StateError
from halo.core.journal import fold
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from halo.ports import JournalMedium
from tests.conformance.journal_medium import JournalMediumContract, record
from tests.etcd.members import Members
from tests.etcd.stand_ins import Wire, error, gateway

DEADLINE_S = 60.0


class TestEtcdContract(JournalMediumContract):
    @pytest.fixture(autouse=True)
    def _place(self, store: Store) -> None:
        self.store = store

    def open_medium(self) -> JournalMedium:
        return EtcdMedium.open(self.store)


async def until(holds: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < ends, f"not in time: {what}"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def by_hand(store: Store) -> AsyncIterator[EtcdClient]:
    """A client that writes what it likes, as an administrator may."""
    client = EtcdClient(store)
    try:
        yield client
    finally:
        await client.close()


async def write(store: Store, *operations: dict[str, object]) -> None:
    async with by_hand(store) as client:
        await client.txn(transaction([], operations))


async def keys(store: Store) -> dict[str, bytes]:
    """All keys of a store, without its prefix."""
    async with by_hand(store) as client:
        found = await client.range(*everything(store))
    return {key.key.removeprefix(store.prefix + "/"): key.value for key in found.keys}


def crash(medium: EtcdMedium) -> None:
    """End as `kill -9` does: nothing is given back, and nothing is renewed."""

    async def die() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await medium._client.close()

    medium._thread.submit(die()).result()
    medium._thread.stop()


# Parts ---------------------------------------------------------------------------------------


async def test_a_batch_over_the_limits_of_etcd_is_written_whole(store: Store) -> None:
    large = [record(n, text="x" * 5000) for n in range(700)]  # 3.5 MB
    medium = EtcdMedium.open(store)
    await medium.append([record(1)])
    await medium.append(large)
    await medium.append([record(2)])
    assert list(medium.read()) == [record(1), *large, record(2)]
    await medium.close()
    found = await keys(store)
    parts = [len(value) for key, value in found.items() if key.startswith("parts/")]
    assert len(parts) == 7
    assert max(parts) == PART_BYTES
    medium = EtcdMedium.open(store)
    assert list(medium.read()) == [record(1), *large, record(2)]
    await medium.close()


@pytest.mark.parametrize("more", [-1, 0, 1])
async def test_a_batch_at_the_limit_of_one_key(store: Store, more: int) -> None:
    empty = len(json.dumps([record(1, text="")], separators=(",", ":")))
    edge = record(1, text="x" * (INLINE_LIMIT_BYTES - empty + more))
    medium = EtcdMedium.open(store)
    await medium.append([edge])
    assert list(medium.read()) == [edge]
    await medium.close()
    assert any(key.startswith("parts/") for key in await keys(store)) == (more > 0)


async def test_parts_that_no_entry_names_are_not_read_and_later_removed(store: Store) -> None:
    medium = EtcdMedium.open(store)
    await medium.append([record(1)])
    head = Head.of((await keys(store))["head"])
    never_finished = next_entry(store, head, ["x" * 200_000])
    await write(store, *(put(key, value) for key, value in never_finished.parts))
    await medium.append([record(2)])
    assert list(medium.read()) == [record(1), record(2)]
    await medium.compact([record(3)])
    assert list(medium.read()) == [record(3)]
    await medium.close()
    assert not any(key.startswith("parts/") for key in await keys(store))


# Compaction ----------------------------------------------------------------------------------


async def test_the_snapshot_of_ten_thousand_groups_is_all_that_a_restart_reads(
    store: Store,
) -> None:
    remembered = Remembered()
    for number in range(10_000):
        name = f"pool-{number:05d}"
        fold.apply(remembered, Record(number, Event.STOP, name, "for the night"))
    for number in range(1000):
        fold.apply(remembered, Record(number, Event.CONNECT, f"oss{number}"))
    snapshot = remembered.snapshot(1.0).to_json()
    medium = EtcdMedium.open(store)
    for number in range(5):
        await medium.append([record(number)])
    await medium.compact([snapshot])
    late = Record(2.0, Event.START, "pool-00007").to_json()
    await medium.append([late])
    await medium.close()
    medium = EtcdMedium.open(store)
    found = list(medium.read())
    await medium.close()
    assert found == [json.loads(json.dumps(snapshot)), late]
    again = Remembered()
    fold.apply_all(again, map(Record.from_json, found))
    assert len(again.groups) == 10_000
    assert again.groups["pool-00007"].wanted
    assert not again.groups["pool-00008"].wanted
    generations = {key.split("/")[1] for key in await keys(store) if "/" in key}
    assert generations == {"0000000002"}


async def test_an_unfinished_compaction_changes_nothing(store: Store) -> None:
    medium = EtcdMedium.open(store)
    await medium.append([record(1)])
    crash(medium)
    found = await keys(store)
    begun = first_entry(store, Head.of(found["head"]), ["x" * 200_000])
    await write(store, *(put(key, value) for key, value in begun.parts))
    await write(store, put(begun.key, begun.value))  # not even this counts without the head
    await write(store, delete_range(store.key("leader"), ""))
    medium = EtcdMedium.open(store)
    assert list(medium.read()) == [record(1)]
    await medium.compact([record(2)])
    assert list(medium.read()) == [record(2)]
    await medium.close()


# Outcomes that are not known -----------------------------------------------------------------


async def test_an_append_whose_answers_are_lost_is_recorded_once(store: Store) -> None:
    wire = Wire(store.members[0])
    async with wire as address:
        at = Store((address,), store.prefix)
        # What blocks this loop would block the wire, too.
        medium = await EtcdMedium.open_patiently(at, lambda _text: None, lease_s=60)
        wire.swallows_answers = True
        append = asyncio.ensure_future(medium.append([record(1)]))
        asked = wire.requests
        await until(lambda: wire.requests >= asked + 3, "the append was tried again")
        assert not append.done()  # nobody was told that it failed
        assert "log/0000000001/000000000001" in await keys(store)
        wire.swallows_answers = False
        await append
        await medium.append([record(2)])
        assert list(await asyncio.to_thread(medium.read)) == [record(1), record(2)]
        await medium.close()


async def test_an_append_that_no_member_can_have_got_is_refused_at_once(
    fragile: Members,
) -> None:
    medium = EtcdMedium.open(fragile.store(), lease_s=60)
    for number in fragile.running:
        fragile.kill(number)
    with pytest.raises(RecordError, match="no connection"):
        await medium.append([record(1)])
    for number in range(3):
        fragile.start_one(number)
    fragile.wait_until_healthy()
    await medium.append([record(2)])
    assert list(medium.read()) == [record(2)]
    await medium.close()


# Leadership ----------------------------------------------------------------------------------


class Loss:
    """What a medium said about the loss of its leadership."""

    def __init__(self, medium: EtcdMedium) -> None:
        self.told: list[LeadershipError] = []
        self.ended: list[float] = []
        medium.when_lost(self.told.append, lambda: self.ended.append(time.monotonic()))


async def test_a_deposed_manager_records_nothing_and_learns_of_it(store: Store) -> None:
    medium = EtcdMedium.open(store)
    loss = Loss(medium)
    await medium.append([record(1)])
    await write(store, delete_range(store.key("leader"), ""))
    successor = EtcdMedium.open(store)
    with pytest.raises(LeadershipError, match="another manager leads"):
        await medium.append([record(2)])
    with pytest.raises(LeadershipError):
        await medium.compact([record(3)])
    await successor.append([record(4)])
    assert list(successor.read()) == [record(1), record(4)]
    await until(lambda: loss.told, "it was told")
    await until(lambda: loss.ended, "the process was ended, because nobody closed the medium")
    await medium.close()
    assert list(successor.read()) == [record(1), record(4)]
    await successor.close()


async def test_a_removed_key_is_noticed_without_any_append(store: Store) -> None:
    medium = EtcdMedium.open(store, lease_s=4)
    loss = Loss(medium)
    await write(store, put(store.key("leader"), b"somebody"))
    await until(lambda: loss.told, "it was told")
    assert "removed or overwritten" in str(loss.told[0])
    await medium.close()
    assert not loss.ended  # it was closed in time
    with pytest.raises(StateError, match="in use by an unknown program, nobody can lead"):
        EtcdMedium.open(store)


async def test_a_journal_that_another_program_changed_ends_the_manager(store: Store) -> None:
    medium = EtcdMedium.open(store)
    head = Head.of((await keys(store))["head"])
    await write(store, put(store.key("head"), Head(1, 0, 0, "other").value()))
    with pytest.raises(LeadershipError, match="changed by another program"):
        await medium.append([record(1)])
    await write(store, put(store.key("head"), head.value()))
    await medium.close()
    medium = EtcdMedium.open(store)
    assert list(medium.read()) == []
    await medium.close()


async def test_without_etcd_the_leadership_ends_by_our_own_clock_before_the_lease(
    fragile: Members,
) -> None:
    medium = EtcdMedium.open(fragile.store(), lease_s=4)
    loss = Loss(medium)
    await asyncio.sleep(1.5)  # it was renewed once
    begun = time.monotonic()
    for number in fragile.running:
        fragile.signal(number, signal.SIGSTOP)
    await until(lambda: loss.told, "it was told")
    assert time.monotonic() - begun < 4
    assert "could not be renewed in time (etcd gave no answer to a renewal)" in str(loss.told[0])
    with pytest.raises(LeadershipError):
        await medium.append([record(1)])
    await until(lambda: loss.ended, "the process was ended")
    for number in fragile.running:
        fragile.signal(number, signal.SIGCONT)
    await medium.close()


async def test_the_lease_of_a_dead_manager_may_be_extended_and_ends(fragile: Members) -> None:
    """etcd extends all leases when its leader changes: the next manager waits, for long enough."""
    medium = EtcdMedium.open(fragile.store(), lease_s=4)
    await medium.append([record(1)])
    crash(medium)
    fragile.kill(fragile.leader())
    told: list[str] = []
    successor = await EtcdMedium.open_patiently(fragile.store(), told.append, 4)
    assert list(successor.read()) == [record(1)]
    assert any("standing by; pid" in text for text in told)
    await successor.close()


async def test_a_manager_that_ends_in_order_leaves_at_once(store: Store) -> None:
    for number in range(3):
        medium = EtcdMedium.open(store)
        await medium.append([record(number)])
        await medium.close()
    assert "leader" not in await keys(store)


async def test_a_second_manager_waits_and_names_the_holder(store: Store) -> None:
    first = EtcdMedium.open(store)
    told: list[str] = []
    with pytest.raises(StateError, match=r"in use by pid \d+ on .* \(since 20"):
        EtcdMedium.open(store)
    waiting = asyncio.ensure_future(EtcdMedium.open_patiently(store, told.append))
    await until(lambda: len(told) >= 2, "it waits")
    assert re.fullmatch(r"standing by; pid \d+ on .* \(since 20.*\) leads", told[0])
    await first.append([record(1)])
    await first.close()
    second = await waiting
    assert list(second.read()) == [record(1)]
    await second.close()


async def test_etcd_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    members = Members(tmp_path)
    told: list[str] = []
    with pytest.raises(NoAnswer):
        EtcdMedium.open(members.store())
    given_up = asyncio.ensure_future(EtcdMedium.open_patiently(members.store(), told.append))
    await until(lambda: told, "it waits")
    given_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await given_up
    waiting = asyncio.ensure_future(EtcdMedium.open_patiently(members.store(), told.append))
    try:
        members.start()
        medium = await waiting
        await medium.append([record(1)])
        await medium.close()
    finally:
        members.close()
    assert told[0].startswith("waiting for etcd (etcd://127.0.0.1:")


async def test_what_an_administrator_must_mend_is_not_waited_for() -> None:
    told: list[str] = []
    off = web.Response(status=404, text="404 page not found\n")
    denied = error(7, "etcdserver: permission denied", 403)
    for answer, words in ((off, "enable-grpc-gateway=true"), (denied, "permission denied")):
        async with gateway(lambda *_, answer=answer: answer) as address:
            with pytest.raises(StateError, match=words):
                await EtcdMedium.open_patiently(Store((address,), "/x"), told.append)
    assert told == []


# Durability and damage -----------------------------------------------------------------------


async def test_what_was_acknowledged_survives_the_death_of_all_members(tmp_path: Path) -> None:
    members = Members(tmp_path, fsync=True)
    try:
        members.start()
        medium = EtcdMedium.open(members.store(), lease_s=3)
        await medium.append([record(1)])
        await medium.append([record(2, text="x" * 200_000)])
        for number in members.running:
            members.kill(number)
        crash(medium)
        for number in range(3):
            members.start_one(number)
        members.wait_until_healthy()
        told: list[str] = []
        medium = await EtcdMedium.open_patiently(members.store(), told.append)
        assert list(medium.read()) == [record(1), record(2, text="x" * 200_000)]
        await medium.close()
    finally:
        members.close()


async def open_and_read(store: Store) -> None:
    medium = EtcdMedium.open(store)
    try:
        medium.read()
    finally:
        await medium.close()


async def fill(medium: EtcdMedium) -> None:
    for number in range(1, 40):
        await medium.append([record(number, text="x" * 60_000)])


async def test_damage_stops_the_start_and_is_named(store: Store) -> None:
    medium = EtcdMedium.open(store)
    for number in (1, 2, 3):
        await medium.append([record(number)])
    await medium.append([record(4, text="x" * 200_000)])
    await medium.close()
    whole = await keys(store)
    second, third, fourth = (f"log/0000000001/{number:012d}" for number in (2, 3, 4))
    identity = json.loads(whole[fourth])["id"]
    part = parts_of(store, 1, identity).removeprefix(store.prefix + "/") + "000000"
    head = json.loads(whole["head"])

    async def refused(words: str, *operations: dict[str, object]) -> None:
        await write(store, *operations)
        with pytest.raises(StateError, match=words):
            await open_and_read(store)
        names = {key for key in (*whole, *await keys(store)) if key != "leader"}
        await write(store, *(delete_range(store.key(name), "") for name in names - whole.keys()))
        await write(store, *(put(store.key(name), value) for name, value in whole.items()))

    def without(name: str) -> dict[str, object]:
        return delete_range(store.key(name), "")

    def with_value(name: str, value: bytes) -> dict[str, object]:
        return put(store.key(name), value)

    await refused("entry 2 of generation 1 is missing", without(second))
    await refused("3 entries with 3 records are there, but 4", without(fourth))
    await refused("checksum", with_value(second, whole[second].replace(b"g2", b"g9")))
    await refused("checksum", without(part))
    await refused("begins with the wrong record", with_value(third, whole[second]))
    await refused("is not JSON", with_value(third, b"garbage"))
    await refused("not one of HALO", with_value(third, b'{"id": "x"}\n[]'))
    await refused(
        "wrong size", with_value(fourth, whole[fourth].replace(b'"parts": 1', b'"parts": 9'))
    )
    await refused("is not JSON", with_value("head", b"\xff"))
    await refused("not one of HALO", with_value("head", b'{"format": 1, "id": "x"}'))
    await refused("later version", with_value("head", b'{"format": 2}'))
    await refused("no journal, but there are other keys", without("head"))
    other = json.dumps({**head, "id": "other"}).encode()
    await refused("not the one that was written last", with_value("head", other))
    medium = EtcdMedium.open(store)
    assert len(list(medium.read())) == 4
    await medium.close()


async def test_a_prefix_of_another_program_is_left_alone(store: Store) -> None:
    await write(store, put(store.key("config"), b"of Patroni"))
    with pytest.raises(StateError, match=r"other keys, such as '/halo/test\d+/config'"):
        EtcdMedium.open(store)
    assert await keys(store) == {"config": b"of Patroni"}


async def test_a_neighbour_prefix_is_not_seen(store: Store) -> None:
    neighbour = Store(store.members, store.prefix + "0")
    await write(store, put(neighbour.key("config"), b"x"))
    medium = EtcdMedium.open(store)
    await medium.append([record(1)])
    assert list(medium.read()) == [record(1)]
    assert log_of(store, 1).startswith(store.prefix + "/log/")
    await medium.close()


async def test_a_full_etcd_refuses_and_nothing_was_written(tmp_path: Path) -> None:
    members = Members(tmp_path, 1, flags=["--quota-backend-bytes", "1000000"])
    try:
        members.start()
        store = members.store()
        medium = EtcdMedium.open(store, lease_s=60)
        await medium.append([record(0)])
        with pytest.raises(RecordError, match="space exceeded"):
            await fill(medium)
        kept = list(medium.read())
        with pytest.raises(RecordError, match="space exceeded"):
            await medium.append([record(99)])
        assert list(medium.read()) == kept
        await medium.close()
    finally:
        members.close()
