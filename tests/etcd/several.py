"""A cluster of real processes with several managers, which share a journal in etcd."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from halo.adapters.etcd.entries import Head
from halo.adapters.etcd.location import Store
from tests.certificates import BOTH, Authority
from tests.etcd.members import Members
from tests.integration.cluster import ClusterHarness
from tests.integration.processes import free_port
from tests.integration.site import DEADLINE_S, ROOT, Running

LEASE_S = 6
NOT_LEADING = 75
FLAGS = ("--manage-resources", "--sleep-time", "500", "--log-format", "json")
QUICK_FLAGS = (*FLAGS, "--fence-on-connection-close")

LOST = "leadership lost: ending, a restart is safe"
_TOLD = ("managing", "not leading", LOST)

_FENCE_PROGRAM = f"""\
#!/bin/sh
# The test's own fence device, behind a program that can be held before and after each action.
input=$(cat)
action=$(printf '%s\\n' "$input" | sed -n 's/^action=//p')
target=$(printf '%s\\n' "$input" | sed -n 's/^target=//p')
hold() {{
    echo "$PPID $$ $1 $target" >>"$HALO_TEST_DIRECTORY/fence_log"
    while [ -e "$HALO_TEST_DIRECTORY/hold.$1" ]; do sleep 0.02; done
}}
hold "before-$action"
said=$(printf '%s\\n' "$input" | {sys.executable} -I -S {ROOT}/fence_agents/fence_test 2>&1)
code=$?
hold "after-$action"
printf '%s\\n' "$said"
exit $code
"""


@dataclass(frozen=True)
class FenceStep:
    """One line of the fence device's log: which manager, which process, at which point."""

    manager: int
    process: int
    point: str
    host: str


