"""Servers in the place of a member, or between it and the client: each behaves as members may."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from halo.adapters.etcd.values import Json

CLUSTER = "77"
Answers = Callable[[str, Json, str | None], web.StreamResponse | Json]
"""Gives the answer to a path, a body and a token."""


def header(revision: int = 1) -> Json:
    """The header of every answer."""
    return {"cluster_id": CLUSTER, "member_id": "1", "revision": str(revision), "raft_term": "2"}


def error(code: int, text: str, status: int = 500) -> web.Response:
    """An error as the gateway of etcd 3.6 writes it."""
    return web.json_response({"code": code, "message": text, "details": []}, status=status)


@asynccontextmanager
async def gateway(answers: Answers) -> AsyncIterator[str]:
    """A member that answers what the test says; its address."""

    async def handle(request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization")
        found = answers(request.path, await request.json(), token)
        if isinstance(found, dict):
            return web.json_response(found)
        if isinstance(found, web.Response):  # the same answer may be given again
            return web.Response(status=found.status, body=found.body, headers=found.headers)
        return found

    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{tail:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]  # aiohttp tells no chosen port
        yield f"127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def raw(answer: bytes) -> AsyncIterator[str]:
    """A server that sends these bytes to whoever asks, and closes; its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        writer.write(answer)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


class Wire:
    """A wire to one member, which can lose the answers, and the requests.

    `loses_answer_to`: the next request that holds these bytes gets no answer, and no later one on
    its connection."""

    def __init__(self, address: str) -> None:
        self._member = address
        self.swallows_answers = False
        self.swallows_requests = False
        self.loses_answer_to: bytes | None = None
        self.requests = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        for serving in self._serving:
            serving.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._member.partition(":")
        try:
            from_member, to_member = await asyncio.open_connection(host, int(port))
        except OSError:  # that member does not run
            writer.close()
            return
        self._writers |= {writer, to_member}
        lost = asyncio.Event()
        await asyncio.gather(
            self._ask(reader, to_member, lost),
            self._answer(from_member, writer, lost),
            return_exceptions=True,
        )
        self._writers -= {writer, to_member}

    async def _ask(
        self, client: asyncio.StreamReader, member: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        while data := await client.read(65536):
            if self.loses_answer_to is not None and self.loses_answer_to in data:
                self.loses_answer_to = None
                lost.set()
            self.requests += 1
            if self.swallows_requests:
                continue
            member.write(data)
            await member.drain()
        member.close()

    async def _answer(
        self, member: asyncio.StreamReader, client: asyncio.StreamWriter, lost: asyncio.Event
    ) -> None:
        while data := await member.read(65536):
            if not (self.swallows_answers or lost.is_set()):
                client.write(data)
                await client.drain()
        client.close()
