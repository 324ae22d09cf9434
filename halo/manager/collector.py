"""Keeping Python's cyclic collector from walking what is here to stay.

A pass over everything stops the event loop for as long as it takes, and that grows with the
cluster. What is frozen is not walked. It is freed all the same when nothing refers to it any more;
only a cycle of which a part is frozen is not: of a host whose connection ends some twenty objects,
once.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Hashable

import structlog

COLLECT_AFTER_OBJECTS = 20_000
POLL_S = 5.0
LATEST_S = 300.0
"""A cluster that never comes to rest is frozen all the same, so long after the start."""

log = structlog.get_logger("halo.collector")


def spare() -> None:
    """The cluster is here to stay: a full collection that walks it stops the loop for a tenth of a
    second at a thousand hosts. And what a monitor leaves behind has mostly died by itself by the
    time that many new objects have gathered: looking after every 700 takes a tenth of all time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 10, 20)


async def spare_once_settled(
    progress: Callable[[], Hashable | None],
    *,
    poll_s: float = POLL_S,
    latest_s: float = LATEST_S,
) -> None:
    """Freeze once more, when every host that connects was looked through and its groups have their
    tasks: that is as much again. It is so when `progress` says the same twice in a row; None says
    that now is not the time.

    Without a full pass before: that would stop the loop for once as long as it is to be spared. The
    young are looked through, which takes little; what garbage there is besides stays."""
    loop = asyncio.get_running_loop()
    late_at, before = loop.time() + latest_s, None
    while True:
        await asyncio.sleep(poll_s)
        seen = progress()
        if seen is not None and (seen == before or loop.time() >= late_at):
            break
        before = seen
    began = time.perf_counter()
    gc.collect(0)
    gc.freeze()
    took_ms = round((time.perf_counter() - began) * 1000, 1)
    log.info("settled", objects_spared=gc.get_freeze_count(), took_ms=took_ms)
