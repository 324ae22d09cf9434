"""A manager of HALO (Rust), as far as its HTTP goes: its routes, and how it reads and answers.

Only what its API shows: the routes at the root and no others, bodies that have to be labelled as
JSON, commands answered with nothing, refusals with a sentence, an unknown host with nothing at all.
"""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.fakes.http_operations import DEADLINE_S, short_folder


class HaloManager(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """`asked` has every request as it came: method, path and body."""

    daemon_threads = True

    def __init__(self, path: Path, status: dict[str, Any], refusals: dict[str, str]) -> None:
        self.path = path
        self.status = status
        self.refusals = refusals
        self.shows_only = False
        self.asked: list[tuple[str, str, Any]] = []
        super().__init__(str(path), _Handler)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, str]:
        """The status and text of an answer."""
        if (method, path) == ("GET", "/status"):
            return 200, json.dumps(self.status)
        if self.shows_only:
            return 401, ""
        if (method, path) == ("POST", "/clear_events"):
            return 200, ""
        _, kind, name = path.split("/", 2)
        if method == "PATCH" and kind == "resources":
            known = {resource["id"] for resource in self.status["resources"]}
            return (200, "") if name in known else (404, "Resource group not found.")
        if method == "POST" and kind == "hosts":
            if name not in {host["id"] for host in self.status["hosts"]}:
                return 404, ""
            refusal = self.refusals.get(body["command"])
            return (409, refusal) if refusal else (200, "")
        return 404, ""


class _Handler(BaseHTTPRequestHandler):
    server: HaloManager
    timeout = DEADLINE_S

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw else None
        self.server.asked.append((self.command, self.path, body))
        try:
            status, text = self.server.answer(self.command, self.path, body)
        except ValueError:
            status, text = 404, ""
        if raw and self.headers.get("Content-Type") != "application/json":
            status, text = 415, "Expected request with `Content-Type: application/json`"
        self.send_response(status)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = do_PATCH = _answer  # http.server's names

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests look at `asked`."""

    def address_string(self) -> str:
        return "a client"


@contextmanager
def halo_manager(
    status: dict[str, Any], refusals: dict[str, str] | None = None
) -> Iterator[HaloManager]:
    """One that serves until the end."""
    with short_folder() as folder:
        manager = HaloManager(folder / "halo.socket", status, refusals or {})
        thread = threading.Thread(target=manager.serve_forever, daemon=True)
        thread.start()
        try:
            yield manager
        finally:
            manager.shutdown()
            manager.server_close()
            thread.join(DEADLINE_S)
