"""HALO's half of the API, at the root, for programs that were written for HALO (Rust).

These use `http://halo_manager/status` and five more routes. They print the body of an error as it
is, and ignore the body of a success. This half gets no new fields and no new routes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from halo.manager.api.body import Field, checked_body
from halo.manager.api.ours import StatusText, as_text
from halo.manager.api.routes import COMMENT, FORCE, MANAGED_BODY
from halo.manager.api.running import Bounds, Command, Commands, log_command, read_body
from halo.ports import Operations

HOST_COMMANDS = ("activate", "deactivate", "failback", "fence", "reset")
HOST_BODY = (Field("command", "text", choices=HOST_COMMANDS), FORCE, COMMENT)


def sentence(text: str, status: int) -> web.Response:
    """An error of HALO's half."""
    return web.Response(text=text, status=status)


class RootHalf:
    """The handlers of HALO's half, one method for each route."""

    def __init__(
        self,
        operations: Operations,
        commands: Commands,
        bounds: Bounds,
        status_text: StatusText | None,
    ) -> None:
        self._operations = operations
        self._commands = commands
        self._bounds = bounds
        self._status_text = status_text

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/status", self._status)
        app.router.add_patch("/resources/{id:.+}", self._set_managed)
        app.router.add_post("/hosts/{id:.+}", self._host)
        app.router.add_post("/clear_events", self._clear_events)

    async def _status(self, _request: web.Request) -> web.Response:
        if self._status_text is not None:
            return as_text(await self._status_text())
        return as_text(json.dumps(self._operations.root_status()).encode())

    async def _set_managed(self, request: web.Request) -> web.Response:
        group = request.match_info["id"]
        values = await self._values(request, MANAGED_BODY)
        managed, comment = values["managed"], values["comment"]
        command = Command("manage" if managed else "unmanage", f"group {group}")
        log_command(request, command, comment)
        await self._commands.run(command, self._operations.set_managed(group, managed, comment))
        return web.Response()

    async def _host(self, request: web.Request) -> web.Response:
        host = request.match_info["id"]
        values = await self._values(request, HOST_BODY)
        force, comment = bool(values["force"]), values["comment"]
        command = Command(values["command"], f"host {host}")
        log_command(request, command, comment)
        await self._commands.run(
            command,
            self._operations.host_command(host, command.name, force=force, comment=comment),
        )
        return web.Response()

    async def _clear_events(self, request: web.Request) -> web.Response:
        command = Command("clear_events", "")
        log_command(request, command, None)
        await self._commands.run(
            command, self._operations.cluster_command(command.name, comment=None)
        )
        return web.Response()

    async def _values(self, request: web.Request, fields: tuple[Field, ...]) -> Mapping[str, Any]:
        raw = await read_body(request, self._bounds.body_deadline_s)
        return checked_body(raw, fields, ignore_unknown=True)
