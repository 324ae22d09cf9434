"""What a manager that does not lead answers: on its Unix socket what the leader says, and to other
managers that it does not lead.

`GET /v1/managers` is the one request that it answers itself. It is asked most when no leader can
be asked.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from halo.core.errors import PeerError
from halo.manager.api.app import BODY_LIMIT_BYTES, answer_errors, refusal
from halo.manager.api.headers import FORWARDED, LEADER, asker_header, asker_of
from halo.manager.api.managers import Managers
from halo.manager.api.ours import as_json
from halo.manager.api.routes import PREFIX
from halo.manager.api.running import BODY_DEADLINE_S, read_body
from halo.manager.peers import known
from halo.manager.peers.forwarding import Forwarder, NoLeaderError, UnclearError
from halo.ports import PeerRequest, Standing

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
TARGET_LIMIT = 8000

_TARGET = re.compile(r"/[!-~]*")
_CONTENT_TYPE = re.compile(r"[a-z]+/[a-z0-9.+-]+(; charset=[a-z0-9-]+)?")
_ALLOW = re.compile(r"[A-Z]+(, ?[A-Z]+)*")


def make_standby_app(
    managers: Managers, forwarder: Forwarder, *, body_deadline_s: float = BODY_DEADLINE_S
) -> web.Application:
    """The application for the Unix socket of a manager that stands by."""
    relay = _Relay(managers, forwarder, body_deadline_s)
    app = web.Application(middlewares=[answer_errors], client_max_size=BODY_LIMIT_BYTES)
    app.router.add_get(PREFIX + "/managers", relay.table)
    app.router.add_route("*", "/{path:.*}", relay.send_on)
    app.on_response_prepare.append(_names_leader(managers.standing))
    return app


def make_not_leading_app(standing: Standing) -> web.Application:
    """The application for other managers, while this one does not lead. It asks nobody, so a
    request cannot go in a circle."""

    async def refuse(request: web.Request) -> web.Response:
        return refusal(request, 503, _not_leading(standing))

    app = web.Application(middlewares=[answer_errors], client_max_size=BODY_LIMIT_BYTES)
    app.router.add_route("*", "/{path:.*}", refuse)
    app.on_response_prepare.append(_names_leader(standing))
    return app


def _not_leading(standing: Standing) -> str:
    leader = standing.leader()
    known_leader = f"manager {leader.id} does" if leader else "and knows no manager that does"
    return (
        f"Manager {standing.own_id} does not lead, {known_leader}. The request was sent on once, "
        "and is not sent on again: try again."
    )


def _names_leader(
    standing: Standing,
) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    async def name(_request: web.Request, response: web.StreamResponse) -> None:
        leader = standing.leader()
        if leader is not None:
            response.headers.setdefault(LEADER, leader.id)

    return name


class _Relay:
    def __init__(self, managers: Managers, forwarder: Forwarder, body_deadline_s: float) -> None:
        self._managers = managers
        self._standing = managers.standing
        self._forwarder = forwarder
        self._body_deadline_s = body_deadline_s

    async def table(self, _request: web.Request) -> web.Response:
        return as_json(self._managers.table())

    async def send_on(self, request: web.Request) -> web.StreamResponse:
        if FORWARDED in request.headers:
            return refusal(request, 503, _not_leading(self._standing))
        body = await read_body(request, self._body_deadline_s)
        target = request.rel_url.raw_path_qs
        if request.method not in METHODS or not _TARGET.fullmatch(target):
            return refusal(request, 400, "This method or path cannot be sent on to the leader.")
        if len(target) > TARGET_LIMIT:
            return refusal(request, 400, "The path is too long to be sent on to the leader.")
        headers = {FORWARDED: self._standing.own_id, **asker_header(asker_of(request))}
        method = "GET" if request.method == "HEAD" else request.method
        try:
            leader, answer = await self._forwarder.send_on(
                PeerRequest(method, target, body, headers)
            )
        except NoLeaderError as error:
            return self._without_leader(request, str(error))
        except (UnclearError, PeerError) as error:
            return refusal(request, 503, str(error))
        response = web.Response(body=answer.body, status=answer.status, headers={LEADER: leader})
        response.headers["Content-Type"] = _content_type(answer.content_type)
        if _ALLOW.fullmatch(answer.allow):
            response.headers["Allow"] = answer.allow
        return response

    def _without_leader(self, request: web.Request, text: str) -> web.Response:
        """Nobody leads: say so, and how old this manager's own knowledge is."""
        found = self._standing.known()
        text = f"{text} {known.age_in_words(found, time.time())}"
        told = known.as_json(found) if request.path.startswith(PREFIX + "/") else None
        if told is None:
            return refusal(request, 503, text)
        return as_json({"error": text, "known": told}, 503)


def _content_type(given: str) -> str:
    """The leader's content type, if it is one. It goes into a header of ours."""
    return given if _CONTENT_TYPE.fullmatch(given) else "application/octet-stream"
