"""Processes as the kernel shows them in /proc: how to find them, and to end a whole session safely.

These functions block: they read /proc, which takes milliseconds with a thousand processes. Call
them from a worker thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class ProcessStat:
    """A part of /proc/PID/stat. `start_ticks` distinguishes a process from a later one of its
    pid."""

    pid: int
    state: str
    session: int
    start_ticks: int

    @property
    def started_boot_s(self) -> float:
        """When it started, on the :func:`boot_clock`."""
        return self.start_ticks / os.sysconf("SC_CLK_TCK")

    @property
    def is_running(self) -> bool:
        return self.state not in "ZX"


def stat_of(pid: int) -> ProcessStat | None:
    """The process with this pid, or None. Source: proc(5), fields 3, 6 and 22."""
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The command name may hold spaces and parentheses. Count fields from the last parenthesis.
    fields = text[text.rindex(b")") + 2 :].split()
    return ProcessStat(pid, fields[0].decode(), int(fields[3]), int(fields[19]))


def boot_id() -> str:
    """An id that changes whenever the kernel boots."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def boot_identity() -> str:
    """An id that changes whenever the host boots. If the host is a container or a namespace, it
    changes with that one's process 1."""
    init = stat_of(1)
    return f"{boot_id()}-{init.start_ticks if init is not None else 0}"


def boot_clock() -> float:
    """Seconds since boot, including suspend. They are the same for all processes of one boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def members(session: int, start_ticks: int) -> list[ProcessStat]:
    """The running processes of a session whose leader started at `start_ticks`.

    This includes processes that changed their process group, and sessions whose leader has gone.
    The list is empty if the session's number belongs to a later process by now.
    """
    leader = stat_of(session)
    if leader is not None and leader.start_ticks != start_ticks:
        return []
    return [p for p in _all_processes() if p.session == session and p.is_running]


def signal_session(session: int, start_ticks: int, number: signal.Signals) -> int:
    """Send a signal to every process of a session. Returns how many there were.

    Each process is held by a pidfd, and checked again before the signal. So a process that got the
    pid in between is not hit.
    """
    found = members(session, start_ticks)
    for process in found:
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(process.pid)
            try:
                again = stat_of(process.pid)
                if again is not None and again.start_ticks == process.start_ticks:
                    signal.pidfd_send_signal(handle, number)
            finally:
                os.close(handle)
    return len(found)


def find_started(script: str, action: str, marker: str) -> ProcessStat | None:
    """The session leader that runs `script action` with `marker` (NAME=value) in its environment.

    The marker alone is not enough, because a daemon that the script started inherits it.
    """
    for process in _all_processes():
        if process.pid != process.session or not process.is_running:
            continue
        with contextlib.suppress(OSError):
            arguments = _strings(process.pid, "cmdline")
            if arguments[-1:] != [action] or not any(a.endswith(script) for a in arguments):
                continue
            if marker in _strings(process.pid, "environ"):
                return process
    return None


def find_marked(prefix: str, folder: str, action: str) -> Iterator[tuple[ProcessStat, str, str]]:
    """The session leaders that run a script below `folder` for `action`, and have an environment
    variable that begins with `prefix`. Each comes with the rest of the variable, and the script."""
    for process in _all_processes():
        if process.pid != process.session or not process.is_running:
            continue
        with contextlib.suppress(OSError):
            arguments = _strings(process.pid, "cmdline")
            script = next((a for a in arguments if a.startswith(folder)), None)
            if script is None or arguments[-1] != action:
                continue
            for variable in _strings(process.pid, "environ"):
                if variable.startswith(prefix):
                    yield process, variable.removeprefix(prefix), script


def _strings(pid: int, name: str) -> list[str]:
    data = (PROC / str(pid) / name).read_bytes()
    return [part.decode(errors="replace") for part in data.rstrip(b"\0").split(b"\0")]


def _all_processes() -> Iterator[ProcessStat]:
    for name in os.listdir(PROC):
        if name.isdigit() and (process := stat_of(int(name))) is not None:
            yield process
