"""The manager's link to agents: every way it can fail, old peers, and that nothing leaks."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import resource as limits
import socket
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import capnp
import pytest

from halo.adapters.rpc.agent.server import CapnpAgentServer
from halo.adapters.rpc.agent.session import Observer
from halo.adapters.rpc.connection import CapnpConnection, HeartbeatUnknown
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.adapters.rpc.losses import loss_of
from halo.adapters.rpc.schema import HaloAgent, OcfResourceAgent
from halo.adapters.rpc.wire import USER_TIMEOUT_MS, Wire
from halo.core.errors import LeadershipError, LinkError, LossKind
from halo.core.model import Host, Operation
from halo.core.outcomes import OperationResult, Outcome, WatchItem
from halo.core.peers.calls import Busy, NotServed, Request, StaleTerm, WatchRequest, Welcome
from tests.unit.remote_helpers import PATIENCE_S, resource, until
from tests.unit.watch_helpers import Reader

MONITOR, START, STOP = Operation.MONITOR, Operation.START, Operation.STOP


class Agent:
    """An agent that answers as told, behind the real server."""

    def __init__(self) -> None:
        self.links: list[Any] = []
        self.requests: list[tuple[Request, int]] = []
        self.hellos: list[tuple[str, str, int]] = []
        self.greeting: Welcome | Busy | StaleTerm = Welcome("1", "boot", "start", ("run",))
        self.result: OperationResult | Busy | StaleTerm | NotServed = OperationResult(
            Outcome.COMPLETED, 0
        )
        self.watches: list[tuple[tuple[WatchRequest, ...], float, int]] = []
        self.observers: list[Observer] = []
        self.watch_refused = ""
        self.hang = False
        self.cancelled = 0

    def open_session(self, link: Any) -> Agent:
        self.links.append(link)
        return self

    async def hello(self, manager: str, cluster: str, term: int) -> Welcome | Busy | StaleTerm:
        self.hellos.append((manager, cluster, term))
        return self.greeting

    def heartbeat(self) -> None:
        pass

    async def run(
        self, request: Request, term: int
    ) -> OperationResult | Busy | StaleTerm | NotServed:
        self.requests.append((request, term))
        if self.hang:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return self.result

    async def operation(self, request: Request) -> OperationResult | Busy:
        result = await self.run(request, 0)
        assert isinstance(result, OperationResult | Busy)
        return result

    def watch(
        self,
        items: Sequence[WatchRequest],
        observer: Observer,
        digest_interval_s: float,
        term: int,
    ) -> str:
        self.watches.append((tuple(items), digest_interval_s, term))
        self.observers.append(observer)
        return self.watch_refused

    def ended(self) -> None:
        pass


class OldAgent(OcfResourceAgent.Server):  # type: ignore[misc]  # made at run time from the schema
    """What existing sites run: `operation` and nothing more."""

    async def operation(self, resource: str, op: Any, args: Any, _context: Any, **_: Any) -> None:
        result = _context.results.init("result")
        if resource == "test/Missing":
            result.err = "Could not run command"
        elif str(op) == "monitor":
            error = result.init("ok").init("innerErr")
            error.code = 7
            error.message = ",".join(f"{a.key}={a.value}" for a in args)
        else:
            result.init("ok").innerOk = None


@pytest.fixture
async def kj() -> AsyncIterator[None]:
    async with rpc_loop():
        yield


@contextlib.asynccontextmanager
async def served(agent: Agent) -> AsyncIterator[Host]:
    sock = socket.create_server(("127.0.0.1", 0))
    server = CapnpAgentServer(agent.open_session)
    await server.serve(sock)
    try:
        yield Host("h1", "127.0.0.1", sock.getsockname()[1])
    finally:
        server.close()
        for link in agent.links:
            link.close()


@contextlib.asynccontextmanager
async def old_agent() -> AsyncIterator[Host]:
    async def serve(stream: Any) -> None:
        await capnp.TwoPartyServer(stream, bootstrap=OldAgent()).on_disconnect()

    server = await capnp.AsyncIoStream.create_server(serve, "127.0.0.1", 0)
    try:
        yield Host("old", "127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()


@contextlib.contextmanager
def silent_listener(backlog: int = 16) -> Any:
    """A kernel that accepts, and nobody behind it."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as sock:
        yield Host("h1", "127.0.0.1", sock.getsockname()[1])


