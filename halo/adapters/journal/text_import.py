"""Reads the text state file of an existing HALO site.

Each line is one record, separated by tabs: local time `%Y-%m-%dT%H:%M:%S.%f`, event, object,
comment. The file is only read here. :mod:`halo.adapters.journal.files` replaces it by a database.
"""

from __future__ import annotations

import time
from pathlib import Path

from halo.core.errors import StateError
from halo.error_words import words_of
from halo.ports import JournalRecord

_EVENTS = {
    **{name: name for name in ("manage", "unmanage", "activate", "deactivate", "fence", "reset")},
    "clear": "clear-events",
}
"""HALO's events, with our names for them."""

_SECONDS_FORMAT = "%Y-%m-%dT%H:%M:%S"
_MAX_FRACTION_DIGITS = 9


def import_halo_state(path: Path) -> list[JournalRecord]:
    """The records of a HALO text state file, in order of time.

    Each record has exactly the keys `at` (seconds since the epoch), `event`, `object`, `comment`,
    and an empty `data`. HALO writes local time without a zone, so the zone of this machine is used.

    Raises StateError with file and line for anything that is not such a record. A guess at a lost
    `unmanage` or `fence` could start a group twice.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {words_of(error)}") from error
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    records = [_record(path, number, line) for number, line in enumerate(lines, start=1)]
    # HALO itself sorts by time when it reads, so a line out of order means the same to both.
    records.sort(key=lambda record: float(record["at"]))
    return records


def _record(path: Path, number: int, line: bytes) -> JournalRecord:
    try:
        # A comment may hold tabs itself; the first three fields cannot.
        fields = line.removesuffix(b"\r").decode("utf-8").split("\t", 3)
        if len(fields) < 3:
            raise ValueError("expected tab-separated timestamp, event, object and comment")
        timestamp, event, name = fields[:3]
        if event not in _EVENTS:
            raise ValueError(f"unknown event {event!r}, expected one of {sorted(_EVENTS)}")
        if not name:
            raise ValueError("the object is missing")
        at = _seconds(timestamp)
    except ValueError as error:
        raise StateError(
            f"{path}:{number}: not a record of a HALO state file: {error}; "
            "correct or remove this line, or move the file aside to start without it"
        ) from error
    comment = fields[3] if len(fields) > 3 else ""
    return {"at": at, "event": _EVENTS[event], "object": name, "comment": comment, "data": {}}


def _seconds(timestamp: str) -> float:
    whole, dot, fraction = timestamp.partition(".")
    if dot and not (
        fraction.isascii() and fraction.isdigit() and len(fraction) <= _MAX_FRACTION_DIGITS
    ):
        raise ValueError(f"the fraction of a second in {timestamp!r} is not 1 to 9 digits")
    try:
        local = time.strptime(whole, _SECONDS_FORMAT)
        return time.mktime(local) + (float(f"0.{fraction}") if dot else 0.0)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{timestamp!r} is not a time like 2026-04-28T12:54:34.337109") from error
