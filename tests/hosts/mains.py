"""The power and the network of a test world: PID 1 of its outer PID namespace.

    unshare --pid --net --mount ... python -S -m tests.hosts.mains GROUND LOGS

It holds two bridges, `lan` and `bmc`, the hosts that can lose power, and further *nodes* that are
network namespaces alone (the manager's, the BMCs', a client's). It obeys JSON requests on the Unix
socket GROUND/mains, one a connection; see :class:`tests.hosts.world.World` for what they do.

When its standard input ends, because the test process ended in whatever way, it exits; the kernel
then kills everything in the world, and with the last process go networks and mounts.

The state of every outlet is kept here, outside of the simulated BMCs, which may die and come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hosts import kernel
from tests.hosts.watch import Watch, request_of

FIREWALL = """
table bridge halo {
 set cut { type ifname . ifname; }
 set deaf { type ipv4_addr; }
 chain forward {
  type filter hook forward priority 0
  iifname . oifname @cut drop
  ip daddr @deaf drop
  ip saddr @deaf drop
 }
}
"""
BRIDGES = ("lan", "bmc")
LOOP_RELEASE_S = 10.0
Request = dict[str, Any]


@dataclass
class Host:
    """One host. `outlet_on` is what its BMC shows; a crashed host is dead with its outlet on."""

    name: str
    config: Request
    number: int
    outlet_on: bool = False
    boots: int = 0
    pid: int = 0  # of its init; 0: dead
    gone: asyncio.Future[int] | None = None

    @property
    def port(self) -> str:
        """The bridge's end of its cable."""
        return f"{self.name}-lan"


@dataclass
class Outlet:
    """What a BMC switches: which host, and how badly. Faults: `stays`, `refuses`, `slow N`."""

    host: str
    fault: str = ""


