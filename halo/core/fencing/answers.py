"""What the two witnesses of a fence say: the devices of a host, and its agent (S3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class ProbeAnswer(Enum):
    """What a fresh connection attempt says of an agent."""

    ANSWERS = "it answers"
    NONE = "no answer"
    CLOSED_PORT = "something answers at its address, but its agent does not"
    NOT_ASKED = "it could not be asked, because of a fault on the manager's side"


@dataclass(frozen=True, slots=True)
class OffWord:
    """What the fence devices of a host said: the `level` that says off, or else the `problem`.

    `asked_at` and `answered_at` are the times of the oldest question and the oldest answer, in
    monotonic seconds. `says_on`: a device of the level that counts said on, or if no level counts,
    a device of each level did."""

    level: int | None = None
    problem: str = ""
    says_on: bool = False
    asked_at: float = float("-inf")
    answered_at: float = float("-inf")
