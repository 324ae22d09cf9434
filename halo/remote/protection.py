"""Keeps the agent alive and quick when its host is in trouble. Scripts do not get this protection.

The unit file asks systemd for the same. An agent that was started by hand gets it from here. If the
kernel refuses, the agent runs without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

import structlog

log = structlog.get_logger()

_OOM_FILE = "/proc/self/oom_score_adj"
_NEVER_KILL = -1000
_NICE = -10
# mlockall(2). ONFAULT locks pages only when they are used. Otherwise unused thread stacks and
# library pages would triple the agent's memory.
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


class Protection:
    """The agent's own protection. Use `lowered()` around each fork, since children inherit it."""

    def __init__(self) -> None:
        self._protected = False
        self._oom_fd = -1
        self._forks = 0
        self._lock = threading.Lock()

    def raise_up(self) -> None:
        """Protect this process from the OOM killer, from swapping, and from busy neighbours.

        Call it in the main thread. Worker threads call :meth:`lower_thread` as they start.
        """
        if os.geteuid() != 0:
            return
        with contextlib.suppress(OSError):  # kept open, because it is written twice per script
            self._oom_fd = os.open(_OOM_FILE, os.O_WRONLY | os.O_CLOEXEC)
        self._protected = self._set_oom(_NEVER_KILL)
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        locked = _lock_memory()
        log.debug("protected", oom=self._protected, memory_locked=locked)

    @staticmethod
    def lower_thread() -> None:
        """Set normal priority. On Linux, a nice value belongs to a thread and its children."""
        with contextlib.suppress(OSError):
            if os.getpriority(os.PRIO_PROCESS, 0) < 0:
                os.setpriority(os.PRIO_PROCESS, 0, 0)

    @contextlib.contextmanager
    def lowered(self) -> Iterator[None]:
        """While a script is being started, lower the agent's protection to that of the script.

        Rejected: setting the script's value after the fork, since its first children would miss it;
        and a preexec function, which is not safe with threads.
        """
        if not self._protected:
            yield
            return
        with self._lock:
            self._forks += 1
            if self._forks == 1:
                self._set_oom(0)
        try:
            yield
        finally:
            with self._lock:
                self._forks -= 1
                if self._forks == 0:
                    self._set_oom(_NEVER_KILL)

    def _set_oom(self, value: int) -> bool:
        try:
            os.pwrite(self._oom_fd, b"%d" % value, 0)
        except OSError:
            return False
        return True


def _lock_memory() -> bool:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        return bool(libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)
    except (OSError, AttributeError):
        return False
