"""The connection to one agent: made, watched by heartbeats, lost, made again.

A link knows nothing of groups. It reports four things to its owner, in order and in plain calls:
up, down, alive (a sign of life while there is no connection) and lost (the silence became a
verdict). After `down`, it connects again only when :meth:`HostLink.release` is called. So no token
of the old connection can meet the new one. While it is stood down (the host is being fenced), it
only probes the agent, when the fence asks for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

import structlog

from halo.core.errors import LinkError, Loss, LossKind
from halo.core.fencing.answers import ProbeAnswer
from halo.core.hosts.losing_sight import ATTEMPTS_PER_BUDGET, LossDetector, heartbeat_period_s
from halo.core.model import Host, Settings
from halo.manager.common.concurrency_limit import ConcurrencyLimit
from halo.ports import AgentConnection, AgentConnector

log = structlog.get_logger("halo.link")

HEARTBEATS_IN_FLIGHT = 8
QUEUE_LOOK_S = 0.25
"""How soon to check an attempt again that waits for its turn. It is not judged meanwhile."""


class LinkOwner(Protocol):
    """The owner, which is told what happens on a link. No method may block or await."""

    def link_up(self, connection: AgentConnection) -> None: ...

    def link_down(self, loss: Loss) -> None: ...

    def link_alive(self, loss: Loss) -> None:
        """A host that is not connected gave an answer, such as a refusal."""
        ...

    def link_probed(self, loss: Loss | None) -> None:
        """A probe while stood down met a sign of life. None: the agent answered it."""
        ...

    def link_unheard(self) -> None: ...

    def link_missed(self, loss: Loss) -> None:
        """A connection attempt failed without a sign of life."""
        ...

    def link_answered(self, sent_at: float) -> None:
        """A heartbeat sent at `sent_at` was answered."""
        ...

    def link_suspect(self, since: float) -> None:
        """An answer is overdue. The silence began at `since`."""
        ...

    def link_lost(self, loss: Loss) -> None:
        """The silence became a verdict."""
        ...


class HostLink:
    """Keeps one connection to one agent, until cancelled."""

    def __init__(
        self,
        host: Host,
        connector: AgentConnector,
        settings: Settings,
        owner: LinkOwner,
        greetings: ConcurrencyLimit,
        grace_s: float = 0.0,
    ) -> None:
        self._host = host
        self._greetings = greetings
        self._connector = connector
        self._settings = settings
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._period_s = heartbeat_period_s(settings)
        # Two attempts must fit into a loss budget. Else the verdict waits for the end of a third.
        self._retry_s = min(
            settings.reconnect_interval_s, settings.loss_budget_s / ATTEMPTS_PER_BUDGET
        )
        self._detector = LossDetector(settings, self._loop.time(), grace_s)
        self._may_begin_at = self._loop.time()  # the first attempt is due then
        self._connection: AgentConnection | None = None
        self._pings: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()
        self._released.set()
        self._allowed = asyncio.Event()
        self._allowed.set()
        self._attempt: asyncio.Task[AgentConnection] | None = None
        self._attempt_ends_at = float("inf")
        self._is_queued = False  # the host accepted the attempt, which waits for its turn here
        self._declared_lost = False
        self._ended_by_us = False  # did we end the last connection?
        self._last_loss = Loss(LossKind.SILENT)  # of the last attempt
        self._defect: Exception | None = None

    @property
    def connection(self) -> AgentConnection | None:
        """The standing connection, if any."""
        return self._connection

    def release(self) -> None:
        """Every token of the old connection is home: connect again."""
        self._released.set()

    def stand_down(self) -> None:
        """Drop the connection, and do not connect until :meth:`resume`."""
        self._allowed.clear()
        if self._connection is not None:
            self._connection.close()
        if self._attempt is not None:
            self._attempt.cancel()

    def resume(self) -> None:
        """Connect again after :meth:`stand_down`. Silence is counted from now."""
        self._detector = LossDetector(self._settings, self._loop.time())
        self._may_begin_at = self._loop.time()
        self._declared_lost = False
        self._allowed.set()

    async def run(self) -> None:
        """Connect, watch, and connect again, until cancelled."""
        try:
            while True:
                await self._allowed.wait()
                await self._released.wait()
                began = self._loop.time()
                # The manager may have stood still since it began, or since a fence ended.
                self._detector.woke(began, self._may_begin_at)
                self._may_begin_at = float("inf")
                connection = await self._connect()
                if connection is not None:
                    await self._serve(connection)
                    if self._ended_by_us or self._loop.time() - began >= self._retry_s:
                        continue
                    # Else an agent that greets and then breaks off would keep us busy for ever.
                pause = self._retry_s - (self._loop.time() - began)
                await self._pause(max(pause, 0.01))
        finally:
            if self._connection is not None:
                self._connection.close()
            for task in self._pings:
                task.cancel()

    async def probe(self, deadline_s: float) -> ProbeAnswer:
        """While stood down: does the agent answer a fresh connection? (S3)"""
        try:
            connection = await self._connector.connect(self._host, deadline_s)
        except LinkError as error:
            kind = error.loss.kind
            if kind.proves_nothing:
                return ProbeAnswer.NOT_ASKED
            if kind.is_silence:
                self._owner.link_unheard()
            died = kind.is_closed_port and self._settings.fence_on_connection_close
            if kind.is_sign_of_life and not died:
                self._owner.link_probed(error.loss)
            if kind.is_closed_port:
                return ProbeAnswer.NONE if died else ProbeAnswer.CLOSED_PORT
            return ProbeAnswer.ANSWERS if kind.is_sign_of_life else ProbeAnswer.NONE
        connection.close()
        self._owner.link_probed(None)
        return ProbeAnswer.ANSWERS

    def ping(self) -> None:
        """Send an extra heartbeat now. `link_answered` is called when it is answered."""
        if self._connection is not None and not self._connection.identity.legacy:
            self._send_heartbeat(self._connection)

    # --- disconnected ------------------------------------------------------------------------

    async def _connect(self) -> AgentConnection | None:
        """One attempt. The silence is judged while it hangs, so that a verdict is never late."""
        deadline_s = min(self._settings.connect_timeout_s, self._settings.loss_budget_s / 2)
        self._attempt_ends_at = self._loop.time() + deadline_s
        self._detector.sent()
        connecting = self._connector.connect(self._host, deadline_s, self._turn)
        self._attempt = attempt = self._loop.create_task(connecting)
        try:
            while True:
                timeout = self._until_verdict()
                judged_at = self._loop.time() + timeout if timeout else float("inf")
                done, _ = await asyncio.wait({attempt}, timeout=timeout)
                self._detector.woke(self._loop.time(), min(judged_at, self._attempt_ends_at))
                if done:
                    break
                if not self._is_queued:
                    self._judge(Loss(LossKind.SILENT, "no answer to a connection attempt"))
            if attempt.cancelled():
                return None
            error = attempt.exception()
            if error is None:
                return attempt.result()
            if not isinstance(error, LinkError):
                raise error
            self._missed(error.loss)
            return None
        finally:
            if not attempt.done():
                attempt.cancel()
            elif not attempt.cancelled():
                attempt.exception()  # marks it as seen, although we end in the same turn
            self._attempt = None

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[float]:
        """A turn for the greeting. Gives the time that it waited; the host was not silent then."""
        asked_at, ends_at = self._loop.time(), self._attempt_ends_at
        self._is_queued, self._attempt_ends_at = True, float("inf")
        try:
            async with self._greetings.slot():
                waited_s = self._loop.time() - asked_at
                self._is_queued, self._attempt_ends_at = False, ends_at + waited_s
                self._detector.excuse(asked_at, asked_at + waited_s)
                yield waited_s
        finally:
            self._is_queued = False

    def _until_verdict(self) -> float | None:
        """How long until a hanging attempt could complete a verdict. None: it cannot."""
        if self._declared_lost:
            return None
        if self._is_queued:
            return QUEUE_LOOK_S  # by then the greeting may be under way
        left = self._detector.verdict_at() - self._loop.time()
        return None if left <= 0 else left + 0.001

    def _missed(self, loss: Loss) -> None:
        now = self._loop.time()
        self._last_loss = loss
        if loss.kind.proves_nothing:
            self._detector.begin_afresh(now)
            self._owner.link_missed(loss)
        elif loss.kind.is_silence:
            self._owner.link_missed(loss)
            self._judge(loss)
        elif loss.kind.is_closed_port and self._settings.fence_on_connection_close:
            self._owner.link_missed(loss)
            self._declare_lost(loss)
        else:
            self._detector.alive(now)
            self._declared_lost = False
            self._owner.link_alive(loss)

    def _judge(self, loss: Loss) -> None:
        now = self._loop.time()
        if self._detector.is_suspect(now, self._retry_s):
            self._owner.link_suspect(self._detector.silent_since)
        if self._detector.is_lost(now):
            self._declare_lost(loss)

    def _declare_lost(self, loss: Loss) -> None:
        if not self._declared_lost:
            self._declared_lost = True
            self._owner.link_suspect(min(self._detector.silent_since, self._loop.time()))
            self._owner.link_lost(loss)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next attempt. A verdict that is due meanwhile is not late."""
        left = self._until_verdict()
        if left is not None and left < seconds:
            await self._sleep(left)
            self._judge(self._last_loss)
            seconds -= left
        await self._sleep(seconds)

    async def _sleep(self, seconds: float) -> None:
        due = self._loop.time() + seconds
        await asyncio.sleep(seconds)
        self._detector.woke(self._loop.time(), due)

    # --- connected ---------------------------------------------------------------------------

    async def _serve(self, connection: AgentConnection) -> None:
        """Watch a connection until it ends."""
        if not self._allowed.is_set():
            connection.close()
            self._ended_by_us = True
            return
        self._connection = connection
        self._released.clear()
        self._declared_lost = False
        self._detector.alive(self._loop.time())
        self._owner.link_up(connection)
        loss = await self._watch(connection)
        if self._defect is not None:
            raise self._defect
        self._connection = None
        connection.close()
        for task in self._pings:
            task.cancel()
        if connection.identity.legacy:
            # It gave no sign of life that counts. Hosts that fall silent together must be noticed.
            self._detector.begin_afresh(self._loop.time())
        self._ended_by_us = loss.kind is LossKind.STALE
        self._owner.link_down(loss)
        self._after_loss(loss)

    def _after_loss(self, loss: Loss) -> None:
        """Decide what the end of a connection says of the host."""
        now = self._loop.time()
        if loss.kind.is_silence:
            self._judge(loss)
        elif loss.kind.is_closed_port and self._settings.fence_on_connection_close:
            self._declare_lost(loss)
        elif loss.kind is not LossKind.STALE:
            self._detector.alive(now)

    async def _watch(self, connection: AgentConnection) -> Loss:
        """Send heartbeats until the connection closes or the silence is a verdict."""
        closed = self._loop.create_task(connection.wait_closed())
        try:
            due = self._loop.time()
            while True:
                now = self._loop.time()
                if not connection.identity.legacy:
                    self._detector.woke(now, due)
                    if self._detector.is_lost(now):
                        return Loss(
                            LossKind.SILENT,
                            f"heartbeats unanswered for {now - self._detector.silent_since:.1f} s",
                        )
                    if self._detector.is_suspect(now, self._period_s):
                        self._owner.link_suspect(self._detector.silent_since)
                    self._send_heartbeat(connection)
                due = self._next_due(now)
                done, _ = await asyncio.wait({closed}, timeout=due - now)
                if done:
                    self._detector.woke(self._loop.time(), due)
                    return closed.result()
        finally:
            if not closed.done():
                closed.cancel()

    def _next_due(self, now: float) -> float:
        """The time of the next heartbeat, or of the verdict if that comes first."""
        due = now + self._period_s
        verdict = self._detector.verdict_at()
        return verdict if now < verdict < due else due

    def _send_heartbeat(self, connection: AgentConnection) -> None:
        self._detector.sent()
        if len(self._pings) >= HEARTBEATS_IN_FLIGHT:
            return
        task = self._loop.create_task(self._heartbeat(connection))
        self._pings.add(task)
        task.add_done_callback(self._pings.discard)

    async def _heartbeat(self, connection: AgentConnection) -> None:
        sent_at = self._loop.time()
        try:
            await connection.heartbeat()
        except LinkError:
            return  # the watcher notices the end by itself
        except Exception as error:  # our own fault, which must not look like the host's silence
            self._defect = error
            connection.close()
            return
        if connection is self._connection:
            self._detector.alive(self._loop.time())
            self._owner.link_answered(sent_at)
