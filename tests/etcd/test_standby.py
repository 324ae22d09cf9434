"""A medium that stands by: it reads on, takes over with all records, and is seen by the others."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import LeaseGone, NoAnswer
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.medium import EtcdMedium
from halo.adapters.etcd.standby import registry as registry_module
from halo.adapters.etcd.standby.beside import Beside
from halo.adapters.etcd.standby.registry import Registry
from halo.adapters.etcd.standby.seen import as_value, manager_in
from halo.adapters.etcd.terms import raise_base
from halo.adapters.etcd.values import Json, Outcome, delete_range, put, transaction
from halo.core.errors import StateError
from halo.ports import JournalRecord, Lead, ManagerSeen
from tests.conformance.journal_medium import record
from tests.etcd.members import Members

OWN = ManagerSeen(
    id="1", host="mgmt1", pid=os.getpid(), url=None, version="1", since=1.5, entries=0, leads=False
)


async def until(holds: Callable[[], object], what: str) -> None:
    ends = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < ends, f"not in time: {what}"
        await asyncio.sleep(0.005)


async def write(store: Store, *operations: Json) -> None:
    client = EtcdClient(store)
    await client.txn(transaction([], operations))
    await client.close()


class Standby:
    """A manager that stands by, as far as its journal goes."""

    def __init__(
        self, store: Store, number: int, lease_s: int = 10, *, observes: bool = False
    ) -> None:
        own = replace(OWN, id=str(number), host=f"mgmt{number}", since=time.time())
        own = replace(own, observes=observes)
        self.medium = EtcdMedium(store, lease_s, own)
        self.told: list[str] = []
        self.read: list[JournalRecord] = []
        self.led_at = 0.0
        self.opening = asyncio.ensure_future(self._stand_by())

    async def _stand_by(self) -> None:
        await self.medium.stand_by(self.told.append, self._take)
        self.led_at = time.monotonic()

    async def _take(self, records: Sequence[JournalRecord], afresh: bool) -> None:
        self.read = [*([] if afresh else self.read), *records]

    @property
    def leader(self) -> str | None:
        assert self.medium.beside is not None
        found = self.medium.beside.leader
        return None if found is None else found.id

    @property
    def managers(self) -> dict[str, ManagerSeen]:
        assert self.medium.beside is not None
        return {seen.id: seen for seen in self.medium.beside.managers}

    async def stands_by(self) -> None:
        await until(lambda: any("standing by" in text for text in self.told), "it stands by")

    async def end(self) -> None:
        self.opening.cancel()
        await asyncio.gather(self.opening, return_exceptions=True)
        await self.medium.close()


@asynccontextmanager
async def standing_by(
    store: Store, number: int, lease_s: int = 10, *, observes: bool = False
) -> AsyncIterator[Standby]:
    found = Standby(store, number, lease_s, observes=observes)
    try:
        yield found
    finally:
        await found.end()


@asynccontextmanager
async def leading(store: Store, number: int, lease_s: int = 10) -> AsyncIterator[Standby]:
    async with standing_by(store, number, lease_s) as found:
        await asyncio.wait_for(asyncio.shield(found.opening), 30)
        yield found


async def test_a_manager_that_stands_by_reads_on_and_hands_all_records_over(store: Store) -> None:
    async with leading(store, 1) as first, standing_by(store, 2) as second:
        await first.medium.append([record(1)])
        await second.stands_by()
        await until(lambda: second.read == [record(1)], "it reads")
        large = record(2, text="x" * 700_000)
        await first.medium.append([large, record(3)])
        await until(lambda: second.read == [record(1), large, record(3)], "it reads on")
        await first.medium.compact([record(9)])
        await until(lambda: second.read == [record(9)], "it follows a compaction")
        await first.medium.append([record(10)])
        await until(lambda: second.managers["2"].entries == 2, "it says how far it has read")
        await first.medium.close()
        await asyncio.wait_for(second.opening, 30)
        assert list(second.medium.read()) == [record(9), record(10)]
        await second.medium.append([record(11)])


async def test_what_is_known_is_never_older_than_it_says(store: Store) -> None:
    """Records that are read but not taken yet are not known."""
    async with leading(store, 1) as first, standing_by(store, 2) as second:
        await second.stands_by()
        assert second.medium.beside
        beside, taken = second.medium.beside, asyncio.Event()
        take = beside._take
        assert take is not None

        async def slow(records: Sequence[JournalRecord], afresh: bool) -> None:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_set(reading), loop))
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_wait(taken), loop))
            await take(records, afresh)

        reading, loop = asyncio.Event(), asyncio.get_running_loop()
        beside._take = slow
        await first.medium.append([record(1)])
        written = time.time()
        await asyncio.wait_for(reading.wait(), 30)
        assert beside.confirmed_at < written
        assert second.read == []
        taken.set()
        await until(lambda: beside.confirmed_at > written, "it is taken")
        assert second.read == [record(1)]


async def _set(event: asyncio.Event) -> None:
    event.set()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


async def test_the_term_of_the_leader_is_known(store: Store) -> None:
    """With the base that an operator raised."""
    client = EtcdClient(store)
    await raise_base(client, store, 5000, "for a test", at=1.0)
    await client.close()
    async with leading(store, 1) as first, standing_by(store, 2) as second:
        await second.stands_by()
        assert first.medium.beside
        assert second.medium.beside
        before = first.medium.term
        assert first.medium.beside.term == before > 5000
        beside = second.medium.beside
        await until(lambda: beside.term == before and beside.lead, "it is seen")
        assert beside.lead is not None
        assert (beside.lead.id, beside.lead.silent_since) == ("1", None)
        assert time.time() - 60 < (beside.lead.since or 0) <= time.time()
        assert (beside.seen_s_ago or 60) < 30
        await first.medium.close()
        await asyncio.wait_for(second.opening, 30)
        assert beside.term == second.medium.term > before
        await asyncio.sleep(1.2)  # and after another look
        assert beside.term == second.medium.term
        assert beside.lead is not None
        assert beside.lead.id == "2"


async def test_records_that_came_just_before_the_end_are_read(store: Store) -> None:
    """They may come between the last look and the taking."""
    expected = []
    for number in range(8):
        async with leading(store, 1) as first, standing_by(store, 2) as second:
            await second.stands_by()
            expected.append(record(number))
            await first.medium.append([expected[-1]])
            await first.medium.close()
            await asyncio.wait_for(second.opening, 30)
            assert list(second.medium.read()) == expected


async def test_a_revoked_key_is_noticed_at_once(store: Store) -> None:
    took = []
    for _ in range(5):
        async with leading(store, 1) as first, standing_by(store, 2) as second:
            await second.stands_by()
            await asyncio.sleep(0.3)  # in the middle of a watch
            begun = time.monotonic()
            await first.medium.close()
            await asyncio.wait_for(second.opening, 30)
            took.append(second.led_at - begun)
    assert min(took) < 0.2, took  # the others may have met a busy machine


async def test_of_many_that_stand_by_one_leads_and_all_see_it(store: Store) -> None:
    async with leading(store, 1) as first:
        others = [Standby(store, number) for number in range(2, 6)]
        for other in others:
            await other.stands_by()
        assert "standing by; 1 on mgmt1 leads" in others[0].told
        await first.medium.close()
        await asyncio.wait([other.opening for other in others], return_when="FIRST_COMPLETED")
        [leader] = [other for other in others if other.opening.done()]
        name = next(i for i, other in enumerate(others, 2) if other is leader)
        await until(lambda: all(other.leader == str(name) for other in others), "all see it")
        besides = [other.medium.beside for other in others]
        await until(
            lambda: {beside.term for beside in besides if beside} == {leader.medium.term},
            "all know its term",
        )
        assert leader.medium.term > first.medium.term
        await until(lambda: all(other.managers[str(name)].leads for other in others), "registered")
        assert all(set(other.managers) == {"2", "3", "4", "5"} for other in others)
        for other in others:
            await other.end()


async def test_an_expired_leadership_is_taken_as_soon_as_etcd_removes_it(store: Store) -> None:
    """Meanwhile is told how long that takes at most."""
    lease_s = 4
    async with leading(store, 1, lease_s) as first, standing_by(store, 2, lease_s) as second:
        await second.stands_by()
        assert second.medium.beside
        beside = second.medium.beside
        await until(lambda: beside.lead, "it is seen")
        medium = first.medium
        tasks = medium._thread.submit(_stop_everything())
        begun, wall_begun = time.monotonic(), time.time()
        tasks.result()

        def silence() -> Lead | None:
            found = beside.lead
            return None if found is None or found.silent_since is None else found

        await until(silence, "it is told that the leader is silent")
        told, told_at = silence(), time.monotonic()
        assert told is not None
        assert told.silent_since is not None
        assert told.ends_in_s is not None
        assert told.id == "1"
        assert wall_begun - lease_s < told.silent_since < wall_begun + 1
        await asyncio.wait_for(second.opening, 30)
        assert second.led_at - begun < lease_s + 6
        assert second.led_at - told_at < told.ends_in_s + 2  # etcd's own clock, on a busy machine
        assert beside.lead is not None
        assert (beside.lead.id, beside.lead.silent_since, beside.lead.until) == ("2", None, None)
        await asyncio.wait_for(second.medium.append([record(1)]), 20)


async def test_a_manager_that_only_observes_leads_when_none_acts(store: Store) -> None:
    """If it led, nobody would start, fence or move anything."""
    lease_s = 3
    async with AsyncExitStack() as stack:
        async with leading(store, 2) as second, standing_by(store, 3) as third:
            await third.stands_by()
            only = standing_by(store, 1, lease_s, observes=True)
            observing = await stack.enter_async_context(only)
            await until(lambda: "standing by; 2 on mgmt2 leads" in observing.told, "it is seen")
            await until(lambda: "1" in third.managers, "it is registered")
            assert third.managers["1"].observes
            assert not third.managers["2"].observes
            await second.medium.close()
            await asyncio.wait_for(asyncio.shield(third.opening), 30)
            assert not observing.opening.done()
        begun = time.monotonic()
        await asyncio.wait_for(observing.opening, 60)
        assert observing.led_at - begun > lease_s - 1  # so that the others may be restarted
        words = "standing by; it only observes, so it leaves the leadership to one that acts"
        assert any(text.startswith(words) for text in observing.told)


async def _stop_everything() -> None:
    """As if the process had died."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_managers_start_before_etcd(tmp_path_factory: pytest.TempPathFactory) -> None:
    members = Members(tmp_path_factory.mktemp("late"))
    async with standing_by(members.store(), 1) as first, standing_by(members.store(), 2) as second:
        await until(lambda: first.told and second.told, "both wait")
        assert all("waiting for etcd" in text for text in (*first.told, *second.told))
        try:
            members.start()
            await asyncio.wait([first.opening, second.opening], return_when="FIRST_COMPLETED")
            leader, other = (first, second) if first.opening.done() else (second, first)
            await leader.medium.append([record(1)])
            await until(lambda: other.read == [record(1)], "it reads")
            assert not other.opening.done()
            await leader.end()
            await other.opening
            await other.end()
        finally:
            members.close()


