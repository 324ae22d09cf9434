"""Spreads recurring work over its period, in the same way after every restart."""

from __future__ import annotations

import zlib

MOMENTS_OF_A_HOST = 4


def spread(name: str) -> float:
    """A fraction from 0 up to 1, evenly spread over names."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) / 2**32


def moment(host: str, group: str) -> float:
    """Like :func:`spread`, but the result is one of a few moments of the host. So questions to an
    agent at one moment travel in one call, and no agent is asked everything at once."""
    return (spread(host) + int(spread(group) * MOMENTS_OF_A_HOST) / MOMENTS_OF_A_HOST) % 1.0
