"""The question to one member, against stand-ins, and against real ones: versions differ in who may
ask for the status."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from halo.adapters.etcd.errors import EtcdError, NoAnswer, NotAllowed, Refused
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.standby.member import ANSWER_LIMIT_BYTES, OneMember, Said
from halo.adapters.etcd.values import Json
from tests.etcd.members import Members
from tests.etcd.stand_ins import Answers, error, gateway, header
from tests.etcd.test_client_on_etcd import enable_users
from tests.integration.processes import free_port

DEADLINE_S = 2.0
TOKEN = "token.7"
LARGEST = 2**64 - 1  # ids are unsigned

NO_USER = error(3, "etcdserver: user name is empty", 400)
NO_TOKEN = error(16, "etcdserver: invalid auth token", 401)
DENIED = error(7, "etcdserver: permission denied", 403)


def status(**changes: Any) -> Json:
    """As etcd 3.5 answers: numbers are texts, and what is empty is left out."""
    told = {"version": "3.5.16", "dbSize": "24576", "leader": str(LARGEST), "raftIndex": "12"}
    found = {"header": {**header(), "member_id": str(LARGEST)}, **told, **changes}
    return {name: value for name, value in found.items() if value is not None}


class Etcd:
    """One member. `status_for`: "anybody", "users" or "root" may ask for its status."""

    def __init__(self, status_for: str = "anybody", *, is_cut_off: bool = False) -> None:
        self.status_for = status_for
        self.is_cut_off = is_cut_off
        self.is_away = False
        self.tokens = {TOKEN}
        self.asked: list[str] = []

    def answer(self, path: str, body: Json, token: str | None) -> web.StreamResponse | Json:
        name = path.removeprefix("/v3/") + (" here" if body.get("serializable") else "")
        self.asked.append(name)
        if self.is_away:
            return error(14, "etcdserver: server stopped", 503)
        if name == "auth/authenticate":
            assert body == {"name": "halo", "password": "hunter2"}
            return {"header": header(), "token": TOKEN}
        if name == "maintenance/status" and self.status_for == "anybody":
            return status()
        if token is None:
            return NO_USER if self.status_for == "root" else NO_TOKEN
        if token not in self.tokens:
            return NO_TOKEN
        if name == "maintenance/status":
            return DENIED if self.status_for == "root" else status()
        if self.is_cut_off and name == "kv/range":
            return error(14, "etcdserver: request timed out", 503)
        return {"header": {**header(), "member_id": str(LARGEST)}}


@contextmanager
def silent() -> Iterator[str]:
    """Takes connections, as the kernel does for a process that was stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@asynccontextmanager
async def asking(address: str, user: str | None = None) -> AsyncIterator[OneMember]:
    password = None if user is None else "hunter2"
    member = OneMember(Store((address,), "/halo/x", user, password), address)
    try:
        yield member
    finally:
        await member.close()


async def said(answers: Answers) -> Said:
    async with gateway(answers) as address, asking(address) as member:
        return await member.ask(DEADLINE_S)


async def failure(address: str, deadline_s: float = DEADLINE_S) -> EtcdError:
    async with asking(address) as member:
        with pytest.raises(EtcdError) as raised:
            await member.ask(deadline_s)
    return raised.value


async def test_the_status_says_all_that_there_is_to_know() -> None:
    found = await said(lambda *_: status(errors=["memberID:5 alarm:NOSPACE "]))
    assert found == Said(
        id=LARGEST,
        cluster=77,
        has_leader=True,
        leads=True,
        version="3.5.16",
        errors=("memberID:5 alarm:NOSPACE",),
    )


async def test_a_member_that_knows_no_leader_takes_no_part() -> None:
    found = await said(lambda *_: status(leader=None, errors=["etcdserver: no leader"]))
    assert (found.has_leader, found.leads) == (False, False)


async def test_a_learner_and_a_follower_are_told_apart() -> None:
    assert (await said(lambda *_: status(isLearner=True))).is_learner
    follower = await said(lambda *_: status(leader="8"))
    assert (follower.has_leader, follower.leads, follower.is_learner) == (True, False, False)


@pytest.mark.parametrize(
    "changed",
    [
        {"header": None},
        {"header": {"cluster_id": "77", "member_id": "x"}},
        {"leader": "many"},
        {"leader": {}},
        {"errors": "none"},
    ],
)
async def test_what_is_no_status_is_no_answer(changed: dict[str, Any]) -> None:
    async with gateway(lambda *_: status(**changed)) as address:
        assert isinstance(await failure(address), NoAnswer)