@contextlib.asynccontextmanager
async def link(host: Host) -> AsyncIterator[CapnpConnection]:
    made = CapnpConnector("manager one", "cluster")
    connection = await made.connect(host, PATIENCE_S)
    try:
        yield connection
    finally:
        connection.close()
        made.close()


async def refused_with(host: Host, deadline_s: float = PATIENCE_S) -> LossKind:
    made = CapnpConnector("manager one", "cluster")
    try:
        with pytest.raises(LinkError) as caught:
            await made.connect(host, deadline_s)
    finally:
        made.close()
    return caught.value.loss.kind


@pytest.mark.usefixtures("kj")
class TestCalls:
    async def test_a_call_carries_everything_and_brings_the_outcome_back(self) -> None:
        agent = Agent()
        terms = iter((5, 6))
        async with served(agent) as host:
            made = CapnpConnector("manager one", "prod", term=lambda: next(terms))
            connection = await made.connect(host, PATIENCE_S)
            assert agent.hellos == [("manager one", "prod", 5)]
            assert connection.identity.boot_id == "boot"
            agent.result = OperationResult(Outcome.COMPLETED, 7, "not running")
            asked = resource("heartbeat/ZFS", {"pool": "tank", "ünï": "cödé"}, id="tank")
            assert await connection.operation(asked, START, 5) == agent.result
            connection.close()
            made.close()
        [(request, term)] = agent.requests
        assert request == Request(
            "heartbeat/ZFS", START, {"pool": "tank", "ünï": "cödé"}, "tank", 10.0
        )
        assert term == 6

    @pytest.mark.parametrize("legacy", [False, True])
    async def test_a_manager_that_leads_no_more_sends_no_start_and_no_stop(
        self, legacy: bool
    ) -> None:
        agent, leads = Agent(), [True]

        def may_act() -> None:
            if not leads[0]:
                raise LeadershipError("not any more")

        async with served(agent) as host:
            made = CapnpConnector("manager one", "prod", may_act=may_act)
            connection = await made.connect(host, PATIENCE_S)
            if legacy:
                connection.take_for_legacy()
            await connection.operation(resource(), START, 5)
            leads[0] = False
            for change in (START, Operation.STOP):
                with pytest.raises(LeadershipError):
                    await connection.operation(resource(), change, 5)
            await connection.operation(resource(), MONITOR, 5)
            connection.close()
            made.close()
        assert [request.operation for request, _ in agent.requests] == [START, MONITOR]

    @pytest.mark.parametrize(
        "result",
        [
            OperationResult(Outcome.NOT_RUN, message="no such script"),
            OperationResult(Outcome.TIMED_OUT, message="ended after 1 s"),
            OperationResult(Outcome.COMPLETED, -1, "odd"),
        ],
    )
    async def test_outcomes_arrive_as_they_were(self, result: OperationResult) -> None:
        agent = Agent()
        agent.result = result
        async with served(agent) as host, link(host) as connection:
            assert await connection.operation(resource(), MONITOR, 5) == result

    async def test_without_a_configured_timeout_none_is_sent(self) -> None:
        agent = Agent()
        async with served(agent) as host, link(host) as connection:
            await connection.operation(resource(timeout_s=None), MONITOR, 5)
        assert agent.requests[0][0].timeout_s is None

    @pytest.mark.parametrize("refusal", [NotServed(), StaleTerm(9)])
    async def test_a_refused_call_is_no_result(self, refusal: NotServed | StaleTerm) -> None:
        agent = Agent()
        agent.result = refusal
        async with served(agent) as host, link(host) as connection:
            with pytest.raises(LinkError) as caught:
                await connection.operation(resource(), MONITOR, 5)
        assert caught.value.loss.kind is LossKind.BUSY

    async def test_no_answer_in_time_is_timed_out_and_the_connection_stands(self) -> None:
        agent = Agent()
        agent.hang = True
        async with served(agent) as host, link(host) as connection:
            result = await connection.operation(resource(), MONITOR, 0.05)
            assert result.outcome is Outcome.TIMED_OUT
            await connection.heartbeat()
            await until(lambda: agent.cancelled == 1, "the call to be cancelled at the agent")

    async def test_an_agent_that_fails_inside_is_a_protocol_error(self) -> None:
        agent = Agent()
        agent.result = None  # type: ignore[assignment]  # what a defect would return
        async with served(agent) as host, link(host) as connection:
            with pytest.raises(LinkError) as caught:
                await connection.operation(resource(), MONITOR, 5)
            assert caught.value.loss.kind is LossKind.PROTOCOL

    @pytest.mark.parametrize("result", [None, NotServed()])
    @pytest.mark.parametrize("operation", [Operation.START, Operation.STOP])
    async def test_a_start_answered_by_an_error_has_failed_and_is_no_loss(
        self, operation: Operation, result: Any
    ) -> None:
        """As a loss it would be decided afresh, and sent again at once, for ever."""
        agent = Agent()
        agent.result = result
        async with served(agent) as host, link(host) as connection:
            found = await connection.operation(resource(), operation, 5)
            assert found.outcome is Outcome.NOT_RUN
            assert found.message.startswith("the agent answered: ")
            await connection.heartbeat()

    @pytest.mark.parametrize("operation", list(Operation)[:3])
    async def test_an_agent_that_serves_a_higher_term_is_asked_for_nothing_more(
        self, operation: Operation
    ) -> None:
        """As a failed start it would count against the group, and the next host would be tried."""
        agent = Agent()
        agent.result = StaleTerm(9, "m2@mgmt2")
        async with served(agent) as host, link(host) as connection:
            with pytest.raises(LinkError) as caught:
                await connection.operation(resource(), operation, 5)
            assert caught.value.loss.kind is LossKind.BUSY
            assert "served m2@mgmt2 with the higher term 9" in caught.value.loss.detail
            assert (await connection.wait_closed()) == caught.value.loss
            asked = len(agent.requests)
            with pytest.raises(LinkError):
                await connection.operation(resource(), operation, 5)
            assert len(agent.requests) == asked

    async def test_a_higher_term_that_an_agent_names_changes_no_term_of_ours(self) -> None:
        """A term comes from the store alone. Else one wrong agent could raise it for all."""
        agent = Agent()
        agent.greeting = StaleTerm(9, "m2@mgmt2")
        async with served(agent) as host:
            made = CapnpConnector("m", "c", term=lambda: 5)
            for _ in range(3):
                with pytest.raises(LinkError):
                    await made.connect(host, 5)
            made.close()
        assert [term for _, _, term in agent.hellos] == [5, 5, 5]


