"""Runs works in forked children, several side by side, and ends those that do not come back."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

MEMORY_BYTES = 2 * 1024**3
"""A mistake may fill lists for ever: a child that wants more gets a MemoryError."""

SILENCE_S = 600.0
"""A child that tells nothing for so long is ended. (A run has its own deadline, in processor time;
this one is for a child that does not even get there.)"""

SHARED_BY_ALL = ("asyncio", "hypothesis", "pytest", "structlog")
"""Imported once, before the children are forked; nothing of ours is among them."""

Tell = Callable[[Any], None]
Work = Callable[[Tell], None]


@dataclass(slots=True)
class Ended:
    """What a child told, in order, and how it ended."""

    key: Any
    told: list[Any] = field(default_factory=list)
    was_ended: bool = False
    exit_code: int | None = None


@dataclass(slots=True)
class _Child:
    process: Any
    ended: Ended
    heard_at: float


def work_through(
    works: Iterable[tuple[Any, Work]], jobs: int, silence_s: float = SILENCE_S
) -> Iterator[Ended]:
    """Run every work in a child of its own, `jobs` at a time; yields each as it ends."""
    for name in SHARED_BY_ALL:
        importlib.import_module(name)
    waiting = iter(works)
    running: dict[Connection, _Child] = {}
    try:
        while True:
            while len(running) < jobs and (item := next(waiting, None)) is not None:
                _fork(running, *item)
            if not running:
                return
            for pipe in wait(list(running), timeout=1.0):
                if isinstance(pipe, Connection) and (done := _hear(running, pipe)):
                    yield done
            yield from _end_silent(running, silence_s)
    finally:
        for child in running.values():
            child.process.kill()


def _fork(running: dict[Connection, _Child], key: Any, work: Work) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_live, args=(work, theirs), daemon=True)
    process.start()
    theirs.close()
    running[ours] = _Child(process, Ended(key), time.monotonic())


def _hear(running: dict[Connection, _Child], pipe: Connection) -> Ended | None:
    child = running[pipe]
    try:
        child.ended.told.append(pipe.recv())
        child.heard_at = time.monotonic()
        return None
    except (EOFError, OSError):
        return _buried(running, pipe)


def _buried(running: dict[Connection, _Child], pipe: Connection) -> Ended:
    child = running.pop(pipe)
    pipe.close()
    child.process.join()
    child.ended.exit_code = child.process.exitcode
    return child.ended


def _end_silent(running: dict[Connection, _Child], silence_s: float) -> Iterator[Ended]:
    for pipe, child in list(running.items()):
        if time.monotonic() - child.heard_at > silence_s:
            child.ended.was_ended = True
            child.process.kill()
            yield _buried(running, pipe)


def _live(work: Work, pipe: Connection) -> None:
    """All of a child's life. It leaves without what an interpreter does at its end: of what a run
    has left suspended, nothing can end well any more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    code = 1
    with contextlib.suppress(BaseException):
        work(pipe.send)
        code = 0
    pipe.close()
    os._exit(code)
