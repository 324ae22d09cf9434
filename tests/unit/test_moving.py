"""The mark of a planned move: it ends when the group runs, is stopped, or is looked at afresh."""

from __future__ import annotations

from tests.unit.fence_bench import Bench
from tests.unit.virtual_time import run


def test_a_cleanup_ends_the_mark_of_a_move() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.up()
        bench.state.groups["g"].moving = True
        await bench.manager.operations.group_command("g", "cleanup", to=None, comment="x")
        assert not bench.state.groups["g"].moving

    run(body())


def test_a_stop_by_request_ends_it_too() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.up()
        await bench.manager.operations.group_command("g", "stop", to=None, comment="x")
        await bench.until(lambda: bench.agents["h1"].up == set())
        await bench.until(lambda: bench.state.groups["g"].managed_on is None)
        bench.state.groups["g"].moving = True
        bench.manager.placer.changed(["g"])
        await bench.until(lambda: not bench.state.groups["g"].moving, within_s=1.0)

    run(body())


def test_a_move_that_arrives_ends_it() -> None:
    async def body() -> None:
        bench = Bench()
        await bench.up()
        await bench.manager.operations.group_command("g", "move", to="h2", comment="x")
        await bench.until(lambda: "g" in bench.agents["h2"].up)
        await bench.until(lambda: not bench.state.groups["g"].moving, within_s=1.0)

    run(body())
