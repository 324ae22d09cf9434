"""An order is checked as a whole before anything is done."""

from __future__ import annotations

import json
from typing import Any

import pytest

from halo.remote.mover.orders import ORDER_LIMIT, Action, Copy, parse
from halo.remote.mover.outcomes import Failure, State
from tests.mover.ground import Ground, start

VALID: dict[str, Any] = {
    "id": "stage-1.a_B",
    "copies": [{"source": "/lustre/in/", "destination": "/bb/1/in"}],
    "source_roots": ["/lustre"],
    "destination_roots": ["/bb"],
}


def parsed(**changes: object) -> Any:
    return parse(json.dumps({**VALID, **changes}).encode())


def test_an_order_is_read() -> None:
    order = parsed(bandwidth_bytes_s=1000, deadline_s=2.5, threads=2)
    assert order.action is Action.COPY
    assert order.copies == (Copy(b"/lustre/in", b"/bb/1/in"),)
    assert (order.bandwidth_bytes_s, order.deadline_s, order.threads) == (1000, 2.5, 2)
    assert parsed(action="remove").action is Action.REMOVE


def test_names_that_are_no_text_are_read() -> None:
    copies = [{"source": "/lustre/\udcff\n", "destination": "/bb/x"}]
    assert parsed(copies=copies).copies[0].source == b"/lustre/\xff\n"


def copy(source: object, destination: object) -> list[dict[str, object]]:
    return [{"source": source, "destination": destination}]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"action": "move"}, "action must be one of copy, remove"),
        ({"id": "../x"}, "id must be"),
        ({"id": ".x"}, "id must be"),
        ({"id": "a\n"}, "id must be"),
        ({"id": "x" * 101}, "id must be"),
        ({"id": 7}, "id must be"),
        ({"copies": []}, "copies must be a list"),
        ({"copies": copy("/a", "/b") * 101}, "copies must be a list"),
        ({"copies": [{"source": "/a"}]}, "source and destination"),
        ({"copies": copy("a", "/b")}, "source must be an absolute path"),
        ({"copies": copy("/a\0", "/b")}, "source must be an absolute path"),
        ({"copies": copy("/a/../c", "/b")}, "no '.', '..' or empty"),
        ({"copies": copy("/a", "/b/..")}, "no '.', '..' or empty"),
        ({"copies": copy("/a", "/b/./c")}, "no '.', '..' or empty"),
        ({"copies": copy("/a", "/b//c")}, "no '.', '..' or empty"),
        ({"copies": copy("/a", "/" + "b" * 4000)}, "longer than 4000 bytes"),
        ({"copies": copy("/a", "/\ud800")}, "characters that no file name can hold"),
        ({"copies": copy("/a", "/a/b")}, "the destination lies within its source"),
        ({"copies": copy("/a", "/a")}, "the destination lies within its source"),
        ({"copies": [*copy("/a", "/b"), *copy("/c", "/b")]}, "the same destination"),
        ({"source_roots": []}, "source_roots must be a list"),
        ({"destination_roots": None}, "destination_roots must be a list"),
        ({"destination_roots": ["bb"]}, "destination_roots must be an absolute path"),
        ({"bandwidth_bytes_s": 0}, "bandwidth_bytes_s must be a whole number"),
        ({"bandwidth_bytes_s": True}, "bandwidth_bytes_s must be a whole number"),
        ({"deadline_s": -1}, "deadline_s must be a number"),
        ({"deadline_s": "1"}, "deadline_s must be a number"),
        ({"threads": 17}, "threads must be a whole number from 1 to 16"),
        ({"colour": 1}, "unknown keys: colour"),
    ],
)
def test_a_wrong_order_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(Failure, match=reason) as refused:
        parsed(**changes)
    assert refused.value.state is State.BAD_ORDER


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
        (b"[]", "no object"),
        (b" " * (ORDER_LIMIT + 1), "longer than"),
    ],
)
def test_nonsense_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(Failure, match=reason):
        parse(text)


def test_the_program_says_what_is_wrong(ground: Ground) -> None:
    mover = start(b"{")
    assert mover.outcome()["state"] == "bad-order"
    assert mover.process.returncode == 2
