"""docs/lifecycles.md says what a group goes through, and why: each word and each arrow is true."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from halo.core.errors import LossKind
from halo.core.journal.records import Event, Record
from halo.core.model import LossPolicy, Operation
from halo.core.outcomes import OperationResult
from halo.manager.api.openapi import STATUSES
from tests.core.builders import GENERIC_ERROR, TIMED_OUT
from tests.fakes.memory_medium import MemoryDisk

from .diagrams import (
    LOOK_S,
    Arrow,
    Before,
    Cause,
    Story,
    diagram,
    drive,
    first,
    nothing_more,
    shown,
    table,
)
from .fence_bench import Bench

HEADING = "A group"
ROWS, DIAGRAM = table(HEADING), diagram(HEADING)
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


SEEN = "it is seen running there"
RUNS = "all of it runs there"
DIED = "a resource of it has stopped by itself"
AWAY = "its host is out of sight"
STOP = "the administrator stops it"
ON_TARGET = "all of it runs on the target"
STOP_FAILED = "a stop failed"
MENDED = "the administrator says that it is mended, by a cleanup"
FAILS_TO_STOP = fails("h1", Operation.STOP, GENERIC_ERROR)

STORIES = {
    ("[*]", "waiting"): {"the manager starts": Story(new(), nothing_more)},
    ("[*]", "stopping"): {
        "the manager starts, and it is written down that it is to be stopped": Story(
            new((Event.STOP, {})), nothing_more
        )
    },
    ("[*]", "error"): {
        "the manager starts, and an error of it is written down": Story(
            new((Event.ERROR, {"kind": "stop-failed"})), nothing_more
        )
    },
    ("[*]", "unmanaged"): {
        "the manager starts, and it is written down that it is unmanaged": Story(
            new((Event.UNMANAGE, {})), nothing_more
        )
    },
    ("unmanaged", "waiting"): {"the administrator gives it back": Story(unmanaged, it_is_managed)},
    ("waiting", "running at home"): {SEEN: Story(waiting, h1_answers)},
    ("waiting", "failed over"): {SEEN: Story(new(runs_on="h2"), nothing_more)},
    ("waiting", "starting"): {
        "it is proven stopped wherever else it may run, and a host can take it": Story(
            waiting, of_h1("confirm-off")
        )
    },
    ("waiting", "error"): {
        "the fence that it waits for has failed": Story(waiting_for_a_fence, nothing_more)
    },
    ("waiting", "stopping"): {
        "the administrator stops it, and a candidate is out of sight": Story(
            waiting, commanded("stop")
        )
    },
    ("waiting", "stopped on request"): {
        "the administrator stops it, and it runs nowhere": Story(
            waiting_while_stopped, commanded("stop")
        )
    },
    ("starting", "running at home"): {RUNS: Story(starting_at_home, nothing_more)},
    ("starting", "failed over"): {RUNS: Story(starting_elsewhere, nothing_more)},
    ("starting", "waiting"): {
        AWAY: Story(starting_at_home, out_of_sight("h1")),
    },
    ("starting", "error"): {"a start failed": Story(starting_in_vain, nothing_more)},
    ("starting", "stopping"): {STOP: Story(starting_at_home, commanded("stop"))},
    ("running at home", "starting"): {
        DIED: Story(at_home, g_dies),
        "its host is deactivated, and another can take it": Story(at_home, of_h1("deactivate")),
    },
    ("failed over", "starting"): {DIED: Story(failed_over, g_dies)},
    ("running at home", "waiting"): {AWAY: Story(at_home, out_of_sight("h1"))},
    ("failed over", "waiting"): {AWAY: Story(failed_over, out_of_sight("h2"))},
    ("running at home", "error"): {
        "a monitor gives no answer in time": Story(
            at_home, fails("h1", Operation.MONITOR, TIMED_OUT)
        ),
        "a resource of it has stopped by itself too often": Story(restarted_once, g_dies),
        "it is seen running on a second host": Story(at_home, a_second_g_appears),
    },
    ("running at home", "moving"): {
        "the administrator moves it": Story(at_home, commanded("move", "h2"))
    },
    ("failed over", "moving"): {
        "the administrator moves it, or has its home host take back what is its own": Story(
            failed_over, of_h1("failback")
        )
    },
    ("moving", "failed over"): {ON_TARGET: Story(moving, nothing_more)},
    ("moving", "running at home"): {ON_TARGET: Story(moving_home, nothing_more)},
    ("moving", "error"): {
        STOP_FAILED: Story(moving, FAILS_TO_STOP),
        "the start on the target failed": Story(moving_in_vain, nothing_more),
    },
    ("running at home", "stopping"): {STOP: Story(at_home, commanded("stop"))},
    ("failed over", "stopping"): {STOP: Story(failed_over, commanded("stop"))},
    ("stopping", "stopped on request"): {
        "it is seen stopped on every candidate": Story(stopping, nothing_more)
    },
    ("stopping", "error"): {STOP_FAILED: Story(stopping, FAILS_TO_STOP)},
    ("stopping", "running at home"): {
        "the administrator starts it, and nothing of it has stopped yet": Story(
            stopping, commanded("start")
        )
    },
    ("stopping", "starting"): {
        "the administrator starts it, and something of it has stopped": Story(
            nearly_stopped, commanded("start")
        )
    },
    ("stopped on request", "waiting"): {
        "the administrator starts it": Story(stopped, commanded("start"))
    },
    ("stopped on request", "stopping"): {
        "a candidate is out of sight, and may run it": Story(stopped, out_of_sight("h2"))
    },
    ("error", "waiting"): {MENDED: Story(error, commanded("cleanup"))},
    ("error", "starting"): {
        "what a failed start left is stopped, so that another host may take it": Story(
            start_failed, nothing_more
        )
    },
    ("error", "stopping"): {
        f"{MENDED}, and it is to be stopped": Story(stop_failed, commanded("cleanup"))
    },
    ("error", "running at home"): {
        "what gave no answer answers again": Story(monitor_failed, nothing_fails)
    },
}

REACHED: dict[str, Before] = {
    "waiting": waiting,
    "starting": starting_at_home,
    "running at home": at_home,
    "failed over": failed_over,
    "moving": moving,
    "stopping": stopping,
    "stopped on request": stopped,
    "error": error,
}
"""What is true of `managed` is tried from each state inside it."""

TAKEN = Arrow("managed", "unmanaged", "the administrator takes it out of HALO's hands")


def stories() -> Iterator[tuple[Arrow, Story]]:
    for ends, causes in STORIES.items():
        for cause, story in causes.items():
            yield Arrow(*ends, cause), story


def test_every_arrow_is_driven() -> None:
    assert sorted(DIAGRAM.arrows) == sorted([TAKEN, *dict(stories())])
    assert set(REACHED) == DIAGRAM.within["managed"]


@pytest.mark.parametrize("arrow", dict(stories()), ids=str)
def test_an_arrow_of_a_group(arrow: Arrow) -> None:
    drive(arrow, dict(stories())[arrow], state_of)


@pytest.mark.parametrize("state", sorted(REACHED))
def test_what_is_unmanaged_is_so_whatever_it_was(state: str) -> None:
    drive(replace(TAKEN, source=state), Story(REACHED[state], it_is_unmanaged), state_of)


def test_the_states_are_those_of_the_code() -> None:
    """Each row is the first that holds of something that the status may say, and one always is."""
    all_words = [dict(zip(COLUMNS, w, strict=True)) for w in product(*COLUMNS.values())]
    assert {named(words) for words in all_words} == {row[NAME] for row in ROWS} == DIAGRAM.states


def test_every_word_of_the_table_is_one_of_the_code() -> None:
    for row in ROWS:
        for column, words in COLUMNS.items():
            assert set(row[column].split(", ")) <= {*words, "any"}
