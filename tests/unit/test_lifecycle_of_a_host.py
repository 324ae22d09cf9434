"""docs/lifecycles.md says what a host goes through, and why: each word and each arrow is true."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from halo.core.errors import LossKind
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Lifecycle
from halo.core.model import LossPolicy
from halo.manager.api.schemas import HOST_STATES
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
from .virtual_time import run

HEADING = "A host"
ROWS, DIAGRAM = table(HEADING), diagram(HEADING)
NAME = "a host is"
SEEN: set[tuple[str, str]] = set()
"""Every state and lifecycle that was met while arrows were driven."""


OPEN = ((Event.CONNECT, "h1"), (Event.CONNECT, "h2"), (Event.FENCE_INTENT, "h1"))
CONFIRMED = ((Event.CONNECT, "h1"), (Event.FENCE, "h1"))


def words(cell: str) -> set[str]:
    return {word.strip(" `") for word in cell.split(",")}


def state_of(bench: Bench) -> str:
    row = shown(bench, "hosts", "h1")
    state, lifecycle = row["state"], str(row["lifecycle"]["state"])
    fits = [
        r[NAME] for r in ROWS if r["state"] == state and lifecycle in words(r["lifecycle.state"])
    ]
    assert len(fits) == 1, f"{fits} are {state} and {lifecycle}"
    [found] = fits
    SEEN.add((found, lifecycle))
    return found


# --- how a state is reached ---------------------------------------------------------------------


def journaled(*records: tuple[Event, str]) -> MemoryDisk:
    texts = [json.dumps(Record(1.0, event, host, "", {}).to_json()) for event, host in records]
    return MemoryDisk(texts)


def new(*records: tuple[Event, str], answers: LossKind | None = LossKind.REFUSED) -> Before:
    """A manager starts on this journal; attempts to reach h1 end so, or hang."""

    async def begin() -> Bench:
        bench = Bench(disk=journaled(*records))
        bench.outlet().status_takes_s = 0.5
        if answers is None:
            bench.agents["h1"].is_off = True
        bench.agents["h1"].refuses = answers
        await asyncio.sleep(LOOK_S)
        return bench

    return begin


async def reached(bench: Bench, state: str) -> Bench:
    await first(bench, state_of, lambda found: found == state)
    return bench


async def never_seen() -> Bench:
    return await reached(await new()(), "never seen")


async def never_seen_and_silent() -> Bench:
    return await reached(await new(answers=None)(), "never seen")


async def connected(**options: Any) -> Bench:
    bench = Bench(**options)
    await bench.up()
    return bench


async def disconnected() -> Bench:
    bench = await connected(on_loss=LossPolicy.WAIT)
    await the_connection_ends(bench)
    return await reached(bench, "disconnected")


async def returning() -> Bench:
    bench = await disconnected()
    await it_is_greeted(bench)
    return await reached(bench, "returning")


async def suspect(**options: Any) -> Bench:
    bench = await connected(**options)
    bench.lose()
    return await reached(bench, "suspect")


async def lost() -> Bench:
    """And nothing fences it by itself."""
    return await reached(await suspect(on_loss=LossPolicy.WAIT), "lost")


async def lost_while_idle() -> Bench:
    bench = await connected()
    await bench.manager.operations.group_command("g", "stop", to=None, comment="x")
    await bench.until(lambda: "g" not in bench.agents["h1"].up)
    bench.lose()
    return await reached(bench, "lost")


async def being_fenced(off_fails: str | None = None, write_s: float = 0.0) -> Bench:
    bench = await connected()
    bench.outlet().off_takes_s, bench.outlet().off_fails = 0.5, off_fails
    bench.disk.delay_s = write_s
    bench.lose()
    return await reached(bench, "fencing")


async def fence_failed() -> Bench:
    bench = await connected()
    bench.outlet().off_fails = "broken"
    bench.lose()
    await reached(bench, "fence failed")
    bench.outlet().off_fails, bench.outlet().off_takes_s = None, 0.5
    return bench


async def fenced() -> Bench:
    bench = await connected()
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    return await reached(bench, "fenced")


async def with_an_open_intent() -> Bench:
    return await reached(await new(*OPEN)(), "fencing")


async def fenced_before_a_restart() -> Bench:
    return await reached(await new(*CONFIRMED, answers=None)(), "fenced")


# --- causes -------------------------------------------------------------------------------------


async def it_is_greeted(bench: Bench) -> None:
    """And answers what it is asked half a second later."""
    agent = bench.agents["h1"]
    agent.latency_s, agent.refuses = 0.5, None
    agent.speak_again()


async def the_connection_ends(bench: Bench) -> None:
    bench.agents["h1"].refuses = LossKind.REFUSED
    bench.agents["h1"].end(LossKind.RESET)


async def it_falls_silent(bench: Bench) -> None:
    bench.agents["h1"].refuses = None
    bench.lose()


async def it_answers(bench: Bench) -> None:
    bench.agents["h1"].speak_again()


def attempts_end(kind: LossKind) -> Cause:
    async def cause(bench: Bench) -> None:
        bench.agents["h1"].refuses = kind

    return cause


def command(name: str, *, force: bool = False) -> Cause:
    async def cause(bench: Bench) -> None:
        bench.outlet().off_takes_s = 0.5
        await bench.command(name, force=force)

    return cause


async def g_is_started(bench: Bench) -> None:
    bench.outlet().off_takes_s = 0.5
    await bench.manager.operations.group_command("g", "start", to=None, comment="x")


async def the_cluster_is_frozen(bench: Bench) -> None:
    await bench.manager.operations.cluster_command("freeze", comment="x")


async def it_was_switched_on_by_hand(bench: Bench) -> None:
    """The device is asked when a start rests on it."""
    bench.outlet().is_on = True
    await bench.manager.operations.group_command("g", "stop", to=None, comment="x")
    await asyncio.sleep(20.0)
    await bench.manager.operations.group_command("g", "start", to=None, comment="x")


def with_options(before: Callable[..., Any], **options: Any) -> Before:
    async def begin() -> Bench:
        found = await before(**options)
        assert isinstance(found, Bench)
        return found

    return begin


GREETED = "a connection to its agent stands"
ENDED = "the connection ends"
OVERDUE = "an answer is overdue"
BUDGET = "the silence lasts for the whole loss budget"
COMMANDED = "the administrator fences it"
OTHER = "something answers at its address, and no agent that serves us"
REFUSED = "an answer comes from its address that is neither a closed port nor a connection"
VOUCHED = "the administrator vouches that it is off"

STORIES = {
    ("[*]", "never seen"): {
        "the manager starts, and nothing is written down of it": Story(new(), nothing_more)
    },
    ("[*]", "disconnected"): {
        "the manager starts, and knows it of old": Story(new((Event.CONNECT, "h1")), nothing_more)
    },
    ("[*]", "fencing"): {
        "the manager starts, and a fence without an outcome is written down": Story(
            new(*OPEN), nothing_more
        )
    },
    ("[*]", "fenced"): {
        "the manager starts, and a confirmed fence is the last word on it": Story(
            new(*CONFIRMED), nothing_more
        )
    },
    ("never seen", "returning"): {GREETED: Story(never_seen, it_is_greeted)},
    ("never seen", "lost"): {BUDGET: Story(never_seen_and_silent, nothing_more)},
    ("disconnected", "returning"): {GREETED: Story(disconnected, it_is_greeted)},
    ("lost", "returning"): {GREETED: Story(lost, it_is_greeted)},
    ("fence failed", "returning"): {GREETED: Story(fence_failed, it_is_greeted)},
    ("fenced", "returning"): {GREETED: Story(fenced, it_is_greeted)},
    ("returning", "connected"): {"its agent answers a heartbeat": Story(returning, nothing_more)},
    ("returning", "disconnected"): {ENDED: Story(returning, the_connection_ends)},
    ("connected", "disconnected"): {ENDED: Story(connected, the_connection_ends)},
    ("suspect", "disconnected"): {ENDED: Story(suspect, the_connection_ends)},
    ("connected", "suspect"): {OVERDUE: Story(connected, it_falls_silent)},
    ("returning", "suspect"): {OVERDUE: Story(returning, it_falls_silent)},
    ("suspect", "connected"): {"it answers again": Story(suspect, it_answers)},
    ("suspect", "lost"): {
        BUDGET: Story(with_options(suspect, on_loss=LossPolicy.WAIT), nothing_more)
    },
    ("disconnected", "lost"): {BUDGET: Story(disconnected, it_falls_silent)},
    ("lost", "disconnected"): {OTHER: Story(lost, attempts_end(LossKind.REFUSED))},
    ("lost", "fencing"): {
        "a group that is to run needs it off, and nothing forbids the fence": Story(
            lost_while_idle, g_is_started
        ),
        COMMANDED: Story(lost, command("fence")),
    },
    ("connected", "fencing"): {COMMANDED: Story(connected, command("fence"))},
    ("disconnected", "fencing"): {COMMANDED: Story(disconnected, command("fence"))},
    ("fenced", "fencing"): {
        "the administrator fences it once more, by force": Story(
            fenced, command("fence", force=True)
        )
    },
    ("fence failed", "fencing"): {
        COMMANDED: Story(fence_failed, command("fence")),
        "the pause before the next attempt is over, and a group still needs it off": Story(
            fence_failed, nothing_more
        ),
    },
    ("fencing", "fenced"): {
        "its devices say off after the off, and its agent does not answer": Story(
            being_fenced, nothing_more
        )
    },
    ("fencing", "fence failed"): {
        "a device fails, or does not say off afterwards": Story(
            with_options(being_fenced, off_fails="broken"), nothing_more
        ),
        "the administrator cancels it": Story(being_fenced, command("cancel-fence")),
    },
    ("fencing", "lost"): {
        "it is called off before any off is sent": Story(
            with_options(being_fenced, write_s=0.3), the_cluster_is_frozen
        )
    },
    ("fencing", "disconnected"): {
        "after a restart of the manager, its device does not say off": Story(
            with_an_open_intent, nothing_more
        )
    },
    ("fence failed", "fenced"): {VOUCHED: Story(fence_failed, command("confirm-off"))},
    ("lost", "fenced"): {VOUCHED: Story(lost, command("confirm-off"))},
    ("disconnected", "fenced"): {VOUCHED: Story(disconnected, command("confirm-off", force=True))},
    ("fenced", "lost"): {
        REFUSED: Story(fenced, attempts_end(LossKind.BUSY)),
        "its device says on": Story(fenced, it_was_switched_on_by_hand),
    },
    ("fenced", "disconnected"): {
        "the same answer, after a restart of the manager": Story(
            fenced_before_a_restart, attempts_end(LossKind.BUSY)
        )
    },
}


def stories() -> dict[Arrow, Story]:
    return {
        Arrow(*ends, cause): story
        for ends, causes in STORIES.items()
        for cause, story in causes.items()
    }


REMEMBERED: dict[str, Before] = {
    "ready": new((Event.CONNECT, "h1"), answers=None),
    "suspect": new((Event.CONNECT, "h1"), (Event.SUSPECT, "h1"), answers=None),
    "reconnecting": new((Event.RECONNECT, "h1"), answers=None),
    "fence-failed": new((Event.CONNECT, "h1"), (Event.FENCE_FAILED, "h1"), answers=None),
}
"""What else a manager may find in its journal of a host that does not answer."""


@cache
def driven(arrow: Arrow) -> None:
    drive(arrow, stories()[arrow], state_of)


@cache
def found_at_start(lifecycle: str) -> str:
    async def body() -> str:
        return state_of(await REMEMBERED[lifecycle]())

    return run(body())


def test_every_arrow_is_driven() -> None:
    assert sorted(DIAGRAM.arrows) == sorted(stories())


@pytest.mark.parametrize("arrow", stories(), ids=str)
def test_an_arrow_of_a_host(arrow: Arrow) -> None:
    driven(arrow)


@pytest.mark.parametrize("lifecycle", REMEMBERED)
def test_a_host_that_is_known_of_old_is_disconnected_at_first(lifecycle: str) -> None:
    assert found_at_start(lifecycle) == "disconnected"


def test_the_states_are_those_of_the_code() -> None:
    assert DIAGRAM.states == {row[NAME] for row in ROWS}
    assert {row["state"] for row in ROWS} == set(HOST_STATES)
    assert {word for row in ROWS for word in words(row["lifecycle.state"])} == set(Lifecycle)


def test_every_word_of_the_table_is_met() -> None:
    for arrow in stories():
        driven(arrow)
    for lifecycle in REMEMBERED:
        found_at_start(lifecycle)
    assert {(row[NAME], word) for row in ROWS for word in words(row["lifecycle.state"])} == SEEN


def test_a_wrong_arrow_would_be_found() -> None:
    wrong = Arrow("connected", "lost", OVERDUE)
    with pytest.raises(AssertionError, match="it became suspect"):
        drive(wrong, Story(connected, it_falls_silent), state_of)
