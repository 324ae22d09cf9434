"""The timeouts in a script's meta-data, read once for each version of the script."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import structlog

from halo.core.model import Operation
from halo.remote.scripts import ocf
from halo.remote.scripts.ocf import Script, ScriptError
from halo.remote.scripts.process import ScriptRunner

log = structlog.get_logger()

METADATA_TIMEOUT_S = 10.0
LOOK_UP_TIMEOUT_S = METADATA_TIMEOUT_S + 2.0
"""Deadline for the whole reading: a file system that hangs never lets it end."""

_CACHE_LIMIT = 256

_Version: TypeAlias = tuple[int, int, int]
_Timeouts: TypeAlias = dict[Operation, float]


class AdvertisedTimeouts:
    """A cache of scripts' advertised timeouts, by path and version (inode, size, time).

    If a script's meta-data fails or hangs, the script is remembered as one without timeouts. So
    this costs time only once, and not before every operation.
    """

    def __init__(self, runner: ScriptRunner) -> None:
        self._runner = runner
        self._known: dict[Path, tuple[_Version, asyncio.Task[_Timeouts]]] = {}

    async def of(
        self, script: Script, operation: Operation, environment: Mapping[str, str]
    ) -> float:
        """The timeouts of `script`, in seconds. `environment` is for its meta-data action."""
        try:
            async with asyncio.timeout(LOOK_UP_TIMEOUT_S):
                return await self._look_up(script, operation, environment)
        except TimeoutError:  # the file cannot be read; running it has its own deadline
            log.warning("meta-data cannot be read; using the default timeouts", kind=script.kind)
            return ocf.DEFAULT_TIMEOUT_S[operation]

    async def _look_up(
        self, script: Script, operation: Operation, environment: Mapping[str, str]
    ) -> float:
        version = await self._runner.in_thread(lambda: _version(script.path))
        known = self._known.get(script.path)
        if known is None or known[0] != version:
            if len(self._known) >= _CACHE_LIMIT:
                self._known.clear()
            reading = asyncio.get_running_loop().create_task(self._read(script, environment))
            known = self._known[script.path] = (version, reading)
        timeouts = await asyncio.shield(known[1])
        return timeouts.get(operation) or ocf.DEFAULT_TIMEOUT_S[operation]

    async def _read(self, script: Script, environment: Mapping[str, str]) -> _Timeouts:
        try:
            process = await self._runner.start(
                [str(script.path), "meta-data"], environment, keep_stdout=True
            )
        except ScriptError:
            return {}
        try:
            async with asyncio.timeout(METADATA_TIMEOUT_S):
                status = await asyncio.shield(process.exited)
        except TimeoutError:
            await self._runner.end_session(process.pid, process.start_ticks)
            log.warning("meta-data hangs; using the default timeouts", kind=script.kind)
            return {}
        return ocf.parse_timeouts(process.stdout) if status == 0 else {}


def _version(path: Path) -> _Version:
    try:
        stat = os.stat(path)
    except OSError:  # running it will say in words what is wrong
        return (0, 0, 0)
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns)
