"""One GET over a Unix socket, with the standard library."""

from __future__ import annotations

import http.client
import socket

DEADLINE_S = 60.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(path: str, route: str) -> bytes:
    """The body that the socket at `path` answers for `route`. Raises OSError, RuntimeError."""
    connection = _UnixConnection(path)
    try:
        connection.request("GET", route)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{route}: {answer.status} {body[:200]!r}")
        return body
    finally:
        connection.close()
