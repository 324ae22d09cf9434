"""What the manager says of its own event loop and collector."""

from __future__ import annotations

import gc
import time

from halo.manager.loop_lag import CollectorPauses, LoopLag
from tests.unit.remote_helpers import until

BLOCKED_S = 0.2


def block() -> None:
    """As a long step of the manager would."""
    time.sleep(BLOCKED_S)


async def test_a_blocked_loop_shows_as_lag() -> None:
    lag = LoopLag()
    lag.start()
    try:
        await until(lambda: lag.figures()["samples"] >= 2, "two samples")
        block()
        await until(lambda: lag.figures()["max_ms"] > BLOCKED_S * 500, "the lag")
        assert lag.figures()["samples"] >= 3
        assert lag.figures(0.05)["samples"] == 1
    finally:
        lag.stop()


def test_passes_of_the_collector_are_counted_and_timed_until_stopped() -> None:
    pauses = CollectorPauses()
    pauses.start()
    gc.collect()
    pauses.stop()
    gc.collect()
    figures = pauses.figures()
    assert figures["passes"][2] == 1
    assert figures["longest_ms"][2] > 0
    pauses.stop()
