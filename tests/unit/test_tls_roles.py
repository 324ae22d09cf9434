"""Roles over a real TLS connection: who is served, who is turned away before a byte is read, and
what either side is told of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import capnp
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.testing import capture_logs

from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.adapters.rpc.schema import OcfResourceAgent
from halo.adapters.rpc.wire import ProtocolError
from halo.adapters.tls.certificates import ders_in
from halo.adapters.tls.farewell import farewell, refusal_in
from halo.adapters.tls.files import (
    UNREADABLE,
    TlsFileError,
    TlsFiles,
    TlsNameError,
    agent_context,
    expected_name,
    manager_context,
    manager_names,
)
from halo.adapters.tls.identity import ManagerGate, TlsIdentity, manager_identity
from halo.core.errors import LinkError, Loss, LossKind
from halo.core.model import Host
from tests.certificates import ANYTHING, BOTH, CALL, SERVE, Authority

from .remote_helpers import PATIENCE_S, until
from .test_rpc_tls import tls_agent, tls_server

UNSET: frozenset[str] = frozenset()
MGMT = frozenset(["mgmt"])
CODE_SIGNING = (ExtendedKeyUsageOID.CODE_SIGNING,)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


class Anybody:
    """A door that lets everybody in, and shows whatever it was given."""

    def __init__(self, files: TlsFiles) -> None:
        self.context = agent_context(files)

    def refusal_of(self, peer: bytes | None) -> str | None:
        return None


async def answer(host: Host, files: TlsFiles) -> Loss | None:
    """What a manager with these files meets: nothing that ends it, or the loss."""
    connector = CapnpConnector("m", "c", tls=TlsIdentity(files, manager_context))
    try:
        connection = await connector.connect(host, PATIENCE_S)
    except LinkError as error:
        return error.loss
    finally:
        connector.close()
    assert connection.identity.certificate_expires_at is not None
    connection.close()
    return None


@pytest.mark.parametrize(
    ("names", "usages", "managers", "refused"),
    [
        (["mgmt"], CALL, UNSET, None),
        (["mgmt"], CALL, MGMT, None),
        (["MGMT"], CALL, MGMT, None),
        (["mgmt"], BOTH, MGMT, None),
        (["mgmt"], ANYTHING, MGMT, None),
        (["10.0.0.1"], CALL, frozenset(["10.0.0.1"]), None),
        (["mgmt"], BOTH, UNSET, "is for servers, too"),
        (["mgmt"], ANYTHING, UNSET, "has no extendedKeyUsage"),
        (["localhost"], CALL, UNSET, "the agent's own name"),
        ([socket.gethostname()], CALL, UNSET, "the agent's own name"),
        (["oss01"], CALL, MGMT, "none of the managers' names mgmt"),
        (["oss01"], BOTH, MGMT, "none of the managers' names mgmt"),
    ],
)
async def test_an_agent_serves_managers(
    authority: Authority,
    names: list[str],
    usages: Sequence[x509.ObjectIdentifier],
    managers: frozenset[str],
    refused: str | None,
) -> None:
    files = authority.issue("client", *names, usages=usages)
    with capture_logs() as logged:
        async with tls_agent(authority.host("server", "localhost"), managers) as (host, agent):
            loss = await answer(host, files)
            assert (agent.hellos == []) == (refused is not None)
            assert (agent.links == []) == (refused is not None)  # nothing was there to read
    told = [line["reason"] for line in logged if line["event"] == "turned a connection away"]
    if refused is None:
        assert (loss, told) == (None, [])
        return
    assert loss is not None
    assert loss.kind is LossKind.TLS
    assert loss.detail.startswith("the agent refused this manager's certificate: it ")
    assert refused in loss.detail
    assert [refused in reason for reason in told] == [True]


@pytest.mark.parametrize("usages", [SERVE, CODE_SIGNING])
async def test_a_certificate_that_is_for_no_client_ends_the_handshake(
    authority: Authority, usages: Sequence[x509.ObjectIdentifier]
) -> None:
    """OpenSSL sees to that, also where the name is the manager's."""
    files = authority.issue("client", "mgmt", usages=usages)
    with capture_logs() as logged:
        async with tls_agent(authority.host("server", "localhost"), MGMT) as (host, agent):
            loss = await answer(host, files)
            assert agent.links == []
            await until(lambda: logged, "a line in the log")
    assert loss is not None
    assert loss.kind is LossKind.TLS
    assert (
        "certificate is refused: un" in logged[0]["reason"]
    )  # unsuitable, unsupported ... purpose


