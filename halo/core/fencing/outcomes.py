"""What one attempt to fence a host comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from halo.core.fencing.answers import OffWord

NOT_SINCE = float("-inf")
"""When the devices of a host last said off, where they have to say it once more."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Nothing was confirmed. `distrust`: why the device is not believed any more. `called_off`: no
    device was asked for anything, so none has failed. `afresh`: it was an open intent."""

    why: str
    distrust: str | None = None
    called_off: bool = False
    afresh: bool = False


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The devices of `level` did it and then, asked at `asked_at`, said off at `at` (monotonic
    seconds). No level: a person said so."""

    at: float
    level: int | None = None
    asked_at: float = float("-inf")

    @property
    def is_doubted(self) -> bool:
        """Do the devices have to say it once more before anything may rest on it?"""
        return self.at == NOT_SINCE


Outcome: TypeAlias = Failed | Confirmed


def confirmation(word: OffWord, closed_since: float | None) -> Confirmed:
    """The devices say off, and no agent answers. Where something else does since they were asked
    (`closed_since`), they have to be asked once more."""
    is_news = closed_since is not None and closed_since > word.asked_at
    return Confirmed(NOT_SINCE if is_news else word.answered_at, word.level, word.asked_at)
