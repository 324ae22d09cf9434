"""The host task's decisions: tokens and connection events in, children to start or revoke out.

A host is connected, leaving (the connection is gone, but children still hold tokens), or
disconnected. A token is always in exactly one place: an inbox message, a child, or a message to the
placer. If a token arrives when nothing can be managed here, it goes home at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from halo.core.errors import InvariantError
from halo.core.groups.actions import Left
from halo.core.model import GroupId, HostId
from halo.core.tokens import ResourceToken


class Phase(Enum):
    """Which of its loops the host task is in."""

    CONNECTED = "connected"
    LEAVING = "leaving"  # disconnected, but not every child has given its token back
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class ManageOrder:
    """Manage a group here. `since` is when the decision to start began, for the proof (S1).

    `epoch` is the connection for which the decision was made. For another one it is not valid."""

    epoch: int
    since: float


# Events


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A connection stands."""

    epoch: int


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The connection is gone."""

    why: str


@dataclass(frozen=True, slots=True)
class TokenArrived:
    """The placer hands a group over."""

    token: ResourceToken
    order: ManageOrder


@dataclass(frozen=True, slots=True)
class ChildLeft:
    """A group task gave its token back."""

    token: ResourceToken
    why: Left
    detail: str
    since: float


@dataclass(frozen=True, slots=True)
class Recall:
    """A group has to be decided again: its task must give the token back."""

    group: GroupId
    why: str


Event: TypeAlias = LinkUp | LinkDown | TokenArrived | ChildLeft | Recall

# Actions


@dataclass(frozen=True, slots=True)
class StartChild:
    """Start a group task with this token."""

    token: ResourceToken
    order: ManageOrder


@dataclass(frozen=True, slots=True)
class RevokeChild:
    """Tell a group task to leave; it is never cancelled."""

    group: GroupId
    why: str


@dataclass(frozen=True, slots=True)
class SendHome:
    """Send a token to the placer."""

    token: ResourceToken
    why: Left
    detail: str
    since: float


@dataclass(frozen=True, slots=True)
class Released:
    """After a lost connection, no token is left here: the link may connect again."""


Action: TypeAlias = StartChild | RevokeChild | SendHome | Released


@dataclass
class HostMachine:
    """The state of one host task."""

    host: HostId
    phase: Phase = Phase.DISCONNECTED
    epoch: int = 0
    children: set[GroupId] = field(default_factory=set)

    def handle(self, event: Event) -> list[Action]:
        """What to do on an event."""
        match event:
            case LinkUp():
                return self._link_up(event)
            case LinkDown():
                return self._link_down(event)
            case TokenArrived():
                return self._token_arrived(event)
            case ChildLeft():
                return self._child_left(event)
            case Recall():
                if event.group in self.children:
                    return [RevokeChild(event.group, event.why)]
                return []

    def _link_up(self, event: LinkUp) -> list[Action]:
        if self.phase is not Phase.DISCONNECTED:
            raise InvariantError(f"{self.host} connected while it was {self.phase.value}")
        self.phase, self.epoch = Phase.CONNECTED, event.epoch
        return []

    def _link_down(self, event: LinkDown) -> list[Action]:
        if self.phase is not Phase.CONNECTED:
            return []
        if not self.children:
            self.phase = Phase.DISCONNECTED
            return [Released()]
        self.phase = Phase.LEAVING
        return [RevokeChild(group, event.why) for group in sorted(self.children)]

    def _token_arrived(self, event: TokenArrived) -> list[Action]:
        group = event.token.group
        if group in self.children:
            raise InvariantError(f"a second token of {group} arrived at {self.host}")
        if self.phase is not Phase.CONNECTED or event.order.epoch != self.epoch:
            detail = f"{self.host} is not connected any more"
            return [SendHome(event.token, Left.REVOKED, detail, event.order.since)]
        self.children.add(group)
        return [StartChild(event.token, event.order)]

    def _child_left(self, event: ChildLeft) -> list[Action]:
        self.children.remove(event.token.group)
        actions: list[Action] = [SendHome(event.token, event.why, event.detail, event.since)]
        if self.phase is Phase.LEAVING and not self.children:
            self.phase = Phase.DISCONNECTED
            actions.append(Released())
        return actions
