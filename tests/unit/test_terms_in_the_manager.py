"""The term in the manager: on every record, above all in the journal, and never from an agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from halo.core.errors import Loss, LossKind, StateError
from halo.core.journal.records import Event, Record
from tests.fakes.memory_medium import MemoryDisk

from .fence_bench import Bench
from .virtual_time import run


def a_disk_of(term: int) -> MemoryDisk:
    disk = MemoryDisk()
    disk.texts.append(json.dumps(Record(1.0, Event.FREEZE, "test", term=term).to_json()))
    disk.texts.append(json.dumps(Record(2.0, Event.THAW, "test", term=term).to_json()))
    return disk


def on_a_bench(test: Callable[[], Awaitable[None]]) -> None:
    async def body() -> None:
        await test()

    run(body())


async def ended(bench: Bench) -> None:
    bench.work.cancel()
    await asyncio.wait({bench.work})


def test_every_record_carries_the_term() -> None:
    async def test() -> None:
        disk = a_disk_of(4)
        bench = Bench(disk=disk, term=5)
        await bench.up()
        await bench.command("deactivate")
        await bench.manager._journal._compact()
        await bench.command("activate")
        await ended(bench)
        records = [json.loads(text) for text in disk.texts]
        assert records[0]["event"] == "snapshot"
        assert len(records) > 1
        assert [record["term"] for record in records] == [5] * len(records)
        assert records[0]["data"]["term"] == 5
        kept = {event["event"]: event.get("term") for event in records[0]["data"]["events"]}
        assert (kept["freeze"], kept["deactivate"]) == (4, 5)

    on_a_bench(test)


def test_a_single_manager_writes_no_term() -> None:
    async def test() -> None:
        disk = MemoryDisk()
        bench = Bench(disk=disk)
        await bench.up()
        await bench.command("deactivate")
        await ended(bench)
        assert len(disk.texts) > 3
        assert not any("term" in json.loads(text) for text in disk.texts)

    on_a_bench(test)


@pytest.mark.parametrize("term", [1, 6, 7])
def test_a_leadership_that_is_not_above_the_journal_does_not_begin(term: int) -> None:
    """Its records would be damage to the next leader."""

    async def test() -> None:
        with pytest.raises(StateError, match="halo store raise-term STORE --above 7"):
            Bench(disk=a_disk_of(7), term=term)

    on_a_bench(test)


def test_a_single_manager_goes_on_with_the_journal_of_leaders() -> None:
    async def test() -> None:
        bench = Bench(disk=a_disk_of(7))
        await bench.up()
        await ended(bench)

    on_a_bench(test)


def test_an_agent_that_names_a_higher_term_is_left_alone_and_changes_no_term() -> None:
    """Nothing is fenced and nothing is moved for it, the status says why, and the term stays."""

    async def test() -> None:
        disk = MemoryDisk()
        bench = Bench(disk=disk, term=5)
        await bench.up()
        why = "this agent served m2 with the higher term 9"
        agent = bench.agents["h1"]
        agent.refuses = LossKind.BUSY
        for connection in agent.standing:
            connection.end(Loss(LossKind.BUSY, why))
        await bench.until(lambda: not bench.state.hosts["h1"].connected)
        (shown,) = (h for h in bench.manager.operations.status()["hosts"] if h["id"] == "h1")
        assert why in json.dumps(shown)
        before = bench.loop.time()
        await bench.until(lambda: bench.loop.time() > before + 600, within_s=700)
        assert bench.switched == []
        assert (agent.up, bench.agents["h2"].up) == ({"g"}, {"k"})
        await bench.command("deactivate")
        assert {json.loads(text)["term"] for text in disk.texts} == {5}

    on_a_bench(test)
