"""What all tests on hosts share: the mark `hosts`, and root."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.hosts.world import require_namespaces

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Every test of this folder bears the mark `hosts`."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.hosts)


@pytest.fixture(autouse=True, scope="session")
def _root() -> None:
    require_namespaces()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name for the world of this test, and so for its folder of logs."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", request.node.name.removeprefix("test_")).strip("_")
