"""Commands that run apart from the requests that asked for them, and the bounds of both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import structlog
from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError

from halo.core.errors import CommandError, InvariantError
from halo.manager.api.headers import asker_of

log = structlog.get_logger(__name__)

BODY_DEADLINE_S = 10.0
COMMAND_DEADLINE_S = 60.0
"""Longest wait for the answer of a command other than a fence."""
FENCE_DEADLINE_S = 900.0
"""Longest wait for a fence's answer: several devices, each with its own deadline."""
VALIDATION_DEADLINE_S = 400.0
"""Longest wait for the scripts of one host: the manager begins no script after 300 s."""
COMMANDS_LIMIT = 256
"""Commands that may run at once. One more is answered with 503."""
MAY_HAVE_TAKEN_EFFECT = "The command may have taken effect: look at `halo status`."

Said: TypeAlias = str | Mapping[str, Any]
"""The answer of a command: one sentence, or data for a validation."""
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
    """A command in words, for the log and for the answer at the deadline."""

    name: str
    target: str

    def __str__(self) -> str:
        return f'"{self.name}" of {self.target}' if self.target else f'"{self.name}"'


class Unavailable(CommandError):
    """No answer came in time. The command may still be carried out."""

    status = 503


class Commands:
    """Runs commands. They continue if the client goes away, or if the answer's deadline passes."""

    def __init__(self, bounds: Bounds, on_defect: DefectHandler | None) -> None:
        self._bounds = bounds
        self._on_defect = on_defect
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, command: Command, work: Coroutine[Any, Any, Said]) -> Said:
        """The answer of one command, within its deadline. Raises what `work` raises."""
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
        # wait() does not cancel the task at the deadline, or when this request is cancelled.
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
        error = task.exception()  # also marks it as seen if no request waits any more
        if isinstance(error, InvariantError) and self._on_defect is not None:
            self._on_defect(error)

    async def cancel_all(self, _app: web.Application) -> None:
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def log_command(request: web.Request, command: Command, comment: str | None) -> None:
    """Log who asked for what, with the identity that the kernel confirms."""
    asker = asker_of(request)
    via = {"via": asker.via} if asker.via is not None else {}
    log.info("command", command=str(command), uid=asker.uid, pid=asker.pid, **via, comment=comment)


async def read_body(request: web.Request, deadline_s: float) -> bytes:
    """The request's body. Raises a web.HTTPException if it does not come, or is too large."""
    try:
        async with asyncio.timeout(deadline_s):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(
            text=f"The body of the request did not arrive within {deadline_s:g} s."
        ) from None
    except (ConnectionError, PayloadEncodingError, web.RequestPayloadError):
        raise web.HTTPBadRequest(text="The body of the request is incomplete.") from None
