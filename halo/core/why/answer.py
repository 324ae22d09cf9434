"""The form of an answer to "why?", which `GET /v1/groups/{id}/why` and `halo why` give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Clock:
    """The present moment, monotonic and since the epoch."""

    now: float
    wall_now: float

    def at(self, moment: float) -> float | None:
        """A monotonic moment in seconds since the epoch; None if it never came."""
        return None if moment == float("-inf") else self.wall_now - (self.now - moment)


@dataclass(slots=True)
class Answer:
    """What is so, the facts behind it, what HALO does next, and what the operator can do.

    `kind` is "group" or "host". `waiting` is the reason on record, as in the status."""

    kind: str
    id: str
    text: str
    waiting: dict[str, Any] | None = None
    facts: list[dict[str, Any]] = field(default_factory=list)
    halo_does: list[str] = field(default_factory=list)
    you_can: list[str] = field(default_factory=list)

    def fact(self, about: str, text: str, how: str, at: float | None) -> None:
        """One fact about a host or group: how it was learnt, and when (seconds since the epoch)."""
        self.facts.append({"about": about, "text": text, "how": how, "at": at})

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {
            "kind": self.kind,
            "id": self.id,
            "text": self.text,
            "waiting": self.waiting,
            "facts": self.facts,
            "halo_does": list(dict.fromkeys(self.halo_does)),
            "you_can": list(dict.fromkeys(self.you_can)),
        }
