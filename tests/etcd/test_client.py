"""The client against stand-ins: what each kind of answer, and each kind of silence, comes to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from structlog.testing import capture_logs

from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import (
    EtcdError,
    LeaseGone,
    NoAnswer,
    NoGateway,
    NoSpace,
    NotAllowed,
    Refused,
    TooOld,
)
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.values import Json, transaction
from tests.etcd.stand_ins import error, gateway, header, raw
from tests.integration.processes import free_port

NOTHING = transaction([], [])


@asynccontextmanager
async def client_of(
    *members: str, user: str | None = None, attempt_s: float = 0.3, limit: int = 1 << 20
) -> AsyncIterator[EtcdClient]:
    password = None if user is None else "hunter2"
    client = EtcdClient(
        Store(members, "/x", user, password), attempt_s=attempt_s, answer_limit_bytes=limit
    )
    try:
        yield client
    finally:
        await client.close()


async def refusal(answer: web.Response) -> Exception:
    """What a transaction raises if this is the answer."""
    async with gateway(lambda *_: answer) as member, client_of(member) as client:
        with pytest.raises(EtcdError) as raised:
            await client.txn(NOTHING, deadline_s=0.3)
    return raised.value


async def test_a_member_over_its_quota_may_have_written_all_the_same() -> None:
    new = await refusal(error(8, "etcdserver: mvcc: database space exceeded", 429))
    assert type(new) is NoSpace


@pytest.mark.parametrize(
    ("code", "text", "status", "kind"),
    [
        (5, "etcdserver: requested lease not found", 404, LeaseGone),
        (7, "etcdserver: permission denied", 403, NotAllowed),
        (3, "etcdserver: user name is empty", 400, NotAllowed),
        (11, "etcdserver: mvcc: required revision has been compacted", 400, TooOld),
        (8, "etcdserver: too many requests", 429, Refused),
        (3, "etcdserver: request is too large", 400, Refused),
    ],
)
async def test_an_error_of_a_member_changed_nothing(
    code: int, text: str, status: int, kind: type[Exception]
) -> None:
    new = await refusal(error(code, text, status))
    assert type(new) is kind
    assert text in str(new)
    # etcd 3.4 and 3.5 have the words twice, and streams have both one level deeper.
    old = web.json_response({"error": text, "message": text, "code": code}, status=status)
    assert type(await refusal(old)) is kind
    stream = web.json_response({"error": {"grpc_code": code, "message": text}})
    assert type(await refusal(stream)) is kind


@pytest.mark.parametrize(
    "answer",
    [
        error(14, "etcdserver: request timed out", 503),
        error(14, "etcdserver: leader changed", 503),
        error(2, "context canceled"),
        web.Response(status=502, text="bad gateway"),
        web.Response(text="<html>"),
        web.json_response([]),
        web.json_response({"header": {}}),
        web.json_response({"header": {"cluster_id": "1"}, "responses": 7}),
        web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}),
        web.json_response({"error": None}),
        web.json_response({"error": {"code": "14"}}),
    ],
)
async def test_any_other_answer_leaves_the_outcome_open(answer: web.Response) -> None:
    raised = await refusal(answer)
    assert isinstance(raised, NoAnswer)
    assert raised.unknown


async def test_a_closed_port_is_certain_to_have_done_nothing() -> None:
    async with client_of(f"127.0.0.1:{free_port()}") as client:
        with pytest.raises(NoAnswer, match="no connection") as raised:
            await client.txn(NOTHING, deadline_s=0.3)
    assert not raised.value.unknown


async def test_a_refusal_after_a_try_without_answer_leaves_the_outcome_open() -> None:
    tries = iter([error(14, "etcdserver: request timed out", 503)])
    refused = error(8, "etcdserver: too many requests", 429)
    async with gateway(lambda *_: next(tries, refused)) as member, client_of(member) as client:
        with pytest.raises(NoAnswer, match="too many requests") as raised:
            await client.txn(NOTHING, deadline_s=2)
    assert raised.value.unknown


async def test_a_silent_member_costs_its_turn_and_the_next_answers() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    hung = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    good = {"header": header()}
    async with server, gateway(lambda *_: good) as member, client_of(hung, member) as client:
        begun = time.monotonic()
        await client.range("a")
        assert 0.25 < time.monotonic() - begun < 2
        begun = time.monotonic()
        await client.range("a")  # it stays with the member that answered
        assert time.monotonic() - begun < 0.2
        async with client_of(hung) as lonely:
            begun = time.monotonic()
            with pytest.raises(NoAnswer, match="no answer within"):
                await lonely.range("a", deadline_s=0.5)
            assert time.monotonic() - begun < 1.5


async def test_a_member_of_another_cluster_is_not_asked() -> None:
    """A record that is written in one cluster would be missing in the other."""
    other: Json = {"header": {**header(), "cluster_id": "78"}, "succeeded": True}
    mine: Json = {"header": header()}
    lost = iter([mine])
    answer = error(14, "no leader", 503)
    async with (
        gateway(lambda *_: next(lost, answer)) as first,
        gateway(lambda *_: other) as second,
        client_of(first, second) as client,
    ):
        await client.range("a")
        with pytest.raises(NoAnswer, match="another etcd cluster"):
            await client.txn(NOTHING, deadline_s=0.5)


# Gateways ------------------------------------------------------------------------------------


async def test_a_gateway_that_is_switched_off_is_named() -> None:
    off = web.Response(status=404, text="404 page not found\n")
    async with gateway(lambda *_: off) as member, client_of(member) as client:
        with pytest.raises(NoGateway, match="enable-grpc-gateway"):
            await client.range("a")


async def test_one_member_without_gateway_is_passed_over() -> None:
    off = web.Response(status=404, text="404 page not found\n")
    good = {"header": header()}
    async with (
        gateway(lambda *_: off) as without,
        gateway(lambda *_: good) as member,
        client_of(without, member) as client,
    ):
        await client.range("a")


async def test_a_port_that_speaks_grpc_alone_is_named() -> None:
    settings_frame = bytes.fromhex("000000040000000000")  # what an HTTP/2 server says first
    async with raw(settings_frame) as member, client_of(member) as client:
        with pytest.raises(NoGateway, match="listen-client-http-urls"):
            await client.range("a")


async def test_the_older_path_is_found_and_kept() -> None:
    asked: list[str] = []

    def beta(path: str, *_: object) -> web.StreamResponse | Json:
        asked.append(path)
        if not path.startswith("/v3beta/"):
            return web.Response(status=404, text="Not Found\n")
        return {"header": header()}

    async with gateway(beta) as member, client_of(member) as client:
        await client.range("a")
        await client.range("a")
    assert asked == ["/v3/kv/range", "/v3beta/kv/range", "/v3beta/kv/range"]


async def test_a_lease_not_found_is_no_missing_gateway() -> None:
    """Both are HTTP status 404."""
    gone = error(5, "etcdserver: requested lease not found", 404)
    async with gateway(lambda *_: gone) as member, client_of(member) as client:
        with pytest.raises(LeaseGone):
            await client.keep_alive(5)
        await client.revoke(5)  # it is gone already


async def test_a_keepalive_without_ttl_means_expired() -> None:
    kept: Json = {"result": {"header": header(), "TTL": "10"}}
    expired: Json = {"result": {"header": header()}}
    answers = iter([kept, expired])
    async with gateway(lambda *_: next(answers)) as member, client_of(member) as client:
        assert await client.keep_alive(5) == (10, 2)
        with pytest.raises(LeaseGone):
            await client.keep_alive(5)


# Bounds --------------------------------------------------------------------------------------


async def test_an_answer_without_end_is_cut() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * (1 << 16))

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", endless)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with client_of(f"127.0.0.1:{port}", attempt_s=10) as client:
            with pytest.raises(NoAnswer, match="answer over 1048576 bytes"):
                await client.range("a", deadline_s=1)
            begun = time.monotonic()
            await client.wait_for_change("a", 1, 10)  # a line without end is cut, too
            assert time.monotonic() - begun < 5
    finally:
        await runner.cleanup()


# Users ---------------------------------------------------------------------------------------


class Doorkeeper:
    """A member that wants tokens, and takes each a few times only."""

    def __init__(self, uses: int, token: object = "t") -> None:
        self.uses = uses
        self.token = token
        self.left = 0
        self.authenticated: list[Json] = []

    def __call__(self, path: str, body: Json, token: str | None) -> web.StreamResponse | Json:
        if path.endswith("/auth/authenticate"):
            self.authenticated.append(body)
            self.left = self.uses
            return {"header": header(), "token": f"{self.token}{len(self.authenticated)}"}
        if token != f"{self.token}{len(self.authenticated)}" or self.left == 0:
            return error(16, "etcdserver: invalid auth token", 401)
        self.left -= 1
        return {"header": header()}


async def test_a_token_that_is_not_valid_any_more_is_renewed() -> None:
    keeper = Doorkeeper(2)
    async with gateway(keeper) as member, client_of(member, user="halo") as client:
        for _ in range(5):
            await client.range("a")
    assert keeper.authenticated == [{"name": "halo", "password": "hunter2"}] * 3


async def test_a_token_that_is_never_taken_ends_in_a_refusal() -> None:
    keeper = Doorkeeper(0)
    async with gateway(keeper) as member, client_of(member, user="halo") as client:
        with pytest.raises(NotAllowed, match="'halo'"):
            await client.range("a")
    assert len(keeper.authenticated) == 3


async def test_a_member_that_asks_for_no_password_is_served_without() -> None:
    def open_door(path: str, *_: object) -> web.StreamResponse | Json:
        if path.endswith("/auth/authenticate"):
            return error(9, "etcdserver: authentication is not enabled", 412)
        return {"header": header()}

    with capture_logs() as logs:
        async with gateway(open_door) as member, client_of(member, user="halo") as client:
            await client.range("a")
            await client.range("a")
    assert [line["event"] for line in logs] == ["etcd asks for no password"]


async def test_no_error_and_no_log_holds_the_password() -> None:
    wrong = error(3, "etcdserver: authentication failed, invalid user ID or password", 400)
    with capture_logs() as logs:
        async with gateway(lambda *_: wrong) as member, client_of(member, user="halo") as client:
            with pytest.raises(NotAllowed, match="'halo'") as raised:
                await client.range("a")
    assert "hunter2" not in str(raised.value) + json.dumps(logs, default=str)


async def test_a_token_that_could_end_the_header_is_not_sent() -> None:
    keeper = Doorkeeper(9, token="t\r\nX-Evil: 1")
    async with gateway(keeper) as member, client_of(member, user="halo") as client:
        with pytest.raises(NoAnswer, match="no token"):
            await client.range("a", deadline_s=0.3)
