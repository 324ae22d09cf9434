"""Tests with one mutant: ``HALO_MUTANT=ID pytest -p tests.simulation.mutation.plugin tests/core``.

The same plugin notes what each test reaches, and leaves out the tests that do not reach a mutant.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.simulation.mutation import hook
from tests.simulation.mutation.marks import pack

# The same examples every time, none of them kept: a failure here is no news about HALO.
settings.register_profile(
    "mutation",
    database=None,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)

failed: list[str] = []
"""The tests that failed, or could not be collected."""

_chosen: dict[str, int] | None = None
_hits: bytearray | None = None
_tell: Callable[[Any], None] = print

if mutant := os.environ.get("HALO_MUTANT"):
    hook.install_mutant(mutant)


def watch(hits: bytearray, tell: Callable[[Any], None]) -> None:
    """Tell for each test which of the marks it sets."""
    global _hits, _tell
    _hits, _tell = hits, tell


def choose(tests: Sequence[str]) -> None:
    """Run only these, in this order."""
    global _chosen
    _chosen = {test: number for number, test in enumerate(tests)}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what is not chosen; what was reached until now was reached by an import."""
    if _chosen is not None:
        items[:] = [item for item in items if item.nodeid in _chosen]
        items.sort(key=lambda item: (_chosen or {})[item.nodeid])
    if _hits is not None:
        _tell({"imported": pack(_hits)})


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """One test, with its fixtures."""
    if _hits is not None:
        _hits[:] = bytes(len(_hits))
    yield
    if _hits is not None:
        _tell({"test": item.nodeid, "hits": pack(_hits)})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Which test found the mistake, and how long each takes."""
    if report.failed:
        failed.append(report.nodeid)
    if _hits is not None and report.when == "call":
        _tell({"took": report.nodeid, "s": round(report.duration, 4)})


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A mistake may break an import."""
    if report.failed:
        failed.append(report.nodeid)
