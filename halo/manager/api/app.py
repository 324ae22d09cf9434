"""The application that serves the HTTP API: both halves, and how refusals are answered.

It decides nothing: requests are checked and handed to :class:`halo.ports.Operations`, whose
one-sentence answers and errors go out. ``docs/http_api.md`` is its reference.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import structlog
from aiohttp import web

from halo.core.errors import CommandError, HaloError, RecordError
from halo.manager.api.malformed import PatientRunner, server_logger
from halo.manager.api.ours import Figures, OurHalf, StatusText, as_json
from halo.manager.api.root import RootHalf, sentence
from halo.manager.api.routes import PREFIX
from halo.manager.api.running import Bounds, Commands, DefectHandler
from halo.ports import Operations

log = structlog.get_logger(__name__)

BODY_LIMIT_BYTES = 64 * 1024

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
    operations: Operations,
    *,
    on_defect: DefectHandler | None = None,
    debug: Figures | None = None,
    status_text: StatusText | None = None,
    root_status_text: StatusText | None = None,
    bounds: Bounds | None = None,
) -> web.Application:
    """The application that serves `operations`.

    Commands run in tasks of their own: neither a client that goes away nor an answer deadline
    ends one. `app.cleanup()` (the runner's) cancels those that still run. `on_defect` is told of
    an InvariantError that a command raised, since the manager must not go on after one. `debug`
    gives what `GET /v1/debug` answers; without it there is no such route. `status_text` and
    `root_status_text` give the status of each half as JSON; without them, that of `operations` is
    encoded in one step.
    """
    bounds = bounds or Bounds()
    commands = Commands(bounds, on_defect)
    app = web.Application(middlewares=[_answer_errors], client_max_size=BODY_LIMIT_BYTES)
    RootHalf(operations, commands, bounds, root_status_text).add_to(app)
    OurHalf(operations, commands, bounds, status_text, debug).add_to(app)
    app.on_cleanup.append(commands.cancel_all)
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner with the settings the API is meant for; `setup()` it before opening a site.

    `cleanup()` waits at most a second for answers under way, so that a restart is quick.
    """
    return PatientRunner(
        app,
        access_log=None,
        logger=server_logger(),
        handle_signals=False,
        handler_cancellation=False,
        shutdown_timeout=1.0,
        lingering_time=0.5,  # for the rest of a body that was refused; aiohttp's own is 10 s
    )


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
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
            " its log has the details. Please report this as a defect.",
        )


def _http_error(request: web.Request, error: web.HTTPException) -> str:
    """What aiohttp itself refuses, in our words."""
    if isinstance(error, web.HTTPNotFound):
        return f"There is no route {request.path}; the routes are {_routes(request)}."
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return f"{request.method} is not possible at {request.path}; allowed: {allowed}."
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return f"The body is larger than {BODY_LIMIT_BYTES} bytes."
    return error.text or error.reason


def _routes(request: web.Request) -> str:
    routes = (r for r in request.app.router.routes() if r.resource and r.method != "HEAD")
    return ", ".join(f"{r.method} {r.resource.canonical}" for r in routes if r.resource)


def _refusal(request: web.Request, status: int, text: str) -> web.Response:
    """Ours are JSON; those of HALO's half, and of what is in neither, bare sentences."""
    if request.path.startswith(PREFIX + "/"):
        return as_json({"error": text}, status)
    return sentence(text, status)
