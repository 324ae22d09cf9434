"""Spreading what recurs over its period, the same way after every restart."""

from __future__ import annotations

import zlib


def spread(name: str) -> float:
    """A fraction from 0 up to 1, evenly spread over names."""
    return zlib.crc32(name.encode("utf-8", "surrogatepass")) / 2**32
