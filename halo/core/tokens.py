"""The right to act on a resource group: minted once, held by exactly one owner at every moment.

A :class:`ResourceToken` is a handle. Handing it on spends it. The :class:`TokenLedger` knows who
holds each token. Owners are named buckets ("desk", "host h1 inbox", "host h1 task g1"), so the
status shows where every group's token is. Losing a live token is fatal: the ledger's audit finds
this, and the manager exits. A restart is always safe, but a forgotten group is not.

Rejected: raising from a destructor, as HALO (Rust) does. Python's destructors run late or never,
and their exceptions are lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from halo.core.errors import InvariantError
from halo.core.model import GroupId


class ResourceToken:
    """The right to act on one group. Create it only by :meth:`TokenLedger.mint`."""

    __slots__ = ("_ledger", "group", "owner", "serial", "spent")

    def __init__(self, ledger: TokenLedger, group: GroupId, owner: str, serial: int) -> None:
        self._ledger = ledger
        self.group = group
        self.owner = owner
        self.serial = serial
        self.spent = False

    def hand_to(self, owner: str) -> ResourceToken:
        """Spend this handle and return the new owner's. Raises InvariantError if it is spent."""
        return self._ledger.hand_over(self, owner)

    def require_live(self) -> None:
        """Raise InvariantError unless this is the group's one live handle."""
        self._ledger.require_live(self)

    def __repr__(self) -> str:
        state = " spent" if self.spent else ""
        return f"<ResourceToken {self.group} #{self.serial} at {self.owner}{state}>"


class TokenLedger:
    """Mints tokens, and knows who holds each of them."""

    def __init__(self) -> None:
        self._live: dict[GroupId, ResourceToken] = {}

    @property
    def holders(self) -> Mapping[GroupId, str]:
        """Who holds the token of each group."""
        return {group: token.owner for group, token in self._live.items()}

    def holder(self, group: GroupId) -> str:
        """Who holds the token of one group."""
        return self._live[group].owner

    def mint(self, group: GroupId, owner: str) -> ResourceToken:
        """Make the one token of a group. Raises InvariantError if it already exists."""
        if group in self._live:
            raise InvariantError(f"a second token for group {group} was minted")
        token = ResourceToken(self, group, owner, serial=1)
        self._live[group] = token
        return token

    def hand_over(self, token: ResourceToken, owner: str) -> ResourceToken:
        """Spend `token` and return a new handle held by `owner`."""
        self.require_live(token)
        token.spent = True
        successor = ResourceToken(self, token.group, owner, token.serial + 1)
        self._live[token.group] = successor
        return successor

    def require_live(self, token: ResourceToken) -> None:
        """Raise InvariantError unless `token` is its group's one live handle."""
        if token.spent or self._live.get(token.group) is not token:
            raise InvariantError(f"{token!r} was used after it was handed on")

    def audit(self, held: Iterable[ResourceToken]) -> None:
        """Check that `held`, the handles in all buckets, are exactly the live ones."""
        seen: dict[GroupId, ResourceToken] = {}
        for token in held:
            self.require_live(token)
            if token.group in seen:
                raise InvariantError(f"the token of group {token.group} is in two places")
            seen[token.group] = token
        for group, token in self._live.items():
            if group not in seen:
                raise InvariantError(f"the token of group {group} is lost; last at {token.owner}")
