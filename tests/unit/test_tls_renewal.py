"""Renewed certificates: taken up at the next handshake, or told of where they cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.tls.files import TlsFileError, TlsFiles, agent_context
from halo.adapters.tls.identity import ManagerGate, TlsIdentity, manager_identity
from halo.core.cluster.state import ClusterState
from halo.core.errors import LinkError
from halo.core.journal.remembered import Remembered
from halo.core.model import Cluster, Host
from halo.core.outcomes import AgentIdentity
from halo.manager.hosts.certificate_look import look_again
from tests.certificates import SERVE, Authority
from tests.core.builders import make_cluster

from .remote_helpers import PATIENCE_S, until
from .test_rpc_tls import tls_server

DAY = 86400
MGMT = frozenset(["mgmt"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@contextlib.asynccontextmanager
async def watched(
    identity: TlsIdentity, retry_s: float = 1000, patience_s: float = 1000
) -> AsyncIterator[list[Any]]:
    """What is logged while its files are looked at, quickly."""
    with capture_logs() as logged:
        task = asyncio.create_task(identity.watch(0.02, retry_s, patience_s))
        try:
            yield logged
        finally:
            task.cancel()


def lines(logged: list[Any], words: str) -> list[Any]:
    return [line for line in logged if words in line["event"]]


async def looks(times: int = 4) -> None:
    """Let several looks pass."""
    await asyncio.sleep(0.02 * times)


async def test_renewed_files_hold_from_the_next_handshake_on(authority: Authority) -> None:
    gate = ManagerGate(authority.host("server", "localhost"), MGMT)
    connector = CapnpConnector("m", "c", tls=manager_identity(authority.manager("client", "mgmt")))
    async with tls_server(gate) as (host, agent), watched(gate.identity) as logged:
        first = await connector.connect(host, PATIENCE_S)
        before = gate.context
        authority.issue("server", "localhost", usages=SERVE, days=100)
        await until(lambda: lines(logged, "are taken up"), "the renewed files")
        assert gate.context is not before
        await first.heartbeat()  # the standing connection is as it was
        second = await connector.connect(host, PATIENCE_S)
        ends = [c.identity.certificate_expires_at for c in (first, second)]
        assert ends[0] is not None
        assert ends[1] is not None
        assert ends[0] - ends[1] == pytest.approx(630 * DAY, abs=DAY)
        assert len(agent.links) == 2
        assert len(lines(logged, "taken up")) == 1
    connector.close()


async def test_a_half_written_set_is_told_once_and_the_old_one_stays(authority: Authority) -> None:
    files = authority.manager("client", "mgmt")
    identity = manager_identity(files)
    before, old_key = identity.context, files.key.read_bytes()
    async with watched(identity) as logged:
        renewed = authority.issue("client", "mgmt", usages=(), days=100)
        new_key = renewed.key.read_bytes()
        files.key.write_bytes(old_key)
        await until(lambda: lines(logged, "not taken up"), "a line in the log")
        await looks()
        assert identity.context is before
        assert len(lines(logged, "not taken up")) == 1
        assert "belong together" in str(identity.known.trouble)
        assert str(files.key) in str(identity.known.trouble)
        files.key.write_bytes(new_key)
        await until(lambda: identity.context is not before, "the whole set")
        assert identity.known.trouble is None
        (end,) = [at for what, at in identity.known.ends.items() if "client.crt" in what]
        assert end == identity.own.expires_at


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n"])
@pytest.mark.parametrize("what", ["certificate", "key", "ca"])
async def test_files_that_are_gone_or_broken_end_nothing(
    authority: Authority, what: str, content: bytes | None
) -> None:
    files = authority.host("server", "localhost")
    identity = TlsIdentity(files, agent_context)
    path: Path = getattr(files, what)
    good, before = path.read_bytes(), identity.context
    async with watched(identity) as logged:
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        await until(lambda: lines(logged, "not taken up"), "a line in the log")
        assert identity.context is before
        assert str(path) in str(identity.known.trouble)
        path.write_bytes(good)
        await until(lambda: identity.known.trouble is None, "the file to be back")


async def test_files_are_used_when_they_have_settled(authority: Authority) -> None:
    """Whoever copies them takes a moment; a look in between is no alarm."""
    files = authority.host("server", "localhost")
    identity = TlsIdentity(files, agent_context)
    content = files.certificate.read_bytes()
    async with watched(identity) as logged:
        for number in range(1, 40):  # it grows between any two looks
            files.certificate.write_bytes(content[: number * len(content) // 40])
            await asyncio.sleep(0.005)
        files.certificate.write_bytes(content + b"\n")
        await until(lambda: lines(logged, "are taken up"), "the whole file")
        assert lines(logged, "not taken up") == []


class Refusing:
    """Makes contexts but when told to fail, as a label of SELinux or a lack of descriptors does."""

    def __init__(self) -> None:
        self.fails = False

    def __call__(self, files: TlsFiles) -> ssl.SSLContext:
        if self.fails:
            raise TlsFileError("Permission denied")
        return agent_context(files)


async def refused_once(
    identity: TlsIdentity, make: Refusing, files: TlsFiles, logged: list[Any]
) -> None:
    make.fails = True
    os.utime(files.key)
    await until(lambda: lines(logged, "not taken up"), "a line in the log")
    await looks()
    assert identity.known.trouble == "Permission denied"
    make.fails = False


async def test_permissions_that_are_mended_are_noticed(authority: Authority) -> None:
    """Neither content nor time of a file change with them."""
    files, make = authority.host("server", "localhost"), Refusing()
    identity = TlsIdentity(files, make)
    async with watched(identity) as logged:
        await refused_once(identity, make, files, logged)
        files.key.chmod(0o400)
        await until(lambda: identity.known.trouble is None, "the files to be taken up")
        assert len(lines(logged, "not taken up")) == 1


async def test_files_that_could_not_be_used_are_tried_again(authority: Authority) -> None:
    files, make = authority.host("server", "localhost"), Refusing()
    identity = TlsIdentity(files, make)
    async with watched(identity, retry_s=0.1) as logged:
        await refused_once(identity, make, files, logged)
        await until(lambda: identity.known.trouble is None, "the files to be taken up")
        assert len(lines(logged, "not taken up")) == 1


async def test_a_look_that_fails_is_not_the_last(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority.host("server", "localhost")
    identity = TlsIdentity(files, agent_context)

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with watched(identity) as logged:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            await until(lambda: identity.known.trouble, "the failure to be told")
            assert "can't start new thread" in str(identity.known.trouble)
        await until(lambda: identity.known.trouble is None, "a look that succeeds")
        authority.host("server", "localhost")
        await until(lambda: lines(logged, "are taken up"), "the renewed files")


async def test_a_file_that_hangs_is_told_of(authority: Authority) -> None:
    """A FIFO to which nobody writes hangs as a file on a dead server does."""
    files = authority.host("server", "localhost")
    identity = TlsIdentity(files, agent_context)
    key, before = files.key.read_bytes(), threading.active_count()
    async with watched(identity, patience_s=0.1) as logged:
        files.key.unlink()
        os.mkfifo(files.key)
        await until(lambda: identity.known.trouble, "the file that hangs to be told of")
        assert "does not answer" in str(identity.known.trouble)
        await looks(10)
        assert threading.active_count() <= before + 1
        end = os.open(files.key, os.O_WRONLY)  # it goes on
        files.key.unlink()
        files.key.write_bytes(key)
        os.close(end)
        await until(lambda: lines(logged, "are taken up"), "the file")
        assert identity.known.trouble is None


async def test_a_renewed_certificate_with_the_managers_name_is_not_taken_up(
    authority: Authority,
) -> None:
    gate = ManagerGate(authority.host("server", "localhost"), MGMT)
    async with watched(gate.identity) as logged:
        authority.host("server", "localhost", "mgmt")
        await until(lambda: lines(logged, "not taken up"), "a line in the log")
        assert "HALO_MANAGER_NAME" in lines(logged, "not taken up")[0]["problem"]


def test_an_end_that_is_near_stands_in_the_log_at_the_start(authority: Authority) -> None:
    with capture_logs() as logged:
        ManagerGate(authority.issue("server", "localhost", usages=SERVE, days=20), MGMT)
    (line,) = lines(logged, "certificate")
    assert f"the certificate {authority.folder}/server.crt ends on" in line["problem"]
    with capture_logs() as logged:
        ManagerGate(authority.host("server", "localhost"), MGMT)
    assert logged == []


async def test_a_new_ca_is_taken_up(authority: Authority, tmp_path: Path) -> None:
    """Both in one file while it is replaced: certificates of either are good."""
    other = Authority(tmp_path / "other")
    files = authority.host("server", "localhost")
    gate = ManagerGate(files, MGMT)
    theirs = other.manager("client", "mgmt")
    both = tmp_path / "both.crt"
    both.write_bytes(authority.certificate.read_bytes() + other.certificate.read_bytes())
    connector = CapnpConnector("m", "c", tls=manager_identity(replace(theirs, ca=both)))
    async with tls_server(gate) as (host, _), watched(gate.identity) as logged:
        with pytest.raises(LinkError):
            await connector.connect(host, PATIENCE_S)
        staged = tmp_path / "staged"
        staged.write_bytes(both.read_bytes())
        os.replace(staged, files.ca)
        await until(lambda: lines(logged, "are taken up"), "the CA")
        (await connector.connect(host, PATIENCE_S)).close()
    connector.close()


async def test_a_defect_of_one_look_at_an_agent_does_not_end_the_looks(
    authority: Authority,
) -> None:
    host = Host("h1", "localhost", 1)
    state = ClusterState(one_host(host), Remembered(), observe_only=False, started_at=0.0)
    state.host_connected("h1", AgentIdentity(certificate_expires_at=1.0), 0.0)
    asked: list[str] = []

    async def ask(host: Host, deadline_s: float) -> float | None:
        asked.append(host.id)
        raise RuntimeError("a defect")

    with capture_logs() as logged:
        look = asyncio.create_task(look_again(state, Wall(), ask, 0.02))
        await until(lambda: len(asked) > 1, "a second look")
        look.cancel()
    assert lines(logged, "cannot look at a certificate")


class Wall:
    def now(self) -> float:
        return time.time()


def one_host(host: Host) -> Cluster:
    return replace(make_cluster(), hosts={host.id: host}, groups={})


async def test_an_agents_renewed_certificate_is_noticed_beside_its_connection(
    authority: Authority,
) -> None:
    files = authority.issue("server", "localhost", usages=SERVE, days=10)
    gate = ManagerGate(files, MGMT)
    connector = CapnpConnector("m", "c", tls=manager_identity(authority.manager("client", "mgmt")))
    async with tls_server(gate) as (host, agent), watched(gate.identity) as logged:
        connection = await connector.connect(host, PATIENCE_S)
        state = ClusterState(one_host(host), Remembered(), observe_only=False, started_at=0.0)
        state.host_connected(host.id, connection.identity, 0.0)
        asked: list[str] = []

        async def ask(host: Host, deadline_s: float) -> float | None:
            asked.append(host.id)
            return await connector.certificate_ends_at(host, deadline_s)

        look = asyncio.create_task(look_again(state, Wall(), ask, 0.02))
        await until(lambda: asked, "a look")
        authority.issue("server", "localhost", usages=SERVE, days=100)
        await until(lambda: lines(logged, "are taken up"), "the renewed files")

        def seen() -> bool:
            end = state.hosts[host.id].identity.certificate_expires_at
            return end is not None and end - Wall().now() > 99 * DAY

        await until(seen, "the look at the agent")
        count = len(asked)
        await looks()
        assert len(asked) == count  # it does not end soon any more: nobody asks
        assert len(agent.hellos) == 1
        await connection.heartbeat()
        look.cancel()
        connection.close()
    connector.close()
