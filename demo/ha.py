#!/usr/bin/env python3
"""Three managers on this machine: the one that leads is killed in the middle of a failover.

Three members of etcd, three managers and two agents as real processes on loopback. While the power
of a host is cut, the manager that leads is killed. Another one takes over, makes sure that the host
is off, and starts its group on the partner. A client asks a website all the while, and an operator
asks all three managers. Nothing outside a temporary folder is touched, and nothing is left. Exit
status 0 when every step happened within its deadline.

etcd is the one on PATH. If there is none, Debian's package is unpacked into the virtual
environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stage import PROGRAMS, Stage, StepFailed, free_ports, main, note, say

IDS = ("1", "2", "3")
LEASE_S = 2
UNPACKED = PROGRAMS.parent / "etcd"
INSTALL_DEADLINE_S = 300.0
ASK_EVERY_S = 0.1
STOPPED_LEADING = 75


class Several(Stage):
    """The processes, and the story they tell."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._etcd = find_etcd()
        self._store = ""
        self._ports = dict(zip(IDS, free_ports(len(IDS)), strict=True))
        self._by_id: dict[str, subprocess.Popen[bytes]] = {}
        self._turn = 0

    async def tell(self) -> None:
        """All steps, each within its deadline."""
        begun = time.monotonic()
        say("Two hosts, alpha and beta, and three managers with three members of etcd.")
        self.start_etcd()
        await self.make_certificates()
        self.start_agents()
        for node in IDS:
            self.start(node)
        async with self.step("one of the managers leads"):
            await self.until_leader()
        async with self.step("both groups run at home"):
            await self.until(website="Running on alpha", files="Running on beta")
        async with self.step("all three managers show the same status"):
            await self.until_all_show_the_same()
        await self.show("halo", "managers")
        asking = asyncio.create_task(self.client.run())
        try:
            async with self.step(f"a client asks http://{self.address}:8080 every 20 ms"):
                await self.wait_for(lambda: self.client.last_answer() == "alpha")
            await self.lose_alpha_and_the_leader()
            await self.get_the_manager_back()
            await self.hand_over()
        finally:
            asking.cancel()
        say(f"Done in {time.monotonic() - begun:.1f} s.")

    async def lose_alpha_and_the_leader(self) -> None:
        """Cut the power of a host, and kill the leader as soon as it fences that host."""
        leader = await self.until_leader()
        say("")
        say("Now the power of alpha is cut: its agent and all that ran there are gone.")
        cut = time.monotonic()
        self.cut_power("alpha")
        async with self.step(f"manager {leader} has recorded that it will fence alpha", cut):
            await self.until_logged(leader, "fencing ")
        self.kill(leader)
        killed = time.monotonic()
        say(f"          manager {leader} is killed")
        async with self.step("another manager leads", killed):
            successor = await self.until_leader(other_than=leader)
        note(f"manager {successor} leads; the lease is {LEASE_S} s")
        async with self.step("alpha is fenced: confirmed to be off", killed):
            await self.until_event("fence", "alpha")
        async with self.step("both groups run on beta", killed):
            await self.until(website="Running (Failed Over) on beta", files="Running on beta")
        async with self.step("the website answers from beta", cut):
            await self.wait_for(lambda: self.client.last_answer() == "beta")
        note(self.client.outage(cut))
        await self.show("halo", "status")
        await self.show("halo", "managers")

    async def get_the_manager_back(self) -> None:
        """Start the manager that was killed. It stands by."""
        say("")
        (node,) = set(IDS) - set(self._by_id)
        say(f"Manager {node} is started again. It stands by, and answers as the others do.")
        self.start(node)
        async with self.step(f"all three answer, and manager {node} stands by"):
            await self.wait_until_registered(len(IDS))
            await self.until_all_show_the_same()

    async def hand_over(self) -> None:
        """A planned hand-over takes no lease time, and no group notices."""
        say("")
        say("The operator hands the leadership over.")
        leader = await self.until_leader()
        deposed = self._by_id.pop(leader)
        self.managers.remove(deposed)
        handed = time.monotonic()
        self.use(next(iter(self._by_id)))
        await self.show("halo", "managers", "step-down", "--reason", "end of the demo")
        async with self.step("another manager leads", handed):
            await self.until_leader(other_than=leader)
        async with self.step(f"manager {leader} has ended, for systemd to start it again"):
            await self.wait_for(lambda: deposed.poll() is not None)
        if deposed.returncode != STOPPED_LEADING:
            raise StepFailed(f"manager {leader} ended with exit status {deposed.returncode}")
        async with self.step("both groups run where they ran", handed):
            await self.until(website="Running (Failed Over) on beta", files="Running on beta")
        note(self.client.outage(handed))
        await self.show("halo", "managers")

    # Processes -----------------------------------------------------------------------------

    def start_etcd(self) -> None:
        """Start three members of etcd, with short times: they are on one machine."""
        ports, peers = free_ports(len(IDS)), free_ports(len(IDS))
        urls = [f"http://127.0.0.1:{port}" for port in peers]
        everybody = ",".join(f"m{number}={url}" for number, url in enumerate(urls))
        for number, port in enumerate(ports):
            client = f"http://127.0.0.1:{port}"
            self.spawn(
                [
                    *(self._etcd, "--name", f"m{number}"),
                    *("--data-dir", str(self.folder / f"etcd{number}")),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", urls[number]),
                    *("--initial-advertise-peer-urls", urls[number]),
                    *("--initial-cluster", everybody, "--initial-cluster-token", "demo"),
                    *("--heartbeat-interval", "50", "--election-timeout", "500"),
                ],
                f"etcd{number}_log",
            )
        addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        self._store = f"etcd://{addresses}/halo/demo"

    async def make_certificates(self) -> None:
        """Managers answer each other over HTTPS only."""
        tls = self.folder / "tls"
        await self.show("halo", "tls", "init", str(tls))
        also = ("--also", socket.gethostname())  # as the managers register
        await self.show("halo", "tls", "peer", "localhost", *also, "--dir", str(tls))
        files = tls / "peers" / "localhost"
        self.environment |= {
            "HALO_PEER_CERT": str(files / "peer.crt"),
            "HALO_PEER_KEY": str(files / "peer.key"),
            "HALO_PEER_CA": str(files / "ca.crt"),
        }

    def start(self, node: str) -> None:
        """Start one manager."""
        port = self._ports[node]
        self._by_id[node] = self.spawn_manager(
            *("--socket", str(self.socket_of(node)), "--store", self._store),
            *("--statefile", str(self.folder / f"halo{node}.state")),
            *("--node-id", node, "--lease", str(LEASE_S)),
            *("--peer-listen", f"127.0.0.1:{port}", "--peer-url", f"https://localhost:{port}"),
            log=f"manager_{node}_log",
        )
        self.use(node)

    def kill(self, node: str) -> None:
        """As a power cut does."""
        program = self._by_id.pop(node)
        self.managers.remove(program)
        program.send_signal(signal.SIGKILL)
        program.wait()
        self.use(next(iter(self._by_id)))

    def socket_of(self, node: str) -> Path:
        """The socket of one manager."""
        return self.folder / f"halo{node}.socket"

    def use(self, node: str) -> None:
        """From now on, the operator asks this manager."""
        self.socket = self.socket_of(node)

    # Watching ------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """The status, from each manager in turn: every one must answer."""
        self._turn += 1
        nodes = sorted(self._by_id)
        self.use(nodes[self._turn % len(nodes)])
        found = await super().status()
        if "groups" not in found:
            raise ValueError("no manager leads")
        return found

    async def seen_by(self, node: str) -> dict[str, Any]:
        """What one manager says of all."""
        with contextlib.suppress(OSError, ValueError):
            reader, writer = await asyncio.open_unix_connection(str(self.socket_of(node)))
            try:
                writer.write(b"GET /v1/managers HTTP/1.0\r\nHost: localhost\r\n\r\n")
                answer = await reader.read()
            finally:
                writer.close()
            return dict(json.loads(answer.partition(b"\r\n\r\n")[2]))
        return {}

    async def leader(self) -> str | None:
        """The manager that leads, if all agree on it."""
        told = [(await self.seen_by(node)).get("leader") for node in sorted(self._by_id)]
        return str(told[0]) if None not in told and len(set(told)) == 1 else None

    async def until_leader(self, other_than: str | None = None) -> str:
        """Wait until all agree on a leader; the step has the deadline."""
        while (found := await self.leader()) in (None, other_than):  # noqa: ASYNC110  # a process
            await asyncio.sleep(ASK_EVERY_S)
        assert found is not None
        return found

    async def until_all_show_the_same(self) -> None:
        """Wait until the status is the same everywhere; the step has the deadline."""
        while True:
            told = []
            for node in sorted(self._by_id):
                self.use(node)
                with contextlib.suppress(OSError, ValueError):
                    told.append((await super().status()).get("groups"))
            if told == [told[0]] * len(self._by_id) and told[0] is not None:
                return
            await asyncio.sleep(ASK_EVERY_S)

    async def wait_until_registered(self, count: int) -> None:
        """Wait until every manager sees so many; the step has the deadline."""
        while True:
            told = [(await self.seen_by(node)).get("managers", []) for node in sorted(self._by_id)]
            if all(len(managers) == count for managers in told) and await self.leader():
                return
            await asyncio.sleep(ASK_EVERY_S)

    async def until_logged(self, node: str, words: str) -> None:
        """Wait until a manager logs this; the step has the deadline."""
        log = self.folder / f"manager_{node}_log"
        while words not in log.read_text(errors="replace"):  # noqa: ASYNC110  # a file
            await asyncio.sleep(ASK_EVERY_S / 10)


def find_etcd() -> str:
    """The program etcd. Raises StepFailed."""
    unpacked = UNPACKED / "usr" / "bin" / "etcd"
    found = shutil.which("etcd") or (str(unpacked) if unpacked.exists() else None)
    if found is not None:
        return found
    if shutil.which("apt-get") is None:
        raise StepFailed("this demo needs etcd: put the program etcd on PATH")
    say("etcd is not installed: unpacking Debian's package into the virtual environment ...")
    UNPACKED.mkdir(parents=True, exist_ok=True)
    download = "apt-get download -q etcd-server"
    if os.geteuid() == 0:
        download = f"{download} || {{ apt-get update -q && {download}; }}"
    try:
        subprocess.run(
            ["sh", "-c", f"{{ {download}; }} && dpkg-deb -x etcd-server_*.deb ."],
            cwd=UNPACKED,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_DEADLINE_S,
            check=True,
        )
    except (subprocess.SubprocessError, OSError) as error:
        why = getattr(error, "stderr", None) or str(error)
        raise StepFailed(f"Debian's package etcd-server cannot be had: {why.strip()}") from error
    return str(unpacked)


if __name__ == "__main__":
    sys.exit(main(Several))
