"""Mutual TLS: who is let in, on both sides, and what a refusal is called."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from halo.adapters.rpc.agent.server import CapnpAgentServer
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.adapters.tls.files import TlsFileError, TlsFiles, agent_context, expected_name
from halo.adapters.tls.identity import ManagerGate, TlsIdentity, manager_identity
from halo.adapters.tls.listener import Door
from halo.core.errors import LinkError, LossKind
from halo.core.model import Host, Operation
from tests.certificates import Authority
from tests.unit.remote_helpers import PATIENCE_S, resource, until
from tests.unit.test_rpc_link import Agent


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "other")


@contextlib.asynccontextmanager
async def tls_server(gate: Door) -> AsyncIterator[tuple[Host, Agent]]:
    """An agent at `localhost` that lets in whom this gate does."""
    agent = Agent()
    async with rpc_loop():
        sock = socket.create_server(("127.0.0.1", 0))
        server = CapnpAgentServer(agent.open_session, gate)
        await server.serve(sock)
        try:
            yield Host("h1", "localhost", sock.getsockname()[1]), agent
        finally:
            server.close()
            for link in agent.links:
                link.close()


@contextlib.asynccontextmanager
async def tls_agent(
    files: TlsFiles, managers: frozenset[str] = frozenset()
) -> AsyncIterator[tuple[Host, Agent]]:
    async with tls_server(ManagerGate(files, managers)) as made:
        yield made


async def loss_of_connecting(
    host: Host, identity: TlsIdentity | None, name: str | None = None, deadline_s: float = 10
) -> LossKind | None:
    made = CapnpConnector("m", "c", tls=identity, server_name=name)
    try:
        connection = await made.connect(host, deadline_s)
    except LinkError as error:
        return error.loss.kind
    finally:
        made.close()
    connection.close()
    return None


async def test_the_right_certificates_work(ours: Authority) -> None:
    async with tls_agent(ours.host("server", "localhost")) as (host, agent):
        identity = manager_identity(ours.manager("client", "manager"))
        made = CapnpConnector("m", "c", tls=identity)
        connection = await made.connect(host, PATIENCE_S)
        await connection.heartbeat()
        large = resource(parameters={"p": "x" * 30_000})
        assert (await connection.operation(large, Operation.MONITOR, PATIENCE_S)).code == 0
        transport = connection.wire.get_extra_info("ssl_object")
        assert transport.version() in ("TLSv1.2", "TLSv1.3")
        agent.links[0].close()
        lost = await asyncio.wait_for(connection.wait_closed(), PATIENCE_S)
        assert lost.kind is LossKind.RESET
        made.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_manager_without_a_certificate_of_the_ca_is_refused(
    ours: Authority, other: Authority, version: ssl.TLSVersion
) -> None:
    def without_certificate(files: TlsFiles) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=files.ca)

    def of_another_ca(files: TlsFiles) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=ours.certificate)
        context.load_cert_chain(files.certificate, files.key)
        return context

    strangers = [
        TlsIdentity(ours.manager("client", "manager"), without_certificate),
        TlsIdentity(other.manager("client", "manager"), of_another_ca),
    ]
    async with tls_agent(ours.host("server", "localhost")) as (host, agent):
        for stranger in strangers:
            stranger.context.maximum_version = version
            assert await loss_of_connecting(host, stranger) is LossKind.TLS
        assert agent.hellos == []


async def test_an_agent_of_another_ca_or_name_is_refused(ours: Authority, other: Authority) -> None:
    identity = manager_identity(ours.manager("client", "manager"))
    async with tls_agent(other.host("server", "localhost")) as (host, agent):
        assert await loss_of_connecting(host, identity) is LossKind.TLS
        assert agent.hellos == []
    async with tls_agent(ours.host("server", "elsewhere.example")) as (host, agent):
        assert await loss_of_connecting(host, identity) is LossKind.TLS
        assert agent.hellos == []
        assert await loss_of_connecting(host, identity, "elsewhere.example") is None


async def test_a_dot_at_the_end_is_no_part_of_the_name_asked_for(ours: Authority) -> None:
    identity = manager_identity(ours.manager("client", "manager"))
    async with tls_agent(ours.host("server", "localhost")) as (host, _):
        assert await loss_of_connecting(host, identity, "LOCALHOST.") is None


async def test_one_side_without_tls_is_refused(ours: Authority) -> None:
    async with tls_agent(ours.host("server", "localhost")) as (host, agent):
        kind = await loss_of_connecting(host, None)
        assert kind in (LossKind.RESET, LossKind.PROTOCOL)
        assert agent.hellos == []
    plain = Agent()
    async with rpc_loop():
        sock = socket.create_server(("127.0.0.1", 0))
        server = CapnpAgentServer(plain.open_session)
        await server.serve(sock)
        identity = manager_identity(ours.manager("client", "manager"))
        host = Host("h1", "localhost", sock.getsockname()[1])
        kind = await loss_of_connecting(host, identity, deadline_s=3)
        assert kind is not None
        assert kind is not LossKind.REFUSED
        server.close()


async def test_nobody_behind_the_port_is_refused_or_silent_as_without_tls(ours: Authority) -> None:
    identity = manager_identity(ours.manager("client", "manager"))
    async with rpc_loop():
        with socket.create_server(("127.0.0.1", 0)) as sock:
            host = Host("h1", "127.0.0.1", sock.getsockname()[1])
            assert await loss_of_connecting(host, identity, deadline_s=0.2) is LossKind.SILENT
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(50):
                await loss_of_connecting(host, identity, deadline_s=0.01)
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before, "sockets to be closed")
        assert await loss_of_connecting(host, identity) is LossKind.REFUSED


def test_files_come_from_the_environment_or_etc_halo() -> None:
    assert TlsFiles.of_agent({}) == TlsFiles(
        Path("/etc/halo/server.crt"), Path("/etc/halo/server.key"), Path("/etc/halo/ca.crt")
    )
    assert TlsFiles.of_manager({}) == TlsFiles(
        Path("/etc/halo/client.crt"), Path("/etc/halo/client.key"), Path("/etc/halo/ca.crt")
    )
    assert TlsFiles.of_agent(
        {"HALO_SERVER_CERT": "/c", "HALO_SERVER_KEY": "/k", "HALO_CA_CERT": "/a"}
    ) == TlsFiles(Path("/c"), Path("/k"), Path("/a"))
    assert expected_name({"HALO_SERVER_DOMAIN_NAME": "agents.example"}) == "agents.example"
    assert expected_name({}) is None


@pytest.mark.parametrize("missing", ["certificate", "key", "ca"])
def test_a_missing_file_is_named(ours: Authority, missing: str) -> None:
    files = ours.host("server", "localhost")
    path: Path = getattr(files, missing)
    path.unlink()
    with pytest.raises(TlsFileError, match=str(path)):
        agent_context(files)


def test_files_that_do_not_fit_are_named(ours: Authority) -> None:
    files = ours.host("server", "localhost")
    stranger = ours.host("stranger", "localhost")
    with pytest.raises(TlsFileError, match="belong together"):
        agent_context(TlsFiles(files.certificate, stranger.key, files.ca))
    files.ca.write_text("no certificate")
    with pytest.raises(TlsFileError, match="CA certificate"):
        agent_context(files)