@pytest.mark.usefixtures("kj")
class TestLosses:
    async def test_nobody_listens(self) -> None:
        with silent_listener() as host:
            pass
        assert await refused_with(host) is LossKind.REFUSED

    async def test_a_kernel_that_accepts_for_a_dead_agent_is_silent(self) -> None:
        with silent_listener() as host:
            began = time.monotonic()
            assert await refused_with(host, 0.2) is LossKind.SILENT
            assert time.monotonic() - began < 2

    async def test_a_full_backlog_is_silent(self) -> None:
        with silent_listener(0) as host, contextlib.ExitStack() as stack:
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex((host.address, host.port))
            assert await refused_with(host, 0.3) is LossKind.SILENT

    async def test_a_name_that_does_not_resolve(self) -> None:
        assert await refused_with(Host("h", "no-such-host.invalid")) is LossKind.DNS

    async def test_a_resolver_that_hangs_is_dns_and_blocks_nothing(self) -> None:
        made = CapnpConnector("m", "c")
        release = asyncio.Event()
        loop = asyncio.get_running_loop()
        # Occupy every resolver thread, as lookups at a dead name server do.
        futures = [
            loop.run_in_executor(made._resolvers, _wait_for, release, loop) for _ in range(16)
        ]
        began = time.monotonic()
        with pytest.raises(LinkError) as caught:
            await made.connect(Host("h", "localhost", 1), 0.2)
        assert caught.value.loss.kind is LossKind.DNS
        assert time.monotonic() - began < 2
        release.set()
        await asyncio.gather(*futures)
        made.close()

    async def test_an_agent_that_serves_another_manager(self) -> None:
        agent = Agent()
        agent.greeting = Busy("manager two")
        async with served(agent) as host:
            assert await refused_with(host) is LossKind.BUSY
            agent.greeting = StaleTerm(9)
            assert await refused_with(host) is LossKind.BUSY

    async def test_attempts_that_fail_leak_nothing(self) -> None:
        with silent_listener(128) as host:
            await refused_with(host, 0.01)
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(100):
                await refused_with(host, 0.005)
            await until(lambda: len(os.listdir("/proc/self/fd")) <= before, "sockets to be closed")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(100):
            assert await refused_with(host) is LossKind.REFUSED
        assert len(os.listdir("/proc/self/fd")) <= before

    @pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\0" * 64])
    async def test_something_that_is_no_agent_never_counts_as_silence(self, answer: bytes) -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            await reader.read()
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        host = Host("h", "127.0.0.1", server.sockets[0].getsockname()[1])
        kind = await refused_with(host, 2)
        server.close()
        assert kind in (LossKind.PROTOCOL, LossKind.RESET)

    async def test_no_descriptors_left_is_our_own_fault(self) -> None:
        with silent_listener() as host:
            soft, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
            limits.setrlimit(limits.RLIMIT_NOFILE, (3, hard))
            try:
                kind = await refused_with(host, 2)
            finally:
                limits.setrlimit(limits.RLIMIT_NOFILE, (soft, hard))
        assert kind is LossKind.LOCAL

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (None, LossKind.RESET),
            (ConnectionRefusedError(errno.ECONNREFUSED, "x"), LossKind.REFUSED),
            (ConnectionResetError(errno.ECONNRESET, "x"), LossKind.RESET),
            (ConnectionResetError(), LossKind.RESET),
            (BrokenPipeError(errno.EPIPE, "x"), LossKind.RESET),
            (OSError(errno.EHOSTUNREACH, "x"), LossKind.NO_ROUTE_TO_HOST),
            (OSError(errno.EHOSTDOWN, "x"), LossKind.NO_ROUTE_TO_HOST),
            (TimeoutError(errno.ETIMEDOUT, "x"), LossKind.SILENT),
            (OSError(errno.ENETUNREACH, "x"), LossKind.NO_ROUTE_TO_NETWORK),
            (OSError(errno.ENETDOWN, "x"), LossKind.NO_ROUTE_TO_NETWORK),
            (socket.gaierror(socket.EAI_NONAME, "x"), LossKind.DNS),
            (ssl.SSLError(1, "x"), LossKind.TLS),
            (OSError(errno.EMFILE, "x"), LossKind.LOCAL),
            (OSError(errno.ENOMEM, "x"), LossKind.LOCAL),
            (PermissionError(errno.EACCES, "x"), LossKind.LOCAL),
            (PermissionError(errno.EPERM, "x"), LossKind.LOCAL),
            (OSError(errno.EADDRNOTAVAIL, "x"), LossKind.LOCAL),
            (MemoryError(), LossKind.LOCAL),
            (ValueError("x"), LossKind.PROTOCOL),
        ],
    )
    async def test_every_error_has_its_kind(
        self, error: BaseException | None, kind: LossKind
    ) -> None:
        assert loss_of(error).kind is kind


