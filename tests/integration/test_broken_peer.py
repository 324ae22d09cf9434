"""One broken host is its own trouble: the manager lives, and manages the others."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.integration.cluster import ClusterHarness, group
from tests.integration.conftest import MakeCluster
from tests.unit import raw_frames as raw
from tests.unit.test_rogue_wire import NO_TEXT, RogueAgent, refused

ROUNDS = 3
LINES_AT_MOST = 150


class Rogue(RogueAgent):
    """Counts how often it was asked what it answers wrongly."""

    def __init__(self, method: str, answer: object) -> None:
        super().__init__(method, answer)  # type: ignore[arg-type]  # wrong on purpose
        self.asked = 0

    def _answer(self, heard: raw.Heard) -> bytes:
        self.asked += heard.kind == "call" and heard.method == self.method
        if heard.method == "hello" and self.method == "run":
            return raw.welcome(heard.question, features=["run"])  # each monitor is a `run` then
        return super()._answer(heard)


def no_text(heard: raw.Heard) -> bytes:
    return raw.exception(heard.question, NO_TEXT, trace=NO_TEXT)


def megabytes(heard: raw.Heard) -> bytes:
    return raw.exception(heard.question, b"x" * 30_000_000)


async def begun(cluster: ClusterHarness, rogue: Rogue) -> asyncio.Server:
    """The cluster runs with a rogue in the place of h1's agent."""
    server = await asyncio.start_server(rogue.serve, "127.0.0.1", cluster.ports["h1"])
    cluster.boot("h2")
    cluster.start_manager()
    await cluster.until(g2="Running on h2")
    return server


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("hello", no_text),
        ("heartbeat", no_text),
        ("watch", no_text),
        ("watch", refused(NO_TEXT)),
        ("watch", megabytes),
        ("monitorMany", no_text),
        ("run", no_text),
    ],
)
async def test_what_an_agent_answers_is_its_hosts_trouble_alone(
    make_cluster: MakeCluster, method: str, answer: object
) -> None:
    groups = [
        group("g1", home="h1", failover=[]),
        group("g3", home="h1", failover=[]),
        group("g2", home="h2", failover=[]),
    ]
    cluster = make_cluster(
        groups=groups, settings={"watch_interval": 0.5, "digest_interval": 0.5}, suffix=method
    )
    rogue = Rogue(method, answer)
    server = await begun(cluster, rogue)
    try:
        # A watch is asked for again after ten seconds, the others at once.
        rounds = 1 if method == "watch" else ROUNDS
        await cluster.until_true(lambda: rogue.asked >= rounds, f"{method} was asked")
        cluster.break_resource("g2")
        await cluster.until_true(lambda: cluster.count("g2", "start") == 2, "g2 starts again")
        await cluster.until(g2="Running on h2")
        status = await cluster.status()
        assert len(json.dumps(status)) < 50_000
        log = (cluster.folder / "manager_log").read_text()
        assert len(log) < 200_000
        assert len(log.splitlines()) < LINES_AT_MOST
        assert "fencing" not in log
    finally:
        server.close()
