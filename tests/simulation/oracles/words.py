"""A reason that the status gives is true, or was so until a moment ago.

A waiting group's reason is made anew within a second of a change. So a phrase is held against the
manager only if two looks in a row find it untrue, and what it names did not change in between.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.simulation.oracles.facts import Facts
from tests.simulation.oracles.phrases import untrue

if TYPE_CHECKING:
    from tests.simulation.world import World

RULE = "words"
STALE_S = 2.0
_ANSWERS = re.compile(r"not fenced: (?:.*; )?(\w+) answers(?:;|$)")
"""That a host answers is no reason not to fence it for a group: nobody would."""


class WordsOracle:
    """Reads the comments of one status after the other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.flips: dict[str, int] = {}  # how often what is known of a host or group changed
        self._untrue: dict[tuple[str, str, str], tuple[float, int]] = {}

    @property
    def is_suspicious(self) -> bool:
        """Did the last look find something untrue, so that another has to follow soon?"""
        return bool(self._untrue)

    def changed(self, *names: str) -> None:
        """Something happened to these hosts or groups."""
        for name in names:
            self.flips[name] = self.flips.get(name, 0) + 1

    def begin(self) -> None:
        """A new life of the manager."""
        self._untrue.clear()

    def check(self, facts: Facts) -> None:
        """Read every comment."""
        now, before = self.world.clock.now, self._untrue
        self._untrue = {}
        for kind in ("groups", "hosts"):
            for shown in facts.status[kind]:
                comment = shown["comment"] or ""
                if kind == "hosts":  # its groups say why it is not fenced; for others it is old
                    comment = comment.partition("fencing failed: ")[0]
                if kind == "groups" and (found := _ANSWERS.search(comment)):
                    self.world.violated(RULE, f"{found[1]} answers: no reason, in: {comment}")
                for who, phrase in untrue(comment, facts):
                    key, flips = (shown["id"], who, phrase), self.flips.get(who, 0)
                    since, flips_then = before.get(key, (now, flips))
                    if flips != flips_then:
                        since = now
                    if now - since >= STALE_S or who == "":
                        text = f"of {shown['id']}: {phrase!r} is not true, in: {shown['comment']}"
                        self.world.violated(RULE, text)
                        return
                    self._untrue[key] = (since, flips)
