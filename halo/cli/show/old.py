"""What a manager knows without a leader, in lines that nobody can take for a status."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from halo.cli.show import view
from halo.cli.show.render import event_line

MARK = "OLD"
"""Every line begins with it, so that a script which looks for a group finds no status of it."""


def old_lines(known: Any, wall_now: float) -> Iterator[str]:
    """The lines. `known` comes from the manager, and may lack anything."""
    if not isinstance(known, dict):
        return
    age = age_words(known.get("as_of"), wall_now)
    yield f"{MARK}: from the journal{age}. It says what was ordered,"
    yield f"{MARK}: not what runs now. Nothing below is a status."
    for name, group in _items(known, "groups"):
        wanted = "should be stopped" if group.get("wanted") is False else "should run"
        unmanaged = "" if view.is_managed(group) else ", unmanaged"
        yield f"{MARK}: group {view.clean(name)}: {wanted}{unmanaged}"
    for name, host in _items(known, "hosts"):
        marks = [
            words
            for words, is_so in (
                ("fenced", host.get("fenced") is True),
                ("deactivated", host.get("active") is False),
            )
            if is_so
        ]
        if marks:
            yield f"{MARK}: host {view.clean(name)}: {', '.join(marks)}"
    for event in view.items(known, "events"):
        yield f"{MARK}: {event_line(event)}"


def age_words(as_of: Any, wall_now: float) -> str:
    """How old something is, as the end of a sentence. `as_of` may be anything."""
    if not isinstance(as_of, int | float) or isinstance(as_of, bool):
        return ", of unknown age"
    try:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(as_of))
    except (OverflowError, ValueError, OSError):
        return ", of unknown age"
    return f" as of {at}, {max(0.0, wall_now - as_of):.0f} s ago"


def _items(known: dict[str, Any], key: str) -> list[tuple[str, view.Item]]:
    found = known.get(key)
    if not isinstance(found, dict):
        return []
    return [(name, item) for name, item in found.items() if isinstance(item, dict)]
