"""The simulated etcd behaves as the real one where a leadership depends on it."""

from __future__ import annotations

from heapq import heappop
from random import Random
from typing import Any

import pytest

from halo.adapters.etcd.errors import LeaseGone
from halo.adapters.etcd.values import (
    Found,
    Json,
    Outcome,
    delete_range,
    encoded,
    found_in,
    get,
    is_absent,
    outcome_of,
    put,
    transaction,
    value_is,
)
from tests.simulation.loop import Clock
from tests.simulation.managers.etcd.store import ELECTION_S, EXPIRY_S, Change, SimStore


class Etcd:
    """A store with a clock that a test moves."""

    def __init__(self, rate: float = 1.0) -> None:
        self.clock = Clock()
        self.changes: list[tuple[Any, list[Change]]] = []
        self.store = SimStore(self.clock, Random(1), self._told, rate)

    def _told(self, writer: Any, changes: list[Change]) -> None:
        self.changes.append((writer, changes))

    def txn(self, *parts: list[Json]) -> Outcome:
        return outcome_of(self.store.txn("me", transaction(*parts)))

    def range(self, begin: str, end: str = "", **rest: int) -> Found:
        body: Json = {"key": encoded(begin), **{name: str(value) for name, value in rest.items()}}
        if end:
            body["range_end"] = encoded(end)
        return found_in(self.store.range(body))

    def lease(self, ttl_s: int = 10) -> int:
        return int(self.store.grant({"TTL": str(ttl_s)})["ID"])

    def renew(self, lease: int) -> int:
        return int(self.store.keep_alive({"ID": str(lease)})["result"].get("TTL", 0))

    def wait_until(self, when: float) -> None:
        heap = self.clock.heap
        while heap and heap[0][0] <= when:
            self.clock.now, _, function, args = heappop(heap)
            function(*args)
        self.clock.now = when

    def is_there(self, key: str) -> bool:
        return self.range(key).value is not None


@pytest.fixture
def etcd() -> Etcd:
    return Etcd()


def test_a_transaction_runs_the_branch_that_its_conditions_choose(etcd: Etcd) -> None:
    first = etcd.txn([is_absent("a")], [put("a", b"1")], [get("a")])
    second = etcd.txn([is_absent("a")], [put("a", b"2")], [get("a")])
    assert (first.succeeded, second.succeeded) == (True, False)
    assert second.found[0].value == b"1"
    assert not etcd.txn([value_is("a", b"2")], [put("a", b"3")]).succeeded
    assert not etcd.txn([value_is("b", b"2")], [put("b", b"3")]).succeeded
    assert etcd.txn([value_is("a", b"1")], [put("a", b"3")]).succeeded


def test_only_what_writes_makes_a_revision(etcd: Etcd) -> None:
    first = etcd.txn([], [put("a", b"1"), put("b", b"1")]).revision
    assert etcd.txn([], [get("a")]).revision == first
    assert etcd.txn([], [delete_range("x", "y")]).revision == first
    assert etcd.txn([], [put("a", b"2")]).revision == first + 1


def test_a_key_that_was_removed_is_created_afresh(etcd: Etcd) -> None:
    etcd.txn([], [put("a", b"1")])
    etcd.txn([], [put("a", b"2")])
    item = etcd.store.items["a"]
    assert (item.create, item.mod, item.version) == (2, 3, 2)
    etcd.txn([], [delete_range("a", "b")])
    etcd.txn([], [put("a", b"3")])
    assert etcd.store.items["a"].create == 5


def test_earlier_revisions_can_be_read_page_by_page(etcd: Etcd) -> None:
    for name in "cab":
        then = etcd.txn([], [put(name, b"1")]).revision
    etcd.txn([], [put("a", b"2"), put("d", b"2"), delete_range("b", "c")])
    page = etcd.range("a", "z", revision=then, limit=2)
    assert [(k.key, k.value) for k in page.keys] == [("a", b"1"), ("b", b"1")]
    assert page.more
    assert [k.key for k in etcd.range("a", "z").keys] == ["a", "c", "d"]


