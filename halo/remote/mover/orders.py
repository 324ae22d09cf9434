"""Orders: what the mover reads on its standard input, checked before anything is done."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from halo.remote.mover.outcomes import Failure, State, shown

ORDER_LIMIT = 1 << 20
"""Bytes of an order."""

COPIES_LIMIT = 100
ROOTS_LIMIT = 100
PATH_LIMIT = 4000
"""Bytes of a path; the kernel takes 4095."""

THREADS_DEFAULT = 4
THREADS_LIMIT = 16

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_KEYS = {
    *("action", "id", "copies", "source_roots", "destination_roots"),
    *("bandwidth_bytes_s", "deadline_s", "threads"),
}


class Action(StrEnum):
    """What to do."""

    COPY = "copy"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Copy:
    """One file or folder, and where it goes. Both are absolute."""

    source: bytes
    destination: bytes


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `bandwidth_bytes_s` and `deadline_s` are None if there is no limit."""

    action: Action
    id: str
    copies: tuple[Copy, ...]
    source_roots: tuple[bytes, ...]
    destination_roots: tuple[bytes, ...]
    bandwidth_bytes_s: int | None
    deadline_s: float | None
    threads: int


def parse(text: bytes) -> Order:
    """Read an order. Raises Failure with the first thing that is wrong with it."""
    if len(text) > ORDER_LIMIT:
        raise _bad(f"it is longer than {ORDER_LIMIT} bytes")
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise _bad("it is no JSON") from None
    if not isinstance(given, dict):
        raise _bad("it is no object")
    if unknown := given.keys() - _KEYS:
        raise _bad(f"it has unknown keys: {shown(', '.join(sorted(unknown)).encode())}")
    return Order(
        _action(given),
        _id(given),
        _copies(given),
        _paths(given, "source_roots"),
        _paths(given, "destination_roots"),
        _whole_number(given, "bandwidth_bytes_s", 1, 1 << 50),
        _seconds(given),
        _whole_number(given, "threads", 1, THREADS_LIMIT) or THREADS_DEFAULT,
    )


def _bad(reason: str) -> Failure:
    return Failure(State.BAD_ORDER, f"the order is not valid: {reason}")


def _action(given: Mapping[str, Any]) -> Action:
    try:
        return Action(given.get("action", Action.COPY))
    except ValueError:
        raise _bad(f"action must be one of {', '.join(Action)}") from None


def _id(given: Mapping[str, Any]) -> str:
    found = given.get("id")
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise _bad("id must be 1 to 100 letters, digits, '_', '-' or '.', no '-' or '.' first")
    return found


def _copies(given: Mapping[str, Any]) -> tuple[Copy, ...]:
    found = given.get("copies")
    if not isinstance(found, list) or not 1 <= len(found) <= COPIES_LIMIT:
        raise _bad(f"copies must be a list of 1 to {COPIES_LIMIT}")
    copies = []
    for item in found:
        if not isinstance(item, dict) or item.keys() != {"source", "destination"}:
            raise _bad("each copy must have source and destination, and nothing else")
        one = Copy(_path(item["source"], "source"), _path(item["destination"], "destination"))
        if is_within(one.destination, one.source):
            raise _bad(f"the destination lies within its source: {shown(one.destination)}")
        copies.append(one)
    if len({one.destination for one in copies}) < len(copies):
        raise _bad("two copies have the same destination")
    return tuple(copies)


def _paths(given: Mapping[str, Any], key: str) -> tuple[bytes, ...]:
    found = given.get(key)
    if not isinstance(found, list) or not 1 <= len(found) <= ROOTS_LIMIT:
        raise _bad(f"{key} must be a list of 1 to {ROOTS_LIMIT} folders")
    return tuple(_path(item, key) for item in found)


def _path(found: object, what: str) -> bytes:
    """An absolute path without `.`, `..` and empty components, but for slashes at its end."""
    if not isinstance(found, str) or not found.startswith("/") or "\0" in found:
        raise _bad(f"{what} must be an absolute path")
    try:
        path = os.fsencode(found)
    except UnicodeEncodeError:
        raise _bad(f"{what} holds characters that no file name can hold") from None
    path = path.rstrip(b"/") or b"/"
    if len(path) > PATH_LIMIT:
        raise _bad(f"{what} is longer than {PATH_LIMIT} bytes")
    if path != b"/" and any(part in (b"", b".", b"..") for part in path[1:].split(b"/")):
        raise _bad(f"{what} must have no '.', '..' or empty component: {shown(path)}")
    return path


def _whole_number(given: Mapping[str, Any], key: str, least: int, most: int) -> int | None:
    found = given.get(key)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
        raise _bad(f"{key} must be a whole number from {least} to {most}")
    return found


def _seconds(given: Mapping[str, Any]) -> float | None:
    found = given.get("deadline_s")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 1e9:
        raise _bad("deadline_s must be a number of seconds above 0")
    return float(found)


def is_within(path: bytes, folder: bytes) -> bool:
    """Is `path` the folder, or below it? Looks at the words alone."""
    return path == folder or folder == b"/" or path.startswith(folder + b"/")
