"""What all tests share."""

from __future__ import annotations

import gc

import pytest
from hypothesis import HealthCheck, settings

# How fast examples come is the machine's affair: two slow cores with four workers on them are
# no reason to fail.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests begin first: begun last, one alone keeps everybody waiting for minutes."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """What is there now stays: the collector need not look at it again and again.

    It is the modules and thousands of tests, more by far than most tests make; without this the
    simulations take half as long again."""
    gc.collect()
    gc.freeze()
