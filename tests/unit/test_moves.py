"""Planned moves on the whole manager: taken back, asked for at a bad moment, given up."""

from __future__ import annotations

import asyncio

from .fence_bench import Bench, virtual


async def of_g(bench: Bench, command: str, to: str | None = None) -> str:
    return await bench.manager.operations.group_command("g", command, to=to, comment=None)


def target(bench: Bench) -> str | None:
    return bench.state.remembered.group("g").move_target


@virtual
async def test_a_move_that_is_taken_back_has_an_end() -> None:
    bench = Bench()
    await bench.up()
    await of_g(bench, "move", "h2")
    await bench.until(lambda: target(bench) is None and "g" in bench.agents["h2"].up)
    assert bench.events.count("moved g") == 1
    await of_g(bench, "move", "h1")
    await of_g(bench, "move", "h2")
    await bench.until(lambda: target(bench) is None)
    assert bench.events[-3:] == ["move g", "move g", "moved g"]
    assert bench.state.groups["g"].managed_on == "h2"
    assert ("g" in bench.agents["h1"].up, "g" in bench.agents["h2"].up) == (False, True)


@virtual
async def test_a_move_right_after_a_cleanup_waits_for_the_look_that_it_asked_for() -> None:
    bench = Bench()
    await bench.up()
    for agent in bench.agents.values():
        agent.latency_s = 0.5
    await of_g(bench, "cleanup")
    assert "g is moving to h2" in await of_g(bench, "move", "h2")
    await bench.until(lambda: "g" in bench.agents["h2"].up)


@virtual
async def test_a_move_of_a_group_that_can_start_nowhere_is_given_up() -> None:
    bench = Bench(levels=())  # nobody can fence h1
    await bench.up()
    await of_g(bench, "stop")
    await bench.until(lambda: "g" not in bench.agents["h1"].up)
    bench.lose()
    await bench.until(lambda: bench.h1.lost_at is not None)
    await of_g(bench, "start")
    await of_g(bench, "move", "h2")
    await bench.until(lambda: "move-failed g" in bench.events, 20.0)
    assert target(bench) is None
    await asyncio.sleep(60.0)
    assert "g" not in bench.agents["h2"].up
