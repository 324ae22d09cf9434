"""The simulated disk of the manager: implements the port JournalMedium. It outlives the manager.

A write in flight when the manager dies is on the disk whole or not at all, by chance: that is what
the medium promises (its own tests tear real files).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from halo.core.errors import RecordError
from halo.ports import JournalRecord

if TYPE_CHECKING:
    from tests.simulation.loop import VirtualLoop
    from tests.simulation.world import World


QUEUED_S = 0.01
"""A write that begins this soon after another may have waited for it."""


def _ignore(_texts: list[str]) -> None:
    pass


class SimDisk:
    """What is on the disk, and how it behaves."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.full = False
        self.hangs = False
        self.delay_s = 0.0
        self.writes = 0
        self.in_flight = 0
        self.failed_at = float("-inf")  # the last write that failed
        self.busy_since = 0.0  # what lands now was handed to the journal after this
        self.on_kept: Callable[[list[str]], None] = _ignore  # what was written is on it now
        self._idle_at = 0.0
        self._failed = False

    def begins(self, now: float) -> None:
        """A write begins. One that follows at once, or a failure, may be of the time before."""
        if self.in_flight == 0 and not self._failed and now - self._idle_at > QUEUED_S:
            self.busy_since = now
        self.in_flight += 1

    def ends(self, now: float) -> None:
        """A write has ended, well or badly."""
        self.in_flight -= 1
        self._idle_at, self._failed = now, self.full
        if self.full:
            self.failed_at = now

    @property
    def is_behind(self) -> bool:
        """Does it still owe a write, or may it take its time over the next?"""
        return self.in_flight > 0 or self.full or self.hangs or self.delay_s > 0


class SimMedium:
    """One incarnation's journal on the disk."""

    def __init__(self, world: World, loop: VirtualLoop) -> None:
        self._world = world
        self._disk = world.disk
        self._loop = loop
        self.dead = False
        self._in_flight: list[tuple[list[str], bool, Any]] = []

    def read(self) -> Iterable[JournalRecord]:
        for text in self._disk.texts:
            yield json.loads(text)

    async def append(self, records: Sequence[JournalRecord]) -> None:
        await self._write([json.dumps(r, allow_nan=False) for r in records], replace=False)

    async def compact(self, snapshot: Sequence[JournalRecord]) -> None:
        await self._write([json.dumps(r, allow_nan=False) for r in snapshot], replace=True)

    async def close(self) -> None:
        self.dead = True

    async def _write(self, texts: list[str], *, replace: bool) -> None:
        waiter = self._loop.create_future()
        entry = (texts, replace, waiter)
        self._in_flight.append(entry)
        self._disk.begins(self._world.clock.now)
        delay = self._world.random.uniform(0.0005, 0.01) + self._disk.delay_s
        self._world.clock.after(delay, self._lands, entry)
        await waiter

    def _lands(self, entry: tuple[list[str], bool, Any]) -> None:
        if self.dead:
            return
        if self._disk.hangs:
            self._world.clock.after(0.5, self._lands, entry)
            return
        self._in_flight.remove(entry)
        self._disk.ends(self._world.clock.now)
        texts, replace, waiter = entry
        if self._disk.full:
            if not waiter.done():
                waiter.set_exception(RecordError("simulated: no space left on device"))
            return
        self._keep(texts, replace)
        if not waiter.done():
            waiter.set_result(None)

    def _keep(self, texts: list[str], replace: bool) -> None:
        self._disk.writes += 1
        if replace:
            self._disk.texts[:] = texts
        else:
            self._disk.texts += texts
            self._disk.on_kept(texts)
            self._world.recorded(texts)
        self._world.oracle.fences.read_disk()
        self._world.oracles.written()

    def crash(self) -> None:
        """The manager's process is gone: what is in flight lands whole or not at all."""
        self.dead = True
        for texts, replace, _ in self._in_flight:
            if self._disk.full or self._world.random.random() < 0.5:
                break
            self._keep(texts, replace)
        self._disk.in_flight -= len(self._in_flight)
        self._in_flight.clear()
