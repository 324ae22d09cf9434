"""One HTTP request to the manager over its Unix socket.

Rejected: http.client. It loads mail and TLS libraries, and takes 17 ms of the 80 ms that a whole
`halo status` may take. An HTTP/1.0 request gets its answer in one piece that ends with the
connection, so little code is needed to read it. For the same reason, this module opens the socket
with the C module under `socket`. The import of `socket` itself makes hundreds of enum members, and
loads `selectors`.
"""

from __future__ import annotations

import _socket
import contextlib
import json
import os
import stat
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from halo.cli.errors import CliError, ManagerUnreachable, NoLeader

STATUS_DEADLINE_S = 30.0
COMMAND_DEADLINE_S = 75.0
"""Longer than the manager takes to answer any command other than a fence (60 s)."""
FENCE_DEADLINE_S = 930.0
"""Longer than the manager takes to answer a fence (900 s)."""
ANSWER_LIMIT_BYTES = 256 * 1024 * 1024

PREFIX = "/v1"
"""The prefix of our half of the API. HALO (Rust) has only the other half, at the root."""
NOT_THERE = (401, 404)
"""The answers of HALO (Rust) to unknown requests; 401 comes on its socket for all users."""

_PIECE_BYTES = 256 * 1024
_CONNECT_RETRY_S = 0.02


class Answer(NamedTuple):
    """What the manager answered: the HTTP status, and its JSON or text."""

    status: int
    content: Any

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    @property
    def sentence(self) -> str:
        """The manager's words. Errors of HALO (Rust) are bare text, and its successes are empty."""
        if isinstance(self.content, dict):
            said = self.content.get("message" if self.succeeded else "error")
            return said if isinstance(said, str) else ""
        return self.content.strip() if isinstance(self.content, str) else ""


class _BrokenOff(Exception):
    """The connection ended before the answer was complete."""


class _NoManager(Exception):
    """The program that answers is not a manager."""


def path_of(*parts: str) -> str:
    """The path of a request. Each part is quoted, because ids may hold slashes."""
    from urllib.parse import quote  # not needed for a status

    return "".join("/" + quote(part, safe="") for part in parts)


def request(
    socket_path: str,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    deadline_s: float,
) -> Answer:
    """The manager's answer, whatever its status. Raises ManagerUnreachable if there is none."""
    payload = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.0\r\nHost: localhost\r\nAccept: application/json\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    commands = method != "GET"
    try:
        return _parsed(_exchanged(socket_path, head.encode() + payload, deadline_s))
    except TimeoutError:
        raise ManagerUnreachable(
            f"The manager at {socket_path} did not answer within {deadline_s:g} s."
            + (_MAY_GO_ON if commands else " It hangs or is overloaded: read its log.")
            + _LOG,
            absent=True,
        ) from None
    except (_BrokenOff, ConnectionResetError):
        raise ManagerUnreachable(
            f"The manager at {socket_path} ended the connection without an answer; it may be"
            " restarting." + (_MAY_GO_ON if commands else " Try again, or read its log.") + _LOG,
            absent=True,
        ) from None
    except _NoManager as error:
        raise ManagerUnreachable(
            f"What answers at {socket_path} is not a HALO manager: {error}."
            " Name the manager's socket with --socket or HALO_SOCKET.",
            absent=False,
        ) from None
    except OSError as error:
        raise _not_connected(socket_path, error) from None


def get_status(socket_path: str, *, deadline_s: float = STATUS_DEADLINE_S) -> dict[str, Any]:
    """The manager's status. Raises ManagerUnreachable, or CliError with the manager's reason.

    Only for a manager of HALO (Rust), this is the shorter status at the root of the API."""
    answer = request(socket_path, "GET", PREFIX + "/status", deadline_s=deadline_s)
    if answer.status in NOT_THERE:
        answer = request(socket_path, "GET", "/status", deadline_s=deadline_s)
    if not answer.succeeded:
        said = answer.sentence or f"HTTP status {answer.status}"
        if isinstance(answer.content, dict) and "known" in answer.content:
            raise NoLeader(f"No status: {said}", answer.content["known"])
        raise CliError(f"The manager did not give its status: {said}")
    if not isinstance(answer.content, dict):
        raise ManagerUnreachable(
            f"What answers at {socket_path} is not a HALO manager: its status is not a JSON object."
            " Name the manager's socket with --socket or HALO_SOCKET.",
            absent=False,
        )
    return answer.content


