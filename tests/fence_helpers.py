"""What the tests of fencing share: programs to run, processes to look at, waiting."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

from halo.adapters.fence.watchdog import processes
from halo.config import find_fence_program
from halo.core.model import FenceDevice

DEADLINE_S = 20.0

HALO = (sys.executable, "-c", "from halo.cli.entry import main; main()")
"""The command `halo` of this checkout."""


def make_program(path: Path, body: str, interpreter: str = "/bin/sh") -> str:
    """Write an executable script."""
    path.write_text(f"#!{interpreter}\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def device(program: str, **parameters: str) -> FenceDevice:
    """A fence device of a program that is given by its path."""
    return FenceDevice(os.path.basename(program), program, parameters)


def bundled(agent: str, **parameters: str) -> FenceDevice:
    """A fence device of one of HALO's own programs."""
    program = find_fence_program(agent)
    assert program is not None
    return FenceDevice(agent, str(program), parameters)


def is_alive(pid: int) -> bool:
    """True while a process runs; a zombie does not."""
    return any(process.pid == pid for process in processes())


def wait_until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition, or fail with what was waited for."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"waited {deadline_s} s in vain for: {what}"
        time.sleep(0.01)


async def wait_until_async(condition: Callable[[], object], what: str) -> None:
    """The same, without holding up the event loop."""
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited {DEADLINE_S} s in vain for: {what}"
        await asyncio.sleep(0.01)


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of loopback that nobody has now."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def pids_in(*files: Path) -> list[int]:
    """The process numbers that scripts have written into files."""
    return [int(file.read_text()) for file in files]


def have_numbers(*files: Path) -> bool:
    """True when each of these files holds a whole line."""
    return all(file.exists() and file.read_text().endswith("\n") for file in files)