@pytest.mark.parametrize(
    ("names", "usages", "words"),
    [
        (["localhost"], CALL, "certificate refused: un"),
        (["localhost"], CODE_SIGNING, "certificate refused: un"),
        (["oss01"], SERVE, "certificate refused: Hostname mismatch"),
        (["oss01"], BOTH, "certificate refused: Hostname mismatch"),
    ],
)
async def test_a_manager_accepts_the_hosts_own_certificate_alone(
    authority: Authority,
    names: list[str],
    usages: Sequence[x509.ObjectIdentifier],
    words: str,
) -> None:
    files = authority.issue("server", *names, usages=usages)
    async with tls_server(Anybody(files)) as (host, agent):
        loss = await answer(host, authority.manager("client", "mgmt"))
        assert agent.hellos == []
    assert loss is not None
    assert loss.kind is LossKind.TLS
    assert words in loss.detail


def taken_up_again(
    files: TlsFiles, address: tuple[str, int], version: ssl.TLSVersion
) -> list[tuple[bool, bytes]]:
    """Connect twice, the second time with the session of the first: whether it was taken up, and
    what the agent said."""
    context = manager_context(files)
    context.maximum_version = version
    session, met = None, []
    for _ in range(2):
        with (
            socket.create_connection(address, PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as secured,
        ):
            said = secured.recv(10_000)
            session = secured.session
            met.append((bool(secured.session_reused), said))
    return met


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_that_is_taken_up_again_is_no_way_in(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    """TLS then leaves the certificates out of the handshake."""
    files = authority.issue("client", "oss01", usages=BOTH)
    async with tls_agent(authority.host("server", "localhost"), MGMT) as (host, agent):
        address = ("127.0.0.1", host.port)
        met = await asyncio.to_thread(taken_up_again, files, address, version)
        assert agent.links == []
    # OpenSSL keeps sessions of TLS 1.2 in memory, which Python cannot switch off.
    assert [reused for reused, _ in met] == [False, version is ssl.TLSVersion.TLSv1_2]
    for _, said in met:
        assert b"none of the managers' names mgmt" in said


def test_a_certificate_that_ended_is_refused_whatever_tls_says(authority: Authority) -> None:
    gate = ManagerGate(authority.host("server", "localhost"), MGMT)
    ended = authority.issue("client", "mgmt", usages=CALL, days=1, late=timedelta(days=2))
    good = authority.manager("good", "mgmt")
    (old,), (new,) = ders_in(ended.certificate), ders_in(good.certificate)
    assert gate.refusal_of(new) is None
    assert "it ended on " in str(gate.refusal_of(old))


@pytest.mark.parametrize("sends", [True, False])
async def test_who_is_refused_and_stays_is_shut_out(authority: Authority, sends: bool) -> None:
    """It neither reads nor closes, and sends without end, or nothing: that keeps no connection."""
    context = manager_context(authority.issue("client", "oss01", usages=BOTH))

    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    def stay(address: tuple[str, int], leave: threading.Event, stands: threading.Event) -> None:
        with (
            socket.create_connection(address, PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secured,
            contextlib.suppress(OSError),
        ):
            stands.set()
            while not leave.wait(0.01):
                if sends:
                    secured.sendall(bytes(1000))
            secured.sendall(bytes(1000))

    async with tls_agent(authority.host("server", "localhost"), MGMT) as (host, agent):
        before, leave, stands = descriptors(), threading.Event(), threading.Event()
        address = ("127.0.0.1", host.port)
        staying = asyncio.create_task(asyncio.to_thread(stay, address, leave, stands))
        try:
            await until(stands.is_set, "the connection")
            await until(lambda: descriptors() < before + 2, "the agent's end to be gone")
        finally:
            leave.set()
            await staying
        assert agent.links == []


async def test_an_agent_that_hangs_up_on_a_handshake_may_speak_no_tls(
    authority: Authority,
) -> None:
    def hang_up(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with accepted:
            accepted.recv(10)  # the rest is unread, so that the close is a reset

    async with rpc_loop():
        with socket.create_server(("127.0.0.1", 0)) as listener:
            hanging_up = asyncio.create_task(asyncio.to_thread(hang_up, listener))
            host = Host("h1", "localhost", listener.getsockname()[1])
            loss = await answer(host, authority.manager("client", "mgmt"))
            await hanging_up
    assert loss is not None
    assert loss.kind is LossKind.TLS
    assert "does not speak TLS: start it with --mtls" in loss.detail


async def test_the_common_name_is_no_name(authority: Authority) -> None:
    """Neither to a manager that looks for a host, nor to an agent that knows its manager."""
    files = authority.without_names("server", "localhost", SERVE)
    async with tls_agent(files, MGMT) as (host, _):
        loss = await answer(host, authority.manager("client", "mgmt"))
    assert loss is not None
    assert "certificate refused" in loss.detail
    nameless = authority.without_names("client", "mgmt", CALL)
    async with tls_agent(authority.host("server", "localhost"), MGMT) as (host, _):
        loss = await answer(host, nameless)
    assert loss is not None
    assert "it holds no name (subjectAltName)" in loss.detail


async def test_a_managers_own_certificate_answers_for_no_host(authority: Authority) -> None:
    shared = authority.issue("shared", "localhost", usages=BOTH)
    async with tls_agent(shared) as (host, agent):
        loss = await answer(host, shared)
        assert agent.hellos == []
    assert loss is not None
    assert "the agent there shows this manager's own certificate" in loss.detail


@pytest.mark.parametrize(
    ("names", "usages", "is_refused"),
    [
        (["halo-site", "mgmt"], BOTH, True),
        (["halo-site", "mgmt"], ANYTHING, True),
        (["halo-site", "mgmt"], SERVE, False),  # no agent takes it for a manager's
        (["halo-site", "oss00"], BOTH, False),
        (["halo-site", "127.0.0.1"], BOTH, False),
    ],
)
async def test_another_managers_certificate_answers_for_no_host(
    authority: Authority,
    names: list[str],
    usages: Sequence[x509.ObjectIdentifier],
    is_refused: bool,
) -> None:
    """Where all hosts have one name, it may hold that, too."""
    identity = manager_identity(
        authority.issue("client", "mgmt", "halo-site", "127.0.0.1", usages=BOTH)
    )
    connector = CapnpConnector("m", "c", tls=identity, server_name="halo-site")
    async with tls_server(Anybody(authority.issue("server", *names, usages=usages))) as (host, at):
        if is_refused:
            with pytest.raises(LinkError, match="it holds mgmt, as this manager's does") as raised:
                await connector.connect(host, PATIENCE_S)
            assert raised.value.loss.kind is LossKind.TLS
        else:
            (await connector.connect(host, PATIENCE_S)).close()
        assert (at.hellos == []) == is_refused
    connector.close()


async def test_a_name_that_is_no_text_ends_no_manager(authority: Authority) -> None:
    """The standard library fails to decode it, at the end of a handshake that went well."""
    files = authority.with_unreadable_name("server", "localhost", usages=SERVE)
    with capture_errors() as errors:
        async with tls_server(Anybody(files)) as (host, agent):
            loss = await answer(host, authority.manager("client", "mgmt"))
            assert agent.hellos == []
    assert loss is not None
    assert loss.kind is LossKind.TLS
    assert UNREADABLE in loss.detail
    assert errors == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_name_that_is_no_text_is_a_refusal_of_the_agent(
    authority: Authority, version: ssl.TLSVersion
) -> None:
    files = authority.with_unreadable_name("client", "mgmt", usages=CALL)
    with capture_errors() as errors, capture_logs() as logged:
        async with tls_agent(authority.host("server", "localhost"), MGMT) as (host, agent):
            identity = manager_identity(authority.manager("good", "mgmt"))
            identity.context.load_cert_chain(files.certificate, files.key)
            identity.context.maximum_version = version
            connector = CapnpConnector("m", "c", tls=identity)
            with pytest.raises(LinkError):
                await connector.connect(host, PATIENCE_S)
            connector.close()
            await until(lambda: logged, "a line in the log")
            assert agent.links == []
            gc.collect()  # a task that failed unseen would say so now
    assert [line["log_level"] for line in logged] == ["warning"]
    assert UNREADABLE in logged[0]["reason"]
    assert errors == []


@contextlib.contextmanager
def capture_errors() -> Iterator[list[Any]]:
    """What asyncio tells of errors that nobody caught, each with a traceback in the log."""
    told: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context))
    try:
        yield told
    finally:
        loop.set_exception_handler(None)


@pytest.mark.parametrize("name", [".site", "a..b", "a" * 64 + ".site", "."])
def test_an_expected_name_that_is_none_is_told_at_the_start(name: str) -> None:
    with pytest.raises(TlsNameError, match="HALO_SERVER_DOMAIN_NAME"):
        expected_name({"HALO_SERVER_DOMAIN_NAME": name})


async def test_a_name_that_tls_cannot_ask_for_ends_no_manager(authority: Authority) -> None:
    identity = manager_identity(authority.manager("client", "mgmt"))
    async with tls_agent(authority.host("server", "localhost")) as (host, _):
        connector = CapnpConnector("m", "c", tls=identity, server_name="a..b")
        with pytest.raises(LinkError) as raised:
            await connector.connect(host, PATIENCE_S)
        connector.close()
    assert raised.value.loss.kind is LossKind.TLS


def test_an_agent_does_not_start_with_the_managers_name(authority: Authority) -> None:
    files = authority.host("server", "localhost", "mgmt")
    with pytest.raises(
        TlsFileError, match="it holds mgmt, the manager's name in HALO_MANAGER_NAME"
    ):
        ManagerGate(files, MGMT)
    ManagerGate(files, UNSET)


def test_files_in_the_wrong_place_are_a_mistake(authority: Authority) -> None:
    with pytest.raises(TlsFileError, match="lacks serverAuth"):
        ManagerGate(authority.manager("client", "mgmt"), UNSET)
    with pytest.raises(TlsFileError, match="lacks clientAuth"):
        manager_identity(authority.host("server", "localhost"))


def test_one_name_or_several_are_read() -> None:
    assert manager_names(None) == manager_names("") == UNSET
    assert manager_names("MGMT.example., 10.0.0.1 ,mgmt2") == {"mgmt.example", "10.0.0.1", "mgmt2"}


async def test_any_capnp_peer_understands_the_farewell() -> None:
    """A manager of an existing site, too: the connection fails with these words."""
    async with rpc_loop():
        server, client = socket.socketpair()
        with server:
            stream = await capnp.AsyncIoStream.create_connection(sock=client)
            agent = capnp.TwoPartyClient(stream).bootstrap().cast_as(OcfResourceAgent)
            call = agent.operation(resource="a/b", op="monitor", args=[])
            server.sendall(farewell("it is not the manager's"))
            with pytest.raises(capnp.KjException) as raised:
                await call
    assert refusal_in(raised.value) == "it is not the manager's"


def test_a_farewell_is_bounded() -> None:
    long = farewell("ä" * 100_000)
    assert len(long) < 600
    assert len(long) % 8 == 0


class Raised(Exception):
    """As pycapnp raises it."""

    def __init__(self, description: str) -> None:
        super().__init__(description)
        self.description = description


def test_only_a_farewell_is_taken_for_one() -> None:
    start = "remote exception: this manager's certificate is refused: "
    assert refusal_in(Raised(f"{start}a\nb")) == "a"
    assert refusal_in(Raised(f"{start}\x1b[31mred")) == "?[31mred"
    for words in (start, f"{start}\n", "failed: something else"):
        assert refusal_in(Raised(words)) is None
    assert refusal_in(ProtocolError(f"it ended the connection: {start}a")) == "a"
    assert refusal_in(None) is None
    assert refusal_in(UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")) is None
