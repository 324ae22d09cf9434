"""Looks names up in daemon threads.

aiohttp's own resolver uses the event loop's threads. The interpreter waits for these at its exit,
so a name server that gives no answer would keep a manager from ending. aiohttp asks for one name
only once at a time, so there is at most one thread for each member.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from halo.adapters.slow_files import in_daemon_thread
from halo.error_words import words_of

Lookup = Callable[..., list[tuple[Any, ...]]]


class Resolver(AbstractResolver):
    """Implements aiohttp's resolver. The caller sets the deadline."""

    def __init__(self, lookup: Lookup = socket.getaddrinfo) -> None:
        self._lookup = lookup

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises OSError."""

        def look_up() -> list[tuple[Any, ...]] | Exception:
            try:
                return self._lookup(host, port, family=family, type=socket.SOCK_STREAM)
            except Exception as error:  # such as a name that cannot be encoded
                return error

        found = await in_daemon_thread(look_up, f"look up {host}")
        if isinstance(found, Exception):
            raise OSError(f"{host} was not found: {words_of(found)}") from found
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Nothing to close: the threads are daemons."""
