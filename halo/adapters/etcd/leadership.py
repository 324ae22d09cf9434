"""The exclusive right to write the journal: a key in etcd that is bound to a lease.

The manager renews the lease. Whether it still leads, it decides by its own clock: from the moment
at which it *sent* the last renewal that etcd confirmed, for the lease's time, less a margin. So it
stops before etcd lets another manager begin. etcd may keep a lease for longer, because it extends
all leases when its own leader changes. Nobody relies on that here. A leader of etcd that was just
deposed may still confirm a renewal, of which the new one knows nothing. So a renewal counts only if
the key was read afterwards, for which a majority of members is needed, and in the same term of
etcd's leader.

The clock is the one that goes on while the machine sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import EtcdError, LeaseGone
from halo.adapters.etcd.standby.holder import Holder, holder_of
from halo.adapters.etcd.terms import base_in, base_key, term_at, two_of
from halo.adapters.etcd.values import Found, Json, get, is_absent, put, transaction, value_is
from halo.core.errors import LeadershipError

LEASE_S = 10
MARGIN = 0.25
"""The part of the lease's time in which this manager does not count as leading any more. It is for
clocks that differ, and for the end of a process whose event loop is late."""
END_GRACE_S = 1.0
RENEWALS = 4  # in the time of one lease
RETRY_S = 0.2
LOOK_S = 0.25
RELEASE_DEADLINE_S = 0.5


def boot_time() -> float:
    """Seconds on a clock that also counts while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


LATE = "the manager itself was late"
NO_ANSWER = "etcd gave no answer to a renewal"
"""Why a leadership ends whose lease was not renewed, as long as no member said more."""


