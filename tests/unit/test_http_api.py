"""The HTTP API over a real Unix socket, in front of operations that record what they are told."""

from __future__ import annotations

import gc
import json
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

import halo
from halo.cli.client import Answer, request
from halo.core.errors import (
    BadRequest,
    CommandFailed,
    CommandRefused,
    InvariantError,
    RecordError,
    UnknownObject,
)
from halo.manager.api import app as http_app
from tests.fakes.http_operations import FakeOperations, Server, serving

DEADLINE_S = 20.0


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(FakeOperations()) as running:
        yield running


def ask(server: Server, method: str, path: str, body: Any = None) -> Answer:
    return request(str(server.path), method, path, body, deadline_s=DEADLINE_S)


def send_raw(server: Server, raw: bytes, *, then_wait: bool = True) -> bytes:
    """Send bytes as they are; gives all that comes back until the server closes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(server.path))
        client.sendall(raw)
        received = b""
        while then_wait and (piece := client.recv(65536)):
            received += piece
        return received


def post(path: str, body: bytes, *headers: str, host: str = "localhost") -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def wait_for(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends, "the condition did not come true in time"
        time.sleep(0.005)


# What is served


def test_status_is_what_the_manager_says(server: Server) -> None:
    server.operations.current = {"resources": [{"id": "ä"}], "hosts": [], "events": []}
    assert ask(server, "GET", "/v1/status") == Answer(200, server.operations.current)


def test_version_is_that_of_the_program(server: Server) -> None:
    assert ask(server, "GET", "/v1/version") == Answer(200, {"version": halo.__version__})


@pytest.mark.parametrize(
    ("method", "path", "body", "call"),
    [
        ("PATCH", "/v1/resources/pool", {"managed": False}, ("set_managed", "pool", False, None)),
        (
            "PATCH",
            "/v1/resources/pool",
            {"managed": True, "comment": "mended"},
            ("set_managed", "pool", True, "mended"),
        ),
        ("PATCH", "/v1/resources/a%2Fb", {"managed": True}, ("set_managed", "a/b", True, None)),
        ("PATCH", "/v1/resources/a/b", {"managed": True}, ("set_managed", "a/b", True, None)),
        ("POST", "/v1/hosts/oss00", {"command": "failback"}, ("failback", "oss00", False, None)),
        (
            "POST",
            "/v1/hosts/oss00",
            {"command": "fence", "force": True, "comment": "smokes"},
            ("fence", "oss00", True, "smokes"),
        ),
        (
            "POST",
            "/v1/hosts/oss00",
            {"command": "reset", "force": None, "comment": None},
            ("reset", "oss00", False, None),
        ),
        ("POST", "/v1/hosts/a", {"command": "activate"}, ("activate", "a", False, None)),
        ("POST", "/v1/hosts/a", {"command": "deactivate"}, ("deactivate", "a", False, None)),
        ("POST", "/v1/hosts/a", {"command": "confirm-off"}, ("confirm-off", "a", False, None)),
        ("POST", "/v1/hosts/a", {"command": "cancel-fence"}, ("cancel-fence", "a", False, None)),
        ("POST", "/v1/groups/g", {"command": "start"}, ("start", "g", None, None)),
        ("POST", "/v1/groups/g", {"command": "stop"}, ("stop", "g", None, None)),
        ("POST", "/v1/groups/g", {"command": "cleanup"}, ("cleanup", "g", None, None)),
        (
            "POST",
            "/v1/groups/g",
            {"command": "move", "to": "oss01"},
            ("move", "g", "oss01", None),
        ),
        ("POST", "/v1/cluster", {"command": "freeze", "comment": "x"}, ("freeze", "x")),
        ("POST", "/v1/cluster", {"command": "thaw"}, ("thaw", None)),
        ("POST", "/v1/clear_events", None, ("clear_events", None)),
        ("POST", "/v1/clear_events", {}, ("clear_events", None)),
        ("POST", "/v1/clear_events", {"comment": "old"}, ("clear_events", "old")),
    ],
)
def test_each_command_reaches_the_manager(
    server: Server, method: str, path: str, body: Any, call: tuple[Any, ...]
) -> None:
    answer = ask(server, method, path, body)
    assert server.operations.calls == [call]
    assert answer == Answer(200, {"message": f"{call[0]} is done."})


def test_a_comment_cannot_forge_lines_of_the_event_list(server: Server) -> None:
    body = {"command": "thaw", "comment": "  a\nb\t\x1b[2Jc \u2028 d "}
    assert ask(server, "POST", "/v1/cluster", body).status == 200
    assert server.operations.calls == [("thaw", "a b [2Jc d")]


# Refusals


@pytest.mark.parametrize(
    ("method", "path", "body", "names"),
    [
        ("PATCH", "/v1/resources/g", {}, '"managed"'),
        ("PATCH", "/v1/resources/g", {"managed": None}, '"managed"'),
        ("PATCH", "/v1/resources/g", {"managed": 1}, "true or false"),
        ("PATCH", "/v1/resources/g", {"managed": "yes"}, "true or false"),
        ("PATCH", "/v1/resources/g", {"mangaed": True}, 'did you mean "managed"?'),
        ("PATCH", "/v1/resources/g", {"managed": True, "force": True}, '"force"'),
        ("POST", "/v1/hosts/h", {"command": "fense"}, 'did you mean "fence"?'),
        ("POST", "/v1/hosts/h", {"command": ""}, "one of"),
        ("POST", "/v1/hosts/h", {"command": None}, '"command"'),
        ("POST", "/v1/hosts/h", {"command": 7}, "a text"),
        ("POST", "/v1/hosts/h", {"command": "start"}, "one of"),
        ("POST", "/v1/hosts/h", {"command": "fence", "forse": True}, 'did you mean "force"?'),
        ("POST", "/v1/hosts/h", {"command": "fence", "force": "true"}, '"force"'),
        ("POST", "/v1/hosts/h", {"command": "fence", "comment": ["a"]}, "a list"),
        ("POST", "/v1/hosts/h", {"command": "fence", "comment": "x" * 5000}, "4096"),
        ("POST", "/v1/groups/g", {"command": "move"}, '"to"'),
        ("POST", "/v1/groups/g", {"command": "move", "to": " "}, '"to"'),
        ("POST", "/v1/groups/g", {"command": "start", "to": "h"}, '"to"'),
        ("POST", "/v1/groups/g", {"command": "start", "force": True}, '"force"'),
        ("POST", "/v1/groups/g", {"command": "fence"}, "one of"),
        ("POST", "/v1/cluster", {"command": "melt"}, "one of"),
        ("POST", "/v1/cluster", {}, '"command"'),
        ("POST", "/v1/clear_events", {"all": True}, '"all"'),
    ],
)
def test_a_malformed_body_is_refused_by_name(
    server: Server, method: str, path: str, body: Any, names: str
) -> None:
    answer = ask(server, method, path, body)
    assert answer.status == 400
    assert names in answer.sentence
    assert server.operations.calls == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"[]",
        b"7",
        b"null",
        b'"fence"',
        b"{",
        b"{'command': 'fence'}",
        b'{"command": "fence", "command": "reset"}',
        b'{"command": NaN}',
        b'{"command": "fence", "comment": "\\ud800"}',
        b"\xff\xfe\xfd",
        b"[" * 20000,
        b'{"command": ' + b"9" * 5000 + b"}",
    ],
)
def test_what_is_no_json_object_is_refused(server: Server, body: bytes) -> None:
    received = send_raw(server, post("/v1/hosts/h", body))
    assert received.startswith(b"HTTP/1.1 400 ")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]
    assert server.operations.calls == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BadRequest("The group has no such candidate."), 400),
        (UnknownObject('There is no host "h".'), 404),
        (CommandRefused("The partner is deactivated."), 409),
        (CommandFailed("The fence device does not answer."), 500),
    ],
)
def test_the_managers_refusal_is_passed_on(server: Server, error: Exception, status: int) -> None:
    server.operations.errors["fence"] = error
    answer = ask(server, "POST", "/v1/hosts/h", {"command": "fence"})
    assert answer == Answer(status, {"error": str(error)})


def test_a_journal_that_cannot_be_written_fails_the_command(server: Server) -> None:
    server.operations.errors["freeze"] = RecordError("No space left on device")
    answer = ask(server, "POST", "/v1/cluster", {"command": "freeze"})
    assert answer.status == 500
    assert "nothing was changed" in answer.sentence
    assert "No space left" in answer.sentence


def test_an_unforeseen_error_is_logged_and_not_told(server: Server) -> None:
    server.operations.errors["freeze"] = ValueError("password=hunter2")
    with capture_logs() as logs:
        answer = ask(server, "POST", "/v1/cluster", {"command": "freeze"})
    assert answer.status == 500
    assert "hunter2" not in json.dumps(answer.content)
    assert "log" in answer.sentence
    assert any(entry["log_level"] == "error" and entry.get("exc_info") for entry in logs)


def test_an_error_in_the_status_is_answered(server: Server) -> None:
    server.operations.errors["status"] = KeyError("oss00")
    assert ask(server, "GET", "/v1/status").status == 500


def test_a_broken_invariant_is_brought_before_the_manager(server: Server) -> None:
    error = InvariantError("the token of g is held twice")
    server.operations.errors["start"] = error
    assert ask(server, "POST", "/v1/groups/g", {"command": "start"}).status == 500
    assert server.operations.defects == [error]


@pytest.mark.parametrize(
    "path", ["/", "/v1/statu", "/v1/hosts", "/v1/hosts/", "/v1/resources", "/v1/groups/"]
)
def test_an_unknown_route_is_404_with_the_known_ones(server: Server, path: str) -> None:
    answer = ask(server, "GET", path)
    assert answer.status == 404
    assert "GET /v1/status" in answer.sentence


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/status", "GET"),
        ("GET", "/v1/hosts/h", "POST"),
        ("PUT", "/v1/resources/g", "PATCH"),
    ],
)
def test_a_wrong_method_is_405_with_the_right_one(
    server: Server, method: str, path: str, allowed: str
) -> None:
    answer = ask(server, method, path, {})
    assert answer.status == 405
    assert allowed in answer.sentence


def test_a_body_too_large_is_refused(server: Server) -> None:
    answer = ask(server, "POST", "/v1/cluster", {"command": "freeze", "comment": "x" * 100_000})
    assert answer.status == 413
    assert str(http_app.BODY_LIMIT_BYTES) in answer.sentence
    assert server.operations.calls == []


def test_who_asked_is_logged(server: Server) -> None:
    with capture_logs() as logs:
        ask(server, "POST", "/v1/hosts/h", {"command": "fence", "comment": "smokes"})
    entry = next(entry for entry in logs if entry["event"] == "command")
    assert (entry["uid"], entry["pid"]) == (os.getuid(), os.getpid())
    assert "fence" in entry["command"]
    assert entry["comment"] == "smokes"


# Deadlines, and clients that go away


def test_a_client_that_goes_away_ends_no_command(server: Server) -> None:
    operations = server.operations
    operations.gate.clear()
    send_raw(server, post("/v1/hosts/h", b'{"command":"fence"}'), then_wait=False)
    assert operations.entered.wait(DEADLINE_S)
    assert ask(server, "GET", "/v1/version").status == 200  # the loop has seen the client leave
    operations.gate.set()
    wait_for(lambda: operations.finished == 1)


def test_every_command_is_answered_within_its_bound() -> None:
    operations = FakeOperations()
    operations.gate.clear()
    with serving(operations, command_deadline_s=0.05, fence_deadline_s=30.0) as server:
        answer = ask(server, "POST", "/v1/groups/g", {"command": "stop"})
        assert answer.status == 503
        assert '"stop" of group g' in answer.sentence
        assert "halo status" in answer.sentence
        assert operations.finished == 0
        operations.gate.set()
        wait_for(lambda: operations.finished == 1)


def test_a_fence_has_a_longer_bound() -> None:
    operations = FakeOperations()
    operations.gate.clear()
    with serving(operations, command_deadline_s=0.02, fence_deadline_s=30.0) as server:
        answers: list[Answer] = []
        body = {"command": "fence"}
        fencing = threading.Thread(
            target=lambda: answers.append(ask(server, "POST", "/v1/hosts/h", body))
        )
        fencing.start()
        assert operations.entered.wait(DEADLINE_S)
        # Its own answer comes after the short bound, so that bound is past for the fence too.
        assert ask(server, "POST", "/v1/cluster", {"command": "thaw"}).status == 503
        assert answers == []
        operations.gate.set()
        fencing.join(DEADLINE_S)
        assert [answer.status for answer in answers] == [200]


def test_a_body_that_does_not_come_is_given_up() -> None:
    with serving(FakeOperations(), body_deadline_s=0.05) as server:
        head = post("/v1/hosts/h", b'{"command":"fence"}')[:-5]
        received = send_raw(server, head)
        assert received.startswith(b"HTTP/1.1 408 ")
        assert server.operations.calls == []


def test_the_number_of_running_commands_is_bounded() -> None:
    operations = FakeOperations()
    operations.gate.clear()
    with serving(operations, command_deadline_s=0.02, commands_limit=2) as server:
        for _ in range(2):
            ask(server, "POST", "/v1/cluster", {"command": "thaw"})
        answer = ask(server, "POST", "/v1/cluster", {"command": "freeze"})
        assert answer.status == 503
        assert "Too many commands" in answer.sentence
        assert ("freeze", None) not in operations.calls
        assert ask(server, "GET", "/v1/status").status == 200


def test_stopping_ends_the_commands_that_still_run() -> None:
    operations = FakeOperations()
    operations.gate.clear()
    with serving(operations, command_deadline_s=0.02) as server:
        ask(server, "POST", "/v1/cluster", {"command": "thaw"})
        server.stop()
    assert operations.finished == 0


@pytest.mark.parametrize(
    "sent", [b"G", b"POST /v1/hosts/h", b"GET /v1/version HTTP/1.1\r\nHos", b"CONNECT \r\n\r\n"]
)
def test_a_request_that_breaks_off_or_goes_nowhere_is_no_defect(
    server: Server, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(server.path))
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        while client.recv(65536):
            pass
    assert ask(server, "GET", "/v1/version").status == 200  # the loop is through with it
    gc.collect()  # asyncio tells of an exception that nobody waited for when its task is gone
    assert caplog.records == []
    assert server.operations.calls == []


def test_a_body_that_breaks_off_is_refused_without_a_traceback(server: Server) -> None:
    head = post("/v1/hosts/h", b'{"command":"fence"}')[:-5]
    with socket.socket(socket.AF_UNIX) as client, capture_logs() as logs:
        client.connect(str(server.path))
        client.sendall(head)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert ask(server, "GET", "/v1/version").status == 200  # the loop has seen it leave
    assert not [entry for entry in logs if entry["log_level"] == "error"]
    assert server.operations.calls == []


def test_ten_thousand_malformed_requests_are_few_lines_in_the_log(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with capture_logs() as logs:
        for number in range(120):
            received = send_raw(server, b"GET /%d\xff HTTP/1.1\r\n\r\n" % number)
            assert received.startswith((b"HTTP/1.0 400 ", b"HTTP/1.1 400 "))
    told = [entry["so_far"] for entry in logs if entry["event"] == "malformed requests"]
    assert told == [1, 10, 100]
    assert caplog.records == []


# Whatever is sent

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["command", "force", "comment", "to", "managed"]) | st.text(max_size=8),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
_commands = st.sampled_from(["fence", "move", "start", "freeze", "reset", "x", "", None, 3])
_bodies = _json | st.fixed_dictionaries(
    {"command": _commands},
    optional={"force": _json, "comment": _json, "to": _json, "managed": _json},
)
_paths = st.sampled_from(
    [
        *("/v1/hosts/h", "/v1/groups/g", "/v1/resources/r", "/v1/cluster", "/v1/clear_events"),
        *("/hosts/h", "/resources/r", "/clear_events", "/v1/status", "/%00", "/ü"),
    ]
)


@pytest.fixture(scope="module")
def lasting_server() -> Iterator[Server]:
    with serving(FakeOperations()) as running:
        yield running


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(body=_bodies, path=_paths, method=st.sampled_from(["POST", "PATCH", "GET"]))
def test_no_json_body_makes_the_manager_fail(
    lasting_server: Server, body: Any, path: str, method: str
) -> None:
    raw = json.dumps(body).encode()
    request_bytes = post(path, raw).replace(b"POST", method.encode(), 1)
    status = int(send_raw(lasting_server, request_bytes).split(b" ", 2)[1])
    assert status < 500


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(raw=st.binary(max_size=200))
def test_no_bytes_for_a_body_make_the_manager_fail(lasting_server: Server, raw: bytes) -> None:
    status = int(send_raw(lasting_server, post("/v1/hosts/h", raw)).split(b" ", 2)[1])
    assert status < 500


def test_the_reference_names_every_route() -> None:
    reference = (Path(__file__).parents[2] / "docs" / "http_api.md").read_text()
    app = http_app.make_app(FakeOperations(), debug=dict)
    for route in app.router.routes():
        assert route.resource is not None
        path = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route.resource.canonical)
        if route.method != "HEAD":
            assert f"`{route.method} {path}`" in reference


@pytest.mark.parametrize("path", ["/v1/cluster", "/nowhere"])
def test_a_body_that_cannot_be_unpacked_is_the_clients_fault(
    server: Server, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """Also where nobody wants to read it."""
    with capture_logs() as logs:
        answer = send_raw(server, post(path, b"no deflate", "Content-Encoding: deflate"))
    assert answer.startswith(b"HTTP/1.1 4")
    assert not [line for line in logs if line["log_level"] == "error"]
    assert not [record for record in caplog.records if record.exc_info]


def test_an_expectation_that_is_no_text_is_not_heard(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    request = b"GET /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: \xb4\r\n\r\n"
    assert send_raw(server, request).startswith(b"HTTP/1.1 200 ")
    assert not [record for record in caplog.records if record.exc_info]
