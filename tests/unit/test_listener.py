"""The agent's port: what a failed accept costs the connections behind it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

import pytest
from structlog.testing import capture_logs

from halo.adapters.listener import ACCEPT_PAUSE_S, PlainListener
from tests.unit.remote_helpers import until


class Failing(socket.socket):
    """A listening socket whose first accepts fail as the kernel's may."""

    failures: list[int]

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


async def accepted_after(*failures: int) -> tuple[float, list[Any]]:
    """How long a waiting connection waits after these, and what is logged."""
    sock = Failing()
    sock.bind(("127.0.0.1", 0))
    sock.failures = list(failures)
    made: list[asyncio.Protocol] = []

    def protocol() -> asyncio.Protocol:
        made.append(asyncio.Protocol())
        return made[-1]

    began = asyncio.get_running_loop().time()
    with capture_logs() as log:
        listener = PlainListener(sock, protocol, 8)
        try:
            with socket.create_connection(sock.getsockname()):
                await until(lambda: made, "the connection accepted")
        finally:
            listener.close()
    return asyncio.get_running_loop().time() - began, log


@pytest.mark.parametrize("number", [errno.EPROTO, errno.EHOSTUNREACH, errno.EPERM])
async def test_a_connection_that_failed_does_not_hold_up_the_next(number: int) -> None:
    _, log = await accepted_after(number, number)
    assert log == []  # it is told where the listener pauses


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_a_shortage_is_waited_out(number: int) -> None:
    took_s, log = await accepted_after(number)
    assert took_s > 0.9 * ACCEPT_PAUSE_S
    assert [line["event"] for line in log] == ["cannot accept a connection"]
