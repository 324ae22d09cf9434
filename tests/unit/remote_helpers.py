"""Real agents as processes, and scripts for them to run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path

from halo.adapters.rpc.connection import CapnpConnection
from halo.adapters.rpc.connector import CapnpConnector
from halo.adapters.rpc.event_loop import rpc_loop
from halo.core.model import Host, Resource

PATIENCE_S = 60.0
_LISTENING = re.compile(r"listening.*\bport=(\d+)")


async def until(condition: Callable[[], object], what: str, deadline_s: float = PATIENCE_S) -> None:
    """Wait for a condition of the outside world."""
    give_up = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    """Whether a process runs, zombies excluded."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def resource(
    kind: str = "test/Script",
    parameters: Mapping[str, str] | None = None,
    *,
    id: str = "r1",
    timeout_s: float | None = 10.0,
) -> Resource:
    return Resource(
        id=id,
        kind=kind,
        parameters=parameters or {},
        monitor_timeout_s=timeout_s,
        start_timeout_s=timeout_s,
        stop_timeout_s=timeout_s,
    )


class AgentProcess:
    """`halo_remote` as a process, with a folder of scripts of its own."""

    def __init__(self, folder: Path, test_id: str = "agent") -> None:
        self.folder = folder
        self.ocf_root = folder / "ocf"
        self.test_id = test_id
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / f"{test_id}_log"
        self.pass_fds: tuple[int, ...] = ()

    def script(self, body: str, kind: str = "test/Script", interpreter: str = "/bin/bash") -> Path:
        """Install a script; `body` is shell with `$1` the action and `$OUT` this folder."""
        path = self.ocf_root / "resource.d" / kind
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"#!{interpreter}\nOUT={self.folder}\n" + textwrap.dedent(body)
        draft = path.with_suffix(".draft")
        draft.write_text(text)
        draft.chmod(0o755)
        draft.replace(path)
        return path

    def command(self, *extra: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "halo.remote.main",
            "--network=127.0.0.1/32",
            f"--port={self.port}",
            f"--ocf-root={self.ocf_root}",
            f"--test-id={self.test_id}",
            *extra,
        ]

    async def start(self, *extra: str, **environment: str) -> AgentProcess:
        """Start it, and return when it listens. A second start uses the same port."""
        seen = len(self._ports()) if self.log.exists() else 0
        self.spawn(*extra, **environment)
        await until(
            lambda: (
                self.process is not None
                and (self.process.poll() is not None or len(self._ports()) > seen)
            ),
            "the agent to listen",
        )
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        self.port = int(self._ports()[-1])
        return self

    def spawn(self, *extra: str, **environment: str) -> None:
        """Start it without waiting."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HALO_", "OCF_"))}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(*extra),
                env={**inherited, "HALO_TEST_DIRECTORY": str(self.folder), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=self.pass_fds,
            )

    def _ports(self) -> list[str]:
        return _LISTENING.findall(self.log.read_text())

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a crash."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def host(self) -> Host:
        return Host(id=self.test_id, address="127.0.0.1", port=self.port)

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def read(self, name: str) -> str:
        """What scripts wrote to a file of the folder."""
        path = self.folder / name
        return path.read_text() if path.exists() else ""


@contextlib.contextmanager
def agent_process(folder: Path, test_id: str = "agent") -> Iterator[AgentProcess]:
    agent = AgentProcess(folder, test_id)
    try:
        yield agent
    finally:
        agent.kill()
        for pid in {*agent.read("pids").split(), *_scripts_of(folder)}:
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pid), signal.SIGKILL)


def _scripts_of(folder: Path) -> list[str]:
    """Whatever scripts of this agent still run: they outlive it by design, and a test that failed
    must not leave them to slow down all that come after."""
    mark = f"HALO_TEST_DIRECTORY={folder}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and entry.name != str(os.getpid()):
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes()
                if mark in environment.split(b"\0") and b"OCF_RESKEY_" in environment:
                    found.append(entry.name)
    return found


@contextlib.asynccontextmanager
async def connector(manager: str = "manager one") -> AsyncIterator[CapnpConnector]:
    """A connector inside a running Cap'n Proto loop."""
    async with rpc_loop():
        made = CapnpConnector(manager, "cluster")
        try:
            yield made
        finally:
            made.close()


@contextlib.asynccontextmanager
async def connected(
    agent: AgentProcess, manager: str = "manager one"
) -> AsyncIterator[CapnpConnection]:
    async with connector(manager) as made:
        connection = await made.connect(agent.host, PATIENCE_S)
        try:
            yield connection
        finally:
            connection.close()
