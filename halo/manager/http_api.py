"""The manager's HTTP API: the routes, what their bodies must be, and how refusals are answered.

It decides nothing: requests are checked here and handed to :class:`halo.ports.Operations`, whose
one-sentence answers and errors are turned into JSON. ``docs/http_api.md`` is its reference.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from socket import SO_PEERCRED, SOL_SOCKET
from typing import Any, TypeAlias

import structlog
from aiohttp import web

import halo
from halo.core.errors import BadRequest, CommandError, HaloError, InvariantError, RecordError
from halo.manager.http_body import Field, checked_body
from halo.ports import Operations

log = structlog.get_logger(__name__)

BODY_LIMIT_BYTES = 64 * 1024
BODY_DEADLINE_S = 10.0
COMMAND_DEADLINE_S = 60.0
"""Longest wait for any command's answer but a fence's."""
FENCE_DEADLINE_S = 900.0
"""Longest wait for a fence's answer: several devices, each with its own deadline."""
VALIDATION_DEADLINE_S = 400.0
"""Longest wait for what the scripts of one host say: the manager begins none after 300 s."""
COMMANDS_LIMIT = 256
"""Commands that may run at once; a further one is answered 503."""

HOST_COMMANDS = (
    "activate",
    "cancel-fence",
    "confirm-off",
    "deactivate",
    "failback",
    "fence",
    "reset",
)
GROUP_COMMANDS = ("cleanup", "move", "start", "stop")
CLUSTER_COMMANDS = ("freeze", "thaw")

_COMMENT = Field("comment", "text")
_FORCE = Field("force", "flag")
_HOST_BODY = (Field("command", "text", choices=HOST_COMMANDS), _FORCE, _COMMENT)
_GROUP_BODY = (
    Field("command", "text", choices=GROUP_COMMANDS),
    Field("to", "text"),
    _COMMENT,
)
_CLUSTER_BODY = (Field("command", "text", choices=CLUSTER_COMMANDS), _COMMENT)
_MANAGED_BODY = (Field("managed", "flag", required=True), _COMMENT)
_CLEAR_BODY = (_COMMENT,)

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
DefectHandler: TypeAlias = Callable[[InvariantError], None]


def make_app(
    operations: Operations,
    *,
    on_defect: DefectHandler | None = None,
    debug: Callable[[], Mapping[str, Any]] | None = None,
    status_text: Callable[[], Awaitable[bytes]] | None = None,
    command_deadline_s: float = COMMAND_DEADLINE_S,
    fence_deadline_s: float = FENCE_DEADLINE_S,
    body_deadline_s: float = BODY_DEADLINE_S,
    commands_limit: int = COMMANDS_LIMIT,
) -> web.Application:
    """The application that serves `operations`.

    Commands run in tasks of their own: neither a client that goes away nor an answer deadline
    ends one. `app.cleanup()` (the runner's) cancels those that still run. `on_defect` is told of
    an InvariantError that a command raised, since the manager must not go on after one. `debug`
    gives what `GET /debug` answers; without it there is no such route. `status_text` gives the
    status as JSON; without it, `operations.status()` is encoded in one step.
    """
    commands = _Commands(on_defect, command_deadline_s, fence_deadline_s, commands_limit)
    api = _Api(operations, commands, body_deadline_s, status_text)
    app = web.Application(middlewares=[_answer_errors_as_json], client_max_size=BODY_LIMIT_BYTES)
    app.router.add_get("/status", api.status)
    app.router.add_get("/version", api.version)
    if debug is not None:
        app.router.add_get("/debug", _debug_handler(debug))
    # Ids may hold slashes (mds00e0/mgt); clients send them quoted or as they are.
    app.router.add_patch("/resources/{id:.+}", api.set_managed)
    app.router.add_post("/hosts/{id:.+}", api.host)
    app.router.add_post("/groups/{id:.+}", api.group)
    app.router.add_post("/validate/{id:.+}", api.validate)
    app.router.add_post("/cluster", api.cluster)
    app.router.add_post("/clear_events", api.clear_events)
    app.on_cleanup.append(commands.cancel_all)
    return app


