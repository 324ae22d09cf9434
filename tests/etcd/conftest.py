"""One cluster of three members for all tests that break none of them, and prefixes of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo.adapters.etcd.location import Store
from tests.etcd.members import Members

_numbers = itertools.count()


@pytest.fixture(scope="session")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Members]:
    """Three members that no test may stop."""
    found = Members(tmp_path_factory.mktemp("members"))
    try:
        found.start()
        yield found
    finally:
        found.close()


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[Members]:
    """Three members of its own that run only once the test starts them."""
    folder = tmp_path / "members"
    folder.mkdir()
    found = Members(folder)
    try:
        yield found
    finally:
        found.close()


@pytest.fixture
def fragile(cold: Members) -> Members:
    """Three members of its own that the test may stop."""
    cold.start()
    return cold


@pytest.fixture
def store(members: Members) -> Store:
    """A store of its own for each test."""
    return members.store(f"/halo/test{next(_numbers)}")
