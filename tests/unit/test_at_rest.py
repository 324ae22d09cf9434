"""Whether a group that is to stay stopped is known to be so: what a removed group is judged by."""

from __future__ import annotations

import asyncio

from halo.core.journal.records import Event

from .fence_bench import Bench, virtual


def said(bench: Bench) -> int:
    return sum('"at-rest"' in text for text in bench.disk.texts)


async def stop_g(bench: Bench) -> None:
    await bench.up()
    await bench.manager.operations.group_command("g", "stop", to=None, comment="why")
    await bench.until(lambda: bench.state.remembered.group("g").at_rest)


@virtual
async def test_a_stop_that_reached_its_end_is_written_down_once() -> None:
    bench = Bench()
    await stop_g(bench)
    assert bench.agents["h1"].up == set()
    await asyncio.sleep(60.0)
    assert said(bench) == 1


@virtual
async def test_while_a_candidate_is_out_of_sight_it_is_not_known() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet("two-of-h2").off_fails = "login refused"
    bench.agents["h2"].fall_silent()
    await bench.until(lambda: not bench.state.hosts["h2"].connected)
    await bench.manager.operations.group_command("g", "stop", to=None, comment="why")
    await bench.until(lambda: "g" not in bench.agents["h1"].up)
    await asyncio.sleep(60.0)
    assert not bench.state.remembered.group("g").at_rest


@virtual
async def test_one_that_is_started_by_hand_is_not_at_rest_until_it_is_stopped_again() -> None:
    bench = Bench()
    await stop_g(bench)
    bench.agents["h2"].up.add("g")
    await bench.until(lambda: said(bench) == 3)  # known, not known, known again
    assert bench.state.remembered.group("g").at_rest
    assert "g" not in bench.agents["h2"].up


@virtual
async def test_the_config_is_written_down_before_anything_else() -> None:
    bench = Bench()
    await bench.up()
    assert f'"event": "{Event.CONFIG}"' in bench.disk.texts[0]
    assert bench.state.remembered.configured == {"g": ("h1", "h2"), "k": ("h2", "h1")}
