"""What the demos have in common: programs on this machine, steps with deadlines, a web client."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
MARK = "HALO_DEMO"  # in the environment of every process of this demo
HOSTS = ("alpha", "beta")
STEP_DEADLINE_S = 20.0
POLL_S = 0.02
REQUEST_EVERY_S = 0.02
REQUEST_DEADLINE_S = 0.25
REQUESTS_AT_ONCE = 4
SHELL = "  | "

CONFIG = """
settings: {{loss_budget: 1, reconnect_interval: 0.1}}
hosts:
- hostname: 127.0.0.1:{ports[0]}
  fence_agent: fence_test
  fence_parameters: {{target: alpha, test_id: {folder}}}
- hostname: 127.0.0.1:{ports[1]}
  fence_agent: fence_test
  fence_parameters: {{target: beta, test_id: {folder}}}
resources:
- name: website
  kind: halo/WebServer
  parameters: {{ip: {address}, port: "8080"}}
- name: files
  kind: halo/Emulated
  parameters: {{name: files}}
resource_groups:
- {{root: website, home_host: alpha, failover_hosts: [beta]}}
- {{root: files, home_host: beta, failover_hosts: [alpha]}}
"""


class StepFailed(Exception):
    """Something did not happen in time."""


class WebClient:
    """Asks for the page at a fixed pace, and notes which requests were answered, and by whom."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._answers: dict[float, str] = {}
        self._asked: list[float] = []
        self._requests: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Ask until cancelled."""
        started = time.monotonic()
        for number in itertools.count():
            await asyncio.sleep(started + number * REQUEST_EVERY_S - time.monotonic())
            if len(self._requests) >= REQUESTS_AT_ONCE:
                self._asked.append(time.monotonic())  # unanswered; more would overload the server
                continue
            request = asyncio.create_task(self._ask())
            self._requests.add(request)
            request.add_done_callback(self._requests.discard)

    async def _ask(self) -> None:
        at = time.monotonic()
        self._asked.append(at)
        writer = None
        with contextlib.suppress(OSError, TimeoutError, IndexError):
            async with asyncio.timeout(REQUEST_DEADLINE_S):
                reader, writer = await asyncio.open_connection(self.address, 8080)
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                answer = await reader.read()
                if b"200 OK" in answer.split(b"\r\n")[0]:
                    self._answers[at] = answer.split()[-1].decode()
        if writer is not None:
            writer.close()

    def last_answer(self) -> str:
        """The host that answered last."""
        return self._answers[max(self._answers)] if self._answers else ""

    def outage(self, since: float) -> str:
        """The longest time without an answer since a moment, in words."""
        asked = sorted(at for at in self._asked if at >= since)
        answered = [at for at in asked if at in self._answers]
        gaps = [b - a for a, b in itertools.pairwise([since, *answered])]
        longest = max(gaps, default=time.monotonic() - since)
        lost = len(asked) - len(answered)
        return f"its client had no answer for {longest:.2f} s ({lost} of {len(asked)} requests)"


class Stage(ABC):
    """The processes of a demo, and what can be seen of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The process id makes an address of its own for each demo that runs at the same time.
        self.address = f"127.77.{os.getpid() >> 8 & 0xFF}.{os.getpid() & 0xFF or 1}"
        self.client = WebClient(self.address)
        self.config = folder / "halo.conf"
        self.socket = folder / "halo.socket"
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("HALO_", "OCF_"))},
            MARK: str(folder),
            "PATH": f"{PROGRAMS}:{os.environ.get('PATH', os.defpath)}",
            "HALO_TEST_DIRECTORY": str(folder),
            "HALO_LOG": "info",
        }
        self.managers: list[subprocess.Popen[bytes]] = []  # that must not end
        self._programs: list[subprocess.Popen[bytes]] = []

    @abstractmethod
    async def tell(self) -> None:
        """The story: all steps, each within its deadline."""

    # Processes -----------------------------------------------------------------------------

    def start_agents(self) -> None:
        """Write the config, and start two agents."""
        ports = free_ports(len(HOSTS))
        self.config.write_text(CONFIG.format(ports=ports, folder=self.folder, address=self.address))
        for host, port in zip(HOSTS, ports, strict=True):
            argv = [
                *(str(PROGRAMS / "halo_remote"), "--network", "127.0.0.1/32", "--port", str(port)),
                *("--test-id", host, "--ocf-root", str(ROOT / "ocf_agents")),
            ]
            # The fence agent of the test environment switches a host on with this.
            command = {"argv": argv, "env": self.environment, "cwd": str(self.folder)}
            (self.folder / f"{host}.cmd").write_text(json.dumps(command))
            self.spawn(argv, f"agent_{host}_log")

    def spawn(self, argv: list[str], log: str) -> subprocess.Popen[bytes]:
        """Start one program with its output in a file."""
        with (self.folder / log).open("ab") as output:
            program = subprocess.Popen(
                argv,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._programs.append(program)
        return program

    def spawn_manager(self, *options: str, log: str = "manager_log") -> subprocess.Popen[bytes]:
        """Start a manager that must not end."""
        program = self.spawn(
            [
                *(str(PROGRAMS / "halo_manager"), "--config", str(self.config)),
                *("--manage-resources", "--fence-on-connection-close", "--sleep-time", "500"),
                *options,
            ],
            log,
        )
        self.managers.append(program)
        return program

    def cut_power(self, host: str) -> None:
        """Kill all that runs on a host, and forget what a host without power forgets."""
        kill_all(lambda: self.processes(host))
        for path in self.folder.glob(f"{host}.*"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.suffix != ".cmd":
                path.unlink()

    def processes(self, host: str | None = None) -> Iterator[int]:
        """The living processes of this demo, or of one of its hosts."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError, IndexError):
                variables = (entry / "environ").read_bytes().split(b"\0")
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if f"{MARK}={self.folder}".encode() not in variables:
                    continue
                if (entry / "stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
                    continue
                is_script = f"HALO_TEST_ID={host}".encode() in variables
                is_agent = (b"--test-id", f"{host}".encode()) in itertools.pairwise(words)
                if host is None or is_script or is_agent:
                    yield int(entry.name)

    def end(self) -> None:
        """End all processes: in order where they follow, else by force."""
        for program in self._programs:
            if program.poll() is None:
                program.terminate()
        for program in self._programs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(3)
        kill_all(self.processes)

    # Watching ------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def step(self, what: str, since: float | None = None) -> Any:
        """Report how long a step took, from its own begin or from `since`."""
        begun = time.monotonic() if since is None else since
        try:
            async with asyncio.timeout(STEP_DEADLINE_S):
                yield
        except TimeoutError:
            raise StepFailed(f"not within {STEP_DEADLINE_S:.0f} s: {what}") from None
        say(f"{time.monotonic() - begun:6.2f} s  {what}")

    async def show(self, *command: str) -> None:
        """Run a command as an operator would, and show what it says."""
        say(f"{SHELL}$ {shlex.join(command)}")
        process = await asyncio.create_subprocess_exec(
            str(PROGRAMS / command[0]),
            *("--config", str(self.config), "--socket", str(self.socket), *command[1:]),
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), STEP_DEADLINE_S)
        except TimeoutError:
            raise StepFailed(f"no end of: {' '.join(command)}") from None
        for line in output.decode().splitlines():
            say(f"{SHELL}{line}")
        if process.returncode:
            raise StepFailed(f"exit status {process.returncode} of: {' '.join(command)}")

    async def until(self, **wanted: str) -> None:
        """Wait until the manager shows groups as `STATUS on HOST`."""

        def shows(status: dict[str, Any]) -> bool:
            groups = {name: item(status, "groups", name) for name in wanted}
            return all(
                f"{group.get('status')} on {group.get('host')}" == wanted[name]
                for name, group in groups.items()
            )

        await self.until_status(shows)

    async def until_event(self, name: str, host: str) -> None:
        """Wait until the manager shows an event of a host."""
        await self.until_status(
            lambda s: any(e["event"] == name and e["obj_id"] == host for e in s["events"])
        )

    async def until_status(self, shows: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until the manager's status is as told; the step has the deadline."""
        while True:
            for program in self.managers:
                if program.poll() is not None:
                    raise StepFailed(f"the manager ended with exit status {program.returncode}")
            with contextlib.suppress(OSError, ValueError):
                if shows(await self.status()):
                    return
            await asyncio.sleep(POLL_S)

    async def wait_for(self, holds: Callable[[], bool]) -> None:
        """Wait for anything else; the step has the deadline."""
        while not holds():  # noqa: ASYNC110  # another process makes it true
            await asyncio.sleep(POLL_S)

    async def status(self) -> dict[str, Any]:
        """The manager's status. Raises OSError or ValueError while there is none."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            writer.write(b"GET /v1/status HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = await reader.read()
        finally:
            writer.close()
        return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))

    def tell_logs(self) -> None:
        """The ends of all logs, for whoever has to find out what went wrong."""
        for log in sorted(self.folder.glob("*_log")):
            say(f"--- {log.name}")
            for line in log.read_text(errors="replace").splitlines()[-20:]:
                say(line)


def say(line: str) -> None:
    print(line, flush=True)


def note(line: str) -> None:
    say(f"          {line}")


def item(status: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """One object of the status by its id."""
    return next((dict(found) for found in status[key] if found["id"] == name), {})


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def kill_all(find: Callable[[], Iterator[int]]) -> None:
    """Kill what is found until nothing is found any more."""
    while pids := list(find()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


async def run(demo: Stage) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await demo.tell()


def main(make: Callable[[Path], Stage]) -> int:
    """Exit status 0 if every step happened in time, 1 if one did not, 130 when interrupted."""
    with tempfile.TemporaryDirectory(prefix="halo-demo-") as folder:
        demo = make(Path(folder).resolve())
        try:
            asyncio.run(run(demo))
        except StepFailed as failure:
            demo.tell_logs()
            say(f"The demo failed: {failure}")
            return 1
        except (KeyboardInterrupt, asyncio.CancelledError):
            say("Interrupted.")
            return 130
        finally:
            # A second Ctrl-C must not leave half of it behind.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            demo.end()
    return 0
