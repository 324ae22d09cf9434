"""What the socket answers while the manager waits for its journal: nothing but the reason."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from halo.manager.api.ours import as_json
from halo.manager.api.root import sentence
from halo.manager.api.routes import PREFIX


def make_waiting_app(reason: Callable[[], str]) -> web.Application:
    """The application that refuses every request with this reason. Nothing can be asked yet."""

    async def refuse(request: web.Request) -> web.Response:
        text = f"The manager does nothing yet: {reason()}."
        if request.path.startswith(PREFIX + "/"):
            return as_json({"error": text}, 503)
        return sentence(text, 503)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    return app