class Managers(ClusterHarness):
    """Agents, and managers by their ids. One of these is looked at: :meth:`look_at`."""

    def __init__(self, name: str, members: Members, store: Store, **arguments: Any) -> None:
        """`members` of etcd, and the store in them."""
        super().__init__(name, **{"flags": FLAGS, **arguments})
        self.members = members
        self.store = store
        self.lease_s = LEASE_S
        self.stores: dict[str, Store] = {}
        """For managers that reach etcd by other addresses."""
        self.flags_of: dict[str, Sequence[str]] = {}
        """What only some managers are given besides."""
        self.program_of: dict[str, Sequence[str]] = {}
        """For managers that are another program than this version's."""
        self.of: dict[str, Running] = {}
        self._sockets = tempfile.TemporaryDirectory(prefix="halo-test-")
        folder = self.folder / "bin"
        folder.mkdir()
        program = folder / "fence_test"
        program.write_text(_FENCE_PROGRAM)
        program.chmod(0o755)
        self.environment["PATH"] = f"{folder}:{self.environment['PATH']}"
        self._keeping: asyncio.Task[None] | None = None
        self.ended: list[tuple[str, int]] = []
        """Managers that ended by themselves, and their exit statuses."""

    # Managers --------------------------------------------------------------------------------

    def start_manager(self, node: str = "1") -> None:
        """Start one manager, and look at it if no other is looked at."""
        store = self.stores.get(node, self.store)
        flags = [
            *("--config", str(self.config), "--socket", self.socket_of(node)),
            *("--statefile", str(self.folder / f"state{node}"), "--store", str(store)),
            *("--node-id", node, "--lease", str(self.lease_s), "--verbose", *self.flags),
            *self.flags_of.get(node, ()),
        ]
        if node in self.program_of:
            self.of[node] = self._spawn([*self.program_of[node], *flags], f"manager{node}_log")
        else:
            self.of[node] = self._start(["halo_manager", *flags], f"manager{node}_log")
        if self.manager is None:
            self.look_at(node)

    def let_them_ask_each_other(self, nodes: Iterable[str]) -> None:
        """From now on, these managers are started with ports and certificates for each other."""
        files = Authority(self.folder / "ca").issue(
            "peer", "localhost", socket.gethostname(), usages=BOTH
        )
        self.environment |= {
            "HALO_PEER_CERT": str(files.certificate),
            "HALO_PEER_KEY": str(files.key),
            "HALO_PEER_CA": str(files.ca),
        }
        for node in nodes:
            port = free_port()
            self.flags_of[node] = (
                *("--peer-listen", f"127.0.0.1:{port}"),
                *("--peer-url", f"https://localhost:{port}"),
            )

    def socket_of(self, node: str) -> str:
        """The path of a manager's Unix socket."""
        return str(Path(self._sockets.name) / node)

    def look_at(self, node: str) -> None:
        """From now on, everything that is asked and told is between the test and this manager."""
        self.manager, self.socket = self.of[node], Path(self.socket_of(node))

    async def settle(self, nodes: str = "12", **wanted: str) -> None:
        """Start the agents, the first manager, and when it manages the others."""
        for host in self.ports:
            self.boot(host)
        self.start_manager(nodes[0])
        self.look_at(nodes[0])
        homes = {g: f"Running on {spec.home}" for g, spec in self.groups.items()}
        await self.until({**homes, **wanted})
        for node in nodes[1:]:
            self.start_manager(node)
        for node in nodes[1:]:
            await self.stands_by(node)

    async def stands_by(self, node: str) -> None:
        """Wait until this manager says that another one leads."""
        await self.until_true(lambda: self.waits(node, "standing by"), f"{node} stands by")

    async def until_leads(self, node: str, *, deadline: float = DEADLINE_S) -> None:
        """Wait until this manager manages, and look at it."""
        self.look_at(node)
        await self.until_true(lambda: self.manages(node), f"{node} leads", deadline=deadline)
        await self.until_status(lambda _status: True, f"{node} answers")

    async def until_one_leads(self) -> str:
        """Wait until any manager manages, and look at it. Returns its id."""
        found: list[str] = []

        def leads() -> bool:
            found[:] = [
                node
                for node, process in self.of.items()
                if process.poll() is None and self.manages(node)
            ]
            return bool(found)

        await self.until_true(leads, "a manager leads", deadline=60)
        self.look_at(found[0])
        return found[0]

    async def until_answered(self, node: str) -> None:
        """Look at this manager, and wait until it gives a status. While one leader follows another,
        nobody can."""
        self.look_at(node)
        ends = time.monotonic() + DEADLINE_S
        code: int | None = None
        while code != 200:
            assert time.monotonic() < ends, f"manager {node} gives no status: {code}"
            with contextlib.suppress(aiohttp.ClientError):  # it may be about to listen
                code, _ = await self.api("GET", "/v1/status")
            await asyncio.sleep(0.05)

    async def until_refused(self, words: str) -> None:
        """Wait until the manager that is looked at gives no status, and says why."""
        ends = time.monotonic() + DEADLINE_S
        found: object = None
        while time.monotonic() < ends:
            with contextlib.suppress(aiohttp.ClientError):  # it may be about to listen
                code, found = await self.api("GET", "/v1/status")
                if code == 503 and words in str(found):
                    return
            await asyncio.sleep(0.05)
        raise AssertionError(f"not in time: {words}; the last answer was {found}")

    def log(self, node: str) -> list[dict[str, Any]]:
        """What a manager wrote into its log."""
        found = []
        with contextlib.suppress(OSError):
            for line in (self.folder / f"manager{node}_log").read_text().splitlines():
                with contextlib.suppress(ValueError):
                    found.append(json.loads(line))
        return found

    def manages(self, node: str) -> bool:
        """Does the present process of this manager lead?"""
        last = self._last_told(node)
        return last.get("event") == "managing" and last["pid"] == self.of[node].pid

    def waits(self, node: str, words: str) -> bool:
        """Did this manager last say that it does not lead, for this reason?"""
        last = self._last_told(node)
        return last.get("event") == "not leading" and words in last["reason"]

    def _last_told(self, node: str) -> Mapping[str, Any]:
        told = [line for line in self.log(node) if line["event"] in _TOLD and "group" not in line]
        return told[-1] if told else {}

    def time_of(self, node: str, event: str) -> str:
        """When this manager logged an event last, as a text that can be compared."""
        told = [line for line in self.log(node) if line["event"] == event and "group" not in line]
        return str(told[-1]["timestamp"])

    async def until_ended(self, node: str) -> int:
        """Wait for the end of a manager; its exit status."""
        process = self.of[node]
        await self.until_true(lambda: process.poll() is not None, f"{node} ends")
        status = process.poll()
        assert status is not None
        return status

    def keep_managers(self) -> None:
        """From now on, restart each manager whose leadership ended, as systemd does."""
        self._keeping = asyncio.ensure_future(self._keep())

    async def _keep(self) -> None:
        while True:
            for node, process in list(self.of.items()):
                status = process.poll()
                if status is not None and status >= 0:
                    self.ended.append((node, status))
                    looked_at = self.manager is process
                    self.start_manager(node)
                    if looked_at:
                        self.look_at(node)
            await asyncio.sleep(0.1)

    def stop_keeping(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None

    def ask_without_waiting(self, path: str, body: Mapping[str, Any]) -> socket.socket:
        """Send a command to the manager that is looked at. It lies in the kernel until then."""
        text = json.dumps(body).encode()
        asked = socket.socket(socket.AF_UNIX)
        asked.settimeout(DEADLINE_S)
        asked.connect(str(self.socket))
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        asked.sendall(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        return asked

    # Fences ----------------------------------------------------------------------------------

    def fence_steps(self, point: str = "") -> list[FenceStep]:
        """What the fence devices were asked so far, by whom; only one point of it, if given."""
        try:
            lines = (self.folder / "fence_log").read_text().splitlines()
        except OSError:
            return []
        found = [FenceStep(int(m), int(p), at, host) for m, p, at, host in map(str.split, lines)]
        return [step for step in found if point in ("", step.point)]

    def hold(self, point: str) -> Path:
        """Let the fence devices wait at this point, `before-off` or `after-status`, until the file
        is removed."""
        path = self.folder / f"hold.{point}"
        path.touch()
        return path

    # The journal -----------------------------------------------------------------------------

    def read_key(self, key: str) -> bytes | None:
        """The value of a key of the store, read from a member that runs."""
        name = base64.b64encode(self.store.key(key).encode()).decode()
        found: Mapping[str, Any] = {}
        for number in self.members.running:
            with contextlib.suppress(OSError, ValueError):
                found = self.members.ask(number, "/v3/kv/range", {"key": name})
                break
        keys = found.get("kvs", [])
        return base64.b64decode(keys[0]["value"]) if keys else None

    def head(self) -> Head:
        """What is committed."""
        value = self.read_key("head")
        assert value is not None
        return Head.of(value)

    def recorded_since(self, head: Head) -> list[dict[str, Any]]:
        """The records that came after this head, in the same generation."""
        return self._records_from(head, head.entries + 1)

    def recorded_under_other_terms(self, head: Head) -> list[dict[str, Any]]:
        """The records that came after this head, but not from the manager that led then."""
        own = self._records_from(head, head.entries)[0]["term"]
        return [record for record in self.recorded_since(head) if record["term"] != own]

    def _records_from(self, head: Head, first: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for number in range(first, self.head().entries + 1):
            value = self.read_key(f"log/{head.generation:010d}/{number:012d}")
            assert value is not None
            found += json.loads(value.partition(b"\n")[2])
        return found

    async def journal_rests(self, seconds: float = 1.0) -> Head:
        """Wait until nothing was recorded for a while; returns the head."""
        last, since = self.head(), time.monotonic()
        ends = since + DEADLINE_S
        while time.monotonic() - since < seconds:
            assert time.monotonic() < ends, "the journal does not come to rest"
            await asyncio.sleep(0.05)
            if (now := self.head()) != last:
                last, since = now, time.monotonic()
        return last

    # The end ---------------------------------------------------------------------------------

    async def finish(self) -> None:
        """End the managers that stand by, then as every cluster."""
        self.stop_keeping()
        problems = []
        for node, process in self.of.items():
            if process is self.manager or process.poll() is not None:
                continue
            process.send_signal(signal.SIGCONT)
            process.terminate()
            if await self.until_ended(node) not in (0, NOT_LEADING):
                problems.append(f"manager {node} ended with {process.poll()}")
        if self.manager is not None and self.manager.poll() == NOT_LEADING:
            self.manager = None
        try:
            await super().finish()
        finally:
            self._sockets.cleanup()
        assert not problems, problems
