"""How a record is written on every medium."""

from __future__ import annotations

import json

from halo.ports import JournalRecord


def encoded(record: JournalRecord) -> str:
    """The record as text. Raises TypeError or ValueError if JSON cannot express it."""
    return json.dumps(record, separators=(",", ":"), allow_nan=False)
