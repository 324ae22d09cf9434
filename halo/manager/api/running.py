"""Commands that run apart from the requests that asked for them, and the bounds of both."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from socket import SO_PEERCRED, SOL_SOCKET
from typing import Any, TypeAlias

import structlog
from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError

from halo.core.errors import CommandError, InvariantError

log = structlog.get_logger(__name__)

BODY_DEADLINE_S = 10.0
COMMAND_DEADLINE_S = 60.0
"""Longest wait for any command's answer but a fence's."""
FENCE_DEADLINE_S = 900.0
"""Longest wait for a fence's answer: several devices, each with its own deadline."""
VALIDATION_DEADLINE_S = 400.0
"""Longest wait for what the scripts of one host say: the manager begins none after 300 s."""
COMMANDS_LIMIT = 256
"""Commands that may run at once; a further one is answered 503."""

Said: TypeAlias = str | Mapping[str, Any]
"""What a command came to: one sentence, or that of a validation, data."""
DefectHandler: TypeAlias = Callable[[InvariantError], None]


@dataclass(frozen=True)
class Bounds:
    """How long requests may take, and how many commands may run."""

    body_deadline_s: float = BODY_DEADLINE_S
    command_deadline_s: float = COMMAND_DEADLINE_S
    fence_deadline_s: float = FENCE_DEADLINE_S
    commands_limit: int = COMMANDS_LIMIT


@dataclass(frozen=True)
class Command:
    """What is asked, in words: for the log and for the answer at the deadline."""

    name: str
    target: str

    def __str__(self) -> str:
        return f'"{self.name}" of {self.target}' if self.target else f'"{self.name}"'


class Unavailable(CommandError):
    """No answer within the bound; the command may still be carried out."""

    status = 503


class Commands:
    """Runs commands: neither a client that goes away nor an answer deadline ends one."""

    def __init__(self, bounds: Bounds, on_defect: DefectHandler | None) -> None:
        self._bounds = bounds
        self._on_defect = on_defect
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, command: Command, work: Coroutine[Any, Any, Said]) -> Said:
        """What one command came to, within its deadline. Raises what `work` raises."""
        if len(self._running) >= self._bounds.commands_limit:
            work.close()
            raise Unavailable("Too many commands are running: wait for them and try again.")
        task = asyncio.create_task(work, name=f"command {command}")
        self._running.add(task)
        task.add_done_callback(self._finished)
        deadline_s = {
            "fence": self._bounds.fence_deadline_s,
            "validate": VALIDATION_DEADLINE_S,
        }.get(command.name, self._bounds.command_deadline_s)
        # wait() neither cancels the task at the deadline nor when this request is cancelled.
        await asyncio.wait({task}, timeout=deadline_s)
        if not task.done():
            raise Unavailable(
                f"The command {command} has not finished within {deadline_s:g} s and is still"
                " being carried out: see `halo status` for the result.",
            )
        if task.cancelled():
            raise Unavailable(f"The manager is stopping; it ended the command {command} early.")
        return task.result()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()  # also marks it as seen, where no request waits any more
        if isinstance(error, InvariantError) and self._on_defect is not None:
            self._on_defect(error)

    async def cancel_all(self, _app: web.Application) -> None:
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def log_command(request: web.Request, command: Command, comment: str | None) -> None:
    """Say in the log who asked for what, with the identity the kernel vouches for."""
    uid = pid = None
    socket = request.get_extra_info("socket")
    if socket is not None:
        try:
            credentials = socket.getsockopt(SOL_SOCKET, SO_PEERCRED, struct.calcsize("3i"))
            pid, uid, _gid = struct.unpack("3i", credentials)
        except OSError:
            pass  # the client is gone already; its command is carried out all the same
    log.info("command", command=str(command), uid=uid, pid=pid, comment=comment)


async def read_body(request: web.Request, deadline_s: float) -> bytes:
    """The request's body; raises a web.HTTPException where it does not come, or is too large."""
    try:
        async with asyncio.timeout(deadline_s):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(
            text=f"The body of the request did not arrive within {deadline_s:g} s."
        ) from None
    except (ConnectionError, PayloadEncodingError, web.RequestPayloadError):
        raise web.HTTPBadRequest(text="The body of the request is incomplete.") from None
