"""Keeps the status informed of what is wrong with the other managers and with their store."""

from __future__ import annotations

import asyncio

from halo.core.cluster.state import ClusterState
from halo.manager.api.managers import Managers
from halo.telling import PeerLog

log = PeerLog("halo.manager")

LOOK_EVERY_S = 2.0


async def keep_looking(
    state: ClusterState, managers: Managers, every_s: float = LOOK_EVERY_S
) -> None:
    """Note what is wrong, and log each new sentence, until cancelled."""
    while True:
        found = list(managers.notices())
        for notice in found:
            if notice not in state.redundancy:
                log.warning("managers", problem=notice)
        state.redundancy = found
        await asyncio.sleep(every_s)
