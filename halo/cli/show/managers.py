"""The lines of `halo managers`: a pure function from the answer to text."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from halo.cli.show import view
from halo.cli.show.store import store_lines
from halo.cli.show.view import Item

_HEADINGS = ("ID", "HOST", "ROLE", "SINCE", "VERSION", "ENTRIES", "LAG", "ADDRESS")


def table_lines(found: Item) -> Iterator[str]:
    """The answer of `GET /v1/managers` as lines."""
    if view.text(found, "journal") == "file":
        yield "One manager runs, with its journal in a file. No other one could take over."
        return
    rows = [_HEADINGS, *(_row(item, found) for item in view.items(found, "managers"))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    leader = view.text(found, "leader")
    term = view.text(found, "term")
    yield f"Manager {leader} leads, in term {term}." if leader else "No manager leads."
    yield from store_lines(found)
    notices = found.get("notices")
    for notice in notices if isinstance(notices, list) else []:
        yield f"NOTICE: {view.clean(notice)}"


def _row(item: Item, found: Item) -> tuple[str, ...]:
    asked = " (asked)" if item.get("id") == found.get("own_id") else ""
    return (
        view.text(item, "id"),
        f"{view.text(item, 'host')}[{view.text(item, 'pid')}]",
        ("leads" if item.get("leads") is True else "stands by") + asked,
        _time_of(item.get("since")),
        view.text(item, "version"),
        view.text(item, "entries"),
        view.text(item, "lag"),
        view.text(item, "url") or "none: cannot be asked by others",
    )


def _time_of(value: Any) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(value)))
    except (TypeError, ValueError, OverflowError, OSError):
        return view.clean(value)