def test_a_lease_takes_its_keys_with_it(etcd: Etcd) -> None:
    etcd.txn([], [put("a", b"1", etcd.lease())])
    etcd.wait_until(9.9)
    assert etcd.is_there("a")
    etcd.wait_until(10.0 + EXPIRY_S)
    assert not etcd.is_there("a")
    assert etcd.changes[-1] == (None, [Change("a", None)])


def test_a_renewed_lease_lives_on(etcd: Etcd) -> None:
    lease = etcd.lease()
    etcd.txn([], [put("a", b"1", lease)])
    for second in range(5, 50, 5):
        etcd.wait_until(second)
        assert etcd.renew(lease) == 10
    etcd.wait_until(54.9)
    assert etcd.is_there("a")
    etcd.wait_until(56.0)
    assert not etcd.is_there("a")
    assert etcd.renew(lease) == 0


def test_an_expired_lease_takes_no_key(etcd: Etcd) -> None:
    lease = etcd.lease()
    etcd.wait_until(11.0)
    with pytest.raises(LeaseGone):
        etcd.txn([], [put("b", b"1"), put("a", b"1", lease)])
    assert not etcd.is_there("b")


def test_a_new_leader_extends_every_lease(etcd: Etcd) -> None:
    etcd.txn([], [put("a", b"1", etcd.lease())])
    etcd.wait_until(8.0)
    term = etcd.range("a").term
    etcd.store.elect(1)
    assert etcd.range("a").term == term + 1
    etcd.wait_until(8.0 + 10.0 + ELECTION_S - 0.1)
    assert etcd.is_there("a")
    etcd.wait_until(8.0 + 10.0 + ELECTION_S + EXPIRY_S)
    assert not etcd.is_there("a")


def test_a_deposed_leader_confirms_what_nobody_else_knows(etcd: Etcd) -> None:
    lease, term = etcd.lease(), etcd.store.raft_term
    etcd.txn([], [put("a", b"1", lease)])
    etcd.store.depose(30.0)
    etcd.wait_until(9.0)
    answer = etcd.store.confirm_in_vain({"ID": str(lease)})["result"]
    assert (answer["TTL"], int(answer["header"]["raft_term"])) == ("10", term)
    assert etcd.range("a").term == term + 1
    etcd.wait_until(10.0 + ELECTION_S + EXPIRY_S)
    assert not etcd.is_there("a")


def test_nothing_expires_without_a_majority(etcd: Etcd) -> None:
    etcd.txn([], [put("a", b"1", etcd.lease())])
    etcd.store.lose_quorum()
    etcd.wait_until(60.0)
    assert etcd.is_there("a")
    etcd.store.regain_quorum()
    etcd.wait_until(69.0)
    assert etcd.is_there("a")
    etcd.wait_until(60.0 + 10.0 + ELECTION_S + 2 * EXPIRY_S)
    assert not etcd.is_there("a")


def test_members_have_a_clock_of_their_own() -> None:
    etcd = Etcd(rate=1.05)
    etcd.txn([], [put("a", b"1", etcd.lease())])
    etcd.wait_until(10.0 / 1.05 + EXPIRY_S)
    assert not etcd.is_there("a")


def test_a_watch_tells_of_the_next_change_once(etcd: Etcd) -> None:
    told: list[float] = []
    revision = etcd.txn([], [put("a", b"1")]).revision
    etcd.store.watch("a", revision + 1, lambda: told.append(etcd.clock.now))
    etcd.wait_until(1.0)
    assert told == []
    for second in (2.0, 3.0):
        etcd.wait_until(second)
        etcd.txn([], [put("a", b"2")])
    etcd.wait_until(4.0)
    assert told == [2.0]
    etcd.store.watch("a", revision + 1, lambda: told.append(etcd.clock.now))
    etcd.wait_until(4.0)
    assert told == [2.0, 4.0]
