"""A simulated etcd: keys with revisions, transactions, and leases, on the virtual clock.

It answers in the JSON of etcd's gateway, so that all of :mod:`halo.adapters.etcd` but the network
runs over it. What it does at one moment is one step: it is linearizable by construction. The way to
it, with all its faults, is in :mod:`tests.simulation.managers.etcd.gateway`.

Sources: etcd's `lease/lessor.go` (a new leader extends every lease; only its memory knows
renewals), `v3_server.go` (a leader confirms a renewal without asking anybody), and `rpc.proto`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from halo.adapters.etcd.errors import LeaseGone
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.values import Json, encoded
from tests.simulation.loop import Clock

LOCATION = Store(("m0:2379", "m1:2379", "m2:2379"), "/halo")

ELECTION_S = 1.0
"""How long etcd takes to elect a leader, and how much longer every lease lives after that."""

MIN_TTL_S = 2
EXPIRY_S = 0.5
"""How often etcd looks for leases that have expired."""


@dataclass(frozen=True, slots=True)
class Item:
    """One version of one key."""

    key: str
    value: bytes
    create: int
    mod: int
    version: int
    lease: int

    def to_json(self) -> Json:
        """As the gateway tells it."""
        return {
            "key": encoded(self.key),
            "value": encoded(self.value),
            "create_revision": str(self.create),
            "mod_revision": str(self.mod),
            "version": str(self.version),
            "lease": str(self.lease),
        }


@dataclass(slots=True)
class Lease:
    """One lease. `expires_at` in true virtual seconds."""

    id: int
    ttl_s: int
    expires_at: float
    keys: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Change:
    """What a commit did to one key. `item` is None if it was deleted."""

    key: str
    item: Item | None


Told = Callable[[Any, list[Change]], None]


class SimStore:
    """The state that all members agree on, and who of them leads."""

    def __init__(self, clock: Clock, random: Random, on_commit: Told, rate: float = 1.0) -> None:
        """`on_commit` is told of each change and its writer (None: a lease has expired). `rate`:
        how fast the clocks of the members go."""
        self.clock = clock
        self.random = random
        self.on_commit = on_commit
        self.rate = rate
        self.revision = 1
        self.raft_term = 2
        self.leader = 0  # the number of the member that leads
        self.deposed: int | None = None  # a member that still believes that it leads
        self.deposed_term = 0
        self._deposed_leases: dict[int, int] = {}  # what it knows
        self.has_quorum = True
        self.quorum_lost_at = float("-inf")
        self.items: dict[str, Item] = {}
        self.leases: dict[int, Lease] = {}
        self._history: dict[str, list[tuple[int, Item | None]]] = {}
        self._watchers: list[tuple[str, int, Callable[[], None]]] = []
        self._parked: list[Callable[[], None]] = []

    @staticmethod
    def text(data: str) -> str:
        """A key as it was before it was encoded."""
        return base64.b64decode(data).decode()

    # --- requests ----------------------------------------------------------------------------

    def header(self, term: int | None = None) -> Json:
        """What begins each answer."""
        return {
            "cluster_id": "7",
            "revision": str(self.revision),
            "raft_term": str(self.raft_term if term is None else term),
        }

    def range(self, body: Json) -> Json:
        """The answer to a range request."""
        begin = self.text(body["key"])
        end = self.text(body.get("range_end", ""))
        revision, limit = int(body.get("revision", 0)), int(body.get("limit", 0))
        if revision and revision < self.revision:
            every = [item for key in self._history if (item := self._as_of(key, revision))]
        else:
            every = list(self.items.values())
        found = sorted((i for i in every if _is_within(i.key, begin, end)), key=lambda i: i.key)
        shown = found[:limit] if limit else found
        return {
            "header": self.header(),
            "kvs": [item.to_json() for item in shown],
            "more": len(shown) < len(found),
            "count": str(len(found)),
        }

    def txn(self, writer: Any, body: Json) -> Json:
        """Carry out a transaction in one step. Raises LeaseGone; then nothing was changed."""
        holds = all(map(self._holds, body.get("compare", [])))
        self._require_leases(body.get("success" if holds else "failure", []))
        answers: list[Json] = []
        changes: dict[str, Item | None] = {}
        for operation in body.get("success" if holds else "failure", []):
            if "request_put" in operation:
                self._put(operation["request_put"], changes)
                answers.append({"response_put": {}})
            elif "request_delete_range" in operation:
                asked = operation["request_delete_range"]
                begin, end = self.text(asked["key"]), self.text(asked.get("range_end", ""))
                for key in sorted(key for key in self.items if _is_within(key, begin, end)):
                    self._delete(key, changes)
                answers.append({"response_delete_range": {}})
            else:
                answers.append({"response_range": self.range(operation["request_range"])})
        self._commit(writer, changes)
        return {"header": self.header(), "succeeded": holds, "responses": answers}

    def grant(self, body: Json) -> Json:
        """A new lease."""
        ttl_s = max(int(body["TTL"]), MIN_TTL_S)
        lease = Lease(self.random.getrandbits(62) | 1, ttl_s, 0.0)
        self.leases[lease.id] = lease
        self._extend(lease, 0.0)
        self.clock.at(lease.expires_at, self._expiry, lease)
        return {"header": self.header(), "ID": str(lease.id), "TTL": str(ttl_s)}

    def keep_alive(self, body: Json) -> Json:
        """Renew a lease, as the leader of etcd does it: alone."""
        lease = self.leases.get(int(body["ID"]))
        answer: Json = {"header": self.header(), "ID": body["ID"]}
        if lease is not None:
            self._extend(lease, 0.0)
            answer["TTL"] = str(lease.ttl_s)
        return {"result": answer}

    def confirm_in_vain(self, body: Json) -> Json:
        """What a leader says that was deposed and does not know it: nothing is renewed."""
        answer: Json = {"header": self.header(self.deposed_term), "ID": body["ID"]}
        ttl_s = self._deposed_leases.get(int(body["ID"]))
        if ttl_s is not None:
            answer["TTL"] = str(ttl_s)
        return {"result": answer}

    def time_to_live(self, body: Json) -> Json:
        """How long a lease still lives, and how long after each renewal."""
        lease = self.leases.get(int(body["ID"]))
        answer: Json = {"header": self.header(), "ID": body["ID"], "TTL": "-1"}
        if lease is not None:
            left_s = (lease.expires_at - self.clock.now) * self.rate
            answer |= {"TTL": str(max(int(left_s), 0)), "grantedTTL": str(lease.ttl_s)}
        return answer

    def revoke(self, writer: Any, body: Json) -> Json | None:
        """End a lease, and remove its keys. None: there is no such lease."""
        lease = self.leases.get(int(body["ID"]))
        if lease is None:
            return None
        self._end(writer, lease)
        return {"header": self.header()}

    def watch(self, key: str, from_revision: int, tell: Callable[[], None]) -> None:
        """Have `tell` called when the key was changed at that revision or later."""
        history = self._history.get(key, [])
        if history and history[-1][0] >= from_revision:
            self.clock.after(0.0, tell)
        else:
            self._watchers.append((key, from_revision, tell))

    # --- faults ------------------------------------------------------------------------------

    def elect(self, leader: int) -> None:
        """Another member leads: a new term, and every lease begins afresh, and lives longer."""
        self.raft_term += 1
        self.leader = leader
        for lease in self.leases.values():
            self._extend(lease, ELECTION_S)

    def depose(self, for_s: float) -> None:
        """The leader is cut off from the others, and believes for a while that it still leads."""
        if self.deposed is None and self.has_quorum:
            self.deposed, self.deposed_term = self.leader, self.raft_term
            self._deposed_leases = {lease.id: lease.ttl_s for lease in self.leases.values()}
            self.elect((self.leader + 1) % len(LOCATION.members))
            self.clock.after(for_s, self._rejoins)

    def _rejoins(self) -> None:
        self.deposed = None

    def lose_quorum(self) -> None:
        """No majority of members is left: nothing is written, read or expires."""
        if self.has_quorum:
            self.has_quorum, self.quorum_lost_at = False, self.clock.now

    def regain_quorum(self) -> None:
        """A majority is back, and elects a leader."""
        if not self.has_quorum:
            self.has_quorum = True
            self.elect(self.random.randrange(len(LOCATION.members)))
            parked, self._parked = self._parked, []
            for proposal in parked:
                self.clock.after(self.random.uniform(0.0, 0.5), proposal)

    def rebuild(self, is_kept: Callable[[str], bool]) -> None:
        """An operator makes a new cluster with these keys. It counts its revisions from 1 again."""
        kept = {key: item.value for key, item in self.items.items() if is_kept(key)}
        for known in (self.items, self.leases, self._history):
            known.clear()
        self._watchers.clear()
        self._parked.clear()
        self.revision, self.raft_term, self.deposed = 1, 2, None
        changes: dict[str, Item | None] = {}
        for key, value in kept.items():
            self._put({"key": encoded(key), "value": encoded(value)}, changes)
        self.revision += 1
        for key, item in changes.items():
            self._history[key] = [(self.revision, item)]

    def park(self, proposal: Callable[[], None]) -> None:
        """A member keeps this until there is a majority. It may be carried out then, or not."""
        if self.random.random() < 0.5:
            self._parked.append(proposal)

    def renews_alone(self) -> bool:
        """Without a majority, does the last leader still confirm renewals?"""
        return self.clock.now - self.quorum_lost_at < ELECTION_S

    # --- inside ------------------------------------------------------------------------------

    def _as_of(self, key: str, revision: int) -> Item | None:
        found = None
        for changed_at, item in self._history[key]:
            if changed_at > revision:
                break
            found = item
        return found

    def _holds(self, condition: Json) -> bool:
        item = self.items.get(self.text(condition["key"]))
        match condition["target"]:
            case "VALUE":
                if item is None:
                    return False
                have: Any = item.value
                wanted: Any = base64.b64decode(condition["value"])
            case "CREATE":
                have, wanted = item.create if item else 0, int(condition["create_revision"])
            case "MOD":
                have, wanted = item.mod if item else 0, int(condition["mod_revision"])
            case target:
                raise AssertionError(f"HALO compares {target}, which this etcd does not have")
        return bool(
            {"EQUAL": have == wanted, "GREATER": have > wanted, "LESS": have < wanted}[
                condition["result"]
            ]
        )

    def _require_leases(self, operations: list[Json]) -> None:
        for operation in operations:
            lease = int(operation.get("request_put", {}).get("lease", 0))
            if lease and lease not in self.leases:
                raise LeaseGone("requested lease not found")

    def _put(self, asked: Json, changes: dict[str, Item | None]) -> None:
        key, lease = self.text(asked["key"]), int(asked.get("lease", 0))
        value = base64.b64decode(asked["value"])
        old, now = self.items.get(key), self.revision + 1
        if old is None:
            item = Item(key, value, now, now, 1, lease)
        else:
            item = replace(old, value=value, mod=now, version=old.version + 1, lease=lease)
            if old.lease in self.leases:
                self.leases[old.lease].keys.discard(key)
        if lease:
            self.leases[lease].keys.add(key)
        self.items[key] = changes[key] = item

    def _delete(self, key: str, changes: dict[str, Item | None]) -> None:
        item = self.items.pop(key)
        if item.lease in self.leases:
            self.leases[item.lease].keys.discard(key)
        changes[key] = None

    def _commit(self, writer: Any, changes: dict[str, Item | None]) -> None:
        if not changes:
            return
        self.revision += 1
        for key, item in changes.items():
            self._history.setdefault(key, []).append((self.revision, item))
        self.on_commit(writer, [Change(key, item) for key, item in changes.items()])
        told = [w for w in self._watchers if w[0] in changes and w[1] <= self.revision]
        if told:
            self._watchers = [w for w in self._watchers if w not in told]
            for _, _, tell in told:
                self.clock.after(0.0, tell)

    def _extend(self, lease: Lease, by_s: float) -> None:
        lease.expires_at = self.clock.now + (lease.ttl_s + by_s) / self.rate

    def _expiry(self, lease: Lease) -> None:
        if self.leases.get(lease.id) is not lease:
            return
        if lease.expires_at > self.clock.now:
            self.clock.at(lease.expires_at, self._expiry, lease)
        elif self.has_quorum:
            self.clock.after(self.random.uniform(0.001, EXPIRY_S), self._expire, lease)
        else:
            self.clock.after(EXPIRY_S, self._expiry, lease)

    def _expire(self, lease: Lease) -> None:
        if self.leases.get(lease.id) is not lease:
            return
        if lease.expires_at > self.clock.now or not self.has_quorum:
            self._expiry(lease)
        else:
            self._end(None, lease)

    def _end(self, writer: Any, lease: Lease) -> None:
        changes: dict[str, Item | None] = {}
        for key in sorted(lease.keys):
            self._delete(key, changes)
        del self.leases[lease.id]
        self._commit(writer, changes)


def _is_within(key: str, begin: str, end: str) -> bool:
    return begin <= key < end if end else key == begin
