"""The records of the journal, and the events that they are about.

A record has HALO's five fields: time, event, object, comment, and data. Only the fold
(:mod:`halo.core.journal.fold`) reads the data. It also has the term of the leadership under which
it was written. Every later release must understand the records of
this one. So never give a name or a field another meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from halo.core.errors import StateError
from halo.core.peers.bounds import TERM_LIMIT

SHOWN_CHARACTERS = 300
"""How much of a record is shown that is not understood."""


class Event(StrEnum):
    """The names of all events. The first six are those of HALO's state file."""

    MANAGE = "manage"
    UNMANAGE = "unmanage"
    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    FENCE = "fence"  # confirmed
    RESET = "reset"

    START = "start"
    STOP = "stop"
    MOVE = "move"
    MOVED = "moved"
    MOVE_FAILED = "move-failed"
    ERROR = "error"
    CLEANUP = "cleanup"
    START_FAILED = "start-failed"
    RESTARTED = "restarted"  # a resource of the group that had stopped or failed by itself
    STOP_COPY = "stop-copy"  # a second copy was stopped, by policy
    AT_REST = "at-rest"  # whether a group that should stay stopped is known to be stopped
    CONFIG = "config"  # which groups were added to the config, and which were removed
    SEEN_STOPPED = "seen-stopped"  # groups, and hosts where each is known to be stopped
    MAY_RUN = "may-run"  # groups, and hosts where each is about to be started, or was seen
    CONFIRM_STOPPED = "confirm-stopped"  # the administrator says that it is stopped on a host

    CONNECT = "connect"  # ready: greeted, and a heartbeat was answered
    DISCONNECT = "disconnect"
    RECONNECT = "reconnect"  # greeted; what it says does not count yet
    SUSPECT = "suspect"  # an answer is overdue
    ANSWERS = "answers"  # it answers again
    NOT_OFF = "not-off"  # fenced, but a sign of life came since: it does not count as off any more
    RETURN = "return"  # it was away, and is ready again; written once
    FENCE_INTENT = "fence-intent"
    FENCE_FAILED = "fence-failed"
    FENCE_CANCEL = "fence-cancel"
    POWER_ON = "power-on"
    DISTRUST = "distrust"

    FREEZE = "freeze"
    THAW = "thaw"
    CLEAR_EVENTS = "clear-events"  # earlier events are history
    SNAPSHOT = "snapshot"
    DEFECT = "defect"  # the manager ended itself; by command, if the data say `step_down`


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the journal. `at` is seconds since the epoch, and only for people. `term` is 0 if
    the manager that wrote it was the only one."""

    at: float
    event: Event
    object: str
    comment: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    term: int = 0

    def to_json(self) -> dict[str, Any]:
        """The record as JSON-ready data. A term of 0 is left out."""
        raw: dict[str, Any] = {
            "at": self.at,
            "event": self.event.value,
            "object": self.object,
            "comment": self.comment,
            "data": dict(self.data),
        }
        if self.term:
            raw["term"] = self.term
        return raw

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Record:
        """Read one record. Raises StateError if this version does not understand it."""
        try:
            return Record(
                at=float(raw["at"]),
                event=Event(raw["event"]),
                object=str(raw["object"]),
                comment=str(raw["comment"]),
                data=dict(raw.get("data") or {}),
                term=term_in(raw),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise not_understood(raw, error) from error


def is_step_down(record: Record) -> bool:
    """Did a manager give its leadership back by command?

    A name of its own would be better. But a manager of an older version that reads a name which it
    does not know ends before it leads, and in an upgrade it may be the one that shall lead next."""
    return record.event is Event.DEFECT and "step_down" in record.data


def term_in(raw: Mapping[str, Any]) -> int:
    """The term that these data hold; 0 if there is none. Raises ValueError."""
    term = raw.get("term", 0)
    if type(term) is not int or not 0 <= term <= TERM_LIMIT:
        raise ValueError("the term is no term")
    return term


def not_understood(raw: Mapping[str, Any], error: Exception) -> StateError:
    """The error for a record of another version. `raw` is what :meth:`Record.to_json` gives."""
    return StateError(
        f"the journal holds a record that this version does not understand: {_short(raw)} "
        f"({_short(error)}); install the version of HALO that wrote it on this machine. If you "
        "restore an older copy of the journal instead, HALO forgets all orders since then"
    )


def _short(what: object) -> str:
    """A snapshot of ten thousand groups would bury the advice behind it."""
    text = repr(what)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
