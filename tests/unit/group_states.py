"""How a group is brought into each state that the status shows, and what makes it leave it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from halo.core.errors import LossKind
from halo.core.journal.records import Event, Record
from halo.core.model import LossPolicy, Operation
from halo.core.outcomes import OperationResult
from halo.manager.api.schemas import STATUSES
from tests.core.builders import GENERIC_ERROR, TIMED_OUT
from tests.fakes.memory_medium import MemoryDisk

from .diagrams import LOOK_S, Before, Cause, first, shown, table
from .fence_bench import Bench

HEADING = "A group"
ROWS = table(HEADING)
NAME = "a group is"
COLUMNS = {
    "managed": ("yes", "no"),
    "status": STATUSES,
    "wanted": ("started", "stopped"),
    "move_target": ("none", "a host"),
    "token": ("desk", "host"),
}


def named(words: dict[str, str]) -> str:
    """The first row that holds."""
    assert all(words[column] in known for column, known in COLUMNS.items()), words
    for row in ROWS:
        if all(row[c] == "any" or words[c] in row[c].split(", ") for c in COLUMNS):
            return row[NAME]
    return f"no row holds of {words}"


def state_of(bench: Bench) -> str:
    row = shown(bench, "groups", "g")
    return named(
        {
            "managed": "yes" if row["managed"] else "no",
            "status": row["status"],
            "wanted": row["wanted"],
            "move_target": "a host" if row["move_target"] else "none",
            "token": row["token"].split(" ")[0],
        }
    )


# --- how a state is reached ---------------------------------------------------------------------


def new(*records: tuple[Event, dict[str, Any]], runs_on: str = "") -> Before:
    """A manager starts on this journal of g; its agents answer half a second later."""

    async def begin() -> Bench:
        texts = [json.dumps(Record(1.0, e, "g", "x", data).to_json()) for e, data in records]
        bench = Bench(disk=MemoryDisk(texts))
        for name, agent in bench.agents.items():
            agent.latency_s = 0.5
            agent.up = {"g"} if name == runs_on else set()
        await asyncio.sleep(LOOK_S)
        return bench

    return begin


async def reached(bench: Bench, state: str) -> Bench:
    await first(bench, state_of, lambda found: found == state)
    return bench


async def of_g(bench: Bench, command: str, to: str | None = None) -> str:
    return await bench.manager.operations.group_command("g", command, to=to, comment="x")


async def at_home(**options: Any) -> Bench:
    bench = Bench(**options)
    await bench.up()
    for agent in bench.agents.values():
        agent.script_s = 0.2
    await asyncio.sleep(5.0)
    return await reached(bench, "running at home")


async def failed_over() -> Bench:
    bench = await at_home()
    await of_g(bench, "move", "h2")
    return await reached(bench, "failed over")


async def waiting() -> Bench:
    """For h1, which is lost and not fenced by itself."""
    bench = await at_home(on_loss=LossPolicy.WAIT)
    bench.lose()
    await bench.until(lambda: bench.h1.lost_at is not None)
    return await reached(bench, "waiting")


async def waiting_for_a_fence() -> Bench:
    bench = await at_home()
    bench.outlet().off_takes_s, bench.outlet().off_fails = 0.5, "broken"
    bench.lose()
    return await reached(bench, "waiting")


async def waiting_while_stopped() -> Bench:
    """Every candidate is deactivated: it stops on the one, and starts on none."""
    bench = await at_home()
    operations = bench.manager.operations
    await operations.host_command("h2", "deactivate", force=True, comment="x")
    await of_g(bench, "stop")
    await reached(bench, "stopped on request")
    await operations.host_command("h1", "deactivate", force=True, comment="x")
    await of_g(bench, "start")
    return await reached(bench, "waiting")


async def starting_at_home() -> Bench:
    bench = await stopped()
    await of_g(bench, "start")
    return await reached(bench, "starting")


async def starting_elsewhere() -> Bench:
    bench = await at_home()
    bench.lose()
    return await reached(bench, "starting")


async def starting_in_vain() -> Bench:
    bench = await stopped()
    bench.agents["h1"].fails[Operation.START] = GENERIC_ERROR
    await of_g(bench, "start")
    return await reached(bench, "starting")


async def restarted_once() -> Bench:
    bench = await at_home(restart_limit=1)
    await g_dies(bench)
    await reached(bench, "starting")
    return await reached(bench, "running at home")


async def moving() -> Bench:
    bench = await at_home()
    await of_g(bench, "move", "h2")
    return await reached(bench, "moving")


async def moving_home() -> Bench:
    bench = await failed_over()
    await of_g(bench, "move", "h1")
    return await reached(bench, "moving")


async def moving_in_vain() -> Bench:
    bench = await at_home()
    bench.agents["h2"].fails[Operation.START] = GENERIC_ERROR
    await of_g(bench, "move", "h2")
    return await reached(bench, "moving")


async def stopping() -> Bench:
    bench = await at_home()
    await of_g(bench, "stop")
    return await reached(bench, "stopping")


async def stopped() -> Bench:
    return await reached(await stopping(), "stopped on request")


async def nearly_stopped() -> Bench:
    """The stop has ended, and a monitor has to bear it out."""
    bench = await stopping()
    await bench.until(lambda: "g" not in bench.agents["h1"].up)
    await bench.until(lambda: shown(bench, "groups", "g")["status"] == "Unknown")
    return bench


async def error() -> Bench:
    """A stop failed on the way elsewhere."""
    bench = await moving()
    await FAILS_TO_STOP(bench)
    await reached(bench, "error")
    await asyncio.sleep(1.0)  # it is looked at once more
    return bench


async def stop_failed() -> Bench:
    bench = await stopping()
    await FAILS_TO_STOP(bench)
    return await reached(bench, "error")


async def start_failed() -> Bench:
    return await reached(await starting_in_vain(), "error")


async def monitor_failed() -> Bench:
    bench = await at_home()
    await fails("h1", Operation.MONITOR, TIMED_OUT)(bench)
    return await reached(bench, "error")


async def unmanaged() -> Bench:
    bench = await at_home()
    await it_is_unmanaged(bench)
    return await reached(bench, "unmanaged")


# --- causes -------------------------------------------------------------------------------------


def commanded(command: str, to: str | None = None) -> Cause:
    async def cause(bench: Bench) -> None:
        await of_g(bench, command, to)

    return cause


def of_h1(command: str) -> Cause:
    async def cause(bench: Bench) -> None:
        await bench.command(command)

    return cause


def fails(host: str, operation: Operation, result: OperationResult) -> Cause:
    async def cause(bench: Bench) -> None:
        bench.agents[host].fails[operation] = result

    return cause


async def nothing_fails(bench: Bench) -> None:
    bench.agents["h1"].fails.clear()


def out_of_sight(host: str) -> Cause:
    async def cause(bench: Bench) -> None:
        bench.agents[host].refuses = LossKind.REFUSED
        bench.agents[host].end(LossKind.RESET)

    return cause


async def it_is_unmanaged(bench: Bench) -> None:
    await bench.manager.operations.set_managed("g", managed=False, comment="x")


async def it_is_managed(bench: Bench) -> None:
    await bench.manager.operations.set_managed("g", managed=True, comment="x")


async def h1_answers(bench: Bench) -> None:
    bench.agents["h1"].speak_again()


async def g_dies(bench: Bench) -> None:
    for agent in bench.agents.values():
        agent.up.discard("g")


async def a_second_g_appears(bench: Bench) -> None:
    bench.agents["h2"].up.add("g")


FAILS_TO_STOP = fails("h1", Operation.STOP, GENERIC_ERROR)
