"""Fixtures: a cluster of real processes for each test, checked when the test ends."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from tests.integration.cluster import ClusterHarness
from tests.integration.telling import QUICK_MONITORS


class MakeCluster(Protocol):
    """Makes a cluster that is not started yet; takes the arguments of ClusterHarness but its name.

    A second cluster of the same test needs another `suffix`.
    """

    def __call__(self, *, suffix: str = "", **arguments: Any) -> ClusterHarness: ...


@pytest.fixture
async def make_cluster(request: pytest.FixtureRequest) -> AsyncIterator[MakeCluster]:
    """A factory of clusters; each is ended and checked after the test."""
    made: list[ClusterHarness] = []
    module = request.node.module.__name__.rsplit(".", 1)[-1].removeprefix("test_")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", f"{module}.{request.node.name.removeprefix('test_')}")

    def make(*, suffix: str = "", **arguments: Any) -> ClusterHarness:
        cluster = ClusterHarness(f"{name}{suffix}".strip("_"), **arguments)
        made.append(cluster)
        return cluster

    yield make
    problems = []
    for cluster in made:
        try:
            await cluster.finish()
        except AssertionError as error:
            problems.append(str(error))
    if problems:
        pytest.fail("\n\n".join(problems), pytrace=False)


@pytest.fixture
def cluster(make_cluster: MakeCluster) -> ClusterHarness:
    """Two hosts in a pair, g1 at home on h1 and g2 on h2, not started yet."""
    return make_cluster()


@pytest.fixture
def quick(make_cluster: MakeCluster) -> ClusterHarness:
    """Like `cluster`, monitored five times a second."""
    return make_cluster(flags=QUICK_MONITORS)
