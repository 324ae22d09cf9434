"""Errors of the system and of libraries are shown in words, and all from one place."""

from __future__ import annotations

import ast
import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

import halo
from halo.adapters.etcd.client import EtcdClient
from halo.adapters.etcd.errors import NoAnswer
from halo.adapters.etcd.location import store_at
from halo.error_words import LENGTH_LIMIT, words_of
from tests.integration.processes import free_port

ROOT = Path(halo.__file__).parent

REFUSED = "[Errno 111] Connect call failed ('127.0.0.1', 2379)"
KEY = ConnectionKey("h1", 2379, True, True, None, None, None)


def verification_error() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] x (_ssl.c:1000)")
    error.verify_message = "self-signed certificate"
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connect call failed ('h', 1)"), "connection refused"),
        (OSError(f"Multiple exceptions: {REFUSED}, {REFUSED}"), "connection refused"),
        (
            OSError(f"Multiple exceptions: {REFUSED}, [Errno 113] Connect call failed ('::1', 1)"),
            "connection refused, no route to host",
        ),
        (OSError(errno.ENOSPC, "x", "/some/file"), "No space left on device"),
        (FileNotFoundError(errno.ENOENT, "x"), "No such file or directory"),
        (ConnectionResetError(), "connection reset"),
        (ConnectionResetError("Cannot write to closing transport"), "Cannot write to closing"),
        (TimeoutError(), "no answer in time"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not"),
        (ssl.SSLError(1, "[SSL: NO_SUCH] no such thing (_ssl.c:1000)"), "no such thing"),
        (ssl.SSLError(1, "[SSL] PEM lib (_ssl.c:3900)"), "PEM lib"),
        (verification_error(), "certificate refused: self-signed certificate"),
        (aiohttp.ClientConnectorError(KEY, OSError(111, "Connect call")), "connection refused"),
        (
            aiohttp.ClientConnectorCertificateError(KEY, verification_error()),
            "certificate refused: self-signed certificate",
        ),
        (aiohttp.ServerDisconnectedError(), "Server disconnected"),
        (ValueError(), "ValueError"),
        (OSError("two\nlines"), "two lines"),
    ],
)
def test_an_error_is_told_in_words(error: BaseException, words: str) -> None:
    told = words_of(error)
    assert told.startswith(words)
    assert "Errno" not in told
    assert "_ssl.c" not in told


def test_the_words_of_another_end_are_cut() -> None:
    assert len(words_of(ValueError("x" * 10_000))) == LENGTH_LIMIT


async def test_members_that_nobody_runs_are_named_with_the_words_of_the_system() -> None:
    first, second = free_port(), free_port()
    client = EtcdClient(store_at(f"etcd://127.0.0.1:{first},localhost:{second}/x", environment={}))
    try:
        with pytest.raises(NoAnswer) as raised:
            await client.range("/x/leader", deadline_s=0.5)
    finally:
        await client.close()
    told = str(raised.value)
    assert told.startswith(f"127.0.0.1:{first}: no connection: connection refused; ")
    assert f"localhost:{second}: no connection: " in told  # perhaps at two addresses
    assert "Errno" not in told


async def test_every_way_of_asyncio_to_tell_of_a_closed_port_is_understood() -> None:
    port = free_port()
    for host in ("127.0.0.1", "localhost"):
        with pytest.raises(OSError) as raised:  # noqa: PT011  # its words are what is looked at
            await asyncio.open_connection(host, port)
        assert "connection refused" in words_of(raised.value)
        assert "Errno" not in words_of(raised.value)


_OF_THE_SYSTEM = {
    *("OSError", "SSLError", "ClientError", "ConnectionError", "PermissionError"),
    *("FileNotFoundError", "TimeoutError", "gaierror", "ConnectionResetError", "BlockingIOError"),
}


def shown_raw(tree: ast.AST) -> Iterator[int]:
    """The lines that show an error of the system as Python writes it."""
    for handler in ast.walk(tree):
        if not isinstance(handler, ast.ExceptHandler) or handler.name is None:
            continue
        if not any(name in _OF_THE_SYSTEM for name in names_in(handler.type)):
            continue
        for node in ast.walk(handler):
            shown: ast.expr | None = None
            if isinstance(node, ast.FormattedValue) and node.conversion in (-1, ord("s")):
                shown = node.value
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "str" and node.args:
                shown = node.args[0]
            if isinstance(shown, ast.Name) and shown.id == handler.name:
                yield shown.lineno


def names_in(caught: ast.expr | None) -> set[str]:
    """The names of the exceptions of one `except`."""
    found: set[str] = set()
    for node in ast.walk(caught) if caught is not None else ():
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
    return found


def test_no_message_shows_an_error_of_the_system_as_python_writes_it() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(ROOT.rglob("*.py"))
        if "share" not in path.relative_to(ROOT).parts
        for line in shown_raw(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_nobody_else_takes_the_words_out_of_an_error() -> None:
    taking = {
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if "share" not in path.relative_to(ROOT).parts
        and re.search(r"(?<!os)\.strerror", path.read_text())
    }
    # A plain `halo status` loads as little as possible, and it only meets errors of its own output.
    assert taking == {"error_words.py", "cli/entry.py"}


def test_such_a_message_would_be_found() -> None:
    text = "try:\n  f()\nexcept (OSError, ValueError) as e:\n  g(f'{e}')\n  h(str(e))\n"
    assert sorted(shown_raw(ast.parse(text))) == [4, 5]
