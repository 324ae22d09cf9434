"""A world of hosts that can lose power, seen from the test: one object, verbs that take effect.

    with World("name", ["h1", "h2"]) as world:
        world.power_on("h1")
        world.cut_power("h1")

All of it lives in namespaces below one process (:mod:`tests.hosts.mains`) that ends with the test
process, however that ends. Nothing of the machine's own network is touched; the same addresses can
therefore be used by any number of worlds at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import pytest

from tests.debian import require

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "tests" / "test_output"
PROGRAMS = Path(sys.executable).parent
PREFIX = "halo-hosts-"
DEADLINE_S = 60.0
AGENT_NETWORK = "10.77.1.0/24"
MANAGER, BMCS, CLIENT = "mgmt", "bmcs", "client"
PDU = "10.77.2.5"

_POLL_S = 0.01
_T = TypeVar("_T")


def require_namespaces() -> None:
    """Skip the calling test, loudly, where hosts cannot be made."""
    if os.geteuid() != 0:
        reason = "needs root, to make namespaces, bridges and mounts"
        if os.environ.get("HALO_TEST_REQUIRE_PARTS"):
            pytest.fail(reason)
        pytest.skip(reason)
    require("iproute2", "nftables", "e2fsprogs", "resource-agents")


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    stdout: str
    stderr: str


class World:
    """Hosts, BMCs' network, the manager's and a client's node, and the faults that befall them."""

    def __init__(self, name: str, hosts: Sequence[str] = ("h1", "h2")) -> None:
        """Log files go to tests/test_output/hosts_NAME."""
        _remove_leftovers()
        self.hosts = list(hosts)
        self.logs = OUTPUT / f"hosts_{name}"
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self.ground = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.ground.chmod(0o755)  # a database of the world does not run as root
        self._lock = (self.ground / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.disks = self.ground / "disks"
        self.disks.mkdir()
        self.environment = self._make_environment()
        self.agent_options: list[str] = []
        """Further words of the agents' command line; set it before the world begins."""
        self._mains: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _make_environment(self) -> dict[str, str]:
        return {
            "PATH": f"{PROGRAMS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),  # of the world's own programs
            "HALO_LOG": "debug",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
        }

    def _start(self) -> None:
        lines = ["127.0.0.1 localhost"]
        for host in self.hosts:
            lines += [f"{self.address(host)} {host}", f"{self.bmc_address(host)} {host}-bmc"]
        (self.ground / "etc_hosts").write_text("\n".join(lines) + "\n")
        with (self.logs / "mains_log").open("ab") as log:
            self._mains = subprocess.Popen(
                [
                    *("unshare", "--mount", "--net", "--uts", "--ipc", "--pid", "--fork"),
                    *("--kill-child", "--mount-proc", "--propagation", "private", "--"),
                    *(sys.executable, "-S", "-m", "tests.hosts.mains"),
                    *(str(self.ground), str(self.logs)),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=ROOT,
            )
        self.wait(self._serves, "the world's mains")
        bmc_addresses = [f"{self.bmc_address(host)}/24" for host in self.hosts]
        for name, nics in {
            MANAGER: [["lan", ["10.77.1.1/24"]], ["bmc", ["10.77.2.1/24"]]],
            BMCS: [["bmc", [*bmc_addresses, f"{PDU}/24"]]],
            CLIENT: [["lan", ["10.77.1.2/24"]]],
        }.items():
            self.ask("node", name=name, nics=nics)
        for number, host in enumerate(self.hosts):
            self.ask("host", **self._describe(host, number))

    def _serves(self) -> bool:
        assert self._mains is not None
        if self._mains.poll() is not None:
            raise AssertionError(self.report("the world ended as it began"))
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.ground / "mains"))
            return True
        return False

    def _describe(self, host: str, number: int) -> dict[str, Any]:
        state = self.ground / host
        state.mkdir()
        return {
            "name": host,
            "interface": "eth0",
            "address": f"{self.address(host)}/24",
            "mac": f"02:00:00:00:01:{number + 11:02x}",
            "state": str(state),
            "argv": ["halo_remote", "--network", AGENT_NETWORK, *self.agent_options],
            "environment": self.environment,
            "log": str(self.logs / f"agent_{host}_log"),
        }

    def close(self) -> None:
        """End the world; returns when no process and no mount of it is left."""
        if self._mains is not None:
            assert self._mains.stdin is not None
            self._mains.stdin.close()
            try:
                self._mains.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self._mains.kill()
                self._mains.wait(DEADLINE_S)
            self._mains = None
        self._lock.close()
        _remove(self.ground)

    # --- asking the mains ----------------------------------------------------------------------

    def ask(self, do: str, *, deadline: float = DEADLINE_S, **request: Any) -> dict[str, Any]:
        """One request to the mains; raises AssertionError with what it says is wrong."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(deadline + 5)
            connection.connect(str(self.ground / "mains"))
            connection.sendall(
                json.dumps({"do": do, "deadline": deadline, **request}).encode() + b"\n"
            )
            with connection.makefile("rb") as answer:
                found: dict[str, Any] = json.loads(answer.readline() or b'{"error": "no answer"}')
        if "error" in found:
            raise AssertionError(f"{do}: {found['error']}")
        return found

    def wait(
        self,
        condition: Callable[[], _T | None],
        what: str,
        deadline: float = DEADLINE_S,
        poll: float = _POLL_S,
    ) -> _T:
        """Wait until a condition gives something true, and return it."""
        end = time.monotonic() + deadline
        while not (found := condition()):
            if time.monotonic() > end:
                raise AssertionError(self.report(f"not within {deadline:g} s: {what}"))
            time.sleep(poll)
        return found

    # --- power ---------------------------------------------------------------------------------

    @staticmethod
    def _number(host: str) -> int:
        return int(host.removeprefix("h"))

    def address(self, host: str) -> str:
        """The host's own address on the LAN."""
        return f"10.77.1.{10 + self._number(host)}"

    def bmc_address(self, host: str) -> str:
        """The address of the host's BMC."""
        return f"10.77.2.{10 + self._number(host)}"

    def power_on(self, host: str) -> float:
        """Switch the outlet on: the host boots. Returns the time of day."""
        return float(self.ask("power", name=host, on=True)["at"])

    def cut_power(self, host: str) -> float:
        """Switch the outlet off: not one packet more. Returns the time of day of it."""
        return float(self.ask("power", name=host, on=False)["at"])

    def crash(self, host: str) -> float:
        """The host is dead at once, while its BMC still shows it on (a panic, a torn cable)."""
        return float(self.ask("crash", name=host)["at"])

    def is_alive(self, host: str) -> bool:
        """Whether anything runs there."""
        return bool(self.ask("state", name=host)["alive"])

    def outlet_is_on(self, host: str) -> bool:
        """What an honest BMC shows."""
        return bool(self.ask("state", name=host)["outlet"])

    def boots(self, host: str) -> int:
        """How often it was booted."""
        return int(self.ask("state", name=host)["boots"])

    def wire(self, outlet: str, *, host: str | None = None, fault: str = "") -> None:
        """What a BMC's switch does: feeds another host; `stays`, `refuses`, `slow SECONDS`."""
        self.ask("wire", name=outlet, host=host or outlet, fault=fault)

    # --- network -------------------------------------------------------------------------------

    def partition(self, a: str, b: str, *, one_way: bool = False) -> float:
        """Drop what `a` sends to `b` over the LAN, and, unless `one_way`, the other way too."""
        pairs = [f'"{a}-lan" . "{b}-lan"'] + ([] if one_way else [f'"{b}-lan" . "{a}-lan"'])
        answer = self.ask("firewall", set="cut", drop=True, elements=", ".join(pairs))
        return float(answer["at"])

    def cut_frames(self, pairs: Iterable[tuple[str, str]], *, drop: bool = True) -> None:
        """Drop what goes from one to another, for each pair; without `drop`, let it pass again."""
        elements = ", ".join(f'"{a}-lan" . "{b}-lan"' for a, b in pairs)
        if elements:  # none would stand for all
            self.ask("firewall", set="cut", drop=drop, elements=elements)

    def heal(self) -> None:
        """No partition any more."""
        self.ask("firewall", set="cut", drop=False, elements="")

    def deaf(self, address: str) -> None:
        """An address on any network is heard of no more: its cable is out."""
        self.ask("firewall", set="deaf", drop=True, elements=address)

    def undeaf(self, address: str = "") -> None:
        """The cable of an address is in again, or all cables are."""
        self.ask("firewall", set="deaf", drop=False, elements=address)

    # --- programs ------------------------------------------------------------------------------

    def run(
        self,
        node: str,
        *argv: str,
        deadline: float = DEADLINE_S,
        environment: Mapping[str, str] | None = None,
    ) -> Ran:
        """Run a command in a node or on a host."""
        answer = self.ask(
            "run",
            node=node,
            argv=argv,
            environment={**self.environment, **(environment or {})},
            deadline=deadline,
        )
        return Ran(answer["code"], answer["stdout"], answer["stderr"])

    def do(self, node: str, *argv: str, deadline: float = DEADLINE_S) -> str:
        """The same for a command that must succeed; its output."""
        done = self.run(node, *argv, deadline=deadline)
        assert done.code == 0, f"{argv} on {node}: {done.code}\n{done.stdout}{done.stderr}"
        return done.stdout

    def spawn(
        self,
        name: str,
        node: str,
        *argv: str,
        log: str = "",
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start a program that stays, in a node; its output goes to the log file NAME_log."""
        self.ask(
            "spawn",
            name=name,
            node=node,
            argv=argv,
            environment={**self.environment, **(environment or {})},
            log=log or f"{name}_log",
            cwd=str(cwd or "/"),
        )

    def signal(self, name: str, number: signal.Signals, deadline: float = 10.0) -> float:
        """Send a signal to a program that was spawned; returns the time of day."""
        return float(self.ask("signal", name=name, signal=int(number), deadline=deadline)["at"])

    def kill(self, name: str) -> float:
        """Kill a program, and return when it is gone: the time of day of the kill."""
        return self.signal(name, signal.SIGKILL)

    def runs(self, name: str) -> bool:
        """Whether a program that was spawned lives."""
        return bool(self.ask("alive", name=name)["alive"])

    # --- what may be on one host alone --------------------------------------------------------

    def mark(self, name: str, *, path: str = "", address: str = "") -> None:
        """From now on: a file, or an address, on two hosts at once is a `double copy`, and when
        it comes and goes is written down (`came`, `went`)."""
        self.ask("mark", name=name, path=path, address=address)

    def holders(self) -> dict[str, list[str]]:
        """The hosts that bear each mark."""
        found: dict[str, list[str]] = self.ask("mark")["holders"]
        return found

    # --- evidence ------------------------------------------------------------------------------

    def happened(self, what: str, name: str | None = None) -> list[dict[str, Any]]:
        """What the world wrote down: `power`, `boot`, `died`, `switching` (by a slow outlet),
        `switched`, `double mount`, `double copy`, `came`, `went`."""
        return [
            line
            for line in json_lines(self.logs / "world_log")
            if line["what"] == what and name in (None, line["name"])
        ]

    def report(self, headline: str) -> str:
        """The headline and the ends of all logs."""
        parts = [headline]
        for log in sorted(self.logs.glob("*_log")):
            lines = log.read_text(errors="replace").splitlines()
            parts += ["", f"--- {log.relative_to(ROOT)}, {len(lines)} lines, the last:"]
            parts += [line[:400] for line in lines[-12:]]
        return "\n".join(parts)


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a log; others, and one that is being written, are left out."""
    found = []
    if path.exists():
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                if isinstance(parsed := json.loads(line), dict):
                    found.append(parsed)
    return found


def _remove_leftovers() -> None:
    """Remove what test processes that were killed have left behind: files, no more than that.

    Their worlds ended with them; a lock tells the folders of the living.
    """
    for ground in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), (ground / "lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(ground)


def _remove(ground: Path) -> None:
    """Remove a world's folder, and detach loop devices that should have gone by themselves."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().startswith(f"{ground}/"):
                device = f"/dev/{backing.parent.parent.name}"
                subprocess.run(["losetup", "--detach", device], check=False, timeout=DEADLINE_S)
    shutil.rmtree(ground, ignore_errors=True)
