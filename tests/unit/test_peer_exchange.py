"""Managers among themselves at the level of connections: whose certificate is accepted, and what a
manager may do that is broken, hung or hostile. Each test has real TLS."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from structlog.testing import capture_logs

from halo.adapters.peers import exchange
from halo.adapters.peers.exchange import PeerCalls
from halo.adapters.peers.identity import PeerIdentity
from halo.adapters.peers.port import GREETING, PeerPortError, bind, turned_away
from halo.adapters.tls.files import TlsFileError, TlsFiles
from halo.core.errors import PeerError, PeerSilent, PeerUnreachable
from halo.manager.peers.connections import ConnectionBounds
from halo.ports import PeerAnswer, PeerRequest
from tests.certificates import ANYTHING, BOTH, CALL, SERVE, Authority
from tests.fakes.http_operations import short_folder
from tests.fakes.managers import FakeManager, managers_in, peer_files

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

STATUS = PeerRequest("GET", "/v1/status", b"", {})
COMMAND = PeerRequest("POST", "/v1/cluster", b'{"command": "freeze"}', {})


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as found:
        yield found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of somebody else."""
    return Authority(tmp_path_factory.mktemp("others"))


@pytest.fixture
async def leader(folder: Path, authority: Authority) -> AsyncIterator[FakeManager]:
    bounds = ConnectionBounds(
        connections=4, request_deadline_s=0.4, sending_deadline_s=0.6, received_bytes=100_000
    )
    async with managers_in(folder, authority, "1", leader="1", bounds=bounds) as (made,):
        yield made


def calls_with(files: TlsFiles, *, managers: str = "localhost", **settings: int) -> PeerCalls:
    identity = PeerIdentity(files, frozenset(["oss00"]))
    identity.managers = lambda: frozenset([managers])
    return PeerCalls(identity, **settings)


async def ask(
    calls: PeerCalls, url: str, request: PeerRequest = COMMAND, deadline_s: float = 10.0
) -> tuple[PeerAnswer | PeerError, bool]:
    """What comes of a request, and whether it was sent."""
    sent: list[bool] = []
    try:
        return await calls.ask(url, request, deadline_s, lambda: sent.append(True)), bool(sent)
    except PeerError as error:
        return error, bool(sent)


# --- whose certificate is accepted ----------------------------------------------------------------


def not_yet_trusted(authority: Authority, others: Authority, name: str) -> TlsFiles:
    """Files of a caller that trusts our CA and shows a certificate of another one."""
    strange = peer_files(others, name)
    return TlsFiles(strange.certificate, strange.key, authority.certificate)


WRONG: list[tuple[str, Callable[[Authority, Authority], TlsFiles], str]] = [
    (
        "a-host",
        lambda ca, _: ca.issue("oss00", "oss00", usages=SERVE),
        "TLS",
    ),
    (
        "a-host-of-an-old-site",
        lambda ca, _: ca.issue("both", "oss00", usages=BOTH),
        "it holds oss00, the name of a cluster host",
    ),
    (
        "a-host-that-is-named-like-a-manager-too",
        lambda ca, _: ca.issue("two", "oss00", "localhost", usages=BOTH),
        "it holds oss00, the name of a cluster host",
    ),
    (
        "a-manager-towards-agents",
        lambda ca, _: ca.issue("client", "localhost", usages=CALL),
        "no manager's peer certificate",
    ),
    (
        "for-any-use",
        lambda ca, _: ca.issue("any", "localhost", usages=ANYTHING),
        "no manager's peer certificate",
    ),
    (
        "another-machine",
        lambda ca, _: ca.issue("web", "web00", usages=BOTH),
        "this manager's certificate is refused: it holds web00, but none of the names of managers' "
        "machines (localhost); if it is the certificate of one of them, make it with the name of "
        "that machine: `halo tls peer localhost --also web00 --force`",
    ),
    ("another-CA", lambda ca, others: not_yet_trusted(ca, others, "peer"), "TLS"),
    (
        "ended",
        lambda ca, _: ca.issue("old", "localhost", usages=BOTH, days=1, late=timedelta(hours=36)),
        "TLS",
    ),
]


