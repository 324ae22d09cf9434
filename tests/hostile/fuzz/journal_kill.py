"""A manager killed at any moment: its journal opens again, with all that it was promised."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import struct
import time
from pathlib import Path
from typing import Any, NoReturn

from structlog.testing import capture_logs

from halo.adapters.journal.sqlite import SqliteMedium
from halo.core.errors import StateError
from halo.ports import JournalRecord
from tests.hostile.fuzz.fuzzer import Finding

LIVES = 5
"""Of one journal, one after the other, in a case."""

LONGEST_LIFE_S = 0.04
_END_S = 20.0


class JournalKillFuzzer:
    """Processes that keep a journal, each killed or ended in order after a few milliseconds."""

    def __init__(self) -> None:
        self._path = Path()

    async def open(self, folder: Path) -> None:
        self._path = folder / "halo.state"

    async def case(self, chance: random.Random) -> None:
        for old in self._path.parent.glob("halo.state*"):
            old.unlink()
        acknowledged = 0
        lives: list[str] = []
        for _ in range(LIVES):
            life_s = chance.random() ** 2 * LONGEST_LIFE_S
            appends = chance.choice((0, 1, 3, 1000))
            reading, writing = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reading)
                _live(self._path, appends, writing)
            os.close(writing)
            await asyncio.sleep(life_s)
            os.kill(child, signal.SIGKILL)
            status = _reap(child)
            told = _last_told(reading, acknowledged)
            lives.append(f"{life_s * 1000:.2f} ms, {appends} appends, ended with {status}")
            acknowledged = await _survivors(self._path, told, lives)

    async def close(self) -> None:
        pass


def _live(path: Path, appends: int, pipe: int) -> NoReturn:
    """What the child does: keep a journal, and tell how many records are safe."""
    code = 1
    try:
        asyncio.run(_keep(path, appends, pipe))
        code = 0
    finally:
        os._exit(code)


async def _keep(path: Path, appends: int, pipe: int) -> None:
    with capture_logs():
        medium = SqliteMedium.open(path)
        count = len(list(medium.read()))
        os.write(pipe, struct.pack("=I", count))
        for _ in range(appends):
            await medium.append([_record(count + 1), _record(count + 2)])
            count += 2
            os.write(pipe, struct.pack("=I", count))
        await medium.close()


def _record(number: int) -> JournalRecord:
    return {"number": number, "text": "x" * (number * 37 % 600)}


def _reap(child: int) -> int:
    end = time.monotonic() + _END_S
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    raise Finding("a child that was killed does not end")


def _last_told(pipe: int, before: int) -> int:
    told = b""
    while piece := os.read(pipe, 1 << 16):
        told += piece
    os.close(pipe)
    whole = told[: len(told) // 4 * 4]
    return int(struct.unpack("=I", whole[-4:])[0]) if whole else before


async def _survivors(original: Path, told: int, lives: list[str]) -> int:
    """How many records are there; at least those that were told to be safe.

    Looks at a copy, so that the next life finds things as the kill left them."""
    if not original.exists():
        return told
    path = original.parent / "copy" / original.name
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    for file in original.parent.glob(f"{original.name}*"):
        shutil.copy(file, path.parent)
    try:
        with capture_logs():
            medium = SqliteMedium.open(path)
            found: list[Any] = list(medium.read())
            await medium.close()
    except StateError as error:
        raise Finding(f"after {lives}: {error}") from None
    if len(found) < told or found != [_record(n + 1) for n in range(len(found))]:
        raise Finding(f"after {lives}: {len(found)} records of {told} that were safe")
    return len(found)
