"""How the journal lies in etcd: its keys, and what their values hold. No network here.

The head says what is committed. An entry is one append: a line of JSON about it, and then its
records as one JSON array. A large text lies in parts of its own, and the entry has only the line.
`docs/replication.md` has the reasons.
"""

from __future__ import annotations

import json
import secrets
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from halo.adapters.etcd.location import Store
from halo.adapters.etcd.values import after
from halo.ports import JournalRecord

FORMAT = 1
INLINE_LIMIT_BYTES = 64 * 1024
"""A larger text lies in parts, so that a page of entries stays small."""
PART_BYTES = 512 * 1024
"""A third of the largest request that etcd takes by default (1.5 MiB)."""
ENTRY_LIMIT_BYTES = 256 * 1024 * 1024


class Damaged(Exception):
    """What lies in etcd is not what a manager wrote there."""


class Newer(Exception):
    """A later version of HALO wrote this."""


@dataclass(frozen=True, slots=True)
class Head:
    """What is committed: `entries` of this generation, with so many records, the last named `id`.

    Two heads are never equal, because each has a new random id."""

    generation: int
    entries: int
    records: int
    id: str

    @staticmethod
    def first() -> Head:
        """The head of an empty journal."""
        return Head(1, 0, 0, new_id())

    def value(self) -> bytes:
        """As etcd keeps it."""
        return json.dumps(
            {
                "format": FORMAT,
                "generation": self.generation,
                "entries": self.entries,
                "records": self.records,
                "id": self.id,
            }
        ).encode()

    @staticmethod
    def of(value: bytes) -> Head:
        """Raises Damaged, Newer."""
        said = _object(value, "the key head")
        if type(said.get("format")) is int and said["format"] > FORMAT:
            raise Newer
        if said.get("format") != FORMAT or type(said.get("id")) is not str:
            raise Damaged("the key head is not one of HALO")
        names = ("generation", "entries", "records")
        generation, entries, records = (_count(said, name, "the key head") for name in names)
        head = Head(generation, entries, records, said["id"])
        if head.value() != value:  # a condition on it would never hold
            raise Damaged("the key head is not one of HALO")
        return head


def new_id() -> str:
    """An id that no other append has."""
    return secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Entry:
    """One append, as it is written: the parts first, then the entry together with the head."""

    key: str
    value: bytes
    parts: tuple[tuple[str, bytes], ...]
    head: Head


def next_entry(store: Store, head: Head, texts: Sequence[str]) -> Entry:
    """The entry that appends these records after `head`."""
    return _entry(store, head.generation, head.entries + 1, head.records + 1, texts)


def first_entry(store: Store, head: Head, texts: Sequence[str]) -> Entry:
    """The entry that begins the next generation, in the place of all that `head` counts."""
    return _entry(store, head.generation + 1, 1, 1, texts)


def _entry(store: Store, generation: int, number: int, first: int, texts: Sequence[str]) -> Entry:
    text = ("[" + ",".join(texts) + "]").encode()
    identity = new_id()
    parts = tuple(_parts(store, generation, identity, text))
    about = {
        "id": identity,
        "first": first,
        "count": len(texts),
        "size": len(text),
        "checksum": zlib.crc32(text, first & 0xFFFFFFFF),
        "parts": len(parts),
    }
    value = json.dumps(about).encode() + b"\n" + (b"" if parts else text)
    head = Head(generation, number, first + len(texts) - 1, identity)
    return Entry(f"{log_of(store, generation)}{number:012d}", value, parts, head)


def _parts(
    store: Store, generation: int, identity: str, text: bytes
) -> Iterator[tuple[str, bytes]]:
    if len(text) > INLINE_LIMIT_BYTES:
        folder = parts_of(store, generation, identity)
        for number, begin in enumerate(range(0, len(text), PART_BYTES)):
            yield f"{folder}{number:06d}", text[begin : begin + PART_BYTES]


def log_of(store: Store, generation: int) -> str:
    """The prefix of all entries of a generation."""
    return store.key(f"log/{generation:010d}/")


def parts_of(store: Store, generation: int, identity: str) -> str:
    """The prefix of all parts of an entry. No other append ever writes below it."""
    return store.key(f"parts/{generation:010d}/{identity}/")


def before_generation(store: Store, generation: int) -> list[tuple[str, str]]:
    """The ranges of all keys of earlier generations."""
    return [
        (store.key(f"{name}/"), store.key(f"{name}/{generation:010d}/"))
        for name in ("log", "parts")
    ]


def everything(store: Store) -> tuple[str, str]:
    """The range of all keys of this store."""
    return store.key(""), after(store.key(""))


@dataclass(frozen=True, slots=True)
class About:
    """What the first line of an entry says, and the text after it."""

    id: str
    first: int
    count: int
    size: int
    checksum: int
    parts: int
    text: bytes


def about(value: bytes, name: str) -> About:
    """Take an entry apart. Raises Damaged."""
    line, _, text = value.partition(b"\n")
    said = _object(line, name)
    if type(said.get("id")) is not str:
        raise Damaged(f"{name} is not one of HALO")
    names = ("first", "count", "size", "checksum", "parts")
    first, count, size, checksum, parts = (_count(said, key, name) for key in names)
    found = About(said["id"], first, count, size, checksum, parts, text)
    if found.size > ENTRY_LIMIT_BYTES or found.parts != -(-found.size // PART_BYTES) * (
        found.size > INLINE_LIMIT_BYTES
    ):
        raise Damaged(f"{name} has a wrong size")
    return found


def records_of(found: About, text: bytes, name: str) -> list[JournalRecord]:
    """The records of an entry with this text. Raises Damaged."""
    if len(text) != found.size or zlib.crc32(text, found.first & 0xFFFFFFFF) != found.checksum:
        raise Damaged(f"{name} does not match its checksum")
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{name} is not JSON") from error
    if type(records) is not list or len(records) != found.count:
        raise Damaged(f"{name} holds other records than it says")
    if not all(type(record) is dict for record in records):
        raise Damaged(f"{name} holds other records than it says")
    return list(records)


def _object(text: bytes, name: str) -> dict[str, Any]:
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{name} is not JSON") from error
    if type(said) is not dict:
        raise Damaged(f"{name} is not a JSON object")
    return said


def _count(said: dict[str, Any], key: str, name: str) -> int:
    number = said.get(key)
    if type(number) is not int or not 0 <= number < 1 << 62:
        raise Damaged(f"{name} is not one of HALO")
    return number