class Unchecked:
    """A caller that may show any certificate: it does not look at its own."""

    own_names = frozenset(["mgmt9"])

    def __init__(self, files: TlsFiles) -> None:
        self.calling_context = ssl.create_default_context(cafile=str(files.ca))
        self.calling_context.load_cert_chain(files.certificate, files.key)

    def refusal_of(self, _shown: bytes | None) -> None:
        return None


@pytest.mark.parametrize(("make", "why"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
async def test_no_other_certificate_commands_a_manager(
    leader: FakeManager,
    authority: Authority,
    others: Authority,
    make: Callable[[Authority, Authority], TlsFiles],
    why: str,
) -> None:
    calls = PeerCalls(Unchecked(make(authority, others)))  # type: ignore[arg-type]  # it checks nothing
    with capture_logs() as logged:
        outcome, _sent = await ask(calls, leader.url)
        await asyncio.sleep(0.05)
    assert isinstance(outcome, PeerUnreachable), outcome  # and not: it may have been done
    assert leader.operations.calls == []
    assert any(entry["event"] == "turned a connection away" for entry in logged)
    if why != "TLS":
        assert why in str(outcome)


async def test_a_managers_certificate_is_let_in(leader: FakeManager, authority: Authority) -> None:
    outcome, sent = await ask(calls_with(peer_files(authority)), leader.url)
    assert isinstance(outcome, PeerAnswer)
    assert (outcome.status, sent) == (200, True)
    assert leader.operations.calls == [("freeze", None)]


async def test_without_a_certificate_nobody_gets_in(
    leader: FakeManager, authority: Authority
) -> None:
    context = ssl.create_default_context(cafile=str(authority.certificate))
    port = int(leader.url.rpartition(":")[2])
    try:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
        writer.write(b"POST /v1/cluster HTTP/1.0\r\nContent-Length: 21\r\n\r\n" + COMMAND.body)
        assert b"200" not in await reader.read()
        writer.transport.abort()
    except (OSError, ssl.SSLError):
        pass
    assert leader.operations.calls == []


async def test_while_no_manager_is_known_nobody_is_let_in(
    leader: FakeManager, authority: Authority
) -> None:
    leader.identity.managers = frozenset
    outcome, _ = await ask(calls_with(peer_files(authority)), leader.url)
    assert "none is known" in str(outcome)
    assert leader.operations.calls == []


@pytest.mark.parametrize("usages", [SERVE, CALL, ANYTHING])
def test_a_manager_does_not_start_with_a_certificate_of_another_role(
    authority: Authority, usages: Sequence[x509.ObjectIdentifier]
) -> None:
    files = authority.issue("own", "localhost", usages=usages)
    with pytest.raises(TlsFileError, match="halo tls peer NAME"):
        PeerIdentity(files)


def test_missing_files_are_named_with_their_variables(tmp_path: Path) -> None:
    files = TlsFiles.of_peer({"HALO_PEER_CERT": str(tmp_path / "no.crt")})
    assert (files.key, files.ca) == (Path("/etc/halo/peer.key"), Path("/etc/halo/ca.crt"))
    with pytest.raises(TlsFileError, match=r"no\.crt.*HALO_PEER_CERT, HALO_PEER_KEY"):
        PeerIdentity(files)
    assert TlsFiles.of_peer({"HALO_CA_CERT": "/a"}).ca == Path("/a")
    assert TlsFiles.of_peer({"HALO_CA_CERT": "/a", "HALO_PEER_CA": "/b"}).ca == Path("/b")


@pytest.mark.parametrize("where", ["8443", ":8443", "localhost", "localhost:x", "localhost:99999"])
def test_a_wrong_address_to_listen_on_is_named(where: str) -> None:
    with pytest.raises(PeerPortError, match="--peer-listen"):
        bind(where).close()


# --- a leader that is broken or hostile -----------------------------------------------------------


@asynccontextmanager
async def a_leader(files: TlsFiles, talk: Talk, greeting: bytes = GREETING) -> AsyncIterator[str]:
    """Something with a certificate that does what a test says to each connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(greeting)
            await talk(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    server.close()


def says(*pieces: bytes, reads: bool = True, then_hangs: bool = False) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reads:
            await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if then_hangs:
            await reader.read(-1)
        else:
            writer.write_eof() if writer.can_write_eof() else writer.close()
            await asyncio.sleep(0.05)

    return talk


async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    while True:
        writer.write(b"X-Field: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BROKEN: list[tuple[str, Talk, str]] = [
    ("nothing", says(), "ended the connection without an answer"),
    ("not-http", says(b"\0\1\2\3\r\n\r\n"), "is not HTTP"),
    ("half-a-head", says(HEAD), "cut off"),
    ("no-length", says(HEAD + b"\r\n{}"), "does not tell its length"),
    ("bad-length", says(HEAD + b"Content-Length: -1\r\n\r\n"), "does not tell its length"),
    ("strange-digits", says(HEAD + b"Content-Length: \xb2\r\n\r\n"), "does not tell its length"),
    ("huge", says(HEAD + b"Content-Length: 99999999999\r\n\r\n"), "is larger than"),
    ("cut-off", says(HEAD + b"Content-Length: 10\r\n\r\n{}"), "cut off"),
    ("chunked", says(HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}"), "its length"),
    ("status-100", says(b"HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n"), "status 100"),
    ("status-of-letters", says(b"HTTP/1.1 abc\r\nContent-Length: 0\r\n\r\n"), "is not HTTP"),
    ("endless-head", floods, "begins with over"),
]


@pytest.mark.parametrize(("talk", "why"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
async def test_a_broken_answer_leaves_it_open_whether_the_command_took_effect(
    authority: Authority, talk: Talk, why: str
) -> None:
    async with a_leader(peer_files(authority), talk) as url:
        outcome, sent = await ask(calls_with(peer_files(authority)), url)
    assert isinstance(outcome, PeerSilent), outcome
    assert why in str(outcome)
    assert sent


@pytest.mark.parametrize(
    "talk",
    [
        says(then_hangs=True, reads=False),
        says(HEAD, then_hangs=True),
        says(HEAD + b"Content-Length: 10\r\n\r\n", then_hangs=True),
        says(HEAD + b"Content-Length: 10\r\n\r\n{", then_hangs=True),
    ],
    ids=["no-answer", "half-a-head", "no-body", "half-a-body"],
)
async def test_silence_at_each_step_ends_at_the_deadline(authority: Authority, talk: Talk) -> None:
    async with a_leader(peer_files(authority), talk) as url:
        async with asyncio.timeout(5):
            outcome, _ = await ask(calls_with(peer_files(authority)), url, deadline_s=0.3)
    assert isinstance(outcome, PeerSilent)
    assert "no answer within 0.3 s" in str(outcome)


async def test_a_body_that_drips_ends_at_the_deadline(authority: Authority) -> None:
    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x")
            await asyncio.sleep(0.02)

    async with a_leader(peer_files(authority), drips) as url:
        async with asyncio.timeout(5):
            outcome, _ = await ask(calls_with(peer_files(authority)), url, deadline_s=0.3)
    assert isinstance(outcome, PeerSilent)


async def test_a_port_that_says_nothing_certainly_took_nothing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "CONNECT_DEADLINE_S", 0.2)

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outcome, sent = await ask(calls_with(peer_files(authority)), f"https://localhost:{port}")
    server.close()
    assert isinstance(outcome, PeerUnreachable)
    assert not sent


async def test_one_that_does_not_greet_certainly_took_nothing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "CONNECT_DEADLINE_S", 0.5)
    silent = says(then_hangs=True, reads=False)
    async with a_leader(peer_files(authority), silent, greeting=b"") as url:
        outcome, sent = await ask(calls_with(peer_files(authority)), url)
    assert isinstance(outcome, PeerUnreachable)
    assert "did not let us in within 0.5 s" in str(outcome)
    assert not sent


async def test_a_machine_that_does_not_answer_is_not_waited_for(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "CONNECT_DEADLINE_S", 0.3)
    with socket.socket() as full, contextlib.ExitStack() as queue:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # Linux then drops further packets, as a machine without power does
            waiting = queue.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        async with asyncio.timeout(5):
            port = full.getsockname()[1]
            calls = calls_with(peer_files(authority))
            outcome, sent = await ask(calls, f"https://localhost:{port}")
    assert isinstance(outcome, PeerUnreachable)
    assert "no connection within 0.3 s" in str(outcome)
    assert not sent


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda ca, _: ca.issue("l1", "localhost", usages=SERVE),
            "it holds localhost, but is not for servers and clients, so it is no manager's peer "
            "certificate; make one with `halo tls peer localhost --force`",
        ),
        (
            lambda ca, _: ca.issue("l2", "localhost", "oss00", usages=BOTH),
            "make one without this name: `halo tls peer localhost --force`",
        ),
        (
            lambda ca, _: ca.issue("l3", "mgmt1", "mgmt1.example", usages=BOTH),
            "its certificate is refused: it holds mgmt1, mgmt1.example, but not localhost, at "
            "which this manager asks; make it with this name: `halo tls peer localhost --force`",
        ),
        (lambda _, others: peer_files(others, "l4"), "`halo tls peer localhost --force`"),
        (
            lambda ca, _: ca.issue(
                "l5", "localhost", usages=BOTH, days=1, late=timedelta(hours=36)
            ),
            "expired",
        ),
    ],
    ids=["a-host", "a-host-of-an-old-site", "another-name", "another-CA", "ended"],
)
async def test_nothing_is_told_to_one_that_is_no_manager(
    authority: Authority,
    others: Authority,
    make: Callable[[Authority, Authority], TlsFiles],
    why: str,
) -> None:
    """A question may hold nothing secret, but an answer of a host would be believed."""
    heard: list[bytes] = []

    async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))

    shown = make(authority, others)
    files = TlsFiles(shown.certificate, shown.key, authority.certificate)
    async with a_leader(files, listens) as url:
        outcome, sent = await ask(calls_with(peer_files(authority)), url)
        await asyncio.sleep(0.05)
    assert isinstance(outcome, PeerUnreachable)
    assert why in str(outcome)
    assert not sent
    assert not any(heard)


async def test_a_machine_that_is_asked_at_another_name_is_told_how_to_get_it(
    authority: Authority,
) -> None:
    """Its certificate has the name that the config gives it, but not that of its --peer-url."""
    files = authority.issue("other", "mgmt1", usages=BOTH)
    async with a_leader(files, says()) as url:
        outcome, sent = await ask(calls_with(peer_files(authority), managers="mgmt1.example"), url)
    assert isinstance(outcome, PeerUnreachable)
    assert "it holds mgmt1, but not localhost" in str(outcome)
    assert "`halo tls peer mgmt1 --also localhost --force`" in str(outcome)
    assert not sent


async def test_a_certificate_that_cannot_be_looked_at_is_refused_all_the_same(
    authority: Authority,
) -> None:
    """The second look, for the names, meets a port that ends each further connection."""
    files = authority.issue("once", "mgmt1", usages=BOTH)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    came: list[asyncio.StreamWriter] = []

    async def only_the_first(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer)
        if len(came) == 1:
            with contextlib.suppress(OSError):
                await writer.start_tls(context)
        writer.transport.abort()

    server = await asyncio.start_server(only_the_first, "127.0.0.1", 0)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
    outcome, sent = await ask(calls_with(peer_files(authority)), url)
    server.close()
    assert isinstance(outcome, PeerUnreachable)
    assert "its certificate is refused: it does not hold localhost, at which" in str(outcome)
    assert len(came) == 2
    assert not sent


async def test_who_is_turned_away_in_the_handshake_is_named_with_the_command(
    leader: FakeManager, authority: Authority, others: Authority
) -> None:
    files = not_yet_trusted(authority, others, "stranger")
    with capture_logs() as logged:
        outcome, _ = await ask(PeerCalls(Unchecked(files)), leader.url)  # type: ignore[arg-type]  # it checks nothing
        await asyncio.sleep(0.05)
    assert "it may refuse this manager's certificate, which holds mgmt9: see its log" in str(
        outcome
    )
    assert "`halo tls peer mgmt9 --force`" in str(outcome)
    (reason,) = [e["reason"] for e in logged if e["event"] == "turned a connection away"]
    assert reason.startswith("its certificate is refused: ")
    assert "`halo tls peer NAME`" in reason


async def test_an_answer_larger_than_the_limit_is_not_read(authority: Authority) -> None:
    small = calls_with(peer_files(authority), answer_limit=1000)
    length = b"Content-Length: %d\r\n\r\n"
    async with a_leader(peer_files(authority), says(HEAD + length % 1001 + b"x" * 1001)) as url:
        assert isinstance((await ask(small, url))[0], PeerSilent)
    async with a_leader(peer_files(authority), says(HEAD + length % 1000 + b"x" * 1000)) as url:
        outcome, _ = await ask(small, url)
    assert isinstance(outcome, PeerAnswer)
    assert outcome.body == b"x" * 1000


async def test_the_answers_under_way_are_bounded_together(authority: Authority) -> None:
    calls = calls_with(peer_files(authority), held_limit=1000)
    talk = says(HEAD + b"Content-Length: 5000\r\n\r\n", b"x" * 900, then_hangs=True)
    async with a_leader(peer_files(authority), talk) as url:
        first = asyncio.create_task(ask(calls, url, deadline_s=1.0))
        await asyncio.sleep(0.3)
        second, _ = await ask(calls, url, deadline_s=1.0)
        assert isinstance(second, PeerSilent)
        assert "too many requests" in str(second)
        await first
    done = says(HEAD + b"Content-Length: 900\r\n\r\n", b"x" * 900)
    async with a_leader(peer_files(authority), done) as url:
        assert isinstance((await ask(calls, url))[0], PeerAnswer)  # nothing is held any more


@pytest.mark.parametrize(
    "url", ["", "http://h:1", "https://h", "https://:1", "https://h:1/x", "https://h:99999", "\0"]
)
async def test_an_address_that_is_none_is_said_to_be_none(authority: Authority, url: str) -> None:
    outcome, sent = await ask(calls_with(peer_files(authority)), url)
    assert isinstance(outcome, PeerUnreachable)
    assert "is not https://HOST:PORT" in str(outcome)
    assert not sent


# --- a manager that stands by and is broken or hostile --------------------------------------------


async def connected(
    leader: FakeManager, authority: Authority
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    port = int(leader.url.rpartition(":")[2])
    context = calls_with(peer_files(authority))._identity.calling_context
    return await asyncio.open_connection("localhost", port, ssl=context)


@pytest.mark.parametrize(
    "begins",
    [b"", b"POST /v1/cluster HT", b"POST /v1/cluster HTTP/1.1\r\nHost: x\r\n"],
    ids=["nothing", "half-a-line", "half-a-head"],
)
async def test_a_connection_without_a_request_is_ended(
    leader: FakeManager, authority: Authority, begins: bytes
) -> None:
    reader, writer = await connected(leader, authority)
    writer.write(begins)
    async with asyncio.timeout(5):
        assert await reader.readuntil(b"\r\n\r\n") == GREETING
        with pytest.raises((OSError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    assert len(leader.connections) == 0


async def test_a_connection_serves_one_request(leader: FakeManager, authority: Authority) -> None:
    reader, writer = await connected(leader, authority)
    one = b"GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"
    writer.write(one * 3)
    async with asyncio.timeout(5):
        assert (await reader.read(-1)).count(b"HTTP/1.1 200") == 1


@pytest.mark.parametrize(("size", "is_answered"), [(70_000, True), (150_000, False)])
async def test_what_one_connection_may_send_is_bounded(
    leader: FakeManager, authority: Authority, size: int, is_answered: bool
) -> None:
    reader, writer = await connected(leader, authority)
    writer.write(b"POST /v1/cluster HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
    writer.write(b" " * size)
    told = b""
    async with asyncio.timeout(10):
        with contextlib.suppress(OSError):
            told = await reader.read(-1)
    assert (b" 413 " in told) is is_answered


def slow_client(authority: Authority, port: int) -> ssl.SSLSocket:
    """Has asked for the status, and reads nothing by itself."""
    context = calls_with(peer_files(authority))._identity.calling_context
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plain.settimeout(20)
    plain.connect(("127.0.0.1", port))
    client = context.wrap_socket(plain, server_hostname="localhost")
    client.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
    return client


@pytest.mark.parametrize(("pause_s", "is_whole"), [(1.5, True), (4.0, False)])
async def test_an_answer_is_kept_for_as_long_as_it_may_take_to_be_taken(
    folder: Path, authority: Authority, pause_s: float, is_whole: bool
) -> None:
    bounds = ConnectionBounds(sending_deadline_s=2.5)
    text = "x" * 1000
    async with managers_in(folder, authority, "1", leader="1", bounds=bounds) as (leader,):
        leader.operations.current = {"events": [text] * 10_000}
        port = int(leader.url.rpartition(":")[2])
        client = await asyncio.to_thread(slow_client, authority, port)

        def read() -> int:
            size = 0
            with contextlib.suppress(OSError):
                while piece := client.recv(1 << 20):
                    size += len(piece)
            return size

        await asyncio.sleep(pause_s)
        assert (len(leader.connections) == 0) is not is_whole
        size = await asyncio.to_thread(read)
        assert (size > 10_000 * len(text)) is is_whole
        client.close()


async def test_a_slow_command_is_not_taken_for_a_silent_client(
    leader: FakeManager, authority: Authority
) -> None:
    leader.operations.gate.clear()
    asking = asyncio.create_task(ask(calls_with(peer_files(authority)), leader.url))
    await asyncio.sleep(leader.connections.bounds.request_deadline_s * 2)
    leader.operations.gate.set()
    outcome, _ = await asking
    assert isinstance(outcome, PeerAnswer)


async def test_one_connection_too_many_is_told_so(
    leader: FakeManager, authority: Authority
) -> None:
    leader.operations.gate.clear()
    calls = calls_with(peer_files(authority))
    limit = leader.connections.bounds.connections
    asking = [asyncio.create_task(ask(calls, leader.url)) for _ in range(limit)]
    async with asyncio.timeout(10):
        while len(leader.operations.calls) < limit:  # noqa: ASYNC110  # another task makes it true
            await asyncio.sleep(0.01)
    outcome, _ = await ask(calls, leader.url)
    assert isinstance(outcome, PeerUnreachable)
    assert "too many connections" in str(outcome)
    leader.operations.gate.set()
    assert all(isinstance(o, PeerAnswer) for o, _ in await asyncio.gather(*asking))
    assert isinstance((await ask(calls, leader.url))[0], PeerAnswer)


def test_the_last_words_are_bounded_and_one_line() -> None:
    said = turned_away("no\r\nX-Evil: 1\r\n" + "ä" * 100_000)
    assert len(said) < 2000
    assert b"\r\nX-Evil" not in said


async def test_renewed_files_are_used_without_a_restart(
    leader: FakeManager, authority: Authority, folder: Path
) -> None:
    identity = PeerIdentity(authority.issue("renewed", "localhost", usages=BOTH))
    before, calling = identity.context, identity.calling_context
    watching = asyncio.create_task(identity.watch(every_s=0.05))
    await asyncio.sleep(0.1)
    authority.issue("renewed", "localhost", "mgmt9", usages=BOTH)
    async with asyncio.timeout(10):
        while identity.context is before or identity.calling_context is calling:  # noqa: ASYNC110  # by polling
            await asyncio.sleep(0.02)
    watching.cancel()
