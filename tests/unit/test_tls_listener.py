"""What an agent writes down of those it turns away, and that nobody can flood its log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from halo.adapters.tls.identity import manager_identity
from halo.adapters.tls.listener import (
    HANDSHAKE_TIMEOUT_S,
    HANDSHAKES_OF_PEER,
    REPEAT_S,
    TOLD_AT_MOST,
    Refusals,
    reason_of,
)
from tests.certificates import Authority

from .remote_helpers import until
from .test_rpc_tls import loss_of_connecting, ours, tls_agent
from .virtual_time import run

__all__ = ["ours"]  # a fixture


def warnings(logged: list[Any]) -> list[tuple[str, str]]:
    return [(entry["peer"], entry["reason"]) for entry in logged if entry["log_level"] == "warning"]


def test_the_same_refusal_is_told_once_in_a_while() -> None:
    async def body() -> None:
        refusals = Refusals()
        with capture_logs() as logged:
            for _ in range(1000):
                refusals.note("10.0.0.1", "no")
            refusals.note("10.0.0.1", "another reason")
            refusals.note("10.0.0.2", "no")
            assert len(warnings(logged)) == 3
            await asyncio.sleep(REPEAT_S + 1)
            refusals.note("10.0.0.1", "no")
        assert len(warnings(logged)) == 4

    run(body())


def test_many_peers_do_not_flood_the_log() -> None:
    async def body() -> None:
        refusals = Refusals()
        with capture_logs() as logged:
            for number in range(1000):
                refusals.note(f"10.0.0.{number}", "no")
        assert len(warnings(logged)) == TOLD_AT_MOST

    run(body())


def say(words: bytes) -> Callable[[tuple[str, int]], None]:
    def connect(address: tuple[str, int]) -> None:
        with socket.create_connection(address) as client:
            client.sendall(words)
            client.settimeout(20)
            client.recv(100)

    return connect


def without_certificate(address: tuple[str, int]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(address) as client, context.wrap_socket(client) as secured:
        secured.recv(100)


def hang_up(address: tuple[str, int]) -> None:
    socket.create_connection(address).close()


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        (say(b"\0\0\0\0\2\0\0\0" + b"\0" * 16), "it does not speak TLS"),
        (say(b"GET / HTTP/1.0\r\n\r\n"), "it does not speak TLS"),
        (without_certificate, "it has no certificate"),
        (hang_up, "it ended the connection during the TLS handshake"),
    ],
    ids=["plain", "http", "without-certificate", "hang-up"],
)
async def test_who_is_turned_away_is_written_down_with_the_reason(
    ours: Authority,  # the fixture
    client: Callable[[tuple[str, int]], None],
    reason: str,
) -> None:
    async with tls_agent(ours.host("server", "localhost")) as (host, agent):
        with capture_logs() as logged:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(client, ("127.0.0.1", host.port))
            await until(lambda: warnings(logged), "a line in the log")
        ((peer, told),) = warnings(logged)
        assert peer == "127.0.0.1"
        assert told.startswith(reason)
        assert agent.links == []


async def test_a_flood_of_silent_connections_keeps_no_manager_out(ours: Authority) -> None:
    """Each would hold a descriptor for five seconds, and the agent has a thousand."""
    async with tls_agent(ours.host("server", "localhost")) as (host, _agent):
        begun, before = time.monotonic(), len(os.listdir("/proc/self/fd"))
        flood = []
        for _ in range(300):
            silent = socket.socket()
            silent.bind(("127.0.0.2", 0))
            silent.setblocking(False)
            await asyncio.get_running_loop().sock_connect(silent, ("127.0.0.1", host.port))
            flood.append(silent)
        identity = manager_identity(ours.manager("client", "manager"))
        assert await loss_of_connecting(host, identity) is None

        def held() -> int:
            return len(os.listdir("/proc/self/fd")) - before - len(flood)

        await until(lambda: held() <= HANDSHAKES_OF_PEER, "the oldest to go")
        assert time.monotonic() - begun < HANDSHAKE_TIMEOUT_S, "they went of age alone"
        for silent in flood:
            silent.close()


def test_reasons_hold_in_one_line() -> None:
    assert reason_of(ConnectionAbortedError("SSL handshake is taking longer than 5 seconds")) == (
        "the TLS handshake failed: SSL handshake is taking longer than 5 seconds"
    )


def test_what_comes_again_is_counted() -> None:
    async def body() -> None:
        refusals = Refusals()
        with capture_logs() as logged:
            for _ in range(1000):
                refusals.note("10.0.0.1", "no")
                refusals.note("10.0.0.2", "no")
            for number in range(30):
                refusals.note(f"10.0.1.{number}", "no")
            await asyncio.sleep(REPEAT_S + 1)
            refusals.note("10.0.0.1", "no")
        told = [line for line in logged if line.get("times")]
        assert [(line["event"], line.get("peer"), line["times"]) for line in told] == [
            ("turned connections of more peers away", None, 30 + 2 - TOLD_AT_MOST),
            ("turned connections away", "10.0.0.2", 999),
            ("turned a connection away", "10.0.0.1", 1000),
        ]

    run(body())
