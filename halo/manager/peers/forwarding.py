"""Sends a request on to the leader, and never lets a command take effect twice.

A request that was certainly not taken may go to another leader, once. If it may have been taken, a
command is never sent again: the client is told that it may have taken effect. A question may always
be sent again.

While the answer is awaited, the leadership is watched. So whoever waits for a fence of fifteen
minutes learns within the lease that the manager which carried it out is gone.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from halo.core.errors import HaloError, PeerSilent, PeerUnreachable
from halo.manager.api.running import (
    COMMAND_DEADLINE_S,
    FENCE_DEADLINE_S,
    MAY_HAVE_TAKEN_EFFECT,
    VALIDATION_DEADLINE_S,
)
from halo.ports import ManagerPeers, ManagerSeen, PeerAnswer, PeerRequest, Standing

QUESTION_DEADLINE_S = 25.0
"""Longest wait for the answer to a question. `halo` waits for 30 s."""
MARGIN_S = 10.0
"""How much longer than the leader itself a command is waited for. `halo` waits 15 s longer."""
WATCH_S = 0.25
ATTEMPTS = 2
REQUESTS_LIMIT = 64
"""Requests that may be under way to the leader. One more is answered with 503."""

QUESTIONS = ("GET", "HEAD", "OPTIONS")


class NoLeaderError(HaloError):
    """No leader took the request: nothing was done. The text is a sentence for the operator."""


class UnclearError(HaloError):
    """The request may have taken effect. The text is a sentence for the operator."""


@dataclass
class Forwarder:
    """Sends requests on. `peers` is None if this manager cannot ask others: `why_not` says why."""

    standing: Standing
    peers: ManagerPeers | None
    why_not: str = "it has no peer certificate"
    question_deadline_s: float = QUESTION_DEADLINE_S
    margin_s: float = MARGIN_S
    requests_limit: int = REQUESTS_LIMIT
    reason: Callable[[], str | None] | None = None
    """Why nobody leads, as far as this manager knows; by default the trouble of the store."""
    _under_way: int = field(default=0, init=False)

    async def send_on(self, request: PeerRequest) -> tuple[str, PeerAnswer]:
        """The id of the leader, and its answer. Raises NoLeaderError and UnclearError."""
        if self._under_way >= self.requests_limit:
            raise NoLeaderError("Too many requests are under way to the leader: try again.")
        self._under_way += 1
        try:
            return await self._attempts(request)
        finally:
            self._under_way -= 1

    async def _attempts(self, request: PeerRequest) -> tuple[str, PeerAnswer]:
        ends = asyncio.get_running_loop().time() + self._deadline_s(request)
        asked, failure = self._leader(), ""
        for _ in range(ATTEMPTS):
            try:
                return asked.id, await self._ask(asked, request, ends)
            except PeerUnreachable as error:
                failure = f"{_named(asked)}, which leads, cannot be asked: {error}."
            except PeerSilent as error:
                failure = f"{_named(asked)}, which leads, gave no answer: {error}."
                if request.method not in QUESTIONS:
                    raise UnclearError(f"{failure} {MAY_HAVE_TAKEN_EFFECT}") from None
            leader = self._leader()
            if leader.id == asked.id:
                break
            asked = leader
        raise NoLeaderError(failure + self._silence())

    def _silence(self) -> str:
        """How long a leader that does not renew its lease may still be waited for, in words."""
        lead = self.standing.last_lead()
        if lead is None or lead.ends_in_s is None:
            return ""
        return (
            f" It has not renewed its lease for too long: the lease ends in at most "
            f"{math.ceil(lead.ends_in_s)} s, then another manager leads."
        )

    def _leader(self) -> ManagerSeen:
        """The leader. Raises NoLeaderError if there is none that can be asked."""
        leader = self.standing.leader()
        if leader is None or leader.id == self.standing.own_id:  # this manager itself, earlier
            trouble, is_new = self.standing.trouble(), not self.standing.known().as_of
            is_blind = trouble is not None or is_new
            what = (
                "This manager does not know who leads" if is_blind else "No manager leads just now"
            )
            why = trouble or (self.reason() if self.reason is not None else None)
            raise NoLeaderError(f"{what}: {why}." if why else f"{what}.")
        return leader

    async def _ask(self, leader: ManagerSeen, request: PeerRequest, ends: float) -> PeerAnswer:
        if self.peers is None:
            raise PeerUnreachable(self.why_not)
        if leader.url is None:
            raise PeerUnreachable("it does not listen for other managers (--peer-listen)")
        left_s = ends - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise PeerUnreachable("there was no time left to ask it")
        sent = False

        def sending() -> None:
            nonlocal sent
            sent = True

        term = self.standing.term
        try:
            return await self._while_it_leads(
                leader, term, self.peers.ask(leader.url, request, left_s, sending)
            )
        except _DeposedError:
            words = "another manager leads meanwhile"
            raise (PeerSilent(words) if sent else PeerUnreachable(words)) from None

    async def _while_it_leads(
        self, leader: ManagerSeen, term: int, asking: Awaitable[PeerAnswer]
    ) -> PeerAnswer:
        """The answer, unless another leader is seen before. That none is seen proves nothing."""
        task = asyncio.ensure_future(asking)
        try:
            while not task.done():
                await asyncio.wait({task}, timeout=WATCH_S)
                now = self.standing.leader()
                same = now is None or (now.id == leader.id and self.standing.term in (0, term))
                if not task.done() and not same:
                    raise _DeposedError
            return task.result()
        finally:
            task.cancel()

    def _deadline_s(self, request: PeerRequest) -> float:
        if request.method in QUESTIONS:
            return self.question_deadline_s
        if request.target.startswith("/v1/validate/"):
            return VALIDATION_DEADLINE_S + self.margin_s
        if _is_fence(request):
            return FENCE_DEADLINE_S + self.margin_s
        return COMMAND_DEADLINE_S + self.margin_s


class _DeposedError(Exception):
    """The leader that was asked does not lead any more."""


def _named(manager: ManagerSeen) -> str:
    return f"Manager {manager.id} on {manager.host}"


def _is_fence(request: PeerRequest) -> bool:
    """Only a fence has a longer deadline. Whether the body is right is for the leader to say."""
    if not request.target.removeprefix("/v1").startswith("/hosts/"):
        return False
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and body.get("command") == "fence"
