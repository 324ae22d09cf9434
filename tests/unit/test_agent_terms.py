"""Terms of leaders on an agent's disk: before an answer, across restarts, forgotten by order."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from halo.adapters.rpc.agent.server import CapnpAgentServer
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.core.errors import AdministratorError, LinkError, Loss
from halo.core.model import Host, Settings
from halo.core.peers.bounds import TERM_LIMIT
from halo.core.peers.calls import NotRecorded, NotServed, Welcome
from halo.manager.common.concurrency_limit import ConcurrencyLimit
from halo.manager.hosts.link import HostLink
from halo.remote.arbiter import Arbiter
from halo.remote.service import AgentService
from halo.remote.term_keeper import DEADLINE_S, WRITE_INTERVAL_S, TermKeeper
from halo.remote.terms import CLUSTERS, SUFFIX, Seen, TermFile, Terms, forget, open_terms
from tests.unit.remote_helpers import PATIENCE_S, AgentProcess, until


class Disk(TermFile):
    """A file in memory. Writes are counted; they fail, or wait for `release`, on order."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere/a.terms.json"))
        self.written: list[Terms] = []
        self.error: OSError | None = None
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def write(self, terms: Terms) -> None:
        self.may_go_on.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        self.written.append(dict(terms))


class Link:
    peer = "10.0.0.1"

    def close(self) -> None:
        pass


class Scripts:
    """Runs nothing."""


