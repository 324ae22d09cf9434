"""A process of its own that keeps a journal, to be killed in the middle of things."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from halo.adapters.journal.sqlite import SqliteMedium
from halo.core.errors import HaloError
from halo.ports import JournalRecord

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["halo.adapters.journal.sqlite", "tests.conformance"])
_DEADLINE_S = 30.0


_FOLDER_STEPS = frozenset({"open", "os.link", "os.rename", "os.remove", "sqlite3.connect"})


def _die_at_step(last: int) -> None:
    """Kill this process just before its `last`-th step that touches files."""
    steps = itertools.count()

    def watch(event: str, arguments: object) -> None:
        if event in _FOLDER_STEPS and next(steps) == last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def _serve(path: Path, pipe: Connection, die_at_step: int | None) -> None:
    async def main() -> None:
        if die_at_step is not None:
            _die_at_step(die_at_step)
        medium = SqliteMedium.open(path)
        pipe.send(list(medium.read()))
        while True:
            operation, records = pipe.recv()
            if operation == "close":
                await medium.close()
                pipe.send("closed")
                return
            await getattr(medium, operation)(records)
            pipe.send("done")

    try:
        asyncio.run(main())
    except HaloError as error:
        pipe.send(error)


class JournalProcess:
    """Opens the journal at `path` in a new process; `records` is what it found there.

    With `die_at_step` it is killed at that step of the opening, and EOFError is raised.
    """

    def __init__(self, path: Path, die_at_step: int | None = None) -> None:
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(
            target=_serve, args=(path, theirs, die_at_step), daemon=True
        )
        self._process.start()
        theirs.close()
        self.pid = self._process.pid
        self.records: list[JournalRecord] = self._receive()

    def write(self, operation: str, records: list[JournalRecord]) -> None:
        """Do `append` or `compact`, and return once it is acknowledged."""
        self.begin(operation, records)
        self._receive()

    def begin(self, operation: str, records: list[JournalRecord]) -> None:
        """Send the order without waiting for its outcome."""
        self._pipe.send((operation, records))

    def close(self) -> None:
        """End in order."""
        self.write("close", [])
        self._process.join(_DEADLINE_S)

    def kill(self) -> bool:
        """Kill it as `kill -9` does; True where the last order had been acknowledged."""
        self._process.kill()
        self._process.join(_DEADLINE_S)
        try:
            return self._pipe.poll() and self._pipe.recv() == "done"
        except (EOFError, ConnectionResetError):
            return False

    def _receive(self) -> Any:
        if not self._pipe.poll(_DEADLINE_S):
            raise TimeoutError(f"the journal process {self.pid} gave no answer")
        try:
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            # Its end of the pipe may close before its lock does.
            self._process.join(_DEADLINE_S)
            raise
        if isinstance(answer, HaloError):
            raise answer
        return answer
