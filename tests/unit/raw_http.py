"""Requests over a Unix socket as bytes, for what no client of ours would send."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

DEADLINE_S = 20.0


class Reply(NamedTuple):
    """An answer whose connection was closed after it."""

    status: int
    content_type: str
    body: bytes


def request_bytes(
    method: str, path: str, body: bytes, *headers: str, host: str = "localhost"
) -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def received_after(path: Path, sent: bytes) -> bytes:
    """All that comes back until the server closes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(path))
        client.sendall(sent)
        received = b""
        while piece := client.recv(65536):
            received += piece
        return received


def reply_of(path: Path, sent: bytes) -> Reply:
    head, _, body = received_after(path, sent).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    return Reply(int(lines[0].split(" ")[1]), fields.get("content-type", ""), body)
