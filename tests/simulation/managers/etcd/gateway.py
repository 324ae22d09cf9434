"""The way from one manager to the members of the simulated etcd, with all its faults.

The real :class:`halo.adapters.etcd.client.EtcdClient` runs over it: it tries again at another
member, and decides what an error means. A request that has left its manager goes on without it. It
may be carried out after its manager gave up, asked another member, or ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from halo.adapters.etcd.errors import EtcdError, LeaseGone, NoAnswer
from halo.adapters.etcd.gateway import Gateway
from halo.adapters.etcd.values import Json
from tests.simulation.loop import Clock, VirtualLoop
from tests.simulation.managers.etcd.store import LOCATION, SimStore

Sent = tuple[float, float]
"""When a request was sent: by the clock of its machine, and in true time."""

LONGEST_S = 7.0
"""A member gives a request up after so long, and may have carried it out all the same."""


@dataclass
class Ways:
    """The network between managers and members, and how it behaves now."""

    clock: Clock
    random: Random
    store: SimStore
    cut: set[tuple[str, int]] = field(default_factory=set)  # manager, member: nothing gets through
    down: set[int] = field(default_factory=set)  # members that do not run
    slow_s: dict[int, float] = field(default_factory=dict)  # a member may take up to so long
    lost: float = 0.0  # the share of requests that do not arrive
    unanswered: float = 0.0  # the share of answers that do not arrive
    errors: float = 0.0  # the share of requests that are answered with an error

    def heal(self) -> None:
        """Everything works from now on."""
        self.cut.clear()
        self.down.clear()
        self.slow_s.clear()
        self.lost = self.unanswered = self.errors = 0.0
        self.store.regain_quorum()


class Request:
    """One request to one member."""

    def __init__(self, writer: Any, manager: str, path: str, body: Json) -> None:
        self.writer = writer
        self.manager = manager
        self.path = path
        self.body = body
        self.answer: asyncio.Future[Json] | None = None  # None: nobody waits any more


class SimGateway(Gateway):
    """The members as one process reaches them. `out` sends: at once, or when the machine that was
    stopped goes on. `asked` is told of each request, in the step that sends it; `heard` of each
    good answer, with what `asked` gave for its request."""

    def __init__(
        self,
        ways: Ways,
        loop: VirtualLoop,
        manager: str,
        writer: Any,
        out: Callable[[Callable[[], None]], None],
    ) -> None:
        # The base class would open connections.
        self._ways = ways
        self._loop = loop
        self._manager = manager
        self._writer = writer
        self._out = out
        self.asked: Callable[[str], Sent] = lambda _path: (0.0, 0.0)
        self.heard: Callable[[str, Sent], None] = lambda _path, _sent: None

    async def close(self) -> None:
        pass

    async def ask(
        self, member: str, path: str, body: Json, token: str | None, deadline_s: float
    ) -> Json:
        number = LOCATION.members.index(member)
        request = Request(self._writer, self._manager, path, body)
        request.answer = self._loop.create_future()
        if number in self._ways.down:
            await asyncio.sleep(0.001)
            raise NoAnswer("no connection: refused", unknown=False)
        sent = self.asked(path)
        self._out(lambda: self._leaves(request, number))
        try:
            async with asyncio.timeout(deadline_s):
                answer = await request.answer
            self.heard(path, sent)
            return answer
        except TimeoutError as error:
            raise NoAnswer(f"no answer within {deadline_s:.1f} s", unknown=True) from error
        finally:
            request.answer = None

    def lines(
        self, member: str, path: str, body: Json, token: str | None, deadline_s: float
    ) -> AsyncIterator[Json]:
        number = LOCATION.members.index(member)
        return _Lines(self._ways, self._loop, self._manager, number, body, deadline_s)

    # --- on its way --------------------------------------------------------------------------

    def _leaves(self, request: Request, member: int) -> None:
        if self._ways.random.random() >= self._ways.lost:
            self._ways.clock.after(self._latency(), self._arrives, request, member)

    def _latency(self) -> float:
        return self._ways.random.uniform(0.0002, 0.002)

    def _arrives(self, request: Request, member: int) -> None:
        ways = self._ways
        if (request.manager, member) in ways.cut or member in ways.down:
            return
        slow_s = ways.random.uniform(0.0, ways.slow_s.get(member, 0.0))
        commit_s = ways.random.uniform(0.0005, 0.008) + slow_s
        if ways.random.random() < ways.errors:
            if ways.random.random() < 0.5:
                does = self._renew if request.path == "lease/keepalive" else self._carry_out
                ways.clock.after(commit_s, does, request, member)
            error = NoAnswer("etcdserver: request timed out", unknown=True)
            self._send_back(request, member, error)
        elif request.path == "lease/keepalive":
            ways.clock.after(slow_s, self._renew, request, member)
        elif member == ways.store.deposed or not ways.store.has_quorum:
            ways.store.park(lambda: self._carry_out(request, member))
        elif commit_s < LONGEST_S:
            ways.clock.after(commit_s, self._carry_out, request, member)

    def _renew(self, request: Request, member: int) -> None:
        store = self._ways.store
        if member == store.deposed:
            answer = store.confirm_in_vain(request.body)
        elif store.has_quorum or store.renews_alone():
            answer = store.keep_alive(request.body)
        else:
            return
        self._send_back(request, member, answer)

    def _carry_out(self, request: Request, member: int) -> None:
        store = self._ways.store
        if not store.has_quorum:
            store.park(lambda: self._carry_out(request, member))
            return
        answer: Json | EtcdError
        match request.path:
            case "kv/range":
                answer = store.range(request.body)
            case "kv/txn":
                try:
                    answer = store.txn(request.writer, request.body)
                except LeaseGone as error:
                    answer = error
            case "lease/grant":
                answer = store.grant(request.body)
            case "lease/timetolive":
                answer = store.time_to_live(request.body)
            case "lease/revoke":
                answer = store.revoke(request.writer, request.body) or LeaseGone("not found")
            case path:
                raise AssertionError(f"HALO asks for {path}, which this etcd does not have")
        self._send_back(request, member, answer)

    def _send_back(self, request: Request, member: int, answer: Json | EtcdError) -> None:
        if self._ways.random.random() >= self._ways.unanswered:
            self._ways.clock.after(self._latency(), self._comes_back, request, member, answer)

    def _comes_back(self, request: Request, member: int, answer: Json | EtcdError) -> None:
        if (request.manager, member) in self._ways.cut:
            return
        waiter = request.answer
        if waiter is None or waiter.done():
            return
        if isinstance(answer, EtcdError):
            waiter.set_exception(answer)
        else:
            waiter.set_result(answer)


class _Lines:
    """The lines of one watch: one event at most, which is all that the client waits for."""

    def __init__(
        self,
        ways: Ways,
        loop: VirtualLoop,
        manager: str,
        member: int,
        body: Json,
        deadline_s: float,
    ) -> None:
        self._ways = ways
        self._where = (manager, member)
        self._body = body["create_request"]
        self._deadline_s = deadline_s
        self._came: asyncio.Future[None] = loop.create_future()

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> Json:
        key = SimStore.text(self._body["key"])
        self._ways.store.watch(key, int(self._body["start_revision"]), self._event)
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._came
        except TimeoutError as error:
            raise NoAnswer("nothing came", unknown=True) from error
        return {"result": {"events": [{}]}}

    def _event(self) -> None:
        self._ways.clock.after(self._ways.random.uniform(0.001, 0.01), self._arrives)

    def _arrives(self) -> None:
        manager, member = self._where
        silent = member in self._ways.down or member == self._ways.store.deposed
        if not silent and (manager, member) not in self._ways.cut and not self._came.done():
            self._came.set_result(None)
