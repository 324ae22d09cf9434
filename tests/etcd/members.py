"""Real members of etcd on loopback, in a folder of the test. Each is ended by its process id."""

from __future__ import annotations

import ctypes
import json
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from halo.adapters.etcd.location import Store
from halo.adapters.tls.files import TlsFiles
from tests.debian import require, require_program
from tests.integration.processes import free_port

START_DEADLINE_S = 60.0
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_the_test() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Members:
    """A cluster of etcd. `fsync=False` is fine where no test of durability follows."""

    def __init__(
        self,
        folder: Path,
        count: int = 3,
        *,
        flags: Sequence[str] = (),
        tls: TlsFiles | None = None,
        client_certificates: bool = False,
        fsync: bool = False,
    ) -> None:
        require("etcd-server", "etcd-client")
        self._program = require_program("etcd")
        self.folder = folder
        self._tls = tls
        self._flags = [*flags, *(() if fsync else ("--unsafe-no-fsync",))]
        if tls is not None:
            self._flags += ["--cert-file", str(tls.certificate), "--key-file", str(tls.key)]
            self._flags += ["--trusted-ca-file", str(tls.ca)]
        if client_certificates:
            self._flags.append("--client-cert-auth")
        self.ports = [free_port() for _ in range(count)]
        self._peers = [free_port() for _ in range(count)]
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(f"127.0.0.1:{port}" for port in self.ports)

    def store(self, prefix: str = "/halo/test") -> Store:
        """All members, without TLS."""
        return Store(self.addresses, prefix)

    def start(self) -> None:
        """Start all members, and wait until the cluster has a leader."""
        for number in range(len(self.ports)):
            self.start_one(number)
        self.wait_until_healthy()

    def start_one(self, number: int) -> None:
        """Start one member, for the first time or again."""
        scheme = "http" if self._tls is None else "https"
        client = f"{scheme}://127.0.0.1:{self.ports[number]}"
        peers = [f"http://127.0.0.1:{port}" for port in self._peers]
        with (self.folder / f"etcd{number}.log").open("ab") as log:
            self.processes[number] = subprocess.Popen(
                [
                    *(self._program, "--name", f"m{number}"),
                    *("--data-dir", str(self.folder / f"etcd{number}")),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peers[number]),
                    *("--initial-advertise-peer-urls", peers[number]),
                    "--initial-cluster",
                    ",".join(f"m{n}={url}" for n, url in enumerate(peers)),
                    *("--heartbeat-interval", "50", "--election-timeout", "500"),
                    *("--initial-cluster-token", self.folder.name, *self._flags),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_test,
            )

    def wait_until_healthy(self) -> None:
        """Wait until every member that runs knows a leader."""
        ends = time.monotonic() + START_DEADLINE_S
        while not all(self._is_healthy(number) for number in self.running):
            assert time.monotonic() < ends, (self.folder / "etcd0.log").read_text()[-2000:]
            time.sleep(0.05)

    @property
    def running(self) -> list[int]:
        return [number for number, process in enumerate(self.processes) if process is not None]

    def _is_healthy(self, number: int) -> bool:
        if self._tls is not None:  # its certificates are what the test is about
            text = (self.folder / f"etcd{number}.log").read_text()
            return "ready to serve client requests" in text
        try:
            return "leader" in self.ask(number, "/v3/maintenance/status", {})
        except (OSError, ValueError):
            return False

    def ask(self, number: int, path: str, body: dict[str, object]) -> dict[str, object]:
        """Ask one member, with nothing of ours in between."""
        url = f"http://127.0.0.1:{self.ports[number]}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=2) as answer:
            found = json.loads(answer.read())
        assert isinstance(found, dict)
        return found

    def leader(self) -> int:
        """The number of the member that leads the others."""
        for number in self.running:
            status = self.ask(number, "/v3/maintenance/status", {})
            header = status["header"]
            assert isinstance(header, dict)
            if header["member_id"] == status["leader"]:
                return number
        raise AssertionError("no member leads")

    def signal(self, number: int, what: signal.Signals) -> None:
        """SIGSTOP and SIGCONT, above all."""
        process = self.processes[number]
        assert process is not None
        process.send_signal(what)
        if what is signal.SIGSTOP:  # on a busy machine, it goes on for a moment
            end = time.monotonic() + 10
            while not _stands_still(process.pid):
                assert time.monotonic() < end, f"member {number} does not stop"
                time.sleep(0.001)

    def kill(self, number: int) -> None:
        """Kill one member, as a power cut does."""
        process = self.processes[number]
        if process is not None:
            process.kill()
            process.wait(10)
            self.processes[number] = None

    def etcdctl(self, *arguments: str) -> str:
        """Run etcdctl on these members."""
        scheme = "http" if self._tls is None else "https"
        command = [
            require_program("etcdctl"),
            f"--endpoints={','.join(f'{scheme}://{address}' for address in self.addresses)}",
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """End all members."""
        for number in range(len(self.processes)):
            self.kill(number)


def _stands_still(pid: int) -> bool:
    """Have all threads of a process stopped?"""
    states = [
        (task / "stat").read_text().rpartition(")")[2].split()[0]
        for task in Path(f"/proc/{pid}/task").iterdir()
    ]
    return set(states) == {"T"}
