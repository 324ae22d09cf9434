"""The journal as a text file, to move it from one medium to another, or to keep a copy.

The first line says how many records follow, and has a checksum over them: a file that was cut short
is refused. Each further line is one record as JSON.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

from halo.adapters.journal.encoding import encoded
from halo.core.errors import StateError
from halo.error_words import words_of
from halo.ports import JournalRecord

_NAME = "halo-journal"
_FORMAT = 1
BEGINNING = f'{{"{_NAME}"'.encode()
"""How each such file begins."""


def exported(records: Sequence[JournalRecord]) -> bytes:
    """The content of the file."""
    lines = b"".join(encoded(record).encode() + b"\n" for record in records)
    head = {_NAME: _FORMAT, "records": len(records), "checksum": zlib.crc32(lines)}
    return json.dumps(head).encode() + b"\n" + lines


def records_in_export(path: Path) -> list[JournalRecord]:
    """The records of such a file. Raises StateError if it is not whole."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {words_of(error)}") from error
    head, _, lines = content.partition(b"\n")
    try:
        said = json.loads(head)
        if said[_NAME] != _FORMAT:
            raise StateError(f"{path}: a later version of HALO wrote this file; use that version")
        if said["checksum"] != zlib.crc32(lines):
            raise StateError(f"{path}: is cut short or damaged; use another copy")
        records = [json.loads(line) for line in lines.splitlines()]
        whole = len(records) == said["records"] and all(type(found) is dict for found in records)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateError(f"{path}: is not a journal that `halo store export` wrote") from error
    if not whole:
        raise StateError(f"{path}: holds other records than its first line says")
    return records
