"""A command right after one that has a group looked at afresh: it waits for the answers, and is not
refused for want of them."""

from __future__ import annotations

import pytest

from .fence_bench import Bench, virtual


@pytest.mark.parametrize("command", ["deactivate", "fence"])
def test_what_empties_a_host_waits_for_partners_that_are_being_looked_at(command: str) -> None:
    @virtual
    async def body() -> None:
        bench = Bench()
        await bench.up()
        bench.agents["h2"].latency_s = 0.5
        await bench.manager.operations.group_command("g", "cleanup", to=None, comment="x")
        await bench.command(command)
        await bench.until(lambda: "g" in bench.agents["h2"].up)

    body()
