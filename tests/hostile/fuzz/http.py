"""Changed requests, and what is no request at all, to a real manager's socket.

What a client may say by the API's own description is thrown by the test beside it that reads that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests import unix_http
from tests.hostile.fuzz.fuzzer import Finding
from tests.hostile.fuzz.mutate import mutated
from tests.hostile.measure import LogReader, judge_log, memory_mib
from tests.integration.site import ROOT

ANSWER_WAIT_S = 0.3
LOOK_EVERY = 100
STATUS_LIMIT_S = 3.0
MEMORY_LIMIT_MIB = 96
_START_S = 30.0

CONFIG = """
hosts:
- hostname: 127.0.0.1:9
resources:
- {name: g1, kind: test/Service, parameters: {name: g1}}
resource_groups:
- {root: g1, home_host: 127.0.0.1, failover_hosts: []}
"""

_BODIES = (
    b"", b"{}", b"[]", b"null", b'"', b"1e999", b"[" * 50_000, b'{"a":' * 30_000, b"\xff\xfe",
    b'{"command":"freeze","comment":"x"}', b'{"command":"thaw"}', b'{"managed":true}',
    b'{"managed":false,"comment":"\\ud800"}', b'{"command":"freeze","command":"thaw"}',
    b'{"command":NaN}', b"9" * 6000, b'{"comment":"' + b"x" * 70_000 + b'"}',
)  # fmt: skip

_ROUTES = (
    b"/status", b"/hosts/127.0.0.1", b"/resources/g1", b"/clear_events", b"/v1/cluster",
    b"/v1/hosts/127.0.0.1", b"/v1/groups/g1", b"/v1/events", b"/v1/status", b"/v1/openapi.json",
    b"/hosts/%00", b"/hosts/..%2f..", b"/%",
    b"/" + b"a" * 9000, b"//status", b"/status?x=" + b"%ff" * 50, b"*", b"http://[::1/status",
)  # fmt: skip

_HEADERS = (
    b"Content-Length: -1", b"Content-Length: 99999999999999999999", b"Content-Length: 5",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Expect: 100-continue",
    b"Content-Encoding: gzip", b"Content-Encoding: deflate", b"Upgrade: websocket", b"Host: \xff",
    b"Connection: keep-alive, close", b"Content-Type: application/json; charset=utf-16", b"X: \0",
    b"A" * 9000 + b": b", b"Range: bytes=0-,5-3", b"If-Modified-Since: never", b": nothing",
)  # fmt: skip


class HttpFuzzer:
    """Bytes to the Unix socket of one `halo_manager`."""

    def __init__(self) -> None:
        self._socket = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._log: LogReader | None = None
        self._memory_mib = 0.0
        self._cases = 0

    async def open(self, folder: Path) -> None:
        (folder / "halo.conf").write_text(CONFIG)
        self._socket = str(folder / "socket")
        self._start(folder)
        self._log = LogReader(folder / "log")
        end = time.monotonic() + _START_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                raise Finding(f"the manager does not start: {(folder / 'log').read_text()}")
            await asyncio.sleep(0.05)
        self._log.new_bytes()
        self._memory_mib = memory_mib(self.process.pid)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The manager."""
        assert self._process is not None
        return self._process

    def _start(self, folder: Path) -> None:
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "halo.manager.main", "--config", folder / "halo.conf"),
                    *("--socket", self._socket, "--statefile", folder / "halo.state"),
                    *("--manage-resources", "--log-format", "json"),
                ],
                cwd=ROOT,
                env={**os.environ, "HALO_LOG": "info"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return bool(json.loads(unix_http.get(self._socket, "/v1/status")))
        return False

    async def case(self, chance: random.Random) -> None:
        data = _request(chance)
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(self._socket)
            try:
                writer.write(data)
                if chance.random() < 0.3:
                    writer.write_eof()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANSWER_WAIT_S):
                        while await reader.read(1 << 16):
                            pass
            finally:
                writer.transport.abort()
        self._cases += 1
        if self._cases % LOOK_EVERY == 0:
            self._look(data)

    def _look(self, data: bytes) -> None:
        assert self._log is not None
        if (code := self.process.poll()) is not None:
            raise Finding(f"the manager ended with {code}, after {data[:2000]!r}")
        began = time.monotonic()
        if not self._answers() or time.monotonic() - began > STATUS_LIMIT_S:
            took_s = time.monotonic() - began
            raise Finding(f"no status, or one after {took_s:.1f} s, after {data[:2000]!r}")
        if (grown := memory_mib(self.process.pid) - self._memory_mib) > MEMORY_LIMIT_MIB:
            raise Finding(f"the manager grew by {grown:.0f} MiB")
        if problems := list(judge_log(list(self._log.new_lines()), 3 * LOOK_EVERY)):
            raise Finding(f"{problems}")

    async def close(self) -> None:
        self._look(b"everything")
        self.process.terminate()
        if (code := self.process.wait(30)) != 0:
            raise Finding(f"the manager ended with {code} on SIGTERM")


def _request(chance: random.Random) -> bytes:
    body = chance.choice(_BODIES)
    method = chance.choice((b"GET", b"POST", b"PATCH", b"PUT", b"DELETE", b"HEAD", b"get", b"\0"))
    lines = [
        method
        + b" "
        + chance.choice(_ROUTES)
        + b" "
        + chance.choice((b"HTTP/1.1", b"HTTP/9", b"")),
        b"Host: localhost",
        *(chance.choice(_HEADERS) for _ in range(chance.choice((0, 0, 1, 2)))),
    ]
    if chance.random() < 0.8:
        lines.append(b"Content-Length: %d" % len(body))
    request = b"\r\n".join(lines) + b"\r\n\r\n" + body
    kind = chance.random()
    if kind < 0.4:
        return mutated(request, chance)
    return request * chance.choice((1, 1, 1, 2, 20)) if kind < 0.95 else chance.randbytes(3000)
