"""Requests to a manager over its Unix socket, with the standard library."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

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
    return _request(path, "GET", route, None)


def send(path: str, route: str, body: dict[str, Any]) -> bytes:
    """Post a command. Raises OSError, RuntimeError."""
    return _request(path, "POST", route, json.dumps(body))


def _request(path: str, method: str, route: str, sent: str | None) -> bytes:
    connection = _UnixConnection(path)
    try:
        connection.request(method, route, sent)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{route}: {answer.status} {body[:200]!r}")
        return body
    finally:
        connection.close()
