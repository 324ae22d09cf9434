"""The application that serves the HTTP API: both halves, and how refusals are answered.

It decides nothing. It checks requests and hands them to :class:`halo.ports.Operations`. The answers
and errors of those, one sentence each, go out. ``docs/http_api.md`` is the reference.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import structlog
from aiohttp import web

from halo.core.errors import CommandError, HaloError, LeadershipError, RecordError
from halo.manager.api.headers import LEADER
from halo.manager.api.malformed import PatientRunner, server_logger
from halo.manager.api.managers import Managers
from halo.manager.api.ours import Figures, OurHalf, StatusText, as_json
from halo.manager.api.root import RootHalf, sentence
from halo.manager.api.routes import PREFIX
from halo.manager.api.running import MAY_HAVE_TAKEN_EFFECT, Bounds, Commands, DefectHandler
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
    managers: Managers | None = None,
    require_leading: Callable[[], None] = lambda: None,
) -> web.Application:
    """The application that serves `operations`.

    Commands run in their own tasks. A command continues if its client goes away, and after the
    deadline of its answer. `app.cleanup()` (the runner's) cancels commands that still run.
    `on_defect` is told of an InvariantError that a command raised: the manager must not continue
    then. `debug` gives the answer of `GET /v1/debug`; without it there is no such route.
    `status_text` and `root_status_text` give the status of each half as JSON. Without them, the
    status of `operations` is encoded in one step. `managers` are there if several can lead: this
    one leads then, and every answer names it. `require_leading` raises LeadershipError if this
    manager does not lead any more: then it gives no answer from its memory.
    """
    bounds = bounds or Bounds()
    commands = Commands(bounds, on_defect)
    app = web.Application(
        middlewares=[answer_errors, _while_leading(require_leading)],
        client_max_size=BODY_LIMIT_BYTES,
    )
    RootHalf(operations, commands, bounds, root_status_text).add_to(app)
    OurHalf(operations, commands, bounds, status_text, debug, managers).add_to(app)
    if managers is not None:
        app.on_response_prepare.append(_names_leader(managers.standing.own_id, require_leading))
    app.on_cleanup.append(commands.cancel_all)
    return app


def _names_leader(
    own_id: str, require: Callable[[], None]
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def name(_request: web.Request, response: web.StreamResponse) -> None:
        with contextlib.suppress(LeadershipError):  # a manager that was deposed names nobody
            require()
            response.headers[LEADER] = own_id

    return name


def _while_leading(require: Callable[[], None]) -> Callable[..., Awaitable[web.StreamResponse]]:
    """Look whether this manager leads after the answer is made: a machine that stood still wakes
    with a memory of the past, and another manager may have led since. So a refusal, or the answer
    that nothing is to be done, counts no more than a status."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            answer = await handler(request)
        except Exception:  # a refusal, too; a cancellation stays one
            require()
            raise
        require()
        return answer

    return guard


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner with the settings that the API needs. Call its `setup()` before opening a site.

    `cleanup()` waits at most one second for answers under way, so that a restart is quick.
    """
    return PatientRunner(
        app,
        access_log=None,
        logger=server_logger(),
        handle_signals=False,
        handler_cancellation=False,
        shutdown_timeout=1.0,
        lingering_time=0.5,  # for the rest of a refused body; aiohttp's default is 10 s
    )


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every failure of a request into a status and one sentence."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        response = refusal(request, error.status, _http_error(request, error))
        if isinstance(error, web.HTTPMethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        return response
    except LeadershipError as error:
        is_question = request.method in ("GET", "HEAD")
        advice = "Try again." if is_question else MAY_HAVE_TAKEN_EFFECT
        return refusal(request, 503, f"No answer: {error}. {advice}")
    except CommandError as error:
        return refusal(request, error.status, str(error))
    except RecordError as error:
        log.error("command not recorded", path=request.path, error=str(error))
        return refusal(
            request, 500, f"The journal could not be written, so nothing was changed: {error}"
        )
    except HaloError as error:
        log.error("command failed", path=request.path, error=str(error), exc_info=True)
        return refusal(request, 500, str(error))
    except Exception:
        # Only the log gets the details, because an unexpected error may quote anything.
        log.error("request failed unexpectedly", path=request.path, exc_info=True)
        return refusal(
            request,
            500,
            f"The manager failed to answer {request.method} {request.path}:"
            " its log has the details. Please report this as a defect.",
        )


def _http_error(request: web.Request, error: web.HTTPException) -> str:
    """A refusal of aiohttp itself, in our words."""
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


def refusal(request: web.Request, status: int, text: str) -> web.Response:
    """A refusal. In our half it is JSON. In HALO's half, and elsewhere, it is a bare sentence."""
    if request.path.startswith(PREFIX + "/"):
        return as_json({"error": text}, status)
    return sentence(text, status)
