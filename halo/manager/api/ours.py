"""Our half of the API: the handlers of the routes below `/v1/`, one method for each."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from aiohttp import web

import halo
from halo.core.errors import BadRequest
from halo.manager.api.body import checked_body
from halo.manager.api.managers import Managers, step_down, table_of
from halo.manager.api.openapi import document
from halo.manager.api.routes import ROUTES, Route
from halo.manager.api.running import Bounds, Command, Commands, Said, log_command, read_body
from halo.ports import Operations

StatusText: TypeAlias = Callable[[], Awaitable[bytes]]
Figures: TypeAlias = Callable[[], Mapping[str, Any]]
Values: TypeAlias = Mapping[str, Any]


def as_json(content: Any, status: int = 200) -> web.Response:
    """An answer of our half."""
    return as_text(json.dumps(content, separators=(",", ":")).encode(), status)


def as_text(body: bytes, status: int = 200) -> web.Response:
    """An answer of our half whose body is JSON already."""
    return web.Response(body=body, status=status, content_type="application/json")


class OurHalf:
    """Checks the requests, and hands them to the operations."""

    def __init__(
        self,
        operations: Operations,
        commands: Commands,
        bounds: Bounds,
        status_text: StatusText | None,
        debug: Figures | None,
        managers: Managers | None = None,
    ) -> None:
        self._all_managers = managers
        self._operations = operations
        self._commands = commands
        self._bounds = bounds
        self._status_text = status_text
        self._figures = debug
        self._document = json.dumps(document(), separators=(",", ":")).encode()

    def add_to(self, app: web.Application) -> None:
        """Add every route of the table. Leave `debug` out if there are no figures for it."""
        for route in ROUTES:
            if route.name != "debug" or self._figures is not None:
                # Ids may hold slashes (mds00e0/mgt); clients send them quoted or as they are.
                path = route.path.replace("{id}", "{id:.+}")
                app.router.add_route(route.method, path, self._handler(route))

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        if route.body is None:
            answer: Callable[[web.Request], Awaitable[web.Response]]
            answer = getattr(self, f"_{route.name}")
            return answer
        fields, may_be_empty = route.body, route.body_may_be_empty
        command: Callable[[web.Request, Values], Awaitable[Said]]
        command = getattr(self, f"_{route.name}")

        async def carry_out(request: web.Request) -> web.Response:
            raw = await read_body(request, self._bounds.body_deadline_s)
            said = await command(request, checked_body(raw, fields, may_be_empty=may_be_empty))
            return as_json({"message": said} if isinstance(said, str) else said)

        return carry_out

    # --- looking -------------------------------------------------------------------------------

    async def _status(self, _request: web.Request) -> web.Response:
        if self._status_text is None:
            return as_json(self._operations.status())
        return as_text(await self._status_text())

    async def _version(self, _request: web.Request) -> web.Response:
        return as_json({"version": halo.__version__})

    async def _openapi(self, _request: web.Request) -> web.Response:
        return as_text(self._document)

    async def _debug(self, _request: web.Request) -> web.Response:
        return as_json(self._figures() if self._figures is not None else {})

    async def _managers(self, _request: web.Request) -> web.Response:
        return as_json(table_of(self._all_managers))

    async def _why_group(self, request: web.Request) -> web.Response:
        return as_json(await self._operations.why_group(request.match_info["id"]))

    async def _why_host(self, request: web.Request) -> web.Response:
        return as_json(await self._operations.why_host(request.match_info["id"]))

    # --- commanding ----------------------------------------------------------------------------

    async def _set_managed(self, request: web.Request, values: Values) -> Said:
        group = request.match_info["id"]
        command = Command("manage" if values["managed"] else "unmanage", f"group {group}")
        log_command(request, command, values["comment"])
        return await self._commands.run(
            command, self._operations.set_managed(group, values["managed"], values["comment"])
        )

    async def _host(self, request: web.Request, values: Values) -> Said:
        host = request.match_info["id"]
        command = Command(values["command"], f"host {host}")
        log_command(request, command, values["comment"])
        return await self._commands.run(
            command,
            self._operations.host_command(
                host, command.name, force=bool(values["force"]), comment=values["comment"]
            ),
        )

    async def _group(self, request: web.Request, values: Values) -> Said:
        group = request.match_info["id"]
        command = Command(values["command"], f"group {group}")
        if command.name == "move" and values["to"] is None:
            raise BadRequest('The command "move" needs the key "to": the host to move to.')
        if command.name != "move" and values["to"] is not None:
            raise BadRequest(f'The key "to" belongs to "move", not to "{command.name}".')
        stopped_on = values["stopped_on"]
        if command.name != "cleanup" and stopped_on is not None:
            raise BadRequest(f'The key "stopped_on" belongs to "cleanup", not to "{command.name}".')
        log_command(request, command, values["comment"])
        if stopped_on is not None:
            return await self._commands.run(
                command,
                self._operations.confirm_stopped(group, stopped_on, values["comment"]),
            )
        return await self._commands.run(
            command,
            self._operations.group_command(
                group, command.name, to=values["to"], comment=values["comment"]
            ),
        )

    async def _validate(self, request: web.Request, _values: Values) -> Said:
        host = request.match_info["id"]
        command = Command("validate", f"host {host}")
        log_command(request, command, None)
        return await self._commands.run(command, self._operations.validate(host))

    async def _cluster(self, request: web.Request, values: Values) -> Said:
        return await self._on_cluster(request, values["command"], values)

    async def _managers_command(self, request: web.Request, values: Values) -> Said:
        command = Command(values["command"], "the managers")
        log_command(request, command, values["comment"])
        record = self._operations.record_step_down
        return await self._commands.run(
            command, step_down(self._all_managers, record, values["comment"])
        )

    async def _clear_events(self, request: web.Request, values: Values) -> Said:
        return await self._on_cluster(request, "clear_events", values)

    async def _on_cluster(self, request: web.Request, name: str, values: Values) -> Said:
        command = Command(name, "")
        log_command(request, command, values["comment"])
        return await self._commands.run(
            command, self._operations.cluster_command(name, comment=values["comment"])
        )
