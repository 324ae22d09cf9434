"""One HTTP request to the manager over its Unix socket, without any library to load for it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from halo.cli.errors import CliError, ManagerUnreachable

STATUS_DEADLINE_S = 10.0
COMMAND_DEADLINE_S = 75.0
"""Longer than the manager takes to answer any command but a fence (60 s)."""
FENCE_DEADLINE_S = 930.0
"""Longer than the manager takes to answer a fence (900 s)."""
ANSWER_LIMIT_BYTES = 256 * 1024 * 1024

_PIECE_BYTES = 256 * 1024
_CONNECT_RETRY_S = 0.02


@dataclass(frozen=True, slots=True)
class Answer:
    """What the manager answered: the HTTP status, and its JSON or text."""

    status: int
    content: Any

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    @property
    def sentence(self) -> str:
        """The manager's words. A HALO manager's errors are bare text, its successes empty."""
        if isinstance(self.content, dict):
            said = self.content.get("message" if self.succeeded else "error")
            return said if isinstance(said, str) else ""
        return self.content.strip() if isinstance(self.content, str) else ""


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket, with one deadline for all of it."""

    def __init__(self, path: str, deadline_s: float) -> None:
        super().__init__("localhost", timeout=deadline_s)
        self._path = path
        self._ends = time.monotonic() + deadline_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        while True:
            self.rearm()
            try:
                self.sock.connect(self._path)
                return
            except BlockingIOError:  # the manager's queue of connections is full
                time.sleep(_CONNECT_RETRY_S)

    def rearm(self) -> None:
        """Give the next wait what is left of the deadline; raises TimeoutError at its end."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.sock.settimeout(left)


def path_of(*parts: str) -> str:
    """The path of a request: each part quoted, since ids may hold slashes."""
    return "".join("/" + quote(part, safe="") for part in parts)


def request(
    socket_path: str,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    *,
    deadline_s: float,
) -> Answer:
    """The manager's answer, whatever its status; raises ManagerUnreachable where there is none."""
    connection = _UnixConnection(socket_path, deadline_s)
    headers = {"Accept": "application/json", "Connection": "close"}
    payload = None
    if body is not None:
        payload = json.dumps(body).encode()
        headers["Content-Type"] = "application/json"
    try:
        connection.request(method, path, payload, headers)
        return _answer(connection)
    except TimeoutError:
        raise ManagerUnreachable(
            f"The manager at {socket_path} did not answer within {deadline_s:g} s."
            + (_MAY_GO_ON if body is not None else _LOOK_AT_LOG),
            absent=True,
        ) from None
    except http.client.HTTPException as error:
        if isinstance(error, http.client.RemoteDisconnected):
            raise _broken_off(socket_path, body) from None
        raise ManagerUnreachable(
            f"What answers at {socket_path} is not a HALO manager ({type(error).__name__}):"
            " name the manager's socket with --socket or HALO_SOCKET.",
            absent=False,
        ) from None
    except (BrokenPipeError, ConnectionResetError):
        raise _broken_off(socket_path, body) from None
    except OSError as error:
        raise _not_connected(socket_path, error) from None
    finally:
        connection.close()


def get_status(socket_path: str, *, deadline_s: float = STATUS_DEADLINE_S) -> dict[str, Any]:
    """The manager's status; raises ManagerUnreachable, or CliError with the manager's reason."""
    answer = request(socket_path, "GET", "/status", deadline_s=deadline_s)
    if not answer.succeeded:
        said = answer.sentence or f"HTTP status {answer.status}"
        raise CliError(f"The manager gave no status: {said}")
    if not isinstance(answer.content, dict):
        raise ManagerUnreachable(
            f"What answers at {socket_path} is not a HALO manager: its status is no JSON object."
            " Name the manager's socket with --socket or HALO_SOCKET.",
            absent=False,
        )
    return answer.content


_MAY_GO_ON = " It may still carry the command out: see `halo status`."
_LOOK_AT_LOG = " It hangs or is overloaded: see its log (journalctl -u halo)."


def _answer(connection: _UnixConnection) -> Answer:
    response = connection.getresponse()
    pieces: list[bytes] = []
    size = 0
    while piece := response.read1(_PIECE_BYTES):
        pieces.append(piece)
        size += len(piece)
        if size > ANSWER_LIMIT_BYTES:
            raise http.client.HTTPException("answer too large")
        if connection.sock is not None:
            connection.rearm()
    if response.length:  # the stream ended before the announced length
        raise http.client.RemoteDisconnected("answer cut short")
    text = b"".join(pieces).decode(errors="replace")
    try:
        return Answer(response.status, json.loads(text))
    except ValueError:
        return Answer(response.status, text)


def _broken_off(path: str, body: Mapping[str, Any] | None) -> ManagerUnreachable:
    return ManagerUnreachable(
        f"The manager at {path} ended the connection without an answer; it may be restarting."
        + (_MAY_GO_ON if body is not None else " Try again, or see its log (journalctl -u halo)."),
        absent=True,
    )


def _not_connected(path: str, error: OSError) -> ManagerUnreachable:
    """Why there is no connection: is the socket there, whose is it, does anybody listen."""
    start = "Is the manager running here (systemctl status halo)?"
    elsewhere = "If its socket is elsewhere, name it with --socket or HALO_SOCKET."
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        said = f"The manager's socket {path} does not exist. {start} {elsewhere}"
    elif isinstance(error, PermissionError):
        said = f"You may not use the manager's socket {path}{_owner(path)}. Use sudo, or have the"
        said += " manager started with --socket-group and a group of yours."
        return ManagerUnreachable(said, absent=False)
    elif _is_no_socket(path):
        said = f"{path} is not a socket. {elsewhere}"
        return ManagerUnreachable(said, absent=False)
    elif isinstance(error, ConnectionRefusedError):
        said = f"The socket {path} exists, but nothing listens on it: the manager that made it"
        said += f" has ended. Start it (systemctl start halo). {elsewhere}"
    else:
        said = f"Cannot connect to the manager's socket {path}: {error}. {elsewhere}"
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
        return ""  # the folder itself is closed to us
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    try:
        group = grp.getgrgid(found.st_gid).gr_name
    except KeyError:
        group = str(found.st_gid)
    return f" (owner {owner}, group {group}, mode {stat.S_IMODE(found.st_mode):04o})"