# What stops a manager that stands by ----------------------------------------------------------


async def test_an_id_that_another_one_uses_is_refused_with_its_name(store: Store) -> None:
    async with leading(store, 1, 2) as first:
        async with standing_by(store, 1, 2) as twin:
            with pytest.raises(
                StateError, match=r"the id 1 is in use by .* pid \d+ on mgmt1; give"
            ):
                await asyncio.wait_for(twin.opening, 30)
        await first.medium.append([record(1)])


async def test_the_registration_of_a_dead_manager_is_waited_for(store: Store) -> None:
    client = EtcdClient(store)
    lease, _ = await client.grant(2)
    dead = as_value(replace(OWN, pid=1))
    await client.txn(transaction([], [put(store.key("managers/1"), dead, lease)]))
    async with standing_by(store, 1) as first:
        await first.opening
        assert any("registration of a manager with the same id 1: pid 1" in t for t in first.told)
    await client.close()


async def test_an_answer_without_its_parts_is_no_answer(store: Store) -> None:
    async def cut(body: Json, *, deadline_s: float = 5.0) -> Outcome:
        return Outcome(False, 1, ())

    client = EtcdClient(store)
    registry = Registry(client, store, OWN, 2)
    client.txn = cut  # type: ignore[method-assign]  # as a broken proxy before etcd answers
    with pytest.raises(NoAnswer):
        await registry.look()
    with pytest.raises(NoAnswer):
        await registry.enter(lambda _text: None)
    await client.close()