@dataclass
class Mains:
    """Everything the world consists of."""

    logs: Path
    disks: Path
    hosts: dict[str, Host] = field(default_factory=dict)
    outlets: dict[str, Outlet] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    children: dict[int, asyncio.Future[int]] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    watch: Watch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = Watch(self.hosts, self.disks, self.tell)

    # --- processes -----------------------------------------------------------------------------

    def reap(self) -> None:
        """Collect the dead, ours and orphans."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if (waiting := self.children.pop(pid, None)) and not waiting.done():
                    waiting.set_result(os.waitstatus_to_exitcode(status))

    def start(self, argv: list[str], **how: Any) -> tuple[int, asyncio.Future[int]]:
        """Start a program; its PID, and a future for its exit status."""
        how.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen(argv, start_new_session=True, **how)
        process.returncode = 0  # :meth:`reap` collects it, not the subprocess module
        future = asyncio.get_running_loop().create_future()
        self.children[process.pid] = future
        return process.pid, future

    def inside(self, node: str) -> list[str]:
        """The words that run a command in a node or a host."""
        if node in self.hosts:
            host = self.hosts[node]
            if not host.pid:
                raise LookupError(f"{node} is dead")
            return ["nsenter", f"--target={host.pid}", "--all", "--wdns=/", "--"]
        return ["nsenter", f"--target={self.nodes[node]}", "--net", "--uts", "--"]

    async def spawn(self, request: Request) -> Request:
        name = request["name"]
        with (self.logs / request["log"]).open("ab") as log:
            pid, future = self.start(
                [*self.inside(request["node"]), *request["argv"]],
                env=request["environment"],
                stdout=log,
                stderr=log,
                cwd=request.get("cwd", "/"),
            )
        self.programs[name] = pid
        future.add_done_callback(lambda done: self.tell("ended", name, status=done.result()))
        return {"pid": pid}

    async def signal(self, request: Request) -> Request:
        """Send a signal to a program; with SIGKILL, return when it is gone."""
        pid = self.programs[request["name"]]
        waiting = self.children.get(pid)
        at = time.time()
        if waiting is not None:
            os.kill(pid, request["signal"])
            self.tell("signal", request["name"], number=request["signal"])
            if request["signal"] in (signal.SIGKILL, signal.SIGTERM):
                await asyncio.wait({waiting}, timeout=request.get("deadline", 10.0))
        return {"at": at, "alive": waiting is not None and not waiting.done()}

    async def alive(self, request: Request) -> Request:
        return {"alive": self.programs.get(request["name"]) in self.children}

    async def run(self, request: Request) -> Request:
        """Run a command to its end, and return what it said."""
        with (
            os.fdopen(os.memfd_create("out"), "r+b") as out,
            os.fdopen(os.memfd_create("err"), "r+b") as err,
        ):
            pid, future = self.start(
                [*self.inside(request["node"]), *request["argv"]],
                env=request["environment"],
                stdout=out,
                stderr=err,
                cwd="/",
            )
            done, _ = await asyncio.wait({future}, timeout=request["deadline"])
            if not done:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                raise TimeoutError(f"no end of {request['argv']}")
            out.seek(0)
            err.seek(0)
            return {
                "code": future.result(),
                "stdout": out.read().decode(errors="replace"),
                "stderr": err.read().decode(errors="replace"),
            }

    # --- network -------------------------------------------------------------------------------

    def make_bridges(self) -> None:
        lines = ["link set lo up"]
        for bridge in BRIDGES:
            # Forwarding at once, and every frame to every port that asks: no timers of its own.
            lines += [
                f"link add {bridge} type bridge forward_delay 0 mcast_snooping 0",
                f"link set {bridge} up",
            ]
        _ip(lines)
        _command(["nft", "-f", "-"], FIREWALL)

    async def node(self, request: Request) -> Request:
        """A network namespace with a card on some bridges; `nics` are [bridge, addresses]."""
        name = request["name"]

        def alone() -> None:
            kernel.unshare(kernel.CLONE_NEWNET | kernel.CLONE_NEWUTS)

        pid, _ = self.start(["sleep", "infinity"], preexec_fn=alone)
        self.nodes[name] = pid
        outside, within = [], ["link set lo up"]
        for number, (bridge, addresses) in enumerate(request["nics"]):
            outside += _cable(f"{name}-{bridge}", bridge, f"eth{number}", pid)
            within += [f"addr add {address} dev eth{number}" for address in addresses]
            within.append(f"link set eth{number} up")
        _ip(outside)
        _ip(within, inside=self.inside(name))
        _command([*self.inside(name), "hostname", name])
        return {}

    async def firewall(self, request: Request) -> Request:
        """Drop what goes from one port to another, or from and to an address; or do not."""
        elements = request["elements"]
        if elements:
            verb = "add" if request["drop"] else "delete"
            what = [request["set"], f"{{ {elements} }}"]
            _command(["nft", verb, "element", "bridge", "halo", *what])
        else:
            _command(["nft", "flush", "set", "bridge", "halo", request["set"]])
        self.tell("network", elements or "healed", drop=request["drop"], of=request["set"])
        return {"at": time.time()}

    # --- hosts ---------------------------------------------------------------------------------

    async def host(self, request: Request) -> Request:
        """Put a host into its rack: its outlet is off."""
        self.hosts[request["name"]] = Host(request["name"], request, len(self.hosts) + 1)
        self.outlets[request["name"]] = Outlet(request["name"])
        return {}

    async def power(self, request: Request) -> Request:
        """Set an outlet at its host, whatever the BMC would do: on, off."""
        async with self.turn:
            return {"at": await self._set(self.hosts[request["name"]], on=request["on"])}

    async def crash(self, request: Request) -> Request:
        """The host dies as without power, yet its outlet stays on."""
        async with self.turn:
            return {"at": await self._die(self.hosts[request["name"]])}

    async def state(self, request: Request) -> Request:
        host = self.hosts[request["name"]]
        return {"outlet": host.outlet_on, "alive": bool(host.pid), "boots": host.boots}

    async def _set(self, host: Host, *, on: bool) -> float:
        at = time.time()
        if on and not host.outlet_on:
            host.outlet_on = True
            self._boot(host)
        elif not on:
            host.outlet_on = False
            if host.pid:
                at = await self._die(host)
        self.tell("power", host.name, on=on)
        return at

    def _boot(self, host: Host) -> None:
        config = {**host.config, "first_pid": (len(self.hosts) * host.boots + host.number) * 5000}
        card, power_good = os.pipe()

        def alone() -> None:
            kernel.unshare(
                kernel.CLONE_NEWNS | kernel.CLONE_NEWUTS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWNET
            )

        kernel.unshare(kernel.CLONE_NEWPID)
        try:
            with (self.logs / f"console_{host.name}_log").open("ab") as console:
                host.pid, host.gone = self.start(
                    [sys.executable, "-S", "-m", "tests.hosts.host_init", json.dumps(config)],
                    stdin=card,
                    stdout=console,
                    stderr=console,
                    preexec_fn=alone,
                )
        finally:
            os.close(card)
            kernel.fork_into_own_pid_namespace()
        host.boots += 1
        _ip(_cable(host.port, "lan", config["interface"], host.pid, config["mac"]))
        os.close(power_good)
        self.tell("boot", host.name)

    async def _die(self, host: Host) -> float:
        """Off: not one packet more, nothing unwritten reaches the disk, no process survives.

        Returns the moment. When it returns the host is entirely gone, its disks released.
        """
        if not host.pid or host.gone is None:
            return time.time()
        disks = kernel.loop_mounts(host.pid)
        mounted = []
        for _, point in disks:
            with contextlib.suppress(OSError):
                mounted.append(os.open(f"/proc/{host.pid}/root{point}", os.O_RDONLY))
        at, spent = time.time(), time.thread_time()
        kernel.link_down(host.port)
        silent_at = time.time()
        for directory in mounted:
            with contextlib.suppress(OSError):
                kernel.lose_unwritten(directory)
            os.close(directory)
        with contextlib.suppress(ProcessLookupError):
            os.kill(host.pid, signal.SIGKILL)
        took_ms = (time.thread_time() - spent) * 1000
        await host.gone
        host.pid, host.gone = 0, None
        await self._released([device for device, _ in disks])
        with contextlib.suppress(OSError):  # it goes by itself when its namespace does
            _ip([f"link del {host.port}"])
        gone_ms = (time.time() - at) * 1000
        self.tell("died", host.name, at=at, silent_at=silent_at, took_ms=took_ms, gone_ms=gone_ms)
        return at

    async def _released(self, devices: list[str]) -> None:
        """No late write of a dead host may reach a disk that another host mounts."""
        end = time.monotonic() + LOOP_RELEASE_S
        for device in devices:
            backing = Path("/sys/block", Path(device).name, "loop/backing_file")
            while backing.exists():
                if time.monotonic() > end:
                    raise TimeoutError(f"{device} is still in use after its host died")
                await asyncio.sleep(0.002)

    async def mark(self, request: Request) -> Request:
        """Watch that a file or an address is on one host at a time; who bears which mark."""
        return request_of(self.watch, request)

    # --- what BMCs do --------------------------------------------------------------------------

    async def switch(self, request: Request) -> Request:
        """What a BMC does with its outlet: `get`, `on`, `off`, `reset`."""
        outlet = self.outlets[request["name"]]
        host = self.hosts[outlet.host]
        verb, begun = request["verb"], time.time()
        fault, _, seconds = outlet.fault.partition(" ")
        if verb == "get":
            return {"on": host.outlet_on}
        if fault == "refuses":
            raise PermissionError("refused")
        if fault == "slow" and host.outlet_on != (verb == "on"):
            self.tell("switching", request["name"], verb=verb)
            await asyncio.sleep(float(seconds))
        if fault != "stays":
            async with self.turn:
                if verb in ("off", "reset"):
                    await self._set(host, on=False)
                if verb in ("on", "reset"):
                    await self._set(host, on=True)
        self.tell("switched", request["name"], verb=verb, fault=outlet.fault, begun=begun)
        return {"on": host.outlet_on}

    async def wire(self, request: Request) -> Request:
        """Which host an outlet feeds, and its fault."""
        outlet = self.outlets[request["name"]]
        outlet.host, outlet.fault = request.get("host", outlet.host), request.get("fault", "")
        return {}

    # --- requests ------------------------------------------------------------------------------

    def tell(self, what: str, name: str, **more: Any) -> None:
        """Write down what happened to the world, and when."""
        line = {"at": time.time(), "what": what, "name": name, **more}
        with (self.logs / "world_log").open("a") as log:
            log.write(json.dumps(line) + "\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer."""
        verbs: dict[str, Callable[[Request], Awaitable[Request]]] = {
            name: getattr(self, name)
            for name in (
                *("node", "host", "power", "crash", "state", "switch", "wire"),
                *("spawn", "signal", "alive", "run", "firewall", "mark"),
            )
        }
        try:
            request = json.loads(await reader.readline())
            answer = await verbs[request.pop("do")](request)
        except Exception as error:
            # Told to whoever asked: a test fails there with it, a BMC says "refused".
            answer = {"error": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(OSError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
            writer.close()


def _command(argv: list[str], given: str = "") -> None:
    """Run a short command. It holds up the loop: what it changes must be so before the answer."""
    done = subprocess.run(argv, input=given, text=True, capture_output=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(argv)}: {done.stderr.strip()}")


def _ip(lines: list[str], *, inside: list[str] | None = None) -> None:
    _command([*(inside or []), "ip", "-batch", "-"], "\n".join(lines))


def _cable(port: str, bridge: str, card: str, pid: int, mac: str = "") -> list[str]:
    address = f" address {mac}" if mac else ""
    return [
        f"link add name {port} type veth peer name {card}{address} netns {pid}",
        f"link set {port} master {bridge} up",
    ]


async def run(ground: Path, logs: Path) -> None:
    """Serve until standard input ends. GROUND/disks is a file system that goes with the world."""
    with contextlib.suppress(OSError):
        # The steps of a power cut are one moment, also on a busy machine. Children are ordinary.
        policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(1))
    mains = Mains(logs, ground / "disks")
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, mains.reap)
    mains.make_bridges()
    kernel.mount(str(ground / "etc_hosts"), "/etc/hosts", flags=kernel.MS_BIND)
    kernel.mount("tmpfs", str(ground / "disks"), "tmpfs", data="mode=0755")
    ended = asyncio.Event()
    loop.add_reader(0, ended.set)
    server = await asyncio.start_unix_server(mains.serve, ground / "mains")
    async with server:
        watch = loop.create_task(mains.watch.run())
        await ended.wait()
        watch.cancel()
    os._exit(0)  # as PID 1: the kernel kills the rest


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2])))
