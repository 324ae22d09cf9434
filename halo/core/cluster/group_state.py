"""What one manager knows of one group at run time. Monotonic seconds throughout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from halo.core.model import Amounts, GroupId, HostId, ResourceGroup
from halo.core.reasons import IN_LINE, Kind, Reason, Waiting


@dataclass(slots=True)
class Placings:
    """Counts how often the token of any group was given to a host, or came back."""

    count: int = 0


@dataclass(frozen=True, slots=True)
class MakingRoom:
    """Groups of a lower priority are stopped on `host` for a group that lacks only room there."""

    host: HostId
    givers: tuple[GroupId, ...]  # the groups that give way
    since: float  # monotonic seconds


@dataclass
class GroupState:
    """What one manager knows of one group at run time."""

    id: GroupId
    placings: Placings = field(default_factory=Placings)  # of all groups together
    managed_on: HostId | None = None  # the host whose task holds the token
    managed_since: float = float("-inf")  # when that task got the token
    comment: str = ""  # why the group waits, or what is wrong
    failed: bool = False  # the comment describes a failure
    waiting: Waiting | None = None  # why the placer does not start it, though it should run
    in_line_since: float | None = None  # since when it waits for room or its turn
    starting: bool = False  # it was placed to be started, and its start is not over yet
    departing: bool = False  # it is being stopped where it ran, to be started on another host
    stop_begun: bool = False  # a resource was stopped because the group has to leave its host
    moving: bool = False  # it ran, was stopped for a planned move, and was not seen running since
    makes_room: MakingRoom | None = None  # other groups give way to it now
    made_room_at: float = float("-inf")  # when they began to, and it did not run since
    resisted: GroupId | None = None  # the group that could not be stopped then
    gives_way_to: GroupId | None = None  # the group that makes room where this one is, or was
    gave_way_to: GroupId | None = None  # it was stopped for that one, and not seen running since
    _placed_on: HostId | None = field(default=None, init=False)

    @property
    def placed_on(self) -> HostId | None:
        """The host that was given the token, and has not returned it."""
        return self._placed_on

    @placed_on.setter
    def placed_on(self, host: HostId | None) -> None:
        self._placed_on = host
        self.placings.count += 1

    def decided(self, text: str, waits: Reason | None, now: float, *, failed: bool) -> None:
        """Note what was decided on the group while no host manages it."""
        self.comment, self.failed = text, failed
        before = self.waiting
        if waits is None:
            self.waiting = None
        elif before is not None and waits.is_same_wait(before.reason):
            self.waiting = Waiting(waits, before.since)
        else:
            self.waiting = Waiting(waits, now)
        self._note_line(waits, now)

    def _note_line(self, waits: Reason | None, now: float) -> None:
        """A proof that became too old meanwhile, and is asked for again, costs no place in line."""
        if waits is None or waits.kind not in (*IN_LINE, Kind.PROOF):
            self.in_line_since = None
        elif waits.kind in IN_LINE and self.in_line_since is None:
            self.in_line_since = now


@dataclass(frozen=True, slots=True)
class RoomTaken:
    """What takes room on one host, added up. It holds as long as its basis is the same."""

    basis: tuple[int, bool, int, int]  # what stands for all that it was derived from
    groups: Mapping[GroupId, ResourceGroup]
    heading: frozenset[GroupId]  # those of them that only head for the host
    sums: Amounts
