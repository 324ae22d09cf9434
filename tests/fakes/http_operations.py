"""A manager's operations that record what they are told, and a server for them in a thread."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from halo.adapters.unix_socket import UnixSite
from halo.core.errors import InvariantError
from halo.manager.api.app import make_app, make_runner
from halo.manager.api.running import Bounds

DEADLINE_S = 20.0


class FakeOperations:
    """Answers each command with a sentence, or with the exception that a test sets.

    `calls` holds what was asked, in order. While `gate` is cleared, commands wait at it, after
    setting `entered`; `finished` counts the commands that ran to their end.
    """

    def __init__(self, status: dict[str, Any] | None = None) -> None:
        self.current: dict[str, Any] = status or {"resources": [], "hosts": [], "events": []}
        self.calls: list[tuple[Any, ...]] = []
        self.errors: dict[str, Exception] = {}
        self.defects: list[InvariantError] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.finished = 0
        self.current_root: dict[str, Any] = {"resources": [], "hosts": [], "events": []}
        self.validated: dict[str, list[dict[str, Any]]] = {}

    def status(self) -> dict[str, Any]:
        if "status" in self.errors:
            raise self.errors["status"]
        return self.current

    def root_status(self) -> dict[str, Any]:
        if "status" in self.errors:
            raise self.errors["status"]
        return self.current_root

    async def why_group(self, group: str) -> dict[str, Any]:
        return await self._why("group", group)

    async def why_host(self, host: str) -> dict[str, Any]:
        return await self._why("host", host)

    async def _why(self, kind: str, name: str) -> dict[str, Any]:
        text = await self._carry_out(f"why_{kind}", name)
        return {
            "kind": kind,
            "id": name,
            "text": text,
            "waiting": None,
            "facts": [{"about": name, "text": "it is so", "how": "the journal", "at": None}],
            "halo_does": ["HALO waits"],
            "you_can": [f"look at {name}"],
        }

    async def validate(self, host: str) -> dict[str, Any]:
        message = await self._carry_out("validate", host)
        return {"host": host, "message": message, "results": self.validated.get(host, [])}

    async def set_managed(self, group: str, managed: bool, comment: str | None) -> str:
        return await self._carry_out("set_managed", group, managed, comment)

    async def group_command(
        self, group: str, command: str, *, to: str | None, comment: str | None
    ) -> str:
        return await self._carry_out(command, group, to, comment)

    async def confirm_stopped(self, group: str, host: str, comment: str | None) -> str:
        return await self._carry_out("confirm_stopped", group, host, comment)

    async def host_command(
        self, host: str, command: str, *, force: bool, comment: str | None
    ) -> str:
        return await self._carry_out(command, host, force, comment)

    async def cluster_command(self, command: str, *, comment: str | None) -> str:
        return await self._carry_out(command, comment)

    async def record_step_down(self, manager: str, comment: str | None) -> None:
        await self._carry_out("record_step_down", manager, comment)

    async def _carry_out(self, command: str, *particulars: Any) -> str:
        self.calls.append((command, *particulars))
        self.entered.set()
        while not self.gate.is_set():  # noqa: ASYNC110  # a gate of the test's thread
            await asyncio.sleep(0.005)
        error = self.errors.get(command) or self.errors.get(f"{command} {particulars[0]}")
        if error is not None:
            raise error
        self.finished += 1
        return f"{command} is done."


class Server:
    """The API on a real Unix socket, served by an event loop of its own."""

    def __init__(
        self,
        operations: FakeOperations,
        path: Path,
        *,
        debug: Callable[[], dict[str, Any]] | None = None,
        **bounds: Any,
    ) -> None:
        self.operations = operations
        self.path = path
        self._debug = debug
        self._bounds = bounds
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        if not self._ready.wait(DEADLINE_S):
            raise TimeoutError("the server did not start")
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(DEADLINE_S)
        if self._thread.is_alive():
            raise TimeoutError("the server did not stop")

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        app = make_app(
            self.operations,
            on_defect=self.operations.defects.append,
            bounds=Bounds(**self._bounds),
            debug=self._debug,
        )
        runner = make_runner(app)
        await runner.setup()
        site = UnixSite(str(self.path))
        await site.serve(runner)
        self._ready.set()
        await self._stop.wait()
        await site.close()
        await runner.cleanup()


@contextmanager
def serving(operations: FakeOperations, **settings: Any) -> Iterator[Server]:
    """The operations served on a socket in a folder with a short path, as sockets need."""
    with short_folder() as folder:
        server = Server(operations, folder / "halo.socket", **settings)
        server.start()
        try:
            yield server
        finally:
            operations.gate.set()
            server.stop()


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder of its own; pytest's may be too deep for the 107 bytes of a socket's path."""
    folder = Path(tempfile.mkdtemp(prefix="halo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