class Leadership:
    """The leadership of one store. Call :meth:`take`, then run :meth:`keep` all the time."""

    def __init__(
        self,
        client: EtcdClient,
        key: str,
        *,
        lease_s: int = LEASE_S,
        clock: Callable[[], float] = boot_time,
        manager: bytes | None = None,
    ) -> None:
        """`manager` is how this manager registers itself, so that its key names it."""
        self._client = client
        self._key = key
        self._base_key = base_key(key)
        self._term = 0
        self._lease_s = lease_s
        self._clock = clock
        self._manager = manager
        self._lease = 0
        self._value = b""
        self._proven_until = 0.0
        self._lost: str | None = "it was never taken"
        self._trouble = LATE

    @property
    def key(self) -> str:
        """The key of the leadership."""
        return self._key

    @property
    def term(self) -> int:
        """The term of this leadership; 0 before it is taken."""
        return self._term

    @property
    def end_grace_s(self) -> float:
        """How long a manager that lost its leadership may take to end by itself. After that its
        process is ended, with the fence programs that still run, before another one may lead."""
        return min(END_GRACE_S, self._lease_s * MARGIN / 2)

    @property
    def condition(self) -> Json:
        """The condition of a transaction that this manager leads. The value has a random id."""
        return value_is(self._key, self._value)

    def is_ours(self, value: bytes | None) -> bool:
        """Is this the value that this manager wrote?"""
        return value == self._value

    async def take(self) -> Holder | None:
        """Take the leadership, if nobody has it. Returns its holder, or None if it is ours now.

        Raises EtcdError. Then it may be ours, and ends with its lease. Raises StateError if it can
        have no term."""
        found = await self._client.range(self._key)
        if found.value is not None and self._is_of_earlier_try(found.value):
            earlier = await self._client.txn(transaction([self.condition], self._reads))
            if earlier.succeeded:
                self._take_term_of(*two_of(earlier))
                return None
            found = await self._client.range(self._key)
        if found.value is not None:
            return holder_of(found.value, found)
        self._value = _own_value(self._manager)
        sent_at = self._clock()
        self._lease, ttl_s = await self._client.grant(self._lease_s)
        self._count_from(sent_at, ttl_s)
        self._lost = None
        lead = put(self._key, self._value, self._lease)
        write = transaction([is_absent(self._key)], [lead, *self._reads], self._reads)
        outcome = await self._client.txn(write)
        found, base = two_of(outcome)
        if outcome.succeeded:
            self._term = term_at(outcome.revision, base_in(base, self._base_key))
        elif found.value is not None and self.is_ours(found.value):
            self._take_term_of(found, base)
        elif found.value is not None:
            await self.release()
            return holder_of(found.value, found)
        else:
            self.lose("its key in etcd was removed at once")
        return None

    def _take_term_of(self, ours: Found, base: Found) -> None:
        """Take the term of the key that we wrote. Raises StateError."""
        revision = ours.keys[0].create_revision
        self._term = term_at(revision, base_in(base, self._base_key))

    @property
    def _reads(self) -> list[Json]:
        """The key and the base, in one transaction."""
        return [get(self._key), get(self._base_key)]

    def _is_of_earlier_try(self, value: bytes) -> bool:
        """Did a try of ours, whose answer was lost, take the leadership a moment ago?"""
        return self._lost is None and self.is_ours(value) and self._clock() < self._proven_until

    def require(self) -> None:
        """Raise LeadershipError unless this manager can prove that it leads."""
        if self._lost is None and self._clock() >= self._proven_until:
            self.lose(f"its lease in etcd could not be renewed in time ({self._trouble})")
        if self._lost is not None:
            raise LeadershipError(f"this manager does not lead any more: {self._lost}")

    def lose(self, why: str) -> None:
        """From now on, :meth:`require` raises. The first reason stays."""
        self._lost = self._lost or why

    async def keep(self) -> None:
        """Renew the lease until the leadership is lost. Raises LeadershipError in time."""
        renewing = asyncio.ensure_future(self._renew_for_ever())
        try:
            while not renewing.done():
                self.require()
                left_s = self._proven_until - self._clock()
                # A timer of the loop stands still while the machine sleeps, so look often.
                await asyncio.wait({renewing}, timeout=max(0.0, min(left_s, LOOK_S)))
            renewing.result()
            self.require()
        finally:
            renewing.cancel()

    async def release(self) -> None:
        """Give the leadership back, if etcd answers. Otherwise it ends with its lease."""
        self.lose("it was given back")
        if self._lease:
            with contextlib.suppress(EtcdError):
                await self._client.revoke(self._lease, deadline_s=RELEASE_DEADLINE_S)

    async def _renew_for_ever(self) -> None:
        """Returns when the leadership is lost."""
        pause_s = self._lease_s / RENEWALS
        while self._lost is None:
            await asyncio.sleep(pause_s)
            sent_at = self._clock()
            if self._trouble == LATE:
                self._trouble = NO_ANSWER  # the lease ends as soon as this request
            try:
                ttl_s, term = await self._client.keep_alive(
                    self._lease, deadline_s=self._patience_s
                )
                found = await self._client.range(self._key, deadline_s=self._patience_s)
            except LeaseGone:
                self.lose("its lease in etcd has expired")
            except EtcdError as error:
                self._trouble = str(error)
                pause_s = RETRY_S  # `keep` looks at the clock
            else:
                pause_s = self._lease_s / RENEWALS
                self._trouble = LATE
                if not self.is_ours(found.value):
                    self.lose("its key in etcd was removed or overwritten")
                if found.term == term:
                    self._count_from(sent_at, ttl_s)
                else:
                    self._trouble, pause_s = "etcd changed its own leader", RETRY_S

    @property
    def _patience_s(self) -> float:
        return max(RETRY_S, self._proven_until - self._clock())

    def _count_from(self, sent_at: float, ttl_s: int) -> None:
        # etcd may grant more time than was asked for. Another etcd leader may not know of that.
        self._proven_until = sent_at + min(ttl_s, self._lease_s) * (1 - MARGIN)


def _own_value(manager: bytes | None) -> bytes:
    own: dict[str, object] = {
        "id": secrets.token_hex(16),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if manager is not None:
        own["manager"] = json.loads(manager)
    return json.dumps(own).encode()
