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
    """What the fence devices of a host said: off, by `level`, or the `problem`.

    `asked_at`, `answered_at`: the oldest question and the oldest answer behind it, in monotonic
    seconds. `says_on`: a device of the level that counts said on, or one of each level did."""

    level: int | None = None
    problem: str = ""
    says_on: bool = False
    asked_at: float = float("-inf")
    answered_at: float = float("-inf")
