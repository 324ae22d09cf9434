"""What a peer causes is written a few times, then counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

from structlog.testing import capture_logs

from halo.telling import KINDS, LINES, WINDOW_S, PeerLog
from tests.unit.virtual_time import run

Lines = list[MutableMapping[str, Any]]


def told(write: Callable[[PeerLog], Any]) -> Lines:
    """What stands in the log a minute after all this was written, debugging aside."""

    async def story() -> Lines:
        with capture_logs() as lines:
            if (pauses := write(PeerLog())) is not None:
                await pauses
            await asyncio.sleep(WINDOW_S + 1)
        return [line for line in lines if line["log_level"] != "debug"]

    return run(story())


def test_many_lines_become_a_few_and_a_count() -> None:
    def write(log: PeerLog) -> None:
        for number in range(321):
            log.warning("sight lost", host="h1", reason=str(number))
        log.warning("sight lost", host="h2", reason="another host is told of")

    lines = told(write)
    assert [line["reason"] for line in lines[:LINES]] == [str(n) for n in range(LINES)]
    assert lines[LINES]["host"] == "h2"
    count = {"event": "sight lost: 311 more in the last minute", "log_level": "warning"}
    assert lines[LINES + 1 :] == [{**count, "host": "h1"}]


def test_what_happens_now_and_then_is_always_told() -> None:
    async def write(log: PeerLog) -> None:
        for _ in range(3 * LINES):
            log.info("connected", host="h1")
            await asyncio.sleep(WINDOW_S / LINES)

    assert len(told(write)) == 3 * LINES


def test_kinds_are_bounded_too() -> None:
    def write(log: PeerLog) -> None:
        for number in range(5 * KINDS):
            log.warning("refused", peer=f"p{number}")

    lines = told(write)
    assert len(lines) == KINDS + LINES + 1
    assert lines[-1]["event"] == f"{4 * KINDS - LINES} more in the last minute"
