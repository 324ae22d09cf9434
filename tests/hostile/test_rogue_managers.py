"""Whatever a manager says or does, the agent lives, and serves an honest one (S10)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.agent_site import AgentSite, agent_site
from tests.hostile.company import SEED
from tests.hostile.manager_behaviours import BEHAVIOURS

PARTS = 2


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AgentSite]:
    with agent_site(tmp_path) as made:
        yield made


def test_there_are_more_than_a_hundred_behaviours() -> None:
    assert len(BEHAVIOURS) > 100


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
async def test_no_manager_harms_an_agent(site: AgentSite, part: int) -> None:
    await site.start()
    names = list(BEHAVIOURS)
    random.Random(SEED).shuffle(names)
    for name in names[part::PARTS]:
        problems = await site.endure(name, SEED)
        assert not problems, "\n".join([name, *problems, site.log_end()])
