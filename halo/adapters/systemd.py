"""Tells systemd the state of the daemon (sd_notify), and feeds its watchdog from the event loop.

Rejected: the `systemd-python` binding, which needs a C compiler and libsystemd. The protocol is
only one datagram. Protocol: sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping

NOTIFY_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Variables that a child of the daemon must not inherit, or it could speak for the daemon."""


class Notifier:
    """Sends READY, STOPPING and WATCHDOG to systemd. Does nothing without systemd."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._interval_s = _watchdog_interval_s(environment)
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            )

    def ready(self, status: str = "") -> None:
        """The daemon is ready. Call it in the event loop, which feeds the watchdog from now on."""
        self._send("READY=1" + (f"\nSTATUS={status}" if status else ""))
        if self._interval_s is not None and self._socket is not None and self._timer is None:
            self._feed()

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={text}")

    def stopping(self) -> None:
        """The daemon ends on purpose."""
        self._send("STOPPING=1")

    def close(self) -> None:
        """Stop feeding the watchdog. Safe to repeat."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _feed(self) -> None:
        assert self._interval_s is not None
        self._send("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._feed)

    def _send(self, text: str) -> None:
        if self._socket is None:
            return
        # If systemd cannot be told, the daemon must still run.
        with contextlib.suppress(OSError):
            self._socket.sendto(text.encode(), self._address)


def _watchdog_interval_s(environment: Mapping[str, str]) -> float | None:
    """A third of the time that systemd allows, so that one late turn of the loop does no harm."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        allowed_s = int(environment.get("WATCHDOG_USEC", "")) / 1_000_000
    except ValueError:
        return None
    return allowed_s / 3 if allowed_s > 0 else None
