"""The calls that one connection has under way: counted, limited, and cancelled with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

from halo.adapters.rpc.agent.requests import BadCall
from halo.core.peers.calls import Request
from halo.telling import PeerLog

log = PeerLog()

UNDER_WAY_LIMIT = 10000
"""Operations of one connection that have not ended: five for each resource, for more resources than
any host has. Long before this limit, the scripts' own limit refuses operations."""

HELD_LIMIT_BYTES = 16 * 1024 * 1024
"""Bytes of their parameters."""


class UnderWay:
    """The calls of one connection. `peer` is the address that the log names."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._calls: set[asyncio.Task[Any]] = set()
        self._operations = 0
        self._held_bytes = 0

    def cancel(self) -> None:
        """Cancel all calls, because the connection has ended. Safe to repeat."""
        for call in list(self._calls):
            call.cancel()

    @contextlib.contextmanager
    def carrying_out(self, *requests: Request) -> Iterator[None]:
        """Note the current task as a call under way, to be cancelled with the connection.

        pycapnp also cancels calls, but only when it has noticed the end itself. Raises BadCall if
        the connection has too much under way.
        """
        call = asyncio.current_task()
        assert call is not None
        size = sum(request.size for request in requests)
        if self._operations + len(requests) > UNDER_WAY_LIMIT:
            raise BadCall(f"more than {UNDER_WAY_LIMIT} operations of one connection are under way")
        if self._held_bytes + size > HELD_LIMIT_BYTES:
            raise BadCall(
                "the parameters of the operations under way for one connection are longer than "
                f"{HELD_LIMIT_BYTES >> 20} MiB"
            )
        self._operations += len(requests)
        self._held_bytes += size
        self._calls.add(call)
        try:
            yield
        finally:
            self._operations -= len(requests)
            self._held_bytes -= size
            self._calls.discard(call)

    def note(self, method: str, why: str) -> None:
        """Log a call that was refused for its content."""
        log.warning("refused a call", peer=self._peer, method=method, why=why)

    def note_defect(self, method: str) -> None:
        """Log a call that failed by a defect of ours. Call it inside the exception handler."""
        log.exception("a call failed inside the agent", peer=self._peer, method=method)
