"""What operators can see: the status, the answers to "why?", and what the scripts say. Nothing here
changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from halo import __version__
from halo.core import admin
from halo.core.status.ours import parts, snapshot
from halo.core.status.root import root_parts
from halo.core.why.group import why_group
from halo.core.why.host import why_host
from halo.manager.common.context import Context
from halo.manager.common.status_text import Part
from halo.manager.hosts.host_task import HostTask
from halo.manager.hosts.validation import Validation
from halo.ports import WallClock


class Views:
    """Reads the state for operators."""

    def __init__(self, context: Context, hosts: dict[str, HostTask], clock: WallClock) -> None:
        self._context = context
        self._state = context.state
        self._hosts = hosts
        self._clock = clock
        self._validation = Validation(context.state, hosts)
        self._loop = asyncio.get_running_loop()

    def status(self) -> dict[str, Any]:
        """The whole status, as of now."""
        return snapshot(self._state, __version__, self._loop.time(), self._clock.now())

    def status_parts(self) -> Iterator[Part]:
        """The status in parts. The state may change between two parts."""
        return parts(self._state, __version__, self._loop.time(), self._clock.now())

    def root_status(self) -> dict[str, Any]:
        """The status as HALO (Rust) gives it."""
        whole: dict[str, Any] = {}
        for key, rows in self.root_parts():
            whole.setdefault(key, []).extend(rows)
        return whole

    def root_parts(self) -> Iterator[Part]:
        """The status as HALO (Rust) gives it, in parts."""
        return root_parts(self._state)

    async def validate(self, host: str) -> dict[str, Any]:
        """The answers of `validate-all` for every resource on one host. It changes nothing."""
        return await self._validation.run(host)

    async def why_group(self, group: str) -> dict[str, Any]:
        """Why a group runs where it runs, or why it does not run."""
        found = admin.group_named(self._state, group)
        return await self._settled(
            lambda: why_group(self._state, found, self._loop.time(), self._clock.now())
        )

    async def why_host(self, host: str) -> dict[str, Any]:
        """Why a host was fenced, or why it is not."""
        admin.require_host(self._state, host)
        return await self._settled(
            lambda: why_host(self._state, host, self._loop.time(), self._clock.now())
        )

    async def _settled(self, answer: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is shown counts as told: it is on disk first, or the journal is in trouble (S7)."""
        told = answer()
        return told if await self._context.journal.settled() else answer()
