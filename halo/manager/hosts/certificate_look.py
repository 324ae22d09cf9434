"""Looks again at agents' certificates that expire soon, so that a renewal is noticed.

A connection may stand for months, and shows only the certificate with which it began. An agent uses
a renewed certificate without ending the connection. Then nobody should be told to renew it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from halo.core.cluster.state import ClusterState
from halo.core.errors import LinkError
from halo.core.model import Host
from halo.core.peers.certificates import ending_soon
from halo.ports import WallClock

log = structlog.get_logger("halo.manager")

LOOK_EVERY_S = 60.0
LOOK_DEADLINE_S = 5.0


async def look_again(
    state: ClusterState,
    clock: WallClock,
    ends_at: Callable[[Host, float], Awaitable[float | None]],
    every_s: float = LOOK_EVERY_S,
) -> None:
    """Look at one certificate after the other, until cancelled. `ends_at` asks an agent within a
    deadline in seconds, and raises LinkError."""
    while True:
        await asyncio.sleep(every_s)
        connected = {at.id: at.identity for at in state.hosts.values() if at.connected}
        for host in ending_soon(connected, clock.now()):
            try:
                found = await ends_at(state.cluster.hosts[host], LOOK_DEADLINE_S)
            except LinkError:
                continue  # the link reports what is wrong
            except Exception as error:  # a defect; continue with the other hosts
                log.error("cannot look at a certificate", host=host, error=repr(error))
                continue
            at = state.hosts[host]
            if at.connected and at.identity.certificate_expires_at is not None:
                at.identity = replace(at.identity, certificate_expires_at=found)
