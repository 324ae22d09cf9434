"""Several managers in one process: each with its Unix socket, its port for the others, real TLS
files, and a standing that the test sets. What they would do is :class:`FakeOperations`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from halo.adapters.peers.exchange import PeerCalls
from halo.adapters.peers.identity import PeerIdentity
from halo.adapters.peers.port import (
    BACKLOG,
    GREETING,
    bind,
    certificate_refused,
    turned_away,
    why_not,
)
from halo.adapters.tls.files import TlsFiles
from halo.adapters.tls.listener import Refusals, TlsListener
from halo.adapters.unix_socket import UnixSite
from halo.cli.client import Answer, request
from halo.core.errors import LeadershipError
from halo.core.journal.remembered import Remembered
from halo.core.status.store import StoreSeen
from halo.manager.api.app import make_app, make_runner
from halo.manager.api.managers import Managers
from halo.manager.peers.connections import ConnectionBounds, Connections
from halo.manager.peers.forwarding import Forwarder
from halo.manager.peers.standby import make_not_leading_app, make_standby_app
from halo.ports import Known, Lead, ManagerSeen
from tests.certificates import BOTH, Authority
from tests.fakes.http_operations import FakeOperations

DEADLINE_S = 20.0


class FakeStanding:
    """What a test says of the managers."""

    def __init__(self, own_id: str) -> None:
        self.own_id = own_id
        self.term = 7
        self.seen: list[ManagerSeen] = []
        self.leads: str | None = None
        self.memory = Known(Remembered(), as_of=0.0, entries=0)
        self.etcd = StoreSeen()
        self.wrong: str | None = None
        self.lead: Lead | None = None
        self.age_s: float | None = 0.5
        self.stepped_down: list[str] = []

    def leader(self) -> ManagerSeen | None:
        return next((seen for seen in self.managers() if seen.id == self.leads), None)

    def managers(self) -> Sequence[ManagerSeen]:
        return [replace(seen, **_reading(seen.id == self.leads)) for seen in self.seen]

    def known(self) -> Known:
        return self.memory

    def store(self) -> StoreSeen:
        return self.etcd

    def trouble(self) -> str | None:
        return self.wrong

    def last_lead(self) -> Lead | None:
        return self.lead

    def seen_s_ago(self) -> float | None:
        return self.age_s

    async def step_down(self, why: str) -> None:
        self.stepped_down.append(why)


def _reading(leads: bool) -> dict[str, Any]:
    """How far a manager has read."""
    return {"entries": 12 if leads else 10, "leads": leads}


def manager(
    id: str, url: str | None = None, *, host: str = "localhost", observes: bool = False
) -> ManagerSeen:
    return ManagerSeen(id, host, 100, url, "1", 1000.0, 10, False, observes)


class FakeManager:
    """One manager. It leads if `operations` are given; otherwise it stands by."""

    def __init__(self, id: str, folder: Path, files: TlsFiles, **settings: object) -> None:
        self.standing = FakeStanding(id)
        self.operations = FakeOperations()
        self.socket = str(folder / f"{id}.socket")
        self.identity = PeerIdentity(files, frozenset(["oss00", "oss01"]))
        self.identity.managers = lambda: frozenset(["localhost"])
        self.calls = PeerCalls(self.identity)
        self.managers = Managers(self.standing, {"1": "mgmt1", "2": "mgmt2"})
        self.forwarder = Forwarder(self.standing, self.calls)
        bounds = settings.get("bounds")
        self.connections = Connections(
            GREETING, turned_away, bounds if isinstance(bounds, ConnectionBounds) else None
        )
        self.url = ""
        self._runners: list[web.AppRunner] = []
        self._site: UnixSite | None = None
        self._listener: TlsListener | None = None
        self.deposed: str | None = None
        """Why this manager, which led, cannot prove it any more."""

    def listen(self) -> None:
        """Open the port for the other managers."""
        sock = bind("127.0.0.1:0")
        self.url = f"https://localhost:{sock.getsockname()[1]}"
        self._listener = TlsListener(
            sock,
            self.identity,
            self.connections.protocol,
            Refusals(),
            BACKLOG,
            certificate_refused,
            why_not,
            self.connections.bounds.tls_shutdown_s,
        )

    async def lead(self) -> None:
        app = make_app(
            self.operations, managers=self.managers, require_leading=self._require_leading
        )
        self.connections.bound(app)
        runner = await self._run(app)
        self.connections.serve(runner)
        await self._open(runner)

    def _require_leading(self) -> None:
        if self.deposed is not None:
            raise LeadershipError(self.deposed)

    async def stand_by(self) -> None:
        refusing = make_not_leading_app(self.standing)
        self.connections.bound(refusing)
        self.connections.serve(await self._run(refusing))
        await self._open(await self._run(make_standby_app(self.managers, self.forwarder)))

    async def _run(self, app: web.Application) -> web.AppRunner:
        runner = make_runner(app)
        await runner.setup()
        self._runners.append(runner)
        return runner

    async def _open(self, runner: web.AppRunner) -> None:
        self._site = UnixSite(self.socket)
        await self._site.serve(runner)

    async def end(self) -> None:
        """As a killed manager: the port closes, and every connection breaks. Safe to repeat."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self.connections.close()
        if self._site is not None:
            await self._site.close()
            self._site = None
        self.operations.gate.set()
        for runner in self._runners:
            await runner.cleanup()
        self._runners.clear()

    async def ask(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        """What a client of this manager's socket gets."""
        return await asyncio.to_thread(
            request, self.socket, method, path, body, deadline_s=DEADLINE_S
        )


def peer_files(authority: Authority, file: str = "peer") -> TlsFiles:
    """The certificate of a manager on this machine."""
    return authority.issue(file, "localhost", usages=BOTH)


@asynccontextmanager
async def managers_in(
    folder: Path,
    authority: Authority,
    *ids: str,
    leader: str,
    bounds: ConnectionBounds | None = None,
) -> AsyncIterator[list[FakeManager]]:
    """Managers that see each other, one of which leads. They know 12 entries of the journal."""
    made = [
        FakeManager(id, folder, peer_files(authority, f"peer{id}"), bounds=bounds) for id in ids
    ]
    for each in made:
        each.listen()
    try:
        for each in made:
            each.standing.seen = [manager(other.standing.own_id, other.url) for other in made]
            each.standing.leads = leader
            await (each.lead() if each.standing.own_id == leader else each.stand_by())
        yield made
    finally:
        for each in made:
            await each.end()
