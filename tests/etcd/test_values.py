"""The gateway's JSON: 64-bit integers as strings, zero and false left out, nothing believed."""

from __future__ import annotations

import pytest

from halo.adapters.etcd.values import (
    Malformed,
    after,
    encoded,
    found_in,
    integer,
    outcome_of,
    parsed,
)


def test_a_64_bit_integer_is_a_string() -> None:
    assert integer({"ID": "9223372036854775807"}, "ID") == 2**63 - 1
    assert integer({"ID": "-5"}, "ID") == -5


def test_a_zero_is_left_out() -> None:
    assert integer({}, "TTL") == 0


@pytest.mark.parametrize("value", ["", "1e3", "²", "1" * 21, None, True, [], 1.5, "0x1"])
def test_what_is_no_integer_is_refused(value: object) -> None:
    with pytest.raises(Malformed, match="TTL"):
        integer({"TTL": value}, "TTL")


def test_a_range_without_keys_found_nothing() -> None:
    found = found_in({"header": {"revision": "7"}})
    assert (found.keys, found.revision, found.more, found.value) == ((), 7, False, None)


def test_a_key_without_value_is_empty() -> None:
    found = found_in({"kvs": [{"key": encoded("a"), "mod_revision": "3"}], "more": True})
    assert found.value == b""
    assert found.keys[0].mod_revision == 3
    assert found.keys[0].lease == 0
    assert found.more


def test_a_transaction_without_succeeded_failed() -> None:
    failed = {"responses": [{"response_range": {"kvs": [{"key": "YQ==", "value": "Yg=="}]}}]}
    assert not outcome_of(failed).succeeded
    assert outcome_of(failed).found[0].value == b"b"
    assert outcome_of({"succeeded": True, "responses": [{"response_put": {}}]}).succeeded


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"7", b"[" * 100_000, b"\xff", b'{"a": 1}{"b": 2}'],
)
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        parsed(text)


@pytest.mark.parametrize(
    "answer",
    [
        {"kvs": {}},
        {"kvs": [7]},
        {"kvs": [{"key": "*"}]},
        {"kvs": [{"key": "/w=="}]},
        {"kvs": [{"key": "YQ==", "value": 7}]},
        {"header": []},
        {"responses": [{"response_range": []}]},
        {"responses": ["x"]},
    ],
)
def test_a_wrong_shape_is_refused(answer: dict[str, object]) -> None:
    with pytest.raises(Malformed):
        (found_in if "kvs" in answer else outcome_of)(answer)


def test_the_end_of_a_prefix() -> None:
    assert after("/halo/log/") == "/halo/log0"