def _wait_for(event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    asyncio.run_coroutine_threadsafe(event.wait(), loop).result(PATIENCE_S)


@pytest.mark.usefixtures("kj")
class TestEnds:
    async def test_closing_fails_pending_calls_at_once_as_stale(self) -> None:
        agent = Agent()
        agent.hang = True
        async with served(agent) as host, link(host) as connection:
            call = asyncio.create_task(connection.operation(resource(), MONITOR, PATIENCE_S))
            await until(lambda: agent.requests, "the call to arrive")
            connection.close()
            connection.close()
            with pytest.raises(LinkError) as caught:
                await asyncio.wait_for(call, 1)
            assert caught.value.loss.kind is LossKind.STALE
            with pytest.raises(LinkError):
                await connection.heartbeat()
            assert (await connection.wait_closed()).kind is LossKind.STALE
            await until(lambda: agent.cancelled == 1, "the agent to notice")

    @pytest.mark.parametrize("pending", [False, True])
    async def test_the_peers_end_is_noticed_at_once(self, pending: bool) -> None:
        agent = Agent()
        agent.hang = True
        async with served(agent) as host, link(host) as connection:
            calls = []
            if pending:
                calls = [asyncio.create_task(connection.operation(resource(), MONITOR, 60))]
                await until(lambda: agent.requests, "the call to arrive")
            waiter = asyncio.create_task(connection.wait_closed())
            await connection.heartbeat()
            agent.links[0].close()
            assert (await asyncio.wait_for(waiter, 1)).kind is LossKind.RESET
            for call in calls:
                with pytest.raises(LinkError) as caught:
                    await asyncio.wait_for(call, 1)
                assert caught.value.loss.kind is LossKind.RESET
            with pytest.raises(LinkError):
                await connection.operation(resource(), MONITOR, 1)

    async def test_nonsense_from_the_agents_side_ends_the_connection(self) -> None:
        agent = Agent()
        async with served(agent) as host, link(host) as connection:
            agent.links[0].wire.write(b"\xff" * 4096)
            lost = await asyncio.wait_for(connection.wait_closed(), 2)
            assert lost.kind is LossKind.PROTOCOL
            with pytest.raises(LinkError):
                await connection.heartbeat()

    async def test_nonsense_from_the_managers_side_ends_the_connection(self) -> None:
        agent = Agent()
        async with served(agent) as host:
            reader, writer = await asyncio.open_connection(host.address, host.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: example\r\n\r\n" * 10)
            with contextlib.suppress(ConnectionError):
                await asyncio.wait_for(reader.read(), 2)
            assert reader.at_eof() or reader.exception() is not None
            writer.close()
            async with link(host) as connection:
                await connection.heartbeat()

    async def test_a_waiter_can_be_cancelled_and_the_connection_stands(self) -> None:
        agent = Agent()
        async with served(agent) as host, link(host) as connection:
            waiter = asyncio.create_task(connection.wait_closed())
            await connection.heartbeat()
            waiter.cancel()
            await asyncio.wait([waiter])
            await connection.heartbeat()
            agent.links[0].close()
            assert (await asyncio.wait_for(connection.wait_closed(), 1)).kind is LossKind.RESET

    async def test_the_socket_is_watched_by_the_kernel(self) -> None:
        agent = Agent()
        async with served(agent) as host, link(host) as connection:
            sock = connection.wire.get_extra_info("socket")
            tcp = socket.IPPROTO_TCP
            assert sock.getsockopt(tcp, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(tcp, socket.TCP_KEEPIDLE) == 5
            assert sock.getsockopt(tcp, socket.TCP_KEEPINTVL) == 2
            assert sock.getsockopt(tcp, socket.TCP_KEEPCNT) == 3
            assert sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == USER_TIMEOUT_MS

    async def test_a_thousand_reconnects_leak_nothing(self) -> None:
        agent = Agent()
        loop = asyncio.get_running_loop()

        def descriptors() -> int:
            return len(os.listdir("/proc/self/fd"))

        async with served(agent) as host:
            made = CapnpConnector("manager one", "cluster")

            async def rounds(count: int) -> None:
                for number in range(count):
                    agent.hang = number % 3 == 0
                    connection = await made.connect(host, PATIENCE_S)
                    call = asyncio.create_task(connection.operation(resource(), MONITOR, 60))
                    if agent.hang:
                        await connection.heartbeat()
                    else:
                        await call
                    if number % 2:
                        connection.close()
                    else:
                        agent.links[-1].close()
                        await connection.wait_closed()
                    await asyncio.wait([call])
                    call.exception()
                    agent.links.clear()
                    agent.requests.clear()
                    agent.hellos.clear()

            await rounds(20)
            gc.collect()
            before, tasks, wires = descriptors(), len(asyncio.all_tasks(loop)), _alive(Wire)
            await rounds(1000)
            await until(lambda: descriptors() <= before, "descriptors to be closed")
            await until(lambda: len(asyncio.all_tasks(loop)) <= tasks, "tasks to end")
            gc.collect()
            assert _alive(Wire) <= wires + 2
            assert _alive(CapnpConnection) <= 2
            made.close()


def _alive(kind: type) -> int:
    return sum(isinstance(thing, kind) for thing in gc.get_objects())


@pytest.mark.usefixtures("kj")
class TestOldPeers:
    async def test_an_old_agent_is_served_through_operation_alone(self) -> None:
        async with old_agent() as host, link(host) as connection:
            assert connection.identity.legacy
            asked = resource(parameters={"pool": "tank"})
            assert await connection.operation(asked, MONITOR, 5) == OperationResult(
                Outcome.COMPLETED, 7, "pool=tank"
            )
            assert (await connection.operation(asked, START, 5)).code == 0
            missing = await connection.operation(resource("test/Missing"), STOP, 5)
            assert missing == OperationResult(Outcome.NOT_RUN, message="Could not run command")
            with pytest.raises(HeartbeatUnknown, match="no heartbeats"):
                await connection.heartbeat()

    async def test_an_old_manager_is_served_through_operation_alone(self) -> None:
        agent = Agent()
        async with served(agent) as host:
            stream = await capnp.AsyncIoStream.create_connection(host.address, host.port)
            old = capnp.TwoPartyClient(stream).bootstrap().cast_as(OcfResourceAgent)
            arguments = [{"key": "pool", "value": "tank"}]

            async def call() -> Any:
                answer = await old.operation(resource="heartbeat/ZFS", op="stop", args=arguments)
                return answer.result

            assert (await call()).ok.which() == "innerOk"
            agent.result = OperationResult(Outcome.COMPLETED, 7, "not running")
            assert ((await call()).ok.innerErr.code, (await call()).ok.innerErr.message) == (
                7,
                "not running",
            )
            agent.result = OperationResult(Outcome.TIMED_OUT, message="ended after 1 s")
            assert (await call()).ok.innerErr.code == 1
            agent.result = OperationResult(Outcome.NOT_RUN, message="no such script")
            assert (await call()).err == "no such script"
            agent.result = Busy("manager two")
            assert "manager two" in (await call()).err
        assert agent.requests[0][0] == Request("heartbeat/ZFS", STOP, {"pool": "tank"})

    async def test_a_known_old_agent_that_is_busy_in_a_script_is_not_silent(self) -> None:
        """It answers nothing while a script runs; its kernel, which accepts, shows it lives."""
        made = CapnpConnector("manager one", "cluster")
        async with old_agent() as host:
            (await made.connect(host, PATIENCE_S)).close()
        with silent_listener() as deaf:
            again = Host(host.id, deaf.address, deaf.port)
            connection = await made.connect(again, 0.2)
            assert connection.identity.legacy
            connection.close()
            with pytest.raises(LinkError):
                await made.connect(Host("another", deaf.address, deaf.port), 0.2)
        made.close()


@pytest.mark.usefixtures("kj")
async def test_messages_larger_than_any_buffer_arrive_whole() -> None:
    agent = Agent()
    agent.greeting = Welcome("1", "boot", "start", ("run", "watch"))
    large = {"p": "x" * 1900}
    items = [WatchItem(resource(id=f"r{n}", parameters=large), 1.0, 1.0) for n in range(2000)]
    async with served(agent) as host, link(host) as connection:
        for _ in "abc":
            await connection.watch(items, Reader(), 1.0)
    for watched, _, _ in agent.watches:
        assert len(watched) == len(items)
        assert all(each.request.parameters == large for each in watched)
    assert len(agent.watches) == 3


@pytest.mark.usefixtures("kj")
async def test_a_watch_that_no_agent_would_take_is_refused_here() -> None:
    """Sent, it would cost the connection, again and again: so the host is polled."""
    agent = Agent()
    agent.greeting = Welcome("1", "boot", "start", ("run", "watch"))
    items = [
        WatchItem(resource(id=f"r{n}", parameters={"p": "x" * 3000}), 1.0, 1.0) for n in range(2000)
    ]
    async with served(agent) as host, link(host) as connection:
        with pytest.raises(LinkError, match="2000 resources"):
            await connection.watch(items, Reader(), 1.0)
        await connection.heartbeat()


@pytest.mark.usefixtures("kj")
async def test_the_schema_keeps_what_existing_sites_know() -> None:
    assert OcfResourceAgent.schema.node.scopeId == 0x9663F4DD604AFA35
    assert list(OcfResourceAgent.schema.methods) == ["operation"]
    assert [s.node.id for s in HaloAgent.schema.superclasses] == [OcfResourceAgent.schema.node.id]
    enumerants: dict[str, int] = OcfResourceAgent.Operation.schema.enumerants
    assert enumerants == {"monitor": 0, "start": 1, "stop": 2}
