"""Each oracle in `oracles/` fails when the manager is broken: one mistake for each rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from halo.core import admin
from halo.core.cluster.state import ClusterState
from halo.core.groups import results
from halo.core.groups.machine import GroupMachine
from halo.core.journal import fold
from halo.core.journal.records import Event
from halo.core.questions import proof
from halo.core.status import ours
from halo.manager.groups.group_task import GroupTask
from halo.manager.hosts.host_task import HostTask
from halo.manager.hosts.link import HostLink
from tests.simulation.oracles.all import SWITCH
from tests.simulation.plan import scenario
from tests.simulation.runner import quiet, run

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(300)]

SEEDS = range(40)
Patch = pytest.MonkeyPatch
MISTAKES: dict[str, Callable[[Patch], None]] = {}


@pytest.fixture(autouse=True)
def all_oracles(monkeypatch: Patch) -> None:
    monkeypatch.setenv(SWITCH, "all")


def breaks(rule: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a mistake by the rule that has to find it."""

    def register(mistake: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MISTAKES[rule] = mistake
        return mistake

    return register


@breaks("memory")
def failed_starts_are_forgotten(patch: Patch) -> None:
    patch.setitem(fold.HANDLERS, Event.START_FAILED, fold._leave_alone)


@breaks("S8")
def unmanaged_groups_are_cleaned_up(patch: Patch) -> None:
    patch.setattr(admin, "check_cleanup", lambda state, group: None)


@breaks("status")
def every_running_group_is_at_home(patch: Patch) -> None:
    overall = ours._overall

    def wrong(homes: Any, statuses: list[str], running: list[str]) -> str:
        return ours.RUNNING if running else overall(homes, statuses, running)

    patch.setattr(ours, "_overall", wrong)


@breaks("shown")
def nothing_is_under_way(patch: Patch) -> None:
    patch.setattr(ours, "_under_way", lambda state, group: [])


@breaks("words")
def what_is_silent_is_said_to_be_fenced(patch: Patch) -> None:
    lacks = proof.lacks_proof

    def wrong(state: ClusterState, candidate: Any, since: float, now: float) -> str | None:
        lack = lacks(state, candidate, since, now)
        return lack and lack.replace("is disconnected", "is being fenced")

    patch.setattr(proof, "lacks_proof", wrong)


@breaks("record")
def every_overdue_answer_is_noted_again(patch: Patch) -> None:
    suspect = HostTask.link_suspect

    def wrong(task: HostTask, since: float) -> None:
        suspect(task, since)
        if task._state.hosts[task.host].accepted:
            task._note(Event.SUSPECT, "once more")

    patch.setattr(HostTask, "link_suspect", wrong)


@breaks("unrecorded")
def a_failed_start_is_not_noted(patch: Patch) -> None:
    patch.setattr(GroupTask, "_report_start_failure", lambda task, action: None)


@breaks("pace")
def the_pause_between_attempts_is_short(patch: Patch) -> None:
    pause = HostLink._pause

    async def wrong(link: HostLink, seconds: float) -> None:
        await pause(link, seconds / 2)

    patch.setattr(HostLink, "_pause", wrong)


@breaks("late")
def no_move_ever_arrives(patch: Patch) -> None:
    patch.setattr(GroupMachine, "_rest", lambda machine: [])


@breaks("needless")
def one_bad_monitor_is_enough(patch: Patch) -> None:
    patch.setattr(results, "BAD_MONITORS_BEFORE_RESTART", 1)


@pytest.mark.parametrize("rule", sorted(MISTAKES))
def test_an_oracle_finds_the_mistake_it_is_for(rule: str, monkeypatch: Patch) -> None:
    MISTAKES[rule](monkeypatch)
    found: list[str] = []
    with quiet():
        for seed in SEEDS:
            found.append(run(scenario(seed)).rule)
            if found[-1] == rule:
                return
    pytest.fail(f"found by {sorted(set(found))} alone")
