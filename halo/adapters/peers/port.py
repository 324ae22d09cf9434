"""The port on which a manager answers other managers."""

from __future__ import annotations

import socket
import ssl

from halo.adapters.tls.listener import reason_of
from halo.core.errors import AdministratorError
from halo.error_words import words_of

BACKLOG = 64
GREETING = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Sent to each manager that is let in, before it sends anything. With TLS 1.3 a client's handshake
ends before the other end has looked at its certificate. Only with this greeting it knows that it
was let in. If it does not come, the request was certainly not sent. HTTP clients skip it."""

TURNED_AWAY = "X-Halo-Turned-Away"
"""The header of the answer that comes instead of the greeting. It has the reason."""

_WORDS_AT_MOST = 500
_COMMAND = "`halo tls peer NAME`, with the name of its machine"


class PeerPortError(AdministratorError):
    """The manager cannot listen for other managers where it was told to."""


def bind(where: str) -> socket.socket:
    """A socket bound to ADDRESS:PORT, not yet listening. Raises PeerPortError."""
    address, colon, port = where.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    is_port = port.isascii() and port.isdecimal() and len(port) < 6 and int(port) < 65536
    if not colon or not address or not is_port:
        raise PeerPortError(
            f'--peer-listen "{where}" is not ADDRESS:PORT; write it like 10.0.0.1:8443'
        )
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise PeerPortError(f"--peer-listen {where}: {words_of(error)}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(target)
    except OSError as error:
        sock.close()
        raise PeerPortError(f"--peer-listen {where}: {words_of(error)}") from error
    return sock


def turned_away(reason: str) -> bytes:
    """The whole HTTP answer for a manager that is turned away before its request is read."""
    line = "".join(c if c.isascii() and c.isprintable() else "?" for c in reason)[:_WORDS_AT_MOST]
    head = f"HTTP/1.1 503 Service Unavailable\r\n{TURNED_AWAY}: {line}\r\nConnection: close\r\n"
    return f"{head}Content-Type: text/plain\r\nContent-Length: {len(line)}\r\n\r\n{line}".encode()


def certificate_refused(reason: str) -> bytes:
    """The answer for a manager that is turned away because of its certificate. It reads this as
    what is said of its own one."""
    return turned_away(f"this manager's certificate is refused: {reason}")


def why_not(error: OSError | ValueError) -> str:
    """Why a handshake failed, from a manager's side, in words."""
    words = reason_of(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{words}; a manager's must be valid, and of the CA that this one knows: {_COMMAND}"
    if isinstance(error, ssl.SSLError):
        if words.startswith("it does not speak TLS"):
            return "it does not speak TLS, which managers require of each other"
        if words.startswith("it has no certificate"):
            return f"it has no certificate, and managers require one of each other: {_COMMAND}"
    return words
