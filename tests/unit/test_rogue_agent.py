"""An agent that sends what is no text costs the manager that host alone, and never the manager."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import capnp
import pytest

from halo.adapters.rpc.connection import CapnpConnection
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.adapters.rpc.frames import OF_MANAGERS
from halo.adapters.rpc.schema import HaloAgent
from halo.adapters.rpc.wire import Wire
from halo.core.errors import LinkError, LossKind
from halo.core.model import Host, Operation, Resource
from halo.core.outcomes import Outcome

NO_TEXT = b"\xff\xfe\xfd"
DEADLINE_S = 10.0


class Rogue(HaloAgent.Server):  # type: ignore[misc]  # made at run time from the schema
    def __init__(self, version: Any, features: list[str]) -> None:
        self.version = version
        self.features = features

    async def hello_context(self, context: Any) -> None:
        welcome = context.results.init("greeting").init("welcome")
        welcome.version = self.version
        welcome.bootId = "boot"
        welcome.startId = "start"
        welcome.features = self.features

    async def run_context(self, context: Any) -> None:
        self._fill(context.results.init("outcome"))

    async def monitorMany_context(self, context: Any) -> None:
        for outcome in context.results.init("outcomes", len(context.params.items)):
            self._fill(outcome)

    async def operation_context(self, context: Any) -> None:
        context.results.init("result").err = NO_TEXT

    @staticmethod
    def _fill(outcome: Any) -> None:
        completed = outcome.init("completed")
        completed.code = 1
        completed.message = NO_TEXT


@contextlib.asynccontextmanager
async def connected(version: Any, *features: str) -> AsyncIterator[CapnpConnection]:
    kept = []

    def factory() -> Wire:
        def take(wire: Wire) -> None:
            kept.append(capnp.TwoPartyServer(wire.stream, bootstrap=Rogue(version, list(features))))

        return Wire(OF_MANAGERS, take)

    async with rpc_loop():
        sock = socket.create_server(("127.0.0.1", 0))
        server = await asyncio.get_running_loop().create_server(factory, sock=sock)
        connector = CapnpConnector("manager", "cluster")
        try:
            host = Host("h1", "127.0.0.1", sock.getsockname()[1])
            yield await connector.connect(host, DEADLINE_S)
        finally:
            server.close()
            connector.close()


async def test_a_greeting_that_is_no_text_is_a_protocol_error() -> None:
    with pytest.raises(LinkError) as raised:
        async with connected(NO_TEXT):
            pass
    assert raised.value.loss.kind is LossKind.PROTOCOL


@pytest.mark.parametrize("features", [(), ("monitorMany",)])
async def test_a_monitor_that_is_no_text_proves_nothing(features: tuple[str, ...]) -> None:
    async with connected("1", *features) as connection:
        looks = [
            connection.operation(Resource(name, "a/b", {}), Operation.MONITOR, DEADLINE_S)
            for name in ("r1", "r2")
        ]
        for found in await asyncio.gather(*looks, return_exceptions=True):
            assert isinstance(found, LinkError)
            assert found.loss.kind is LossKind.PROTOCOL


async def test_a_start_that_is_no_text_has_failed() -> None:
    async with connected("1") as connection:
        found = await connection.operation(Resource("r", "a/b", {}), Operation.START, DEADLINE_S)
        assert found.outcome is Outcome.NOT_RUN
