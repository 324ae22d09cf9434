"""The store in the lines of `halo managers`: what a manager waits for there, and its members."""

from __future__ import annotations

import time
from collections.abc import Iterator

from halo.cli.show import view
from halo.cli.show.view import Item

_HEADINGS = ("ETCD MEMBER", "STATE", "SINCE", "VERSION")


def store_lines(found: Item) -> Iterator[str]:
    """What the manager that was asked waits for, if nobody leads, and a table of the members of
    etcd. Older managers tell neither."""
    if not found.get("leader") and (waits := view.text(found, "waiting")):
        yield f"Manager {view.text(found, 'own_id')} does nothing yet: {waits}"
    store = found.get("store")
    members = view.items(store, "members") if isinstance(store, dict) else []
    if not members:
        return
    rows = [_HEADINGS, *map(_row, members)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _row(member: Item) -> tuple[str, ...]:
    return (
        view.text(member, "endpoint"),
        _state(member),
        _since(member.get("since")),
        view.text(member, "version"),
    )


def _state(member: Item) -> str:
    answers, reason = member.get("answers"), view.text(member, "reason")
    if answers is None:
        return "not known yet"
    if answers is not True:
        return "does not answer"  # the notices say why
    if reason:
        return "answers, but does not count"
    return "leads" if member.get("leads") is True else "works"


def _since(value: object) -> str:
    if not isinstance(value, int | float) or not value:
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    except (ValueError, OverflowError, OSError):
        return view.clean(value)
