"""Requests and answers of etcd's JSON gateway as values.

The gateway writes 64-bit integers as strings, and leaves out what is zero, false or empty: an
answer without `succeeded` failed, one without `kvs` found nothing, a lease without `TTL` has
expired. Keys and values are base64. An answer is checked here before anything else sees it.

Source: rpc.proto of etcd 3.4 to 3.6, and the JSON mapping of Protocol Buffers.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Json: TypeAlias = dict[str, Any]

INT64_DIGITS = 20


class Malformed(ValueError):
    """What came is not an answer of etcd."""


@dataclass(frozen=True, slots=True)
class KeyValue:
    """One key of an answer."""

    key: str
    value: bytes
    create_revision: int
    mod_revision: int
    lease: int


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a range request. `more`: there are more keys than were asked for."""

    keys: tuple[KeyValue, ...]
    revision: int
    more: bool
    term: int

    @property
    def value(self) -> bytes | None:
        """The value of the first key, or None if there is none."""
        return self.keys[0].value if self.keys else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to a transaction. `found` has one item for each range of the branch that ran."""

    succeeded: bool
    revision: int
    found: tuple[Found, ...]


def encoded(data: str | bytes) -> str:
    """A key or value for a request."""
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode("ascii")


def after(prefix: str) -> str:
    """The first key after all keys with this prefix. The last character must be ASCII."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def value_is(key: str, value: bytes) -> Json:
    """The condition that a key has this value."""
    return {"key": encoded(key), "target": "VALUE", "result": "EQUAL", "value": encoded(value)}


def is_absent(key: str) -> Json:
    """The condition that there is no such key."""
    return {"key": encoded(key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}


def put(key: str, value: bytes, lease: int = 0) -> Json:
    """The operation that writes a key."""
    request = {"key": encoded(key), "value": encoded(value)}
    return {"request_put": {**request, "lease": str(lease)} if lease else request}


def get(key: str) -> Json:
    """The operation that reads a key."""
    return {"request_range": {"key": encoded(key)}}


def get_all(begin: str, end: str, limit: int) -> Json:
    """The operation that reads all keys from `begin` to before `end`, but at most `limit`."""
    request = {"key": encoded(begin), "range_end": encoded(end), "limit": str(limit)}
    return {"request_range": request}


def delete_range(begin: str, end: str) -> Json:
    """The operation that removes all keys from `begin` to before `end`."""
    return {"request_delete_range": {"key": encoded(begin), "range_end": encoded(end)}}


def transaction(
    conditions: Sequence[Json], then: Sequence[Json], otherwise: Sequence[Json] = ()
) -> Json:
    """A transaction, as the gateway takes it."""
    return {"compare": list(conditions), "success": list(then), "failure": list(otherwise)}


def parsed(text: bytes) -> Json:
    """A JSON object. Raises Malformed."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Malformed("the answer is not JSON") from error
    return _object(found)


def integer(answer: Mapping[str, Any], name: str) -> int:
    """A 64-bit integer; 0 if it was left out. Raises Malformed."""
    value = answer.get(name, 0)
    if type(value) is str and len(value) <= INT64_DIGITS:
        digits = value.removeprefix("-")
        if digits.isascii() and digits.isdigit():
            return int(value)
    if type(value) is int:
        return value
    raise Malformed(f"{name} is no number")


def revision_of(answer: Json) -> int:
    """The revision in the header of an answer. Raises Malformed."""
    return integer(_object(answer.get("header", {})), "revision")


def term_of(answer: Json) -> int:
    """The term of etcd's own leader, as the member knew it. Raises Malformed."""
    return integer(_object(answer.get("header", {})), "raft_term")


def found_in(answer: Json) -> Found:
    """The answer to a range request. Raises Malformed."""
    keys = tuple(_key_value(_object(raw)) for raw in _list(answer, "kvs"))
    more = answer.get("more", False) is True
    return Found(keys, revision_of(answer), more, term_of(answer))


def outcome_of(answer: Json) -> Outcome:
    """The answer to a transaction. Raises Malformed."""
    parts = [_object(part) for part in _list(answer, "responses")]
    ranges = [_object(part["response_range"]) for part in parts if "response_range" in part]
    succeeded = answer.get("succeeded", False) is True
    return Outcome(succeeded, revision_of(answer), tuple(map(found_in, ranges)))


def _key_value(raw: Json) -> KeyValue:
    try:
        key = _decoded(raw, "key").decode()
    except UnicodeDecodeError as error:
        raise Malformed("a key is not text") from error
    return KeyValue(
        key,
        _decoded(raw, "value"),
        integer(raw, "create_revision"),
        integer(raw, "mod_revision"),
        integer(raw, "lease"),
    )


def _decoded(raw: Json, name: str) -> bytes:
    value = raw.get(name, "")
    if type(value) is not str:
        raise Malformed(f"{name} is not base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"{name} is not base64") from error


def _object(value: object) -> Json:
    if type(value) is not dict:
        raise Malformed("a part of the answer is not an object")
    return value


def _list(answer: Json, name: str) -> list[Any]:
    value = answer.get(name, [])
    if type(value) is not list:
        raise Malformed(f"{name} is not a list")
    return value
