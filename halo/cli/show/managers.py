"""The lines of `halo managers`: a pure function from the answer to text."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

from halo.cli.show import view
from halo.cli.show.old import MARK, age_words
from halo.cli.show.store import store_lines
from halo.cli.show.view import Item

_WHO = ("ID", "HOST", "ROLE", "STARTED", "LEADS SINCE")
_HEADINGS = (*_WHO, "VERSION", "ENTRIES", "LAG", "ADDRESS")


def is_old(found: Item) -> bool:
    """Does this answer say who was there, and not who is?"""
    return found.get("old") is True


def is_silent(found: Item) -> bool:
    """Is the leader late to renew its lease?"""
    return _number(_lead(found).get("silent_since")) is not None


def table_lines(found: Item, wall_now: float) -> Iterator[str]:
    """The answer of `GET /v1/managers` as lines. If it is old, each of them says so."""
    if view.text(found, "journal") == "file":
        yield "One manager runs, with its journal in a file. No other one could take over."
        return
    mark = f"{MARK}: " if is_old(found) else ""
    if mark:
        yield f"{mark}the managers{age_words(found.get('as_of'), wall_now)}."
        yield f"{mark}Who leads now, and how far each has read, is not known."
    rows = [_HEADINGS, *(_row(item, found) for item in view.items(found, "managers"))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield mark + "  ".join(cells).rstrip()
    yield mark + _leadership(found)
    yield from store_lines(found)
    notices = found.get("notices")
    for notice in notices if isinstance(notices, list) else []:
        yield f"NOTICE: {view.clean(notice)}"


def _row(item: Item, found: Item) -> tuple[str, ...]:
    leads = item.get("leads") is True
    words = ("led", "stood by") if is_old(found) else ("leads", "stands by")
    role = words[0] if leads else words[1]
    role += ", only observes" if item.get("observes") is True else ""
    role += " (asked)" if item.get("id") == found.get("own_id") else ""
    lead = _lead(found)
    is_its_lead = leads and lead.get("id") == item.get("id") and lead.get("until") is None
    return (
        view.text(item, "id"),
        f"{view.text(item, 'host')}[{view.text(item, 'pid')}]",
        role,
        _time_of(item.get("since")),
        (_time_of(lead.get("since")) if is_its_lead else "") or "-",
        view.text(item, "version"),
        view.text(item, "entries"),
        view.text(item, "lag"),
        view.text(item, "url") or "none: cannot be asked by others",
    )


def _leadership(found: Item) -> str:
    """Who leads, and what becomes of it."""
    lead, term = _lead(found), view.text(found, "term")
    leader = view.text(found, "leader")
    name = view.text(lead, "id")
    if is_old(found):
        if not name:
            return "No manager was seen to lead."
        return f"Manager {name} was the last one that was seen to lead."
    if not leader:
        until = _number(lead.get("until"))
        return "No manager leads." + (
            f" Manager {name} led until {_hour_of(until)}." if until is not None else ""
        )
    silent_since, ends_in_s = _number(lead.get("silent_since")), _number(lead.get("ends_in_s"))
    if name == leader and silent_since is not None and ends_in_s is not None:
        return (
            f"Manager {leader} leads, in term {term}, but has not renewed its lease since "
            f"{_hour_of(silent_since)}. Its lease ends in at most {math.ceil(ends_in_s)} s, then "
            "another one leads."
        )
    return f"Manager {leader} leads, in term {term}."


def _lead(found: Item) -> Item:
    lead = found.get("lead")
    return lead if isinstance(lead, dict) else {}


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_one and abs(value) < 1e11 else None


def _hour_of(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _time_of(value: Any) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(value)))
    except (TypeError, ValueError, OverflowError, OSError):
        return view.clean(value)