class SeenByManager:
    """What a manager's link tells of a host."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.link: HostLink

    def link_down(self, loss: Loss) -> None:
        self.told.append("down")
        self.link.release()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: self.told.append(name.removeprefix("link_"))


async def until_written(disk: Disk) -> None:
    await until(lambda: disk.written, "the write")
    await asyncio.sleep(0.01)


def service(disk: TermFile | None, terms: Terms | None = None) -> AgentService:
    return AgentService(Scripts(), "a", (), disk, terms)  # type: ignore[arg-type]  # a stand-in


class TestRecording:
    async def test_a_higher_term_is_on_disk_before_its_leader_is_served(self) -> None:
        disk = Disk()
        disk.may_go_on.clear()
        agent = service(disk)
        session = agent.open_session(Link())
        hello = asyncio.ensure_future(session.hello("m2", "c", 5))
        await asyncio.sleep(0.05)
        assert not hello.done()
        assert not agent.arbiter.is_served(session)
        disk.may_go_on.set()
        assert isinstance(await hello, Welcome)
        assert disk.written == [{"c": Seen(5, "m2")}]
        assert agent.arbiter.is_served(session)

    async def test_an_earlier_leader_is_refused_while_the_disk_is_written(self) -> None:
        disk = Disk()
        agent = service(disk)
        old = agent.open_session(Link())
        await old.hello("m1", "c", 4)
        disk.may_go_on.clear()
        hello = asyncio.ensure_future(agent.open_session(Link()).hello("m2", "c", 5))
        await asyncio.sleep(0.05)
        refused = await old.hello("m1", "c", 4)
        assert "the higher term 5" in str(refused)
        assert "m2" in str(refused)
        disk.may_go_on.set()
        assert isinstance(await hello, Welcome)

    async def test_a_term_that_is_on_record_costs_no_write(self) -> None:
        disk = Disk()
        agent = service(disk, {"c": Seen(5, "m2")})
        for _ in range(3):
            assert isinstance(await agent.open_session(Link()).hello("m2", "c", 5), Welcome)
        assert isinstance(await agent.open_session(Link()).hello("m2", "other", 0), Welcome)
        assert disk.written == []

    async def test_a_full_disk_refuses_the_leader_until_there_is_room(self) -> None:
        disk = Disk()
        disk.error = OSError(28, "No space left on device")
        agent = service(disk)
        session = agent.open_session(Link())
        refused = await session.hello("m2", "c", 5)
        assert isinstance(refused, NotRecorded)
        assert "No space left on device" in str(refused)
        assert not agent.arbiter.is_served(session)
        disk.error = None
        await asyncio.sleep(WRITE_INTERVAL_S)
        assert isinstance(await session.hello("m2", "c", 5), Welcome)

    async def test_a_disk_that_hangs_holds_up_nothing_but_the_greeting(self) -> None:
        disk = Disk()
        disk.may_go_on.clear()
        agent = service(disk)
        begun = time.monotonic()
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.ensure_future(tick())
        refused = await agent.open_session(Link()).hello("m2", "c", 5)
        ticking.cancel()
        assert "the disk has not answered yet" in str(refused)
        assert DEADLINE_S <= time.monotonic() - begun < DEADLINE_S + PATIENCE_S / 2
        assert ticks > 3
        begun = time.monotonic()
        assert isinstance(await agent.open_session(Link()).hello("m2", "c", 5), NotRecorded)
        assert time.monotonic() - begun < DEADLINE_S / 2  # it is known by now
        disk.may_go_on.set()
        await until_written(disk)
        assert isinstance(await agent.open_session(Link()).hello("m2", "c", 5), Welcome)

    async def test_after_a_write_that_failed_nobody_waits_long_for_the_next(self) -> None:
        disk = Disk()
        disk.error = OSError(5, "Input/output error")
        agent = service(disk)
        await agent.open_session(Link()).hello("m2", "c", 5)
        await asyncio.sleep(WRITE_INTERVAL_S)
        disk.may_go_on.clear()  # this disk hangs for a while before each error
        begun = time.monotonic()
        assert isinstance(await agent.open_session(Link()).hello("m2", "c", 5), NotRecorded)
        assert time.monotonic() - begun < DEADLINE_S / 2
        disk.may_go_on.set()

    @pytest.mark.parametrize("budget_s", [3.0, 0.6])
    async def test_a_disk_that_hangs_makes_no_host_look_dead(self, budget_s: float) -> None:
        """A manager that gets no answer to its greeting would power the host off."""
        disk = Disk()
        disk.may_go_on.clear()
        agent = service(disk)
        seen = SeenByManager()
        async with rpc_loop():
            server = CapnpAgentServer(agent.open_session)
            sock = socket.create_server(("127.0.0.1", 0))
            sock.setblocking(False)
            await server.serve(sock)
            connector = CapnpConnector("m2", "c", term=lambda: 5)
            link = HostLink(
                Host("h", "127.0.0.1", sock.getsockname()[1]),
                connector,
                Settings(loss_budget_s=budget_s, heartbeat_interval_s=budget_s / 3),
                seen,
                ConcurrencyLimit(64, 0.5),
            )
            seen.link = link
            working = asyncio.ensure_future(link.run())
            await asyncio.sleep(2 * budget_s)
            assert seen.told.count("alive") > 1
            assert "lost" not in seen.told
            disk.may_go_on.set()
            await until(lambda: "up" in seen.told, "the agent to serve")
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            server.close()
            connector.close()
            agent.close()

    async def test_a_connection_that_ended_meanwhile_is_not_served(self) -> None:
        disk = Disk()
        disk.may_go_on.clear()
        agent = service(disk)
        session = agent.open_session(Link())
        hello = asyncio.ensure_future(session.hello("m2", "c", 5))
        await asyncio.sleep(0.05)
        session.ended()
        disk.may_go_on.set()
        assert isinstance(await hello, NotServed)
        assert not agent.arbiter.is_served(session)

    async def test_a_peer_whose_terms_rise_all_the_time_gets_few_writes(self) -> None:
        disk = Disk()
        agent = service(disk)
        ends = time.monotonic() + 1.0
        term = 0
        while time.monotonic() < ends:
            sessions = [agent.open_session(Link()) for _ in range(10)]
            term += 10
            await asyncio.gather(
                *(each.hello("rogue", f"c{n}", term + n) for n, each in enumerate(sessions))
            )
            for each in sessions:
                each.ended()
        assert term > 20
        await asyncio.sleep(2 * WRITE_INTERVAL_S)
        assert isinstance(await agent.open_session(Link()).hello("rogue", "c0", term), Welcome)
        assert 0 < len(disk.written) <= 1.5 / WRITE_INTERVAL_S + 2
        assert all(len(terms) <= CLUSTERS for terms in disk.written)

    async def test_thousands_of_clusters_cost_few_writes_and_little_time(self) -> None:
        disk = Disk()
        agent = service(disk)
        sessions = [agent.open_session(Link()) for _ in range(20)]
        begun = time.monotonic()
        answers = await asyncio.gather(
            *(
                session.hello("rogue", f"c{number}-{again}", 5)
                for number, session in enumerate(sessions)
                for again in range(200)
            )
        )
        assert time.monotonic() - begun < PATIENCE_S
        assert len(disk.written) <= 3
        assert len(agent.arbiter.terms) == CLUSTERS
        assert sum(isinstance(answer, NotRecorded) for answer in answers) >= 4000 - 2 * CLUSTERS

    async def test_what_came_during_a_write_goes_into_the_next(self) -> None:
        """A leader must not be told that its term is on record because another one's is."""
        disk = Disk()
        arbiter: Arbiter[str] = Arbiter()
        keeper = TermKeeper(disk, {}, lambda: arbiter.terms)
        disk.may_go_on.clear()
        arbiter.note("one", "c1", 5, 0.0)
        first = asyncio.ensure_future(keeper.record("c1", 5))
        await asyncio.sleep(0.05)
        arbiter.note("two", "c2", 6, 0.0)
        second = asyncio.ensure_future(keeper.record("c2", 6))
        await asyncio.sleep(0.05)
        disk.may_go_on.set()
        assert (await first, await second) == (None, None)
        assert [set(terms) for terms in disk.written] == [{"c1"}, {"c1", "c2"}]


