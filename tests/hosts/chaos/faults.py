"""What befalls hosts, BMCs, resources, agents and the manager: each fault begins, and ends."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tests.hosts.bmc import PASSWORD, Powermand, Simulator
from tests.hosts.chaos.schedule import HOST_FAULTS, Act
from tests.hosts.chaos.site import CRASHES, PAIRS, Site
from tests.hosts.world import MANAGER

Pairs = list[tuple[str, str]]


class Skipped(Exception):
    """The act is not possible now; says why. Nothing was done."""


@dataclass
class Span:
    """When a host was at fault: the time of day; `ended` infinite while it is."""

    host: str
    kind: str
    begun: float
    ended: float = float("inf")


class Faults:
    """Does the acts of a plan that are faults. Safe to use from several threads."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._world = site.world
        self._lock = threading.Lock()
        self._frames: Counter[tuple[str, str]] = Counter()
        self._busy: set[str] = set()
        self.manager_is_dead = threading.Event()
        self.spans: list[Span] = []
        """The faults of hosts so far: what a fence may be for."""

    def of(self, act: Act) -> AbstractContextManager[str]:
        """The act as a context that begins and ends it; it gives what was done, in words.

        Raises Skipped on entering where it cannot begin.
        """
        if act.kind in HOST_FAULTS:
            return self._host_fault(act)
        verbs = {
            "BMC fault": self._bmc_fault,
            "resource crash": self._resource_crash,
            "agent kill": self._agent_kill,
            "manager kill": self._manager_kill,
            "manager cut off": self._manager_cut_off,
        }
        return verbs[act.kind](act)

    def is_at_fault(self, host: str) -> bool:
        """Whether a fault of the host is not over: nobody mends it before."""
        with self._lock:
            return any(span.host == host and span.ended > time.time() for span in self.spans)

    # --- hosts ---------------------------------------------------------------------------------

    @contextmanager
    def _host_fault(self, act: Act) -> Iterator[str]:
        host = self._host_of(act.target)
        partner = self._site.partner(host)
        if not self._world.is_alive(host):
            raise Skipped(f"{host} is dead already")
        if not act.anyhow:
            self._require_whole(host, partner)
        with self._span(act.kind, host), self._at_fault(act, host) as words:
            yield words

    def _host_of(self, target: str) -> str:
        """A host, or the one that runs a group."""
        if target not in self._site.homes:
            return target
        found = self._world.holders()[target]
        if not found:
            raise Skipped(f"{target} runs nowhere")
        return found[0]

    def _require_whole(self, *hosts: str) -> None:
        """A fault comes to a pair that has recovered from the one before."""
        status = {host["id"]: host for host in self._site.cluster.status().get("hosts", ())}
        for host in hosts:
            if self.is_at_fault(host):
                raise Skipped(f"{host} is at fault already")
            if not self._world.is_alive(host) or status.get(host, {}).get("fenced"):
                raise Skipped(f"{host} is not back yet")

    @contextmanager
    def _span(self, kind: str, *hosts: str) -> Iterator[None]:
        spans = [Span(host, kind, time.time()) for host in hosts]
        with self._lock:
            self.spans += spans
        try:
            yield
        finally:
            for span in spans:
                span.ended = time.time()

    def _at_fault(self, act: Act, host: str) -> AbstractContextManager[str]:
        match act.kind:
            case "partition":
                return self._partition(host, act.detail)
            case "agent hangs":
                return self._agent_hangs(host)
            case "power cut":
                self._world.cut_power(host)
                return contextlib.nullcontext(f"{host}: no power")
        self._world.crash(host)
        return contextlib.nullcontext(f"{host}: dead, while its BMC says on")

    @contextmanager
    def _partition(self, host: str, way: str) -> Iterator[str]:
        pairs: Pairs = []
        if way != "in":
            pairs.append((host, MANAGER))
        if way != "out":
            pairs.append((MANAGER, host))
        with self._dropped(pairs):
            yield f"{host}: cut off from the manager, {way}"

    @contextmanager
    def _dropped(self, pairs: Pairs) -> Iterator[None]:
        with self._lock:
            self._frames.update(pairs)
            self._world.cut_frames(pairs)
        try:
            yield
        finally:
            with self._lock:
                self._frames.subtract(pairs)
                free = [pair for pair in pairs if not self._frames[pair]]
                self._world.cut_frames(free, drop=False)

    @contextmanager
    def _agent_hangs(self, host: str) -> Iterator[str]:
        self._to_agent(host, "STOP")
        yield f"{host}: its agent is stopped"
        self._to_agent(host, "CONT")

    def _to_agent(self, host: str, name: str) -> None:
        code = f"pkill -{name} -f '[h]alo_remote --network'"  # not this shell itself
        with contextlib.suppress(AssertionError):  # the host died meanwhile
            self._world.run(host, "sh", "-c", code)

    @contextmanager
    def _agent_kill(self, act: Act) -> Iterator[str]:
        if not self._world.is_alive(act.target):
            raise Skipped(f"{act.target} is dead")
        self._to_agent(act.target, "KILL")
        yield f"{act.target}: its agent was killed"

    @contextmanager
    def _resource_crash(self, act: Act) -> Iterator[str]:
        host = self._host_of(act.target)
        try:
            done = self._world.run(host, "sh", "-c", CRASHES[act.detail])
        except AssertionError:
            raise Skipped(f"{host} died first") from None
        if done.code != 0:
            raise Skipped(f"{act.detail} does not run on {host}")
        yield f"{host}: {CRASHES[act.detail]}"

    # --- BMCs ----------------------------------------------------------------------------------

    @contextmanager
    def _bmc_fault(self, act: Act) -> Iterator[str]:
        host, fault = act.target, act.detail
        bmc = self._site.bmcs[host]
        if isinstance(bmc, Powermand):  # one in front of the whole pair
            bmc = self._site.bmcs[PAIRS[0].hosts[0]]
            fault = "gone" if fault == "password" else fault
        name = host if fault.startswith(("slow", "refuses", "stays")) else bmc.name
        with self._lock:
            if name in self._busy:
                raise Skipped(f"the BMC of {host} is faulty already")
            self._busy.add(name)
        try:
            with self._bmc_at_fault(bmc, host, fault):
                yield f"the BMC of {host}: {fault}"
        finally:
            with self._lock:
                self._busy.discard(name)

    @contextmanager
    def _bmc_at_fault(self, bmc: Simulator, host: str, fault: str) -> Iterator[None]:
        match fault:
            case "deaf":
                self._world.deaf(bmc.address)
                yield
                self._world.undeaf(bmc.address)
            case "gone":
                bmc.kill()
                yield
                bmc.start()
            case "hung":
                bmc.hang()
                yield
                bmc.wake()
            case "password":
                bmc.set_password("wr0ng")
                yield
                bmc.set_password(PASSWORD)
            case _:
                self._world.wire(host, fault=fault)
                yield
                self._world.wire(host)

    # --- the manager ---------------------------------------------------------------------------

    @contextmanager
    def _manager_kill(self, act: Act) -> Iterator[str]:
        self.manager_is_dead.set()
        self._world.signal("manager", signal.SIGKILL)
        yield "the manager: killed"
        self._site.cluster.start_manager()
        self.manager_is_dead.clear()

    @contextmanager
    def _manager_cut_off(self, act: Act) -> Iterator[str]:
        hosts = self._world.hosts
        pairs = [pair for host in hosts for pair in ((host, MANAGER), (MANAGER, host))]
        with self._span(act.kind, *hosts), self._dropped(pairs):
            yield "the manager: cut off from all hosts"
