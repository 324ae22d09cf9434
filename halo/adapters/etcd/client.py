"""The client of etcd: many members, deadlines, and trying again.

Rejected: `aetcd` and `etcd3gw`. The first has no TLS and one member; the second blocks. Both keep
retries and deadlines to themselves. A manager has to know what a request that got no answer may
have done, and when exactly a request that renewed its lease was sent. So this is a small client of
our own over the JSON gateway, as Patroni has one, for the same reasons.

Every request is tried again at another member until its deadline. So the caller must send only what
may be carried out twice: see `docs/replication.md`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

import structlog

from halo.adapters.etcd.errors import (
    EtcdError,
    LeaseGone,
    NoAnswer,
    NoGateway,
    NoSpace,
    NotAllowed,
    Refused,
)
from halo.adapters.etcd.gateway import (
    ANSWER_LIMIT_BYTES,
    COMMON_NAME,
    Gateway,
    NoAuthentication,
    StaleToken,
)
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.values import (
    Found,
    Json,
    Malformed,
    Outcome,
    encoded,
    found_in,
    integer,
    outcome_of,
    term_of,
)

DEADLINE_S = 5.0
ATTEMPT_S = 1.5
"""How long one member may take. A write waits for the disks of a majority of members."""
ROUND_PAUSE_S = 0.1
TOKEN_LIMIT = 4096
TOKENS_IN_A_ROW = 3

log = structlog.get_logger("halo.etcd")

T = TypeVar("T")


class EtcdClient:
    """A client of one store. Use it on one event loop, and close it.

    All methods raise EtcdError. Every wait ends at its deadline."""

    def __init__(
        self,
        store: Store,
        *,
        attempt_s: float = ATTEMPT_S,
        answer_limit_bytes: int = ANSWER_LIMIT_BYTES,
        gateway: Gateway | None = None,
    ) -> None:
        """`gateway`: the way to the members, if it is not the network (for tests)."""
        self._store = store
        self._gateway = gateway or Gateway(store, answer_limit_bytes)
        self._attempt_s = attempt_s
        self._member = 0  # the one that answered last
        self._token: str | None = None
        self._wants_token = store.user is not None
        if store.shows_password:
            log.warning(
                "the password for etcd crosses the network in the clear",
                store=str(store),
                remedy="give the CA of its members with --store-ca",
            )

    async def close(self) -> None:
        """Close all connections. Safe to repeat."""
        await self._gateway.close()

    async def range(
        self,
        begin: str,
        end: str = "",
        *,
        limit: int = 0,
        revision: int = 0,
        deadline_s: float = DEADLINE_S,
    ) -> Found:
        """The key `begin`, or all keys from `begin` to before `end`, as of a revision (0: now)."""
        body: Json = {"key": encoded(begin), "limit": str(limit), "revision": str(revision)}
        if end:
            body["range_end"] = encoded(end)
        return await self._call("kv/range", body, found_in, deadline_s)

    async def txn(self, body: Json, *, deadline_s: float = DEADLINE_S) -> Outcome:
        """Carry out a transaction that is harmless to repeat."""
        return await self._call("kv/txn", body, outcome_of, deadline_s)

    async def grant(self, ttl_s: int, *, deadline_s: float = DEADLINE_S) -> tuple[int, int]:
        """A new lease: its id, and its time to live in seconds, which may be longer than asked."""
        return await self._call("lease/grant", {"TTL": str(ttl_s)}, _granted, deadline_s)

    async def keep_alive(self, lease: int, *, deadline_s: float = DEADLINE_S) -> tuple[int, int]:
        """Renew a lease. Returns its time to live in seconds, and the term of etcd's leader just
        before the renewal. Raises LeaseGone."""
        ttl, term = await self._call("lease/keepalive", {"ID": str(lease)}, _kept, deadline_s)
        if ttl <= 0:  # left out: expired
            raise LeaseGone("the lease has expired")
        return ttl, term

    async def granted_s(self, lease: int, *, deadline_s: float = DEADLINE_S) -> int:
        """For how long a lease lasts after each renewal, in seconds. Raises LeaseGone."""
        left_s, granted_s = await self.time_to_live(lease, deadline_s=deadline_s)
        if left_s <= 0:
            raise LeaseGone("the lease has expired")
        return granted_s

    async def time_to_live(self, lease: int, *, deadline_s: float = DEADLINE_S) -> tuple[int, int]:
        """How long a lease still lasts, rounded down, and how long after each renewal, in seconds.
        Raises LeaseGone."""
        body = {"ID": str(lease)}
        left_s, granted_s = await self._call("lease/timetolive", body, _time_to_live, deadline_s)
        if left_s < 0:
            raise LeaseGone("the lease has expired")
        return left_s, granted_s

    async def revoke(self, lease: int, *, deadline_s: float = DEADLINE_S) -> None:
        """End a lease, and remove the keys that are bound to it."""
        with contextlib.suppress(LeaseGone):
            await self._call("lease/revoke", {"ID": str(lease)}, lambda _: None, deadline_s)

    async def wait_for_change(self, key: str, after_revision: int, at_most_s: float) -> None:
        """Return when the key may have changed since that revision, or after `at_most_s`.

        A watch is only a hint: on a member that stands still it is silent. So read the key
        afterwards. The wait changes to another member each time that nothing came."""
        member = self._members[self._member]
        request = {"key": encoded(key), "start_revision": str(after_revision + 1)}
        begun = asyncio.get_running_loop().time()
        body = {"create_request": request}
        try:
            lines = self._gateway.lines(member, "watch", body, self._token, at_most_s)
            async for line in lines:
                if "events" in line.get("result", {}) or "canceled" in line.get("result", {}):
                    return
        except EtcdError:
            self._leave(member)
        rest_s = at_most_s - (asyncio.get_running_loop().time() - begun)
        await asyncio.sleep(min(max(rest_s, 0.0), ROUND_PAUSE_S))

    @property
    def _members(self) -> tuple[str, ...]:
        return self._store.members

    def _leave(self, member: str) -> None:
        """Ask another member first, from now on."""
        if self._members[self._member] == member:
            self._member = (self._member + 1) % len(self._members)

    async def _call(self, path: str, body: Json, read: Callable[[Json], T], deadline_s: float) -> T:
        """The answer of any member. `read` makes a value of it, or raises Malformed."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline_s
        failed: dict[str, EtcdError] = {}  # by member, the last failure of each
        unknown = False
        tokens = 0
        while (left_s := ends - loop.time()) > 0:
            member = self._members[self._member]
            try:
                token = await self._valid_token(member, min(left_s, self._attempt_s))
                attempt_s = min(max(ends - loop.time(), 0.01), self._attempt_s)
                return read(await self._gateway.ask(member, path, body, token, attempt_s))
            except StaleToken as error:
                self._token = None
                tokens += 1
                if tokens >= TOKENS_IN_A_ROW or not self._wants_token:
                    words = self._not_allowed(error)
                    raise self._refused(NotAllowed(words), unknown) from error
            except NotAllowed as error:
                raise self._refused(NotAllowed(self._not_allowed(error)), unknown) from error
            except NoGateway as error:
                self._note(failed, member, error)
            except (Refused, NoSpace) as error:
                raise self._refused(error, unknown) from error
            except Malformed as error:
                unknown = True
                self._note(failed, member, NoAnswer(str(error), unknown=True))
            except NoAnswer as error:
                unknown = unknown or error.unknown
                self._note(failed, member, error)
            if len(failed) >= len(self._members):
                if all(isinstance(found, NoGateway) for found in failed.values()):
                    raise NoGateway(_each(failed))
                await asyncio.sleep(min(ROUND_PAUSE_S, max(ends - loop.time(), 0)))
        raise NoAnswer(_each(failed) or f"no answer within {deadline_s:g} s", unknown=unknown)

    def _note(self, failed: dict[str, EtcdError], member: str, error: EtcdError) -> None:
        # The last try may have had too little time to say more than that.
        if member not in failed or not isinstance(error.__cause__, TimeoutError):
            failed[member] = error
        self._leave(member)

    @staticmethod
    def _refused(error: EtcdError, unknown: bool) -> EtcdError:
        """The last try was refused. If an earlier one may have worked, that is what counts."""
        return NoAnswer(str(error), unknown=True) if unknown else error

    async def _valid_token(self, member: str, deadline_s: float) -> str | None:
        if not self._wants_token or self._token is not None:
            return self._token
        body = {"name": self._store.user, "password": self._store.password}
        try:
            answer = await self._gateway.ask(member, "auth/authenticate", body, None, deadline_s)
        except NoAuthentication:
            log.warning("etcd asks for no password", store=str(self._store))
            self._wants_token = False
            return None
        except NoAnswer as error:  # the request itself was not sent yet
            raise NoAnswer(str(error), unknown=False) from error
        self._token = token_in(answer)
        return self._token

    def _not_allowed(self, error: EtcdError) -> str:
        if str(error) == COMMON_NAME:
            return COMMON_NAME
        if not self._wants_token:
            return (
                f"{error}; the gateway of etcd knows users by name and password only, whatever "
                "certificate they have: give --store-user and --store-password-file"
            )
        return f"{error}; check the user {self._store.user!r}, its password and its role in etcd"


def _granted(answer: Json) -> tuple[int, int]:
    lease, ttl = integer(answer, "ID"), integer(answer, "TTL")
    if lease == 0 or ttl <= 0:
        raise Malformed("etcd granted a lease without time")
    return lease, ttl


def _time_to_live(answer: Json) -> tuple[int, int]:
    return integer(answer, "TTL"), integer(answer, "grantedTTL")


def _kept(answer: Json) -> tuple[int, int]:
    result = answer.get("result")
    if not isinstance(result, dict):
        raise Malformed("etcd says nothing about the lease")
    return integer(result, "TTL"), term_of(result)


def token_in(answer: Json) -> str:
    """The token that was given for a password. It goes into a header. Raises NoAnswer."""
    token = answer.get("token")
    if type(token) is not str or not 0 < len(token) <= TOKEN_LIMIT or not _plain(token):
        raise NoAnswer("etcd gave no token for the password", unknown=False)
    return token


def _plain(token: str) -> bool:
    """May this stand in a header?"""
    return token.isascii() and token.isprintable()


def _each(failed: dict[str, EtcdError]) -> str:
    return "; ".join(f"{member}: {error}" for member, error in failed.items())
