"""Starts at a time on one host, on the whole manager: who is told that a start is over."""

from __future__ import annotations

from typing import Any

from halo.core.model import Company
from tests.core.builders import make_group

from .fence_bench import Bench, virtual

HOUR_S = 3600.0


async def one_at_a_time(**options: Any) -> Bench:
    """a and b run on h2. No monitor comes within the hour that would wake a group by chance."""
    groups = [make_group("a", ("h2", "h1")), make_group("b", ("h2", "h1"), **options)]
    bench = Bench(groups=groups, max_starts=1, monitor_interval_s=HOUR_S)
    await bench.until(lambda: bench.agents["h2"].up == {"a", "b"})
    bench.agents["h1"].script_s = 0.5
    return bench


async def moves(bench: Bench, group: str) -> None:
    await bench.manager.operations.group_command(group, "move", to="h1", comment="x")


@virtual
async def test_the_next_move_begins_when_a_start_is_over() -> None:
    bench = await one_at_a_time()
    await moves(bench, "a")
    await moves(bench, "b")
    await bench.until(lambda: bench.agents["h1"].up == {"a", "b"}, within_s=10.0)


@virtual
async def test_a_group_follows_its_company_when_the_start_of_that_is_over() -> None:
    bench = await one_at_a_time(company=Company(together_with=("a",)))
    await moves(bench, "a")
    await bench.until(lambda: bench.agents["h1"].up == {"a", "b"}, within_s=10.0)
