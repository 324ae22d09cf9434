"""Processes of a test: found by a mark in their environment, so that none is ever missed."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

MARK = "HALO_TEST_RUN"
"""Environment variable that every process of a test inherits; its value is the test's folder."""

_KILL_DEADLINE_S = 20.0
_PORTS = range(10_000, 30_000)  # below the ports that the kernel hands out by itself
_reserved: dict[int, int] = {}


def free_port() -> int:
    """A free TCP port of 127.0.0.1 that no other test process will pick, as long as we live."""
    folder = Path(tempfile.gettempdir()) / f"halo-test-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for port in random.sample(_PORTS, len(_PORTS)):
        if port in _reserved:
            continue
        lock = os.open(folder / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(lock)
            continue
        _reserved[port] = lock
        return port
    raise RuntimeError("no free port between 10000 and 30000")


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty when it is gone."""
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in entries)
    return {key: value for key, _, value in pairs}


def is_alive(pid: int) -> bool:
    """False too for a zombie, which PID 1 of a container may leave standing for seconds."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in (b"Z", b"X")


def command_of(pid: int) -> list[str]:
    """The command line of a process."""
    with contextlib.suppress(OSError):
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).rstrip("\0").split("\0")
    return []


def marked(folder: Path, host: str | None = None) -> Iterator[int]:
    """The living processes of the test in `folder`; with `host`, those of its agent and scripts."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        pid = int(entry.name)
        environment = environment_of(pid)
        if environment.get(MARK) != str(folder) or not is_alive(pid):
            continue
        if host is None or environment.get("HALO_TEST_ID") == host or _is_agent(pid, host):
            yield pid


def _is_agent(pid: int, host: str) -> bool:
    words = command_of(pid)
    return any(a == "--test-id" and b == host for a, b in itertools.pairwise(words))


def kill_all(find: Callable[[], Iterator[int]]) -> list[int]:
    """Kill what `find` finds until it finds nothing any more; the PIDs that were killed."""
    killed: dict[int, None] = {}
    end = time.monotonic() + _KILL_DEADLINE_S
    while pids := list(find()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed[pid] = None
        if time.monotonic() > end:
            raise TimeoutError(f"processes {pids} do not die")
        time.sleep(0.005)
    return list(killed)


def signal_all(pids: Iterator[int], number: signal.Signals) -> None:
    """Send a signal to each of them."""
    for pid in list(pids):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
