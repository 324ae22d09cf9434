"""Two minutes of chaos; `make chaos` runs as much of it as one likes."""

from __future__ import annotations

import os

import pytest

from tests.hosts.chaos.run import Chaos

MINUTES = 2


@pytest.mark.long
@pytest.mark.timeout(900)  # two minutes of faults, and all that is before and after, on slow cores
def test_chaos_breaks_nothing(name: str) -> None:
    chaos = Chaos(int(os.environ.get("HALO_CHAOS_SEED", "1")), MINUTES * 60, name)
    problems = chaos.run()
    assert not problems, "\n".join([*problems, f"logs: {chaos.world.logs}"])
