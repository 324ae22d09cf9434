"""The outcomes of one attempt to fence a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from halo.core.fencing.answers import OffWord

NOT_SINCE = float("-inf")
"""The time of a proof that does not count yet: the devices must say off once more."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The fence was not confirmed. `distrust`: why HALO does not trust the device any more.
    `called_off`: no device was used, so none has failed. `afresh`: it was an open intent."""

    why: str
    distrust: str | None = None
    called_off: bool = False
    afresh: bool = False


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The devices of `level` switched off. They were then asked at `asked_at`, and said off at `at`
    (monotonic seconds). Without a level, a person confirmed it."""

    at: float
    level: int | None = None
    asked_at: float = float("-inf")

    @property
    def is_doubted(self) -> bool:
        """Do the devices have to say off once more before this is proof?"""
        return self.at == NOT_SINCE


Outcome: TypeAlias = Failed | Confirmed


def confirmation(word: OffWord, closed_since: float | None) -> Confirmed:
    """The devices say off, and no agent answers. If something else has answered at the address
    since the devices were asked (`closed_since`), they have to be asked once more."""
    is_news = closed_since is not None and closed_since > word.asked_at
    return Confirmed(NOT_SINCE if is_news else word.answered_at, word.level, word.asked_at)