def _debug_handler(figures: Callable[[], Mapping[str, Any]]) -> Handler:
    async def answer(_request: web.Request) -> web.Response:
        return _json(figures())

    return answer


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner with the settings the API is meant for; `setup()` it before opening a site.

    `cleanup()` waits at most a second for answers under way, so that a restart is quick.
    """
    return web.AppRunner(
        app,
        access_log=None,
        handle_signals=False,
        handler_cancellation=False,
        shutdown_timeout=1.0,
        lingering_time=0.5,  # for the rest of a body that was refused; aiohttp's own is 10 s
    )


@dataclass(frozen=True)
class _Command:
    """What is asked, in words: for the log and for the answer at the deadline."""

    name: str
    target: str

    def __str__(self) -> str:
        return f'"{self.name}" of {self.target}' if self.target else f'"{self.name}"'


class _Unavailable(CommandError):
    """No answer within the bound; the command may still be carried out."""

    status = 503


class _Commands:
    """Runs commands apart from the requests that asked for them."""

    def __init__(
        self,
        on_defect: DefectHandler | None,
        command_deadline_s: float,
        fence_deadline_s: float,
        limit: int,
    ) -> None:
        self._on_defect = on_defect
        self._command_deadline_s = command_deadline_s
        self._fence_deadline_s = fence_deadline_s
        self._limit = limit
        self._running: set[asyncio.Task[Any]] = set()

    async def run(
        self, command: _Command, work: Coroutine[Any, Any, str | Mapping[str, Any]]
    ) -> web.Response:
        """The answer to one command, within its deadline. Raises what `work` raises."""
        if len(self._running) >= self._limit:
            work.close()
            raise _Unavailable("Too many commands are running: wait for them and try again.")
        task = asyncio.create_task(work, name=f"command {command}")
        self._running.add(task)
        task.add_done_callback(self._finished)
        deadline_s = {
            "fence": self._fence_deadline_s,
            "validate": VALIDATION_DEADLINE_S,
        }.get(command.name, self._command_deadline_s)
        # wait() neither cancels the task at the deadline nor when this request is cancelled.
        await asyncio.wait({task}, timeout=deadline_s)
        if not task.done():
            raise _Unavailable(
                f"The command {command} has not finished within {deadline_s:g} s and is still"
                " being carried out: see `halo status` for what comes of it.",
            )
        if task.cancelled():
            raise _Unavailable(f"The manager is stopping; the command {command} was cut short.")
        said = task.result()
        return _json({"message": said} if isinstance(said, str) else said)

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


class _Api:
    """One method a route."""

    def __init__(
        self,
        operations: Operations,
        commands: _Commands,
        body_deadline_s: float,
        status_text: Callable[[], Awaitable[bytes]] | None,
    ) -> None:
        self._operations = operations
        self._status_text = status_text
        self._commands = commands
        self._body_deadline_s = body_deadline_s

    async def status(self, _request: web.Request) -> web.Response:
        if self._status_text is None:
            return _json(self._operations.status())
        return web.Response(body=await self._status_text(), content_type="application/json")

    async def version(self, _request: web.Request) -> web.Response:
        return _json({"version": halo.__version__})

    async def set_managed(self, request: web.Request) -> web.Response:
        group = request.match_info["id"]
        body = await self._body(request, _MANAGED_BODY)
        command = _Command("manage" if body["managed"] else "unmanage", f"group {group}")
        _log_command(request, command, body)
        return await self._commands.run(
            command, self._operations.set_managed(group, body["managed"], body["comment"])
        )

    async def host(self, request: web.Request) -> web.Response:
        host = request.match_info["id"]
        body = await self._body(request, _HOST_BODY)
        command = _Command(body["command"], f"host {host}")
        _log_command(request, command, body)
        return await self._commands.run(
            command,
            self._operations.host_command(
                host, command.name, force=bool(body["force"]), comment=body["comment"]
            ),
        )

    async def group(self, request: web.Request) -> web.Response:
        group = request.match_info["id"]
        body = await self._body(request, _GROUP_BODY)
        command = _Command(body["command"], f"group {group}")
        if command.name == "move" and body["to"] is None:
            raise BadRequest('The command "move" needs the key "to": the host to move to.')
        if command.name != "move" and body["to"] is not None:
            raise BadRequest(f'The key "to" belongs to "move", not to "{command.name}".')
        _log_command(request, command, body)
        return await self._commands.run(
            command,
            self._operations.group_command(
                group,
                command.name,
                to=body["to"],
                comment=body["comment"],
            ),
        )

    async def validate(self, request: web.Request) -> web.Response:
        host = request.match_info["id"]
        body = await self._body(request, (), may_be_empty=True)
        command = _Command("validate", f"host {host}")
        _log_command(request, command, body)
        return await self._commands.run(command, self._operations.validate(host))

    async def cluster(self, request: web.Request) -> web.Response:
        body = await self._body(request, _CLUSTER_BODY)
        command = _Command(body["command"], "")
        _log_command(request, command, body)
        return await self._commands.run(
            command, self._operations.cluster_command(command.name, comment=body["comment"])
        )

    async def clear_events(self, request: web.Request) -> web.Response:
        body = await self._body(request, _CLEAR_BODY, may_be_empty=True)
        command = _Command("clear_events", "")
        _log_command(request, command, body)
        return await self._commands.run(
            command, self._operations.cluster_command(command.name, comment=body["comment"])
        )

    async def _body(
        self, request: web.Request, fields: tuple[Field, ...], *, may_be_empty: bool = False
    ) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(self._body_deadline_s):
                raw = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout(
                text=f"The body of the request did not arrive within {self._body_deadline_s:g} s."
            ) from None
        return checked_body(raw, fields, may_be_empty=may_be_empty)


@web.middleware
async def _answer_errors_as_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every way a request can fail into a status and one sentence."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = _refusal(request, error.status, _http_error(request, error))
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return response
    except CommandError as error:
        return _refusal(request, error.status, str(error))
    except RecordError as error:
        log.error("command not recorded", path=request.path, error=str(error))
        return _refusal(
            request, 500, f"The journal could not be written, so nothing was changed: {error}"
        )
    except HaloError as error:
        log.error("command failed", path=request.path, error=str(error), exc_info=True)
        return _refusal(request, 500, str(error))
    except Exception:
        # Only the log gets the particulars: an unforeseen error may quote anything.
        log.error("request failed unexpectedly", path=request.path, exc_info=True)
        return _refusal(
            request,
            500,
            f"The manager failed to answer {request.method} {request.path}:"
            " its log holds the particulars. Please report this as a defect.",
        )


def _http_error(request: web.Request, error: web.HTTPException) -> str:
    """What aiohttp itself refuses, in our words."""
    if isinstance(error, web.HTTPNotFound):
        routes = (r for r in request.app.router.routes() if r.resource and r.method != "HEAD")
        shown = ", ".join(f"{r.method} {r.resource.canonical}" for r in routes if r.resource)
        return f"There is nothing at {request.path}; the routes are {shown}."
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return f"{request.method} is not possible at {request.path}; allowed: {allowed}."
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return f"The body is larger than {BODY_LIMIT_BYTES} bytes."
    return error.text or error.reason


def _refusal(request: web.Request, status: int, sentence: str) -> web.Response:
    if _wants_plain_text(request):
        return web.Response(text=sentence, status=status)
    return _json({"error": sentence}, status)


def _json(content: Any, status: int = 200) -> web.Response:
    body = json.dumps(content, separators=(",", ":")).encode()
    return web.Response(body=body, status=status, content_type="application/json")


def _wants_plain_text(request: web.Request) -> bool:
    """Whether errors go out as bare sentences.

    The `halo` of existing HALO sites prints an error's body as it is. It asks for nothing in
    particular, and is known by the host name of its URLs, http://halo_manager/.
    """
    accept = request.headers.get("Accept", "*/*")
    if accept == "*/*":
        return request.headers.get("Host") == "halo_manager"
    return "text/plain" in accept and "json" not in accept


def _log_command(request: web.Request, command: _Command, body: Mapping[str, Any]) -> None:
    """Say in the log who asked for what, with the identity the kernel vouches for."""
    uid = pid = None
    socket = request.get_extra_info("socket")
    if socket is not None:
        try:
            credentials = socket.getsockopt(SOL_SOCKET, SO_PEERCRED, struct.calcsize("3i"))
            pid, uid, _gid = struct.unpack("3i", credentials)
        except OSError:
            pass  # the client is gone already; its command is carried out all the same
    log.info("command", command=str(command), uid=uid, pid=pid, comment=body.get("comment"))
