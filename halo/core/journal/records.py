"""What is written down: the events that there are, and one record of each.

A record carries HALO's five fields: time, event, object, comment, and data that the fold
(:mod:`halo.core.journal.fold`) alone reads. Every later release must understand what this one
wrote, so a name or a field here is never given another meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from halo.core.errors import StateError


class Event(StrEnum):
    """The names of what can happen; the first six are those of HALO's state file."""

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
    RESTARTED = "restarted"  # a resource of it that had stopped, or gone bad, by itself
    STOP_COPY = "stop-copy"  # a second copy was stopped, by policy
    AT_REST = "at-rest"  # of a group that is to stay stopped: whether it is known to be so
    CONFIG = "config"  # which groups came into the config, and which are gone from it

    CONNECT = "connect"  # ready: greeted, and a heartbeat was answered
    DISCONNECT = "disconnect"
    RECONNECT = "reconnect"  # greeted; its word does not count yet
    SUSPECT = "suspect"  # an answer is overdue
    ANSWERS = "answers"  # it does again
    NOT_OFF = "not-off"  # fenced, and a sign of life since: it counts as off no more
    RETURN = "return"  # it was away, and is ready again: told once
    FENCE_INTENT = "fence-intent"
    FENCE_FAILED = "fence-failed"
    FENCE_CANCEL = "fence-cancel"
    POWER_ON = "power-on"
    DISTRUST = "distrust"

    FREEZE = "freeze"
    THAW = "thaw"
    CLEAR_EVENTS = "clear-events"  # those before it are history
    SNAPSHOT = "snapshot"
    DEFECT = "defect"  # the manager ended itself


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the journal. `at` is seconds since the epoch, for people alone."""

    at: float
    event: Event
    object: str
    comment: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON-ready data."""
        return {
            "at": self.at,
            "event": self.event.value,
            "object": self.object,
            "comment": self.comment,
            "data": dict(self.data),
        }

    @staticmethod
    def from_json(raw: Mapping[str, Any]) -> Record:
        """Read one record; raises StateError for one this version does not understand."""
        try:
            return Record(
                at=float(raw["at"]),
                event=Event(raw["event"]),
                object=str(raw["object"]),
                comment=str(raw["comment"]),
                data=dict(raw.get("data") or {}),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise not_understood(raw, error) from error


def not_understood(raw: Mapping[str, Any], error: Exception) -> StateError:
    """The error of a record that another version wrote, as :meth:`Record.to_json` gives it."""
    return StateError(
        f"the journal holds a record that this version does not understand: {raw!r} "
        f"({error!r}); start the version that wrote it, or restore an older copy"
    )
