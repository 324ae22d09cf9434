"""What goes on beside the leadership: this manager is registered, sees the others and the members
of etcd, and reads on.

It uses a client of its own. A watch that stays silent moves on to the next member, and the renewal
of the leadership must not move with it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import structlog

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.entries import Head
from halo.adapters.etcd.errors import EtcdError, NoGateway, NotAllowed
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.holder import Holder, holder_of, manager_that_leads
from halo.adapters.etcd.standby.lead import LeadWatch
from halo.adapters.etcd.standby.members import Members
from halo.adapters.etcd.standby.reader import EtcdReader
from halo.adapters.etcd.standby.registry import Registry, Tell
from halo.adapters.etcd.standby.seen import is_same_process
from halo.adapters.etcd.values import Found
from halo.core.errors import InvariantError, StateError
from halo.core.status.store import StoreSeen
from halo.ports import JournalRecord, Lead, ManagerSeen

LOOK_S = 1.0
"""How often is read what a watch would have told. A watch alone proves nothing."""
PACE_S = 0.05
RETRY_S = 0.5

Take: TypeAlias = Callable[[Sequence[JournalRecord], bool], Coroutine[Any, Any, None]]
"""Takes records that were read; True: they take the place of all that came before. Raises
StateError for records that this version does not understand."""

log = structlog.get_logger("halo.etcd")


class Beside:
    """Everything that a manager does on a store apart from leading. Lives on one event loop.

    :meth:`run` it; once this manager leads, :meth:`catch_up`, then :meth:`leads`."""

    def __init__(
        self,
        client: EtcdClient,
        store: Store,
        own: ManagerSeen,
        lease_s: int,
        members: Members | None = None,
    ) -> None:
        """`members`: who watches the members one by one; None: nobody does."""
        self._store = store
        self.client = client
        self._members = members
        self._lease_s = lease_s
        self.registry = Registry(self.client, store, own, lease_s)
        self._reader = EtcdReader(self.client, store)
        self.entered = asyncio.Event()
        self._take: Take | None = None
        self._reading = asyncio.Lock()
        self._records: list[JournalRecord] = []
        self._were_taken = True
        self._caught_up = False
        self._seen: tuple[ManagerSeen, ...] = ()
        self._leader: ManagerSeen | None = None
        self._lead = LeadWatch(client)
        self._looked_at: float | None = None
        self._acting_at = time.monotonic()  # when another one that acts was registered last
        self.term = 0
        """The term of the present leader; 0 if it is not known."""
        self.confirmed_at = 0.0
        """What was taken holds every record that was written before this time."""
        self._troubles: dict[str, str] = {}

    @property
    def managers(self) -> tuple[ManagerSeen, ...]:
        """All that are registered, this one as it is now."""
        own = self.registry.own
        others = [seen for seen in self._seen if seen.id != own.id]
        return tuple(sorted([*others, own], key=lambda seen: seen.id))

    @property
    def leader(self) -> ManagerSeen | None:
        """The manager that leads, as of the last look. None, too, if that was a lease ago: without
        etcd that manager has ended."""
        found = self._leader
        if found is None or is_same_process(found, self.registry.own):
            return None if found is None else self.registry.own
        age_s = self.seen_s_ago
        if age_s is None or age_s > self._lease_s:
            return None
        registered = next((seen for seen in self._seen if is_same_process(found, seen)), found)
        return replace(registered, leads=True)

    @property
    def store(self) -> StoreSeen:
        """The members of etcd, one by one."""
        return StoreSeen() if self._members is None else self._members.seen

    @property
    def lead(self) -> Lead | None:
        """The leadership that was seen last."""
        return self._lead.lead

    @property
    def seen_s_ago(self) -> float | None:
        """How long ago the last look began that etcd answered; None: there was none."""
        return None if self._looked_at is None else time.monotonic() - self._looked_at

    @property
    def trouble(self) -> str | None:
        """What is wrong, in words."""
        return next(iter(self._troubles.values()), None)

    def _note(self, what: str, trouble: str | None) -> None:
        if trouble is None:
            self._troubles.pop(what, None)
        else:
            self._troubles[what] = trouble

    async def run(self, tell: Tell, take: Take) -> None:
        """Register, then read on, look, and keep the registration, until cancelled. `tell` is told
        what the registration waits for.

        Raises StateError: another manager has the id, or the journal cannot be used."""
        self._take = take
        tasks = self._watch_members(tell)
        try:
            await self._enter(tell)
            self.entered.set()
            working = [
                asyncio.ensure_future(work)
                for work in (
                    self._follow(),
                    self._look(),
                    self.registry.keep(lambda trouble: self._note("registration", trouble)),
                )
            ]
            tasks += working
            await asyncio.gather(*working)
        finally:
            for task in tasks:
                task.cancel()

    def _watch_members(self, tell: Tell) -> list[asyncio.Future[None]]:
        """From now on, watch the members. If none of them works at first, `tell` is told sooner
        than a request would give up."""
        if self._members is None:
            return []

        def none_works(words: str) -> None:
            if not self.entered.is_set():
                tell(self._waiting_for(words))

        return [asyncio.ensure_future(self._members.run(none_works))]

    def _waiting_for(self, words: object) -> str:
        return f"waiting for etcd ({self._store}): {words}"

    async def _enter(self, tell: Tell) -> None:
        while True:
            try:
                await self.registry.enter(tell)
                return
            except (NotAllowed, NoGateway) as error:
                raise StateError(f"{self._store}: {error}") from error
            except EtcdError as error:
                tell(self._waiting_for(error))
                await asyncio.sleep(RETRY_S)

    async def _look(self) -> None:
        while True:
            began = time.monotonic()
            try:
                sight = await self.registry.look()
            except EtcdError as error:
                self._note("look", f"etcd does not answer: {error}")
                await asyncio.sleep(RETRY_S)
                continue
            self._note("look", None)
            self._looked_at = began
            self._seen, self.term = sight.managers, sight.term
            key = sight.leader
            self._leader = None if key is None else manager_that_leads(key.value)
            is_own = is_same_process(self.registry.own, self._leader)
            await self._lead.saw(key, is_own=is_own)
            await asyncio.sleep(PACE_S)
            await self.client.wait_for_change(self._store.key("leader"), sight.revision, LOOK_S)

    async def before_this_one(self) -> Holder | None:
        """None: this manager may try to lead. Otherwise who leads, or whom it leaves that to.

        A manager that only observes leaves it to any other one that acts. It also waits for the
        time of a lease after it saw the last of these, which may have been restarted. A manager of
        an older version does not say whether it acts, and counts as one that does. Raises
        EtcdError."""
        own = self.registry.own
        if not own.observes:
            return None
        sight = await self.registry.look()
        acts = next((m for m in sight.managers if m.id != own.id and not m.observes), None)
        now = time.monotonic()
        if acts is not None:
            self._acting_at = now
        elif now - self._acting_at >= self._lease_s:
            return None
        if sight.leader is not None:
            return holder_of(sight.leader.value, Found((sight.leader,), sight.revision, False, 0))
        words = "one that acts, if it comes soon"
        if acts is not None:
            words = f"{acts.id} on {acts.host}"
        return Holder(words, sight.revision, 0, None, acts=True)

    async def _follow(self) -> None:
        while not self._caught_up:
            try:
                async with self._reading:
                    await self._advance()
            except EtcdError as error:
                self._note("journal", f"the journal in etcd cannot be read: {error}")
                await asyncio.sleep(RETRY_S)
                continue
            self._note("journal", None)
            await asyncio.sleep(PACE_S)
            head = self._store.key("head")
            await self.client.wait_for_change(head, self._reader.revision, LOOK_S)

    async def _advance(self) -> None:
        began = time.time()
        batch = await self._reader.advance()
        if batch is not None:  # keep them in the very step in which the reader counts them
            if batch.afresh:
                self._records = []
            self._records += batch.records
            self.wrote(self._reader.head)
        elif self._were_taken:
            self.confirmed_at = began
            return
        afresh = batch is None or batch.afresh or not self._were_taken
        new = list(self._records) if batch is None or afresh else batch.records
        self._were_taken = False  # until they were: a cancelled call is made up for by the next
        if self._take is not None:
            await self._take(new, afresh)
        self._were_taken = True
        self.confirmed_at = began

    async def catch_up(self) -> tuple[Head | None, list[JournalRecord]]:
        """Read the rest, as the manager that leads: nobody else writes. Returns all records, and
        what the head says of them.

        Raises EtcdError, StateError. Safe to repeat."""
        async with self._reading:
            await self._advance()
            self._caught_up = True
        head = self._reader.head
        if len(self._records) != (0 if head is None else head.records):
            raise InvariantError("a manager that stood by has other records than it has read")
        return head, self._records

    def leads(self, term: int) -> None:
        """This manager leads, in this term, and the records were handed on."""
        self._records, self.term = [], term
        self.registry.change(leads=True)
        self._leader = self.registry.own
        self._lead.begins(self.registry.own.id)

    def wrote(self, head: Head | None) -> None:
        """This much of the journal is known here."""
        self.registry.change(entries=0 if head is None else head.records)

    async def close(self) -> None:
        """End the registration, if etcd answers, and close all connections."""
        await self.registry.leave()
        await self.client.close()
        if self._members is not None:
            await self._members.close()
