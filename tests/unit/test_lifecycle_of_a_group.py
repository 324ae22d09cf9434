"""docs/lifecycles.md says what a group goes through, and why: each word and each arrow is true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import pytest

from halo.core.journal.records import Event
from halo.core.model import Operation
from tests.core.builders import TIMED_OUT

from .diagrams import Arrow, Before, Story, diagram, drive, nothing_more
from .group_states import (
    COLUMNS,
    FAILS_TO_STOP,
    HEADING,
    NAME,
    ROWS,
    a_second_g_appears,
    at_home,
    commanded,
    error,
    failed_over,
    fails,
    g_dies,
    h1_answers,
    it_is_managed,
    it_is_unmanaged,
    monitor_failed,
    moving,
    moving_home,
    moving_in_vain,
    named,
    nearly_stopped,
    new,
    nothing_fails,
    of_h1,
    out_of_sight,
    restarted_once,
    start_failed,
    starting_at_home,
    starting_elsewhere,
    starting_in_vain,
    state_of,
    stop_failed,
    stopped,
    stopping,
    unmanaged,
    waiting,
    waiting_for_a_fence,
    waiting_while_stopped,
)

DIAGRAM = diagram(HEADING)
SEEN = "it is seen running there"
RUNS = "all of it runs there"
DIED = "a resource of it has stopped by itself"
AWAY = "its host is out of sight"
STOP = "the administrator stops it"
ON_TARGET = "all of it runs on the target"
STOP_FAILED = "a stop failed"
MENDED = "the administrator says that it is mended, by a cleanup"

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
