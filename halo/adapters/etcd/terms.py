"""The term of a leadership, and the base that an operator may raise.

The term is the revision at which etcd created the leadership key, plus the base. etcd counts its
revisions upwards, so each leadership has a higher term than all before it. A store that was built
anew counts from 1 again. Then an operator raises the base above the highest term that was in use.

Only an operator's command writes the base. A manager never takes a term from an agent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import NoAnswer
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.values import (
    Found,
    Outcome,
    get,
    is_absent,
    put,
    transaction,
    value_is,
)
from halo.core.errors import StateError
from halo.core.peers.bounds import TERM_LIMIT, name

BASE_LIMIT = TERM_LIMIT // 2
"""The highest base. It leaves room for as many revisions, so no mistake uses up all terms."""

REASON_LIMIT = 1024
ATTEMPTS = 5


class SomebodyLeads(Exception):
    """The base stays as it is while a manager leads. The text is the value of the leadership."""

    def __init__(self, leader: Found) -> None:
        super().__init__()
        self.leader = leader


@dataclass(frozen=True, slots=True)
class Raised:
    """What became of the base."""

    before: int
    after: int


def parts_of(outcome: Outcome, count: int) -> tuple[Found, ...]:
    """What a transaction with so many reads found. Raises NoAnswer if that is not what came."""
    if len(outcome.found) != count:
        raise NoAnswer("etcd left out a part of its answer", unknown=True)
    return outcome.found


def one_of(outcome: Outcome) -> Found:
    """What a transaction with one read found. Raises NoAnswer."""
    return parts_of(outcome, 1)[0]


def two_of(outcome: Outcome) -> tuple[Found, Found]:
    """What a transaction with two reads found. Raises NoAnswer."""
    first, second = parts_of(outcome, 2)
    return first, second


def base_key(leader_key: str) -> str:
    """The key of the base, beside the key of the leadership."""
    return leader_key.removesuffix("leader") + "term-base"


def base_in(found: Found, key: str) -> int:
    """The base that was read; 0 if there is none. Raises StateError."""
    if found.value is None:
        return 0
    try:
        said = json.loads(found.value)
        base = said["base"]
    except (ValueError, TypeError, KeyError, RecursionError):
        base = None
    if type(base) is not int or not 0 <= base <= BASE_LIMIT:
        raise StateError(
            f"the key {key} in etcd holds no base of terms; only `halo store raise-term` writes "
            "it. Remove the key with etcdctl, then raise the term above the highest one that an "
            "agent or the journal has seen"
        )
    return base


def term_at(revision: int, base: int) -> int:
    """The term of a leadership that began at this revision. Raises StateError."""
    term = revision + base
    if not 0 < term <= TERM_LIMIT:
        raise StateError(
            f"the term of this leadership would be {term} (revision {revision} of etcd plus the "
            f"base {base}), but a term is from 1 to {TERM_LIMIT}. Export the journal, and import "
            "it into a new etcd cluster"
        )
    return term


async def raise_base(
    client: EtcdClient,
    store: Store,
    above: int,
    reason: str,
    *,
    at: float,
) -> Raised:
    """Have the next leadership get a term above this number. The base never becomes lower.

    Nobody may lead: raises SomebodyLeads. Also raises EtcdError, StateError."""
    if above > BASE_LIMIT:  # what is written must be read again
        raise StateError(
            f"{store}: the term {above} is too high: a base of terms is at most {BASE_LIMIT}, and "
            "no leader in etcd gets a higher one"
        )
    leader, key = store.key("leader"), base_key(store.key("leader"))
    found = await client.range(key)
    for _ in range(ATTEMPTS):
        before = base_in(found, key)
        after = max(before, above)
        becomes = {"base": after, "reason": name(reason, REASON_LIMIT), "at": at}
        value = json.dumps(becomes).encode()
        if found.value == value:
            return Raised(before, after)  # an earlier try whose answer was lost
        was = is_absent(key) if found.value is None else value_is(key, found.value)
        write = [put(key, value)] if after > before else []
        outcome = await client.txn(
            transaction([is_absent(leader), was], write, [get(leader), get(key)])
        )
        if outcome.succeeded:
            return Raised(before, after)
        holder, found_now = two_of(outcome)
        if found_now.value == value:
            return Raised(before, after)
        if holder.value is not None:
            raise SomebodyLeads(holder)
        found = found_now
    raise NoAnswer("another program keeps changing the base of terms", unknown=False)
