"""Who is there: each manager registers itself under its id, and reads who else did.

The registration is bound to a lease of its own, so it ends soon after its manager. It decides
nothing: who leads is decided by the key of the leadership alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import EtcdError, LeaseGone
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.seen import as_value, is_same_process, manager_in
from halo.adapters.etcd.terms import base_in, base_key, one_of, parts_of, term_at
from halo.adapters.etcd.values import (
    KeyValue,
    after,
    get,
    get_all,
    is_absent,
    put,
    transaction,
    value_is,
)
from halo.core.errors import StateError
from halo.core.model import NODE_ID_LIMIT
from halo.ports import ManagerSeen

RENEWALS = 4  # in the time of one lease
CHANGE_S = 1.0
"""The shortest time between two changes of the registration."""
RETRY_S = 0.5
RELEASE_DEADLINE_S = 0.5
EXPIRY_MARGIN_S = 3.0
"""How much longer than its lease etcd may keep a key."""
MANAGERS_LIMIT = 64

Tell = Callable[[str], None]

log = structlog.get_logger("halo.etcd")


@dataclass(frozen=True, slots=True)
class Sight:
    """Who is there, as of one read."""

    leader: KeyValue | None
    term: int  # of the leader; 0 if there is none
    managers: tuple[ManagerSeen, ...]
    revision: int


class Registry:
    """The registration of one manager. :meth:`enter`, then run :meth:`keep`, then :meth:`leave`."""

    def __init__(self, client: EtcdClient, store: Store, own: ManagerSeen, lease_s: int) -> None:
        self._client = client
        self._store = store
        self.own = own
        self._lease_s = lease_s
        self._lease = 0
        self._renewed_at = 0.0
        self._written: bytes | None = None
        self._written_at = 0.0
        self._changed = asyncio.Event()

    @property
    def key(self) -> str:
        """The key of this manager."""
        return self._store.key(f"managers/{self.own.id}")

    def change(self, *, entries: int | None = None, leads: bool | None = None) -> None:
        """Have the registration say something else. It is written within a second."""
        own = self.own
        own = replace(
            own,
            entries=own.entries if entries is None else entries,
            leads=own.leads if leads is None else leads,
        )
        if own != self.own:
            self.own = own
            self._changed.set()

    async def look(self) -> Sight:
        """Who leads, and who is registered. If this manager is not, it soon will be again.

        Raises EtcdError."""
        folder, leads = self._store.key("managers/"), self._store.key("leader")
        reads = [get(leads), get_all(folder, after(folder), MANAGERS_LIMIT), get(base_key(leads))]
        outcome = await self._client.txn(transaction([], reads))
        leader, managers, base = parts_of(outcome, 3)
        seen = (manager_in(key.value, key.key.removeprefix(folder)) for key in managers.keys)
        found = tuple(manager for manager in seen if manager and len(manager.id) <= NODE_ID_LIMIT)
        if all(key.key != self.key for key in managers.keys) and not managers.more:
            self._changed.set()
        term = 0
        with contextlib.suppress(StateError):  # whoever wants to lead is told
            if leader.keys:
                term = term_at(leader.keys[0].create_revision, base_in(base, base_key(leads)))
        return Sight(leader.keys[0] if leader.keys else None, term, found, outcome.revision)

    async def enter(self, tell: Tell) -> None:
        """Register. Wait if an earlier manager had this id and its registration has not expired.

        Raises EtcdError; StateError if a manager that lives has this id."""
        loop = asyncio.get_running_loop()
        ends: float | None = None
        term = 0
        while (other := await self._try()) is not None:
            if ends is None or other.term != term:  # etcd extends leases when its leader changes
                term, ends = other.term, loop.time() + await self._limit_s(other)
            if loop.time() >= ends:
                if await self._is_renewed(other):
                    raise StateError(self._taken(other))
                ends = loop.time() + EXPIRY_MARGIN_S  # it is dead, and etcd is late
            tell(f"waiting until the registration of {other.words} has expired")
            await self._client.wait_for_change(self.key, other.revision, CHANGE_S)

    async def _try(self) -> _Other | None:
        """Write the registration, unless another manager has the key: then returns that one."""
        loop = asyncio.get_running_loop()
        found = await self._client.range(self.key)
        while True:
            if found.keys and not is_same_process(self.own, manager_in(found.keys[0].value)):
                return _Other(found.keys[0], found.revision, found.term)
            await self._require_lease()
            self._changed.clear()
            value, self._written_at = as_value(self.own), loop.time()
            was = value_is(self.key, found.keys[0].value) if found.keys else is_absent(self.key)
            write = transaction([was], [put(self.key, value, self._lease)], [get(self.key)])
            try:
                outcome = await self._client.txn(write)
            except LeaseGone:  # etcd could not be reached for long: begin with another one
                self._lease = 0
                raise
            if not outcome.succeeded:
                found = one_of(outcome)
            if outcome.succeeded or found.value == value:
                self._written = value
                return None

    async def _require_lease(self) -> None:
        if not self._lease:
            self._renewed_at = asyncio.get_running_loop().time()
            self._lease, _ = await self._client.grant(self._lease_s)

    async def _limit_s(self, other: _Other) -> float:
        """How long that registration lasts if nobody renews it."""
        if not other.key.lease:
            return 0.0
        try:
            return await self._client.granted_s(other.key.lease) + EXPIRY_MARGIN_S
        except LeaseGone:
            return EXPIRY_MARGIN_S

    async def _is_renewed(self, other: _Other) -> bool:
        """Does somebody keep that registration, after it should have ended?"""
        if not other.key.lease:
            return True
        try:
            return await self._client.granted_s(other.key.lease) > 0
        except LeaseGone:
            return False

    def _taken(self, other: _Other) -> str:
        remedy = "give each manager an id of its own with --node-id"
        if not other.key.lease:
            remedy = f"its key {self.key} never expires, so remove it with etcdctl"
        return f"{self._store}: the id {self.own.id} is in use by {other.words}; {remedy}"

    async def keep(self, trouble: Callable[[str | None], None]) -> None:
        """Renew the registration and keep it up to date, for ever. `trouble` is told what is wrong.

        Raises StateError if another manager that lives took the id."""
        loop = asyncio.get_running_loop()
        while True:
            renew_at = self._renewed_at + self._lease_s / RENEWALS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(renew_at):
                    await self._changed.wait()
                    await asyncio.sleep(max(0.0, self._written_at + CHANGE_S - loop.time()))
            try:
                if loop.time() >= renew_at:
                    await self._renew()
                if self._changed.is_set() or self._written is None:
                    await self.enter(trouble)
            except LeaseGone:
                self._lease, self._written = 0, None
            except EtcdError as error:
                trouble(f"etcd does not answer: {error}")
                await asyncio.sleep(RETRY_S)
            else:
                trouble(None)

    async def _renew(self) -> None:
        await self._require_lease()
        begun = asyncio.get_running_loop().time()
        await self._client.keep_alive(self._lease)
        self._renewed_at = begun

    async def leave(self) -> None:
        """End the registration, if etcd answers. Otherwise it ends with its lease."""
        if self._lease:
            with contextlib.suppress(EtcdError):
                await self._client.revoke(self._lease, deadline_s=RELEASE_DEADLINE_S)


@dataclass(frozen=True, slots=True)
class _Other:
    """The key that another manager wrote under this manager's id."""

    key: KeyValue
    revision: int
    term: int

    @property
    def words(self) -> str:
        found = manager_in(self.key.value)
        if found is None:
            return f"an unknown program (key {self.key.key})"
        return f"a manager with the same id {found.id}: pid {found.pid} on {found.host}"