_MAY_GO_ON = " It may still carry out the command: check with `halo status`."
_LOG = " (Its log: journalctl -u halo.)"


def _exchanged(path: str, request: bytes, deadline_s: float) -> bytes:
    """Send a request, and return the whole answer. Raises OSError, TimeoutError at the deadline."""
    ends = time.monotonic() + deadline_s
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        _connect(connection, path, ends)
        # The manager may have answered and closed before it read everything.
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(request)
        return _received(connection, ends)
    finally:
        connection.close()


def _received(connection: _socket.socket, ends: float) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        _arm(connection, ends)
        piece = connection.recv(_PIECE_BYTES)
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size += len(piece)
        if size > ANSWER_LIMIT_BYTES:
            raise _NoManager(f"its answer is larger than {ANSWER_LIMIT_BYTES} bytes")


def _connect(connection: _socket.socket, path: str, ends: float) -> None:
    while True:
        _arm(connection, ends)
        try:
            connection.connect(path)
            return
        except BlockingIOError:  # the manager's queue of connections is full
            time.sleep(_CONNECT_RETRY_S)


def _arm(connection: _socket.socket, ends: float) -> None:
    """Limit the next wait to the rest of the deadline. Raises TimeoutError if it has passed."""
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection.settimeout(left)


def _parsed(received: bytes) -> Answer:
    """An HTTP/1.x answer (RFC 9112, sections 2 to 4 and 6.3)."""
    if received and not received.startswith(b"HTTP/1."[: len(received)]):
        raise _NoManager("it does not speak HTTP")
    head, ended, body = received.partition(b"\r\n\r\n")
    if not ended:
        raise _BrokenOff
    status_line, *fields = head.split(b"\r\n")
    try:
        status = int(status_line.split(b" ", 2)[1])
        length = next(
            (int(f[15:]) for f in fields if f[:15].lower() == b"content-length:"), len(body)
        )
    except (IndexError, ValueError):
        raise _NoManager("its HTTP is malformed") from None
    if len(body) < length:
        raise _BrokenOff
    text = body.decode(errors="replace")
    try:
        return Answer(status, json.loads(text))
    except (ValueError, RecursionError):
        return Answer(status, text)


def _not_connected(path: str, error: OSError) -> ManagerUnreachable:
    """Why there is no connection: is the socket there, whose is it, and does anybody listen?"""
    start = "Is the manager running here (systemctl status halo)?"
    elsewhere = "If its socket is elsewhere, name it with --socket or HALO_SOCKET."
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        said = f"The manager's socket {path} does not exist. {start} {elsewhere}"
    elif isinstance(error, PermissionError):
        said = f"You may not use the manager's socket {path}{_owner(path)}. Use sudo, or have the"
        said += " manager started with --socket-group and one of your groups."
        return ManagerUnreachable(said, absent=False)
    elif _is_no_socket(path):
        said = f"{path} is not a socket. Name the manager's with --socket or HALO_SOCKET."
        return ManagerUnreachable(said, absent=False)
    elif isinstance(error, ConnectionRefusedError):
        said = f"The socket {path} exists, but nothing listens on it: the manager that made it"
        said += f" has ended. Start it (systemctl start halo). {elsewhere}"
    else:
        from halo.error_words import words_of

        said = f"Cannot connect to the manager's socket {path}: {words_of(error)}. {elsewhere}"
        return ManagerUnreachable(said, absent=False)
    return ManagerUnreachable(said, absent=True)


def _is_no_socket(path: str) -> bool:
    try:
        return not stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _owner(path: str) -> str:
    import grp
    import pwd

    try:
        found = os.stat(path)
    except OSError:
        return ""  # we may not even enter the folder
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return f" (owner {owner}, group {group}, mode {stat.S_IMODE(found.st_mode):04o})"
