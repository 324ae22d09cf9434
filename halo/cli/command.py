"""One command to the manager, ours or one of HALO (Rust), which has only the root of the API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from halo.cli.client import NOT_THERE, PREFIX, Answer, request
from halo.cli.errors import CliError

_HALO_HOST_COMMANDS = ("activate", "deactivate", "failback", "fence", "reset")


def command(
    socket_path: str, method: str, path: str, body: Mapping[str, Any], *, deadline_s: float
) -> Answer:
    """The answer to one command. `path` is below the prefix of our half.

    Raises ManagerUnreachable. Raises CliError if the manager is one of HALO (Rust), and does not
    know the command. Nothing is sent twice to a manager that understood it."""
    answer = request(socket_path, method, PREFIX + path, body, deadline_s=deadline_s)
    if answer.status not in NOT_THERE or isinstance(answer.content, dict):
        return answer  # our half answers in JSON, even if a host or group does not exist
    name = body.get("command") or path.split("/")[1]
    if not _halo_knows(path, name):
        raise CliError(
            f'The manager at {socket_path} is one of HALO (Rust), which knows no "{name}".'
        )
    answer = request(socket_path, method, path, body, deadline_s=deadline_s)
    if answer.status == 404 and not answer.sentence:
        return Answer(404, {"error": "the manager knows no such host or group."})
    if answer.status == 401:
        said = f"the socket {socket_path} only shows the status; it takes no commands."
        return Answer(401, {"error": said})
    return answer


def _halo_knows(path: str, name: str) -> bool:
    if path.startswith("/hosts/"):
        return name in _HALO_HOST_COMMANDS
    return path.startswith("/resources/") or path == "/clear_events"
