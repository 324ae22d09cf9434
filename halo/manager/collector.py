"""Keeps Python's cyclic collector from walking objects that live as long as the manager.

A pass over all objects stops the event loop. The larger the cluster, the longer it takes. Frozen
objects are not walked. They are still freed when nothing refers to them any more. Only a cycle with
a frozen part is not freed: about twenty objects, once, for a host whose connection ends.
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
"""If a cluster never comes to rest, it is frozen this long after the start."""

log = structlog.get_logger("halo.collector")


def spare() -> None:
    """Freeze the cluster, and collect less often. With a thousand hosts, a full collection that
    walks the cluster stops the loop for a tenth of a second. And a collection after every 700 new
    objects would take a tenth of all time, although most objects of a monitor are freed by then."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 10, 20)


async def spare_once_settled(
    progress: Callable[[], Hashable | None],
    *,
    poll_s: float = POLL_S,
    latest_s: float = LATEST_S,
) -> None:
    """Freeze once more when every host that connects was probed and its groups have their tasks:
    these are as many objects again. That moment has come when `progress` gives the same value twice
    in a row. None means that now is not the time.

    No full collection comes before, because it would stop the loop for the very time to be saved.
    Only young objects are collected, which is quick. Older garbage stays."""
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