class OutOfReach(EtcdClient):
    """Its first transaction gets no answer for longer than its lease lasts."""

    lease = 0
    breaks = True

    async def grant(self, ttl_s: int, *, deadline_s: float = 5.0) -> tuple[int, int]:
        self.lease, granted_s = await super().grant(ttl_s, deadline_s=deadline_s)
        return self.lease, granted_s

    async def txn(self, body: Json, *, deadline_s: float = 5.0) -> Outcome:
        if self.breaks:
            self.breaks = False
            await self.revoke(self.lease)
            raise NoAnswer("no connection", unknown=False)
        return await super().txn(body, deadline_s=deadline_s)


class Late(EtcdClient):
    """etcd, which is late to remove the keys of leases that have ended."""

    lasts_until = 0.0

    async def granted_s(self, lease: int, *, deadline_s: float = 5.0) -> int:
        if time.monotonic() > self.lasts_until:
            raise LeaseGone("the lease has expired")
        return 1


async def test_a_dead_manager_whose_registration_stays_for_long_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With exit status 64 it would stay down, although nobody has its id."""
    monkeypatch.setattr(registry_module, "EXPIRY_MARGIN_S", 0.5)
    client = Late(store)
    lease, _ = await client.grant(60)
    key = store.key("managers/1")
    await client.txn(transaction([], [put(key, as_value(replace(OWN, pid=1)), lease)]))
    client.lasts_until = time.monotonic() + 1
    registry = Registry(client, store, OWN, 2)
    entering = asyncio.ensure_future(registry.enter(lambda _text: None))
    await asyncio.sleep(4)
    assert not entering.done()
    await client.revoke(lease)
    await asyncio.wait_for(entering, 30)
    assert manager_in((await client.range(key)).value or b"") == OWN
    await client.close()


async def test_a_break_that_outlasts_the_lease_of_the_registration_ends(store: Store) -> None:
    """Without its registration, a manager would stand by for ever."""
    client = OutOfReach(store)
    beside = Beside(client, store, OWN, 2)
    told: list[str] = []
    await asyncio.wait_for(beside._enter(told.append), 30)
    assert any("no connection" in text for text in told)
    assert (await client.range(beside.registry.key)).value is not None
    await beside.close()


async def test_a_registration_comes_back_whatever_took_it_away(store: Store) -> None:
    client, key = EtcdClient(store), store.key("managers/2")

    async def registered_after(revision: int) -> int:
        while not (found := await client.range(key)).keys or (
            found.keys[0].create_revision <= revision
        ):
            await client.wait_for_change(key, found.revision, 1.0)
        return found.keys[0].create_revision

    async with leading(store, 1, 2), standing_by(store, 2, 2) as second:
        created = await registered_after(0)
        assert second.medium.beside is not None
        await client.revoke(second.medium.beside.registry._lease)
        created = await asyncio.wait_for(registered_after(created), 30)
        await write(store, delete_range(key, ""))
        await asyncio.wait_for(registered_after(created), 30)
    await client.close()


async def test_a_journal_that_went_back_stops_it(store: Store) -> None:
    async with leading(store, 1) as first:
        await first.medium.append([record(1)])
        async with standing_by(store, 2) as second:
            await until(lambda: second.read, "it reads")
            await write(store, delete_range(store.key("head"), ""))
            with pytest.raises(StateError, match="is not there any more"):
                await asyncio.wait_for(second.opening, 30)


async def test_damage_and_a_later_version_stop_it(store: Store) -> None:
    for value, words in ((b"\xff", "damaged"), (b'{"format": 2}', "a later version")):
        await write(store, delete_range(store.key(""), store.key("~")))
        async with leading(store, 1), standing_by(store, 2) as second:
            await second.stands_by()
            await write(store, put(store.key("head"), value))
            with pytest.raises(StateError, match=words):
                await asyncio.wait_for(second.opening, 30)


async def test_records_that_are_not_understood_stop_it_before_it_leads(store: Store) -> None:
    async def refuse(_records: Sequence[JournalRecord], _afresh: bool) -> None:
        raise StateError("not understood")

    async with leading(store, 1) as first:
        second = EtcdMedium(store, 10, replace(OWN, id="2"))
        opening = asyncio.ensure_future(second.stand_by(lambda _text: None, refuse))
        await first.medium.append([record(1)])
        with pytest.raises(StateError, match="not understood"):
            await asyncio.wait_for(opening, 30)
        await first.medium.append([record(2)])


# Values ---------------------------------------------------------------------------------------


def test_a_registration_is_read_as_it_was_written() -> None:
    seen = replace(OWN, url="https://mgmt1:8009", entries=7, leads=True, observes=True)
    assert manager_in(as_value(seen)) == seen


def test_a_manager_of_an_older_version_counts_as_one_that_acts() -> None:
    said = json.loads(as_value(replace(OWN, observes=True)))
    del said["observes"]
    assert manager_in(json.dumps(said).encode()) == OWN


def test_what_no_manager_wrote_is_no_manager() -> None:
    good = json.loads(as_value(OWN))
    for changed in (
        {"pid": "1"},
        {"pid": -1},
        {"host": 5},
        {"since": "x"},
        {"since": 1e300},
        {"url": 7},
        {"entries": True},
    ):
        assert manager_in(json.dumps({**good, **changed}).encode()) is None, changed
    for value in (b"", b"[]", b"\xff", b"null", b"{}", b'"x"'):
        assert manager_in(value) is None
    long = manager_in(json.dumps({**good, "host": "\x1b[31m" + "x" * 1000}).encode())
    assert long is not None
    assert long.host.startswith("?[31mx")
    assert len(long.host) == 300


async def test_a_change_is_written_at_most_once_a_second(store: Store) -> None:
    client = EtcdClient(store)
    registry = Registry(client, store, OWN, 10)
    await registry.enter(lambda _text: None)
    keeping = asyncio.ensure_future(registry.keep(lambda _trouble: None))
    before = (await client.range(registry.key)).keys[0].mod_revision
    begun = time.monotonic()
    for number in range(1, 200):
        registry.change(entries=number)
        await asyncio.sleep(0.01)

    async def written() -> int:
        found = manager_in((await client.range(registry.key)).value or b"")
        return 0 if found is None else found.entries

    while await written() != 199:
        await client.wait_for_change(registry.key, before, 0.1)
    passed_s = time.monotonic() - begun
    writes = (await client.range(registry.key)).keys[0].mod_revision - before
    assert 1 <= writes <= passed_s + 1  # each write is one revision of this quiet store
    keeping.cancel()
    await registry.leave()
    assert (await client.range(registry.key)).value is None
    await client.close()
