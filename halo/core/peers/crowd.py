"""Which connection is closed if there are too many.

A flood of connections must not lock a manager out. So the peer that has the most connections loses
its oldest one. A newcomer always gets in, and only connections of its own peer can push it out.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

Member = TypeVar("Member", bound=Hashable)


class Crowd(Generic[Member]):
    """At most `limit` members in all, and at most `peer_limit` of one peer."""

    def __init__(self, limit: int, peer_limit: int) -> None:
        self._limit = limit
        self._peer_limit = peer_limit
        self._peers: dict[str, dict[Member, None]] = {}  # the members of each, oldest first
        self._peer_of: dict[Member, str] = {}

    def __len__(self) -> int:
        return len(self._peer_of)

    def __contains__(self, member: Member) -> bool:
        return member in self._peer_of

    def enter(self, member: Member, peer: str) -> Member | None:
        """Take a member in. Returns the member that it replaces, which the caller must close."""
        self._peers.setdefault(peer, {})[member] = None
        self._peer_of[member] = peer
        if len(self._peers[peer]) > self._peer_limit:
            fullest = peer
        elif len(self._peer_of) > self._limit:
            fullest = max(self._peers, key=lambda each: len(self._peers[each]))
        else:
            return None
        out = next(iter(self._peers[fullest]))
        self.leave(out)
        return out

    def leave(self, member: Member) -> None:
        """Remove a member. Safe to repeat."""
        peer = self._peer_of.pop(member, None)
        if peer is not None:
            del self._peers[peer][member]
            if not self._peers[peer]:
                del self._peers[peer]
