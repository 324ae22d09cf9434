"""How many files the agent may have open: all resources may hang, and a manager is still served."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from halo.remote.descriptors import WANTED
from tests.unit.remote_helpers import AgentProcess


class Limited(AgentProcess):
    """Started with the usual limit, and with this one as the highest."""

    hard = WANTED

    def command(self, *extra: str) -> list[str]:
        limit = f'ulimit -S -n 1024; ulimit -H -n {self.hard}; exec "$0" "$@"'
        return ["/bin/bash", "-c", limit, *super().command(*extra)]


@pytest.mark.parametrize("hard", [WANTED, 2000])
async def test_the_limit_is_raised_as_far_as_it_may_be(tmp_path: Path, hard: int) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < WANTED:
        pytest.skip("this machine allows too few open files")
    agent = Limited(tmp_path)
    agent.hard = hard
    try:
        await agent.start()
        assert resource.prlimit(agent.pid, resource.RLIMIT_NOFILE) == (hard, hard)
        is_told = "few open files are allowed" in agent.log.read_text()
        assert is_told is (hard < WANTED)
    finally:
        agent.kill()
