"""What one member of etcd says of itself: is it up, and does it take part in the cluster?

Every member answers the question for its status from its own memory. One that is cut off from the
others answers, too, and knows no leader.

Who may ask for the status depends on the version of etcd: anybody (up to 3.5.27), root alone
(3.5.28, 3.6.0 and some after them), or every user. HALO's user may read its own keys alone. So
where the status is refused, one of these keys is read twice: first from this member alone, then
through the leader. Then nothing is known of the version, the leader and the alarms.

Source: `maintenanceServer.Status` in etcd's `server/etcdserver/api/v3rpc/maintenance.go`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from halo.adapters.etcd.client import token_in
from halo.adapters.etcd.errors import NoAnswer, NotAllowed
from halo.adapters.etcd.gateway import Gateway, NoAuthentication, StaleToken
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.values import Json, Malformed, encoded, integer

ANSWER_LIMIT_BYTES = 256 * 1024
READ_DEADLINE_S = 1.0
"""For the read through the leader. It needs no disk."""
ERRORS_LIMIT = 8
WORDS_LIMIT = 200

STATUS = "maintenance/status"
RANGE = "kv/range"


@dataclass(frozen=True, slots=True)
class Said:
    """The answer of a member. `has_leader`: it knows which member leads, and so it takes part."""

    id: int
    cluster: int
    has_leader: bool
    leads: bool = False
    is_learner: bool = False
    version: str | None = None
    errors: tuple[str, ...] = ()


def said_in(answer: Json) -> Said:
    """What an answer to the question for the status says. Raises Malformed."""
    member, cluster = _ids(answer)
    leader = integer(answer, "leader")
    errors = answer.get("errors", [])
    if type(errors) is not list:
        raise Malformed("errors is not a list")
    return Said(
        id=member,
        cluster=cluster,
        has_leader=leader != 0,
        leads=leader != 0 and leader == member,
        is_learner=answer.get("isLearner") is True,
        version=_words(answer.get("version")) or None,
        errors=tuple(filter(None, map(_words, errors[:ERRORS_LIMIT]))),
    )


def _ids(answer: Json) -> tuple[int, int]:
    header = answer.get("header")
    if type(header) is not dict:
        raise Malformed("the answer has no header")
    return integer(header, "member_id"), integer(header, "cluster_id")


def _words(value: Any) -> str:
    text = value.strip()[:WORDS_LIMIT] if type(value) is str else ""
    return "".join(c if c.isprintable() else "?" for c in text)


class OneMember:
    """The way to one member. Make and use it on one event loop, and close it."""

    def __init__(self, store: Store, member: str, gateway: Gateway | None = None) -> None:
        """`gateway`: the way to the member, if it is not the network (for tests)."""
        self._store = store
        self._member = member
        # Its own: one for all would believe whichever cluster answers first.
        self._gateway = gateway or Gateway(store, ANSWER_LIMIT_BYTES)
        self._token: str | None = None
        self._tells_status = True

    async def close(self) -> None:
        """Close the connection. Safe to repeat."""
        await self._gateway.close()

    async def ask(self, deadline_s: float) -> Said:
        """What the member says, within `deadline_s`. Raises EtcdError."""
        try:
            async with asyncio.timeout(deadline_s):
                return await self._ask(deadline_s)
        except TimeoutError as error:
            self._tells_status = True  # it may come back with another version
            raise NoAnswer(f"no answer within {deadline_s:.1f} s", unknown=False) from error
        except NoAnswer:
            self._tells_status = True
            raise
        except Malformed as error:
            self._tells_status = True
            raise NoAnswer(str(error), unknown=False) from error

    async def _ask(self, deadline_s: float) -> Said:
        if self._tells_status:
            try:
                return said_in(await self._exchange(STATUS, {}, deadline_s))
            except (NotAllowed, StaleToken):
                self._tells_status = False
        return await self._read(deadline_s)

    async def _read(self, deadline_s: float) -> Said:
        body: Json = {"key": encoded(self._store.key("leader")), "limit": "1", "keys_only": True}
        found = await self._exchange(RANGE, {**body, "serializable": True}, deadline_s)
        member, cluster = _ids(found)
        try:
            await self._exchange(RANGE, body, READ_DEADLINE_S)
        except NoAnswer:
            return Said(member, cluster, has_leader=False)
        return Said(member, cluster, has_leader=True)

    async def _exchange(self, path: str, body: Json, deadline_s: float) -> Json:
        """The answer, with the password only if the member wants it."""
        for is_last in (False, True):
            try:
                return await self._gateway.ask(self._member, path, body, self._token, deadline_s)
            except (NotAllowed, StaleToken) as error:
                is_refused = isinstance(error, NotAllowed) and self._token is not None
                if is_last or is_refused or self._store.user is None:
                    raise
            self._token = await self._authenticate(deadline_s)
        raise AssertionError("the last try ends this")

    async def _authenticate(self, deadline_s: float) -> str | None:
        body = {"name": self._store.user, "password": self._store.password}
        path, self._token = "auth/authenticate", None
        try:
            return token_in(await self._gateway.ask(self._member, path, body, None, deadline_s))
        except NoAuthentication:
            return None
