"""Ends every process of a fence program: at its deadline, or when the manager has died.

A fence program that outlives its manager could switch a host off minutes later, when the next
manager has already started groups there. PR_SET_PDEATHSIG is not enough: it reaches only the direct
child, but not the `ipmitool` below it. To set it, code must run between fork and exec, and then
each program costs a full fork of the manager instead of a vfork. Therefore one small process per
manager holds the reading end of a pipe. Only the manager holds the writing end. When the manager
has died, for whatever reason, the pipe ends, and the watchdog kills all processes with the
manager's mark.

The processes of a fence program are found in /proc by any of three signs: the mark in their
environment (every child inherits it, even after setsid), their session, and their ancestors.

This file is run by its path with the bare interpreter (`python -I -S`). It must start within
milliseconds, so it imports only the standard library, and little of that.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

MARK = "HALO_FENCE_RUN"
"""Environment variable of every process of a fence program: `<manager's token>.<run number>`."""

_PASS_PAUSE_S = 0.02
_KILL_LIMIT_S = 5.0


class Process(NamedTuple):
    """One living process, as /proc shows it."""

    pid: int
    parent: int
    session: int


def processes() -> list[Process]:
    """All living processes. Zombies and dead processes are left out, since they do not run."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X"):
            found.append(Process(int(name), int(fields[1]), int(fields[3])))
    return found


def mark_of(pid: int) -> str:
    """The mark of a process, or an empty string."""
    prefix = MARK.encode() + b"="
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            for entry in file.read().split(b"\0"):
                if entry.startswith(prefix):
                    return entry[len(prefix) :].decode(errors="replace")
    except OSError:
        pass
    return ""


def doomed(is_ours: Callable[[Process], bool]) -> list[int]:
    """The processes for which `is_ours` holds, and all their living descendants."""
    living = processes()
    children: dict[int, list[int]] = {}
    for process in living:
        children.setdefault(process.parent, []).append(process.pid)
    todo = [process.pid for process in living if is_ours(process)]
    found: dict[int, None] = {}
    while todo:
        pid = todo.pop()
        if pid not in found and pid != os.getpid():
            found[pid] = None
            todo.extend(children.get(pid, ()))
    return list(found)


def kill_until_gone(
    is_ours: Callable[[Process], bool], *, clean_passes: int = 1, limit_s: float = _KILL_LIMIT_S
) -> list[int]:
    """SIGKILL all our processes until `clean_passes` passes in a row find none (blocking).

    Passes are repeated, because a process may fork between the search and the kill. Returns the
    processes that still exist after `limit_s` seconds (in uninterruptible sleep), usually none.
    """
    end = time.monotonic() + limit_s
    clean = 0
    while True:
        found = doomed(is_ours)
        if not found:
            clean += 1
            if clean >= clean_passes:
                return []
        elif time.monotonic() > end:
            return found
        else:
            clean = 0
            for pid in found:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                except PermissionError:  # a set-uid program, which is reported as remaining
                    pass
        time.sleep(_PASS_PAUSE_S)


def main() -> None:
    """Wait for the end of standard input. Then kill all processes with the mark in `argv[1]`."""
    token = sys.argv[1] + "."
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    # Three clean passes, because a program that is being started shows its mark only after exec.
    kill_until_gone(lambda process: mark_of(process.pid).startswith(token), clean_passes=3)


if __name__ == "__main__":
    main()
