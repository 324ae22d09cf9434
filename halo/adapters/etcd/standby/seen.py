"""A manager as its registration in etcd describes it."""

from __future__ import annotations

import json

from halo.ports import ManagerSeen

WORDS_LIMIT = 300


def as_value(manager: ManagerSeen) -> bytes:
    """As etcd keeps it."""
    return json.dumps(
        {
            "id": manager.id,
            "host": manager.host,
            "pid": manager.pid,
            "url": manager.url,
            "version": manager.version,
            "since": manager.since,
            "entries": manager.entries,
            "leads": manager.leads,
            "observes": manager.observes,
        }
    ).encode()


def manager_in(value: bytes, identity: str | None = None) -> ManagerSeen | None:
    """The manager that a value describes, with this id. None if no manager wrote it.

    Anybody may have written it, so everything is checked, and texts are cut."""
    try:
        said = json.loads(value)
        found = ManagerSeen(
            id=_words(said["id"]) if identity is None else identity,
            host=_words(said["host"]),
            pid=_number(said["pid"]),
            url=None if said.get("url") is None else _words(said["url"]),
            version=_words(said["version"]),
            since=float(said["since"]),
            entries=_number(said.get("entries", 0)),
            leads=said.get("leads") is True,
            observes=said.get("observes") is True,
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None
    return found if abs(found.since) < 1e11 else None


def _words(value: object) -> str:
    if type(value) is not str:
        raise TypeError
    return "".join(c if c.isprintable() else "?" for c in value[:WORDS_LIMIT])


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise TypeError
    return value


def is_same_process(one: ManagerSeen, other: ManagerSeen | None) -> bool:
    """Are both registrations of one process?"""
    return other is not None and (one.id, one.host, one.pid, one.since) == (
        other.id,
        other.host,
        other.pid,
        other.since,
    )
