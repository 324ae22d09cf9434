"""What a manager that waits to begin tells, and when: on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from halo.adapters.systemd import Notifier
from halo.manager.leadership.opening import SOON_S, stand_by
from tests.unit.virtual_time import loop_now, run

STORE = "etcd://h1:2379/halo"
FIRST = f"it opens its journal in etcd ({STORE}), and waits for etcd without limit"


class Medium:
    """Opens after `opens_after_s`. After `tells_after_s` it tells what it waits for."""

    is_empty = False

    def __init__(self, opens_after_s: float, tells_after_s: float) -> None:
        self._opens_after_s = opens_after_s
        self._tells_after_s = tells_after_s

    async def stand_by(self, tell: Callable[[str], None], _take: object) -> None:
        began = loop_now().time()
        if self._tells_after_s < self._opens_after_s:
            await asyncio.sleep(self._tells_after_s)
            tell("waiting for etcd")
        await asyncio.sleep(began + self._opens_after_s - loop_now().time())

    async def close(self) -> None:
        pass


class Standing:
    take = None


@pytest.mark.parametrize(
    ("opens_after_s", "tells_after_s", "answers_after_s", "said"),
    [
        (0.5, 60.0, None, []),
        (60.0, 90.0, SOON_S, [FIRST]),
        (60.0, 5.0, SOON_S, [FIRST, "waiting for etcd"]),
        (60.0, 0.1, 0.1, ["waiting for etcd"]),
    ],
)
def test_a_manager_that_waits_answers_soon_and_says_why(
    opens_after_s: float, tells_after_s: float, answers_after_s: float | None, said: list[str]
) -> None:
    began = 0.0
    answered: list[float] = []
    reasons: list[str] = []

    @asynccontextmanager
    async def answering(reason: Callable[[], str]) -> AsyncIterator[None]:
        answered.append(loop_now().time() - began)
        reasons.append(reason())
        yield
        reasons.append(reason())

    async def story() -> None:
        nonlocal began
        began = loop_now().time()
        medium, standing = Medium(opens_after_s, tells_after_s), cast("Any", Standing())
        store, state = cast("Any", STORE), Path("/none/halo.state")
        await stand_by(store, cast("Any", medium), standing, state, Notifier({}), answering)

    with capture_logs() as logs:
        run(story())
    assert [line["reason"] for line in logs if line["event"] == "not leading"] == said
    if answers_after_s is None:
        assert answered == []
    else:
        assert answered == [pytest.approx(answers_after_s, abs=0.01)]
        assert reasons == [said[0], said[-1]]