async def test_the_words_of_a_member_are_cut() -> None:
    texts = ["\x1b[2J" + "x" * 10_000, 7, "", *(str(n) for n in range(100))]
    found = await said(lambda *_: status(version="3\n.5" * 1000, errors=texts))
    assert len(found.errors) <= 8
    assert found.errors[0].startswith("?[2Jx")
    assert max(map(len, (*found.errors, found.version or ""))) <= 200
    assert (found.version or "").isprintable()


async def test_a_large_answer_is_not_read_to_its_end() -> None:
    large = web.Response(body=b" " * (ANSWER_LIMIT_BYTES + 1))
    async with gateway(lambda *_: large) as address:
        assert f"over {ANSWER_LIMIT_BYTES} bytes" in str(await failure(address))


async def test_a_closed_port_and_a_process_that_is_stopped_say_nothing() -> None:
    assert str(await failure(f"127.0.0.1:{free_port()}")) == "no connection: connection refused"
    with silent() as address:
        assert str(await failure(address, 0.3)) == "no answer within 0.3 s"


# Who may ask ----------------------------------------------------------------------------------


async def test_where_anybody_may_ask_no_password_is_sent() -> None:
    etcd = Etcd()
    async with gateway(etcd.answer) as address, asking(address, "halo") as member:
        assert (await member.ask(DEADLINE_S)).has_leader
        assert etcd.asked == ["maintenance/status"]


async def test_where_users_may_ask_the_token_is_kept() -> None:
    etcd = Etcd("users")
    async with gateway(etcd.answer) as address, asking(address, "halo") as member:
        for _ in range(3):
            assert (await member.ask(DEADLINE_S)).version == "3.5.16"
        assert etcd.asked == [
            *("maintenance/status", "auth/authenticate"),
            *["maintenance/status"] * 3,
        ]


async def test_a_token_that_the_member_forgot_is_asked_for_again() -> None:
    """A member that was restarted knows no token of before."""
    etcd = Etcd("users")
    async with gateway(etcd.answer) as address, asking(address, "halo") as member:
        member._token = "token.of.before"
        assert (await member.ask(DEADLINE_S)).has_leader


async def test_where_root_alone_may_ask_a_key_of_ours_is_read_instead() -> None:
    """From the member itself, and through the leader; the status is not asked for again."""
    etcd = Etcd("root")
    async with gateway(etcd.answer) as address, asking(address, "halo") as member:
        found = await member.ask(DEADLINE_S)
        assert found == Said(LARGEST, 77, has_leader=True)
        etcd.asked.clear()
        assert await member.ask(DEADLINE_S) == found
        assert etcd.asked == ["kv/range here", "kv/range"]


async def test_a_member_that_reads_its_own_keys_only_is_cut_off() -> None:
    etcd = Etcd("root", is_cut_off=True)
    async with gateway(etcd.answer) as address, asking(address, "halo") as member:
        assert not (await member.ask(DEADLINE_S)).has_leader


async def test_after_a_failure_the_status_is_asked_for_again() -> None:
    """The member may come back with another version."""
    etcd = Etcd("root")
    async with gateway(etcd.answer) as address, asking(address, "halo") as member:
        await member.ask(DEADLINE_S)
        etcd.is_away = True
        with pytest.raises(NoAnswer, match="server stopped"):
            await member.ask(DEADLINE_S)
        etcd.is_away, etcd.status_for = False, "users"
        assert (await member.ask(DEADLINE_S)).version == "3.5.16"


@pytest.mark.parametrize("user", [None, "halo"])
async def test_a_member_that_refuses_everything_is_there_all_the_same(user: str | None) -> None:
    async with gateway(lambda *_: DENIED) as address, asking(address, user) as member:
        with pytest.raises(NotAllowed) as raised:
            await member.ask(DEADLINE_S)
    assert isinstance(raised.value, Refused)


# Real members -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tells_status", [True, False])
async def test_a_real_member_that_is_cut_off_is_seen_in_both_ways(
    tmp_path: Path, tells_status: bool
) -> None:
    """With the rights of HALO's own user: its status where that may be asked for, else its keys."""
    members = Members(tmp_path)
    try:
        members.start()
        enable_users(members)
        at = members.addresses[0]
        member = OneMember(Store((at,), "/halo/test", "halo", "hunter2"), at)
        try:
            member._tells_status = tells_status
            assert (await member.ask(DEADLINE_S)).has_leader
            members.kill(1)
            members.kill(2)
            ends = time.monotonic() + 30
            while True:
                assert time.monotonic() < ends
                member._tells_status = tells_status
                if not (await member.ask(DEADLINE_S)).has_leader:
                    break
        finally:
            await member.close()
    finally:
        members.close()
