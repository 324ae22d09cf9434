"""Whatever an agent says or does, it costs the manager that host alone (S10)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.hostile.agent_behaviours import BEHAVIOURS
from tests.hostile.company import HONEST, SEED, Company, company_arguments
from tests.integration.conftest import MakeCluster, make_cluster  # noqa: F401  # a fixture

WAVE = 16
PARTS = 2


def waves(part: int) -> Iterator[list[str]]:
    """Every PARTS-th behaviour, in waves; who meets whom is the seed's affair.

    Those that pass for an agent of `operation` alone come last: where the next agent of their host
    is slow to greet, as it may be on a busy machine, it passes for such a one, too."""
    names = list(BEHAVIOURS)
    random.Random(SEED).shuffle(names)
    names = sorted(names[part::PARTS], key=passes_for_legacy)
    for first in range(0, len(names), WAVE):
        yield names[first : first + WAVE]


def passes_for_legacy(name: str) -> bool:
    return any(word in name for word in ("operation", "legacy", "unimplemented_hello"))


def test_there_are_more_than_fifty_behaviours() -> None:
    assert len(BEHAVIOURS) > 150
    assert sum(len(wave) for part in range(PARTS) for wave in waves(part)) == len(BEHAVIOURS)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(PARTS))
async def test_no_agent_harms_the_manager_or_other_hosts(
    make_cluster: MakeCluster,  # noqa: F811  # the fixture above
    part: int,
) -> None:
    rogues = [f"r{n:02}" for n in range(WAVE)]
    cluster = make_cluster(**company_arguments(rogues))
    cluster.environment["HALO_LOG"] = "info"
    company = Company(cluster, rogues, SEED)
    try:
        await company.start()
        for names in waves(part):
            wave = await company.endure(names, seconds=1.5)
            print(wave)
            assert not wave.problems, "\n".join([str(wave), *wave.problems])
        for group in HONEST:
            cluster.break_resource(group)
        await cluster.until_true(
            lambda: all(cluster.count(g, "start") == 2 for g in HONEST), "honest groups restarted"
        )
        await cluster.until({g: f"Running on {h}" for g, h in HONEST.items()})
    finally:
        await company.close()
