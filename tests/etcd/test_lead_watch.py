"""What is told of the leadership: since when, whether it is silent, and until when."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import EtcdError, LeaseGone, NoAnswer
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.holder import Holder, began_in
from halo.adapters.etcd.standby.lead import MARGIN_S, LeadWatch
from halo.adapters.etcd.standby.seen import as_value
from halo.adapters.etcd.values import KeyValue
from halo.ports import Lead
from tests.etcd.test_standby import OWN

LEASE = 77


class Leases(EtcdClient):
    """etcd, as far as it tells of leases: what a test says."""

    def __init__(self) -> None:
        super().__init__(Store(("127.0.0.1:1",), "/x"), gateway=cast("Any", object()))
        self.says: tuple[int, int] | EtcdError = (10, 10)
        self.asked = 0
        self.meanwhile: Callable[[], object] = lambda: None

    async def time_to_live(self, lease: int, *, deadline_s: float = 5.0) -> tuple[int, int]:
        assert (lease, deadline_s <= 1.0) == (LEASE, True)
        self.asked += 1
        self.meanwhile()
        if isinstance(self.says, EtcdError):
            raise self.says
        return self.says


def key_of(id: str, since: object = "2026-04-28T12:00:00+00:00") -> KeyValue:
    said = {"since": since, "manager": json.loads(as_value(replace(OWN, id=id)))}
    return KeyValue("/x/leader", json.dumps(said).encode(), 5, 5, LEASE)


AT = 1777377600.0


async def test_since_when_a_manager_leads_is_told() -> None:
    watch = LeadWatch(Leases())
    assert watch.lead is None
    await watch.saw(None, is_own=False)
    assert watch.lead is None
    await watch.saw(key_of("1"), is_own=False)
    assert watch.lead == Lead("1", AT)


async def test_a_leader_that_does_not_renew_its_lease_is_silent_until_it_does() -> None:
    leases = Leases()
    watch = LeadWatch(leases)
    leases.says = (5, 10)  # it is renewed each quarter of its time
    await watch.saw(key_of("1"), is_own=False)
    assert watch.lead == Lead("1", AT)
    leases.says = (4, 10)
    await watch.saw(key_of("1"), is_own=False)
    found, now = watch.lead, time.time()
    assert found is not None
    assert found.silent_since == pytest.approx(now - 6, abs=1)
    assert found.ends_in_s == pytest.approx(4 + MARGIN_S, abs=1)
    for says in (NoAnswer("no connection", unknown=False), LeaseGone("it has expired")):
        leases.says = says
        await watch.saw(key_of("1"), is_own=False)
        assert watch.lead is not None
        assert watch.lead.silent_since == found.silent_since
    leases.says = (10, 10)
    await watch.saw(key_of("1"), is_own=False)
    assert watch.lead == Lead("1", AT)


async def test_the_end_of_a_leadership_is_told_once() -> None:
    watch = LeadWatch(Leases())
    await watch.saw(key_of("1"), is_own=False)
    await watch.saw(None, is_own=False)
    ended = watch.lead
    assert ended is not None
    assert ended.until == pytest.approx(time.time(), abs=5)
    await watch.saw(replace(key_of("1"), value=b"by hand"), is_own=False)
    assert watch.lead == ended
    await watch.saw(key_of("2"), is_own=False)
    assert watch.lead == Lead("2", AT)


async def test_of_the_next_leader_is_told_nothing_that_was_seen_of_the_one_before() -> None:
    leases = Leases()
    watch = LeadWatch(leases)
    leases.says = (1, 10)
    await watch.saw(key_of("1"), is_own=False)
    leases.says = NoAnswer("no connection", unknown=False)
    await watch.saw(key_of("2"), is_own=False)
    assert watch.lead == Lead("2", AT)


async def test_a_manager_that_begins_to_lead_is_seen_to_lead_from_then_on() -> None:
    """Whatever is answered then about the leader before it."""
    leases = Leases()
    watch = LeadWatch(leases)
    leases.meanwhile = lambda: watch.begins("2")
    await watch.saw(key_of("1"), is_own=False)
    assert watch.lead is not None
    assert watch.lead.id == "2"


async def test_a_leader_does_not_ask_for_its_own_lease() -> None:
    """It knows that better, by its own clock."""
    leases = Leases()
    watch = LeadWatch(leases)
    leases.says = (1, 10)
    watch.begins("1")
    assert watch.lead is not None
    assert watch.lead.since == pytest.approx(time.time(), abs=5)
    await watch.saw(key_of("1"), is_own=True)
    assert (watch.lead, leases.asked) == (Lead("1", AT), 0)
    await watch.saw(key_of("1"), is_own=False)  # of an earlier process with this id
    assert leases.asked == 1


@pytest.mark.parametrize("since", [None, 3, "yesterday", "2026-04-28T12:00:00", "9" * 30, []])
async def test_a_time_that_no_manager_wrote_is_not_known(since: object) -> None:
    assert began_in(key_of("1", since).value) is None
    watch = LeadWatch(Leases())
    await watch.saw(key_of("1", since), is_own=False)
    assert watch.lead == Lead("1", None)


def test_what_an_observing_manager_waits_for_is_said() -> None:
    assert Holder("2 on mgmt2", 5, 0, None, acts=True).waiting == (
        "standing by; it only observes, so it leaves the leadership to 2 on mgmt2"
    )
