"""Whatever lies in etcd, or answers in its place: an error of ours, and never another one."""

from __future__ import annotations

import contextlib
import json
import zlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from halo.adapters.etcd import entries
from halo.adapters.etcd.errors import EtcdError
from halo.adapters.etcd.gateway import Gateway
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.holder import holder_of
from halo.adapters.etcd.standby.member import said_in
from halo.adapters.etcd.values import Found, Malformed, encoded, found_in, integer, outcome_of

_NAMES = st.sampled_from(
    [
        *("header", "kvs", "key", "value", "revision", "mod_revision", "lease", "responses"),
        *("result", "response_range", "succeeded", "more", "error", "code", "message", "ID"),
        *("cluster_id", "TTL", "format", "generation", "entries", "records", "id", "first"),
        *("count", "size", "checksum", "parts", "host", "pid", "since"),
        *("member_id", "leader", "errors", "version", "isLearner"),
    ]
)
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.integers(-3, 3).map(str)
    | st.text(max_size=5).map(lambda text: encoded(text.encode("utf-8", "replace")))
)
JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=5),
    max_leaves=20,
)
OBJECTS = st.dictionaries(_NAMES, JSON, max_size=6)


@given(OBJECTS)
def test_an_answer_is_a_value_or_malformed(answer: dict[str, Any]) -> None:
    for read in (found_in, outcome_of, said_in, lambda found: integer(found, "TTL")):
        with contextlib.suppress(Malformed):
            read(answer)


@given(st.sampled_from([200, 400, 404, 503]), OBJECTS.map(json.dumps).map(str.encode) | st.binary())
def test_a_body_is_an_answer_or_an_error_of_ours(status: int, body: bytes) -> None:
    gateway = Gateway.__new__(Gateway)  # no connection is needed
    gateway._cluster_id = None
    with contextlib.suppress(EtcdError):
        gateway._checked(status, body)


@given(OBJECTS.map(json.dumps).map(str.encode) | st.binary())
def test_a_key_is_one_of_ours_or_damaged(value: bytes) -> None:
    holder_of(value, Found((), 1, False, 2))
    with contextlib.suppress(entries.Damaged, entries.Newer):
        entries.Head.of(value)
    with contextlib.suppress(entries.Damaged):
        found = entries.about(value + b"\n[]", "it")
        entries.records_of(found, found.text, "it")


@given(JSON)
def test_a_text_with_the_right_checksum_may_still_be_anything(content: object) -> None:
    text = json.dumps(content).encode()
    found = entries.About("id", 1, 1, len(text), zlib.crc32(text, 1), 0, text)
    with contextlib.suppress(entries.Damaged):
        records = entries.records_of(found, text, "it")
        assert all(type(record) is dict for record in records)


@given(st.lists(OBJECTS, max_size=4), st.integers(0, 200_000))
def test_what_was_written_is_read(records: list[dict[str, Any]], padding: int) -> None:
    records = [*json.loads(json.dumps(records).replace("NaN", "0")), {"padding": "x" * padding}]
    texts = [json.dumps(record) for record in records]
    entry = entries.next_entry(Store(("h:1",), "/x"), entries.Head(3, 6, 9, "id"), texts)
    assert entries.Head.of(entry.head.value()) == entry.head
    assert (entry.head.entries, entry.head.records) == (7, 9 + len(records))
    found = entries.about(entry.value, "it")
    text = found.text or b"".join(part for _, part in entry.parts)
    assert json.dumps(entries.records_of(found, text, "it")) == json.dumps(records)
