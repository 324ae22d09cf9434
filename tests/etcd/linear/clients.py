"""Clients that talk to the sockets of all managers at once, and write down what they were told."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from tests.etcd.linear.history import CLUSTER, Call, History, Look
from tests.etcd.several import Managers
from tests.integration.processes import is_alive

LEADER = "X-Halo-Leader"
PATIENCE_S = 120.0
CLIENTS_OF_A_NODE = 2
"""Each client stays with one manager: while that one stands still, others go on."""
_ORDERS = ("start", "stop", "start", "stop", "manage", "unmanage", "freeze", "thaw", "thaw")
_LOOKS = 0.45


class Clients:
    """Some clients; :meth:`run` them. `history` is where everything is written down."""

    def __init__(self, cluster: Managers, nodes: tuple[str, ...], chance: random.Random) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._chance = chance
        self._ids = itertools.count(1)
        self.answered = 0
        self.history: History | None = None
        self.nameless: list[str] = []
        """Answers that should have named the leader, and did not."""

    async def run(self, until: asyncio.Event) -> None:
        """Ask and command until the event, and then until all answers are there."""
        async with asyncio.TaskGroup() as group:
            for node in CLIENTS_OF_A_NODE * self._nodes:
                group.create_task(self._client(node, until))

    async def _client(self, node: str, until: asyncio.Event) -> None:
        while not until.is_set():
            if self._chance.random() < _LOOKS:
                await self.look(node)
            else:
                await self._command(node)
            await asyncio.sleep(self._chance.uniform(0.01, 0.1))

    async def more(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        wanted, ends = self.answered + count, time.monotonic() + PATIENCE_S
        while self.answered < wanted:
            assert time.monotonic() < ends, "the clients get no answers"
            await asyncio.sleep(0.02)

    async def look(self, node: str) -> Look | None:
        """The status, as this manager gives it. None: it gives none."""
        called = time.monotonic()
        code, answer = await self._ask(node, "GET", "/v1/status", None)
        returned = time.monotonic()
        found = None
        if code == 200:
            found = Look.of(node, called, returned, answer)
        elif known := answer.get("known"):
            age_s = time.time() - known["as_of"]
            found = Look.of_known(node, time.monotonic() - age_s, returned, known)
        if found is not None and self.history is not None:
            self.history.looks.append(found)
        return found if code == 200 else None

    async def _command(self, node: str) -> None:
        name, id = self._chance.choice(_ORDERS), f"c{next(self._ids)}"
        target = CLUSTER
        method, path = "POST", "/v1/cluster"
        body: dict[str, object] = {"command": name, "comment": id}
        if name not in ("freeze", "thaw"):
            target = self._chance.choice(sorted(self._cluster.groups))
            path = f"/v1/groups/{target}"
        if name in ("manage", "unmanage"):
            method, path = "PATCH", f"/v1/resources/{target}"
            body = {"managed": name == "manage", "comment": id}
        called = time.monotonic()
        code, answer = await self._ask(node, method, path, body)
        text = str(answer.get("message", answer.get("error", "")))
        if code is not None and self.history is not None:
            call = Call(node, name, target, id, called, time.monotonic(), code, text)
            self.history.calls.append(call)

    async def _ask(
        self, node: str, method: str, path: str, body: Mapping[str, Any] | None
    ) -> tuple[int | None, dict[str, Any]]:
        """Status and answer; 0: no answer came; None: nobody was there who could be asked."""
        connector = aiohttp.UnixConnector(self._cluster.socket_of(node))
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(method, f"http://halo{path}", json=body) as response,
            ):
                answer = json.loads(await response.read())
        except aiohttp.ClientConnectorError:
            return None, {}
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return 0, {"error": repr(error)}
        self.answered += 1
        if response.status == 200 and path != "/v1/managers" and LEADER not in response.headers:
            self.nameless.append(f"{method} {path} by {node}")
        return response.status, dict(answer)

    # What the rounds need besides ----------------------------------------------------------------

    async def leader(self, but_not: int | None = None) -> str:
        """Wait until the managers name a leader, but not the process with this pid; its id."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            for node in self._nodes:
                if self._cluster.of[node].pid == but_not:
                    continue  # it may stand still
                _, table = await self._ask(node, "GET", "/v1/managers", None)
                rows = [row for row in table.get("managers", ()) if row["id"] == table["leader"]]
                if rows and rows[0]["pid"] != but_not:
                    return str(rows[0]["id"])
            await asyncio.sleep(0.05)
        raise AssertionError(f"nobody leads but the process {but_not}")

    async def look_everywhere(self) -> Look:
        """Wait until every manager shows the status; the last one."""
        ends = time.monotonic() + PATIENCE_S
        found = None
        for node in self._nodes:
            while (found := await self.look(node)) is None:
                assert time.monotonic() < ends, f"manager {node} shows no status"
                await asyncio.sleep(0.1)
        assert found is not None
        return found

    async def step_down(self, node: str, leader: int) -> None:
        """Have the leader give the leadership back, until this process has ended."""
        ends = time.monotonic() + PATIENCE_S
        while is_alive(leader):
            assert time.monotonic() < ends, "the leader does not step down"
            await self._ask(node, "POST", "/v1/managers", {"command": "step-down"})
            await asyncio.sleep(0.1)

    async def burst(self, node: str, ended: asyncio.Event) -> None:
        """Ask one manager as often as it answers, until the event."""
        while not ended.is_set():
            await asyncio.gather(self.look(node), self._command(node))
            await asyncio.sleep(0.005)  # it may have ended, and not be back
