"""The HTTP API of a real manager under requests made from its OpenAPI document, right and wrong,
and under bytes that are hardly HTTP.

Whatever is sent: the manager lives, answers within its bound, in the form that the document gives,
and its only 500s are failures that it names. What the document forbids is refused with 400. The
commands are real, so hosts lose their power meanwhile and get it back; at the end the harness looks
for a second start, a lost token and a defect in the log, as after every test with real processes.

HALO_FUZZ_SEED chooses what is sent in the first half of the time; the second has a seed of its own
every time, which a failure names. HALO_FUZZ_SECONDS is how long each fuzzer runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from halo.manager.api.openapi import document
from tests.integration.cluster import ClusterHarness
from tests.integration.conftest import MakeCluster, make_cluster  # noqa: F401  # a fixture
from tests.integration.telling import QUICK_MONITORS
from tests.openapi_contract import answer_faults
from tests.unit.raw_http import reply_of, request_bytes

SEED = os.environ.get("HALO_FUZZ_SEED", "1")
SECONDS = float(os.environ.get("HALO_FUZZ_SECONDS", "8"))
ANSWER_DEADLINE_S = 75.0
"""Longer than any answer but a fence's may take (60 s); that of a test's device takes a second."""
ALIVE_DEADLINE_S = 15.0
MEMORY_GROWTH_LIMIT = 100 << 20
DEFECT = "Please report this as a defect"
IDS = st.sampled_from(["h1", "h2", "g1", "g2", "g1_mnt0", "h9", "h1/g1", "%2e%2e", "%00", "%FF"])

pytestmark = pytest.mark.timeout(300 + 4 * SECONDS)


def base_seeds() -> list[str]:
    """The given one, and a fresh one."""
    return [SEED, f"{time.time_ns():x}"]


# --- requests made from the document ---


@cache
def requests_from_the_document() -> st.SearchStrategy[Any]:
    """Right ones, and ones that are wrong in some way."""
    schema = schemathesis.openapi.from_dict(document())
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    return st.one_of(
        *(
            operation.as_strategy(generation_mode=mode)
            for operation in operations
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
            # A request without anything in it cannot be wrong.
            if mode is GenerationMode.POSITIVE or operation.path_parameters or operation.body
        )
    )


def as_sent(case: Any, name: str, extra: str) -> tuple[str, str, bytes, bytes]:
    """The method, path, body and whole bytes of a request: with the id `name` and, in its body, one
    more key `extra`, where they are given."""
    if extra and isinstance(case.body, dict):
        case.body[extra] = True
    if case.path_parameters and "id" in case.path_parameters and name:
        case.path_parameters["id"] = name
    prepared = requests.Request(**case.as_transport_kwargs(base_url="http://localhost")).prepare()
    raw: Any = prepared.body or b""
    body = raw.encode() if isinstance(raw, str) else bytes(raw)
    kind = str(prepared.headers.get("Content-Type", "application/json"))
    path, method = str(prepared.path_url), str(case.method)
    return method, path, body, request_bytes(method, path, body, f"Content-Type: {kind}")


def refuses(case: Any, body: bytes) -> bool:
    """Does the document forbid this body?"""
    operation = document()["paths"][case.path][case.method.lower()].get("requestBody")
    if operation is None or (not body.strip() and not operation["required"]):
        return False
    try:
        content = json.loads(body)
    except ValueError:
        return True
    schema = operation["content"]["application/json"]["schema"]
    return not Draft202012Validator(schema).is_valid(content)


def is_dangerous(path: str, body: bytes) -> bool:
    """Would it have the manager believe what is not so? Where a person says that a living host is
    dark, by force, its groups run twice, and nobody can help it."""
    return b"confirm-off" in body and b"force" in body


def judge(case: Any, name: str, extra: str, manager: Path) -> None:
    method, path, body, sent = as_sent(case, name, extra)
    if is_dangerous(path, body):
        return
    began = time.monotonic()
    reply = reply_of(manager, sent)
    took_s = time.monotonic() - began
    shown = f"{method} {path} {body[:300]!r}: {reply.status} {reply.body[:300]!r}"
    assert took_s < ANSWER_DEADLINE_S, f"{shown} took {took_s:.0f} s"
    assert DEFECT.encode() not in reply.body, shown
    if path.startswith("/v1/") and reply.status != 400:
        # aiohttp refuses what is no HTTP in a form of its own, with 400.
        assert reply.content_type.startswith("application/json"), shown
    if reply.content_type.startswith("application/json"):
        wrong = answer_faults(method, path.partition("?")[0], reply.status, json.loads(reply.body))
        assert wrong == [], f"{shown}: {wrong}"
    if refuses(case, body) and reply.status not in (404, 405):
        assert reply.status in (400, 413), f"{shown} was not refused"


def send_from_the_document(manager: Path, batch_seed: str) -> int:
    """One batch of requests; gives their number."""
    sent = 0

    @seed(batch_seed)
    @settings(
        max_examples=40,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # the manager is another one after each request: nothing to shrink
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=requests_from_the_document(),
        name=st.one_of(st.just(""), IDS),
        extra=st.sampled_from(["", "", "", "", "colour", "Command", "to", "managed", "force"]),
    )
    def one(case: Any, name: str, extra: str) -> None:
        nonlocal sent
        sent += 1
        judge(case, name, extra, manager)

    one()
    return sent


# --- bytes that are hardly HTTP ---

PIECES = (
    *(
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b" ",
        b":",
        b"HTTP/1.1",
        b"HTTP/9.9",
        b"\xff\xfe",
        b"%00",
        b"../",
    ),
    *(b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n"),
    *(b"Connection: Upgrade\r\n", b"Content-Encoding: gzip\r\n", b"Content-Encoding: br\r\n"),
    *(b"Host: a\r\nHost: b\r\n", b"X: " + b"y" * 9000 + b"\r\n", b"/" + b"z" * 9000),
    *(b"ffffffffffffffff\r\n", b"0\r\n\r\n", b"[" * 3000, b'{"a":' * 500, b"A: b\r\n" * 300),
)


def broken(chance: random.Random) -> bytes:
    """A request, with pieces of it changed, cut out, said twice or put in."""
    method = chance.choice(("GET", "POST", "PATCH", "PUT", "HEAD", "OPTIONS", "CONNECT", "G\0T"))
    path = chance.choice(("/v1/status", "/status", "/v1/hosts/h1", "/resources/g1", "*", "/v1/%"))
    body = chance.choice((b"", b"{}", b'{"command":"reset"}', b'{"managed":true}', b"\x80" * 100))
    raw = bytearray(request_bytes(method, path, body))
    for _ in range(chance.randint(1, 6)):
        at, to = sorted(chance.choices(range(len(raw) + 1), k=2))
        change = chance.randrange(5)
        if change == 0 and at < len(raw):
            raw[at] = chance.randrange(256)
        elif change == 1:
            del raw[at : min(to, at + 40)]
        elif change == 2:
            raw[at:at] = chance.choice(PIECES)
        elif change == 3:
            raw[at:at] = raw[at : min(to, at + 200)]
        else:
            raw += request_bytes("GET", "/status", b"")
    return bytes(raw)


def send_broken(manager: Path, chance: random.Random, *, leave: bool) -> None:
    """Send one, and read what comes until the other side ends it, or leave at once."""
    raw = broken(chance)
    received = b""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(ANSWER_DEADLINE_S)
        client.connect(str(manager))
        try:
            client.sendall(raw)
            client.shutdown(socket.SHUT_WR)
            while not leave and (piece := client.recv(65536)):
                received += piece
        except (BrokenPipeError, ConnectionResetError):
            pass  # it had seen enough
    assert DEFECT.encode() not in received, f"{raw[:300]!r}: {received[:300]!r}"
    assert not received or received.startswith(b"HTTP/"), f"{raw[:300]!r}: {received[:300]!r}"


def send_batch_of_broken(manager: Path, batch_seed: str) -> int:
    chance = random.Random(batch_seed)
    for _ in range(100):
        send_broken(manager, chance, leave=chance.random() < 0.2)
    return 100


# --- the cluster under it ---


@pytest.fixture
async def fuzzed(make_cluster: MakeCluster) -> ClusterHarness:  # noqa: F811  # the fixture above
    cluster = make_cluster(flags=QUICK_MONITORS)
    await cluster.start()
    return cluster


def memory_of(cluster: ClusterHarness) -> int:
    assert cluster.manager is not None
    pages = Path(f"/proc/{cluster.manager.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


async def fuzz(cluster: ClusterHarness, send: Callable[[Path, str], int]) -> None:
    before = memory_of(cluster)
    for base in base_seeds():
        until, number, sent = time.monotonic() + SECONDS / 2, 0, 0
        while time.monotonic() < until:
            batch_seed = f"{base}-{number}"
            try:
                sent += await asyncio.to_thread(send, Path(cluster.socket), batch_seed)
            except AssertionError as error:
                raise AssertionError(f"seed {batch_seed}: {error}") from error
            async with asyncio.timeout(ALIVE_DEADLINE_S):
                assert (await cluster.api("GET", "/v1/version"))[0] == 200
            for host in cluster.ports:
                if not cluster.is_on(host):
                    cluster.boot(host)
            number += 1
        print(f"seed {base}: {sent} requests")
    grown = memory_of(cluster) - before
    assert grown < MEMORY_GROWTH_LIMIT, f"the manager has grown by {grown >> 20} MB"


async def test_requests_made_from_the_document(fuzzed: ClusterHarness) -> None:
    # In this thread: its modules are loaded only now, and pytest rewrites them. Two threads that do
    # so at the same time make CPython 3.11 raise "AST constructor recursion depth mismatch".
    requests_from_the_document()
    await fuzz(fuzzed, send_from_the_document)


async def test_bytes_that_are_hardly_http(fuzzed: ClusterHarness) -> None:
    await fuzz(fuzzed, send_batch_of_broken)
