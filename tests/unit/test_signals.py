"""A manager that is told to end while it comes to lead gives its leadership back."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from halo.adapters.systemd import Notifier
from halo.manager.leadership.opening import signals_end_this, stand_by

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Standing:
    take = None


class Medium:
    """Opens in the step in which the manager is told to end."""

    is_empty = False
    closed = False

    def __init__(self, end: Callable[[], object]) -> None:
        self.end = end

    async def stand_by(self, *_: object) -> None:
        await asyncio.sleep(0)
        self.end()

    async def close(self) -> None:
        self.closed = True


async def test_a_signal_in_the_step_that_opens_the_journal_closes_it(tmp_path: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    medium, standing, nobody = Medium(task.cancel), cast("Any", Standing()), cast("Any", None)
    store, statefile = cast("Any", "etcd"), tmp_path / "halo.state"
    with pytest.raises(asyncio.CancelledError):
        await stand_by(store, cast("Any", medium), standing, statefile, Notifier(), nobody)
    task.uncancel()
    assert medium.closed


async def told_twice(steps: list[str]) -> None:
    with signals_end_this():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(20)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(0.05)
            steps.append("closed")


async def test_the_second_signal_does_not_end_the_ending() -> None:
    steps: list[str] = []
    with pytest.raises(asyncio.CancelledError):
        await told_twice(steps)
    assert steps == ["closed"]