class TestFile:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        file, terms = open_terms(tmp_path / "state", "a")
        assert file is not None
        assert terms == {}
        kept = {f"c{n}": Seen(TERM_LIMIT - n, "m" * 1024) for n in range(CLUSTERS)}
        file.write(kept)
        file.release()
        again, terms = open_terms(tmp_path / "state", "a")
        assert terms == kept
        assert list(terms) == list(kept)
        assert again is not None
        again.release()

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"[" * 100000,
            b'{"format": 2, "clusters": []}',
            b'{"format": 1, "clusters": [{"cluster": "c", "term": -1, "manager": "m"}]}',
            b'{"format": 1, "clusters": [{"cluster": "c", "term": 9007199254740992, "manager": "m"'
            b"}]}",
            b'{"format": 1, "clusters": [{"cluster": ["c"], "term": 1, "manager": "m"}]}',
            json.dumps({"format": 1, "clusters": [{"cluster": "c"}] * 17}).encode(),
            b'{"format": 1, "clusters": []}' + b" " * 300000,
        ],
    )
    def test_a_damaged_file_is_never_taken_for_none(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / f"a{SUFFIX}").write_bytes(content)
        with pytest.raises(AdministratorError, match="is damaged"):
            open_terms(tmp_path, "a")

    def test_without_a_folder_terms_are_kept_in_memory(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        assert open_terms(tmp_path / "file" / "state", "a") == (None, {})

    def test_a_file_system_that_is_only_read_stops_no_agent(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The kernel makes it so after a fault of the disk. The terms in the file still count."""
        TermFile(tmp_path / f"a{SUFFIX}").write({"c": Seen(5, "m1")})
        really_open, really_may = os.open, os.access

        def open_to_read(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return really_open(path, flags, mode, **more)

        monkeypatch.setattr(os, "open", open_to_read)
        monkeypatch.setattr(os, "access", lambda path, how: not how & os.W_OK and really_may)
        assert open_terms(tmp_path, "a") == (None, {"c": Seen(5, "m1")})

    def test_a_file_that_cannot_be_read_is_never_taken_for_none(self, tmp_path: Path) -> None:
        loop = tmp_path / f"a{SUFFIX}"
        loop.symlink_to(loop)
        with pytest.raises(AdministratorError, match="cannot be read: Too many levels"):
            open_terms(tmp_path, "a")

    def test_a_term_is_forgotten_only_while_no_agent_uses_it(self, tmp_path: Path) -> None:
        file = TermFile(tmp_path / f"a{SUFFIX}")
        file.write({"c": Seen(5, "m1"), "d": Seen(6, "m1")})
        file.release()
        (line,) = forget(tmp_path, "c")
        assert "forgot the term 5 of the cluster c, of m1" in line
        with pytest.raises(AdministratorError, match="clusters on record: d"):
            forget(tmp_path, "c")
        assert TermFile(file.path).read() == {"d": Seen(6, "m1")}


async def greet(port: int, term: int, manager: str = "m1") -> str:
    """The refusal, or nothing."""
    connector = CapnpConnector(manager, "c", term=lambda: term)
    try:
        connection = await connector.connect(Host("h", "127.0.0.1", port), PATIENCE_S)
        connection.close()
    except LinkError as error:
        return error.loss.detail
    finally:
        connector.close()
    return ""


def told(agent: AgentProcess, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        agent.command(*words, f"--state-directory={agent.folder / 'terms'}"),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


async def test_a_replaced_leader_is_refused_by_a_restarted_agent(tmp_path: Path) -> None:
    """It is told by whom it was replaced; and an administrator has the way back."""
    agent = AgentProcess(tmp_path)
    try:
        async with rpc_loop():
            await agent.start()
            assert await greet(agent.port, 5, "m2@mgmt2") == ""
            agent.kill()
            await agent.start()
            refused = await greet(agent.port, 4)
            assert "served m2@mgmt2 with the higher term 5" in refused
            assert "m2@mgmt2" in await greet(agent.port, 0)
            done = told(agent, "--forget-term", "c")
            assert done.returncode == 64
            assert "systemctl stop halo-remote" in done.stderr
            agent.kill()
            assert agent.process is not None
            agent.process.wait(PATIENCE_S)
            done = told(agent, "--forget-term", "c")
            assert (done.returncode, done.stderr) == (0, "")
            await agent.start()
            assert await greet(agent.port, 4) == ""
    finally:
        agent.kill()


async def test_a_damaged_file_stops_the_start(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path)
    (tmp_path / "terms").mkdir()
    (tmp_path / "terms" / f"agent{SUFFIX}").write_text("{")
    agent.spawn()
    assert agent.process is not None
    await until(lambda: agent.process and agent.process.poll() is not None, "the agent to end")
    assert agent.process.returncode == 64
    assert "remove the file" in agent.log.read_text()
