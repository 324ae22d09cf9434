"""Watching over the link: what is carried, who hears it, and peers that cannot."""

from __future__ import annotations

import pytest

from halo.adapters.rpc.event_loop import rpc_loop
from halo.core.errors import LinkError, LossKind
from halo.core.outcomes import (
    OperationResult,
    Outcome,
    ReportBatch,
    ReportedResult,
    WatchItem,
)
from tests.unit.remote_helpers import PATIENCE_S, resource
from tests.unit.test_rpc_link import MONITOR, START, Agent, link, old_agent, served


class Sink:
    """Keeps batches."""

    def __init__(self) -> None:
        self.batches: list[ReportBatch] = []
        self.answer: bool | None = True

    def wants_reports(self) -> bool:
        return True

    def report(self, batch: ReportBatch) -> bool:
        self.batches.append(batch)
        if self.answer is None:
            raise ZeroDivisionError
        return self.answer


async def test_a_watch_and_its_reports_arrive_as_they_were_sent() -> None:
    agent, sink = Agent(), Sink()
    items = [
        WatchItem(resource("a/B", {"x": "1", "y": "ä"}, id="root/leaf"), 2.5, 30.0),
        WatchItem(resource(id="r2"), 5.0, None),
    ]
    batch = ReportBatch(
        2**40,
        True,
        2**64 - 1,
        (
            ReportedResult("root/leaf", 3, OperationResult(Outcome.COMPLETED, 7, "no pool")),
            ReportedResult("r2", 0, OperationResult(Outcome.TIMED_OUT, message="late")),
            ReportedResult("r3", 0, OperationResult(Outcome.NOT_RUN, message="missing")),
        ),
    )
    async with rpc_loop(), served(agent) as host, link(host) as connection:
        assert connection.identity.features == {"run"}
        assert connection.identity.start_id == "start"
        await connection.watch(items, sink, 1.5)
        [(asked, digest_interval_s, term)] = agent.watches
        assert (digest_interval_s, term) == (1.5, 0)
        assert [(i.period_s, i.request.timeout_s, i.request.instance) for i in asked] == [
            (2.5, 30.0, "root/leaf"),
            (5.0, None, "r2"),
        ]
        assert asked[0].request.kind == "a/B"
        assert asked[0].request.operation is MONITOR
        assert asked[0].request.parameters == {"x": "1", "y": "ä"}
        assert await agent.observers[0].report(batch) is True
        assert sink.batches == [batch]
        for answer in (False, None):  # None: a defect of the manager is no acceptance
            sink.answer = answer
            assert await agent.observers[0].report(batch) is False


async def test_a_sink_hears_nothing_after_another_watch_or_the_end_of_the_connection() -> None:
    agent, first, second = Agent(), Sink(), Sink()
    batch = ReportBatch(1, False, 0, ())
    async with rpc_loop(), served(agent) as host, link(host) as connection:
        await connection.watch([], first, 1.0)
        await connection.watch([], second, 1.0)
        assert await agent.observers[0].report(batch) is False
        assert await agent.observers[1].report(batch) is True
        connection.close()
        assert await agent.observers[1].report(batch) is False
        with pytest.raises(LinkError) as caught:
            await connection.watch([], first, 1.0)
        assert caught.value.loss.kind is LossKind.STALE
    assert (len(first.batches), len(second.batches)) == (0, 1)


async def test_an_agent_that_refuses_to_watch_or_cannot_is_a_link_error() -> None:
    agent = Agent()
    agent.watch_refused = "too many"
    async with rpc_loop(), served(agent) as host, link(host) as connection:
        with pytest.raises(LinkError, match="too many") as caught:
            await connection.watch([], Sink(), 1.0)
        assert caught.value.loss.kind is LossKind.PROTOCOL
        await connection.heartbeat()
    async with rpc_loop(), old_agent() as host, link(host) as connection:
        assert connection.identity.features == frozenset()
        with pytest.raises(LinkError) as caught:
            await connection.watch([], Sink(), 1.0)
        assert caught.value.loss.kind is LossKind.PROTOCOL
        assert (await connection.operation(resource(), START, PATIENCE_S)).code == 0
