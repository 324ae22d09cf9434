"""Each oracle in `oracles/` fails when the manager is broken: mistakes for each rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from halo.core import admin
from halo.core.cluster.group_state import GroupState
from halo.core.cluster.state import ClusterState
from halo.core.fencing import rules
from halo.core.groups import results
from halo.core.groups.looks import Looks
from halo.core.groups.machine import GroupMachine
from halo.core.journal import fold
from halo.core.journal.records import Event
from halo.core.questions import former, proof
from halo.core.status import groups, ours, root, words
from halo.manager.fencing import device_runner
from halo.manager.groups.group_task import GroupTask
from halo.manager.hosts.host_task import HostTask
from halo.manager.hosts.link import HostLink
from tests.simulation.model import Action, GroupPlan, Scenario
from tests.simulation.plan import scenario
from tests.simulation.runner import quiet, run

pytestmark = [pytest.mark.simulation, pytest.mark.timeout(300)]

SEEDS = range(40)
A_DEVICE_THAT_FAILS = Scenario(
    seed=1,
    hosts={"a": {}, "b": {}},
    groups=(GroupPlan(("a", "b"), (("g", ""),)),),
    settings={},
    actions=(
        Action(10.0, "command", {"name": "stop", "object": "g"}),
        Action(15.0, "command", {"name": "fence", "object": "a", "force": True}),
        Action(30.0, "device", {"host": "a", "level": 0, "number": 0, "fault": "fail",
                                "for_s": 30.0}),
        Action(35.0, "command", {"name": "start", "object": "g"}),
    ),
    duration_s=80.0,
)  # fmt: skip
"""g may not start on b before the device of a says once more that a is off."""

A_HOST_THAT_DIES = replace(
    A_DEVICE_THAT_FAILS,
    actions=(Action(80.0, "power_off", {"host": "a", "back_s": 0.0}),),
    duration_s=120.0,
)

Patch = pytest.MonkeyPatch
Mistake = Callable[[Patch], None]
MISTAKES: dict[str, tuple[str, Mistake, tuple[Scenario, ...]]] = {}


def breaks(rule: str, *directed: Scenario) -> Callable[[Mistake], Mistake]:
    """Register a mistake by the rule that has to find it, if need be in a directed scenario."""

    def register(mistake: Mistake) -> Mistake:
        MISTAKES[mistake.__name__] = rule, mistake, directed
        return mistake

    return register


@breaks("memory")
def failed_starts_are_forgotten(patch: Patch) -> None:
    patch.setitem(fold.HANDLERS, Event.START_FAILED, fold._leave_alone)


@breaks("memory")
def former_hosts_are_not_shown(patch: Patch) -> None:
    patch.setattr(former, "shown", lambda state, group: {})


@breaks("S8")
def unmanaged_groups_are_cleaned_up(patch: Patch) -> None:
    patch.setattr(admin, "check_cleanup", lambda state, group: None)


@breaks("status")
def the_first_reason_is_shown_for_ever(patch: Patch) -> None:
    decided = GroupState.decided

    def wrong(at: GroupState, text: str, waits: Any, now: float, *, failed: bool) -> None:
        before = at.waiting
        decided(at, text, waits, now, failed=failed)
        at.waiting = before or at.waiting

    patch.setattr(GroupState, "decided", wrong)


@breaks("status")
def every_running_group_is_at_home(patch: Patch) -> None:
    overall = ours._overall

    def wrong(homes: Any, statuses: list[str], running: list[str]) -> str:
        return words.RUNNING if running else overall(homes, statuses, running)

    patch.setattr(ours, "_overall", wrong)


@breaks("status")
def shared_resources_are_exclusive_at_the_root(patch: Patch) -> None:
    row = root._resource

    def wrong(*args: Any) -> dict[str, Any]:
        return {**row(*args), "exclusive": True}

    patch.setattr(root, "_resource", wrong)


@breaks("shown")
def nothing_is_under_way(patch: Patch) -> None:
    patch.setattr(groups, "under_way", lambda state, group: [])


@breaks("shown")
def a_lost_host_is_shown_as_disconnected(patch: Patch) -> None:
    state_of = ours._host_state
    words = {"lost": "disconnected"}
    patch.setattr(
        ours, "_host_state", lambda state, at: words.get(state_of(state, at), state_of(state, at))
    )


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


@breaks("pace", A_DEVICE_THAT_FAILS)
def a_device_is_asked_again_too_soon(patch: Patch) -> None:
    patch.setattr(device_runner, "VERIFY_PAUSE_S", 2.0)


@breaks("pace")
def resources_are_monitored_without_a_pause(patch: Patch) -> None:
    patch.setattr(Looks, "interval_s", lambda looks, resource: 0.1)


@breaks("late", A_HOST_THAT_DIES)
def no_host_is_ever_fenced(patch: Patch) -> None:
    patch.setattr(rules, "_storm_or_rate", lambda *_, **__: "not now")


@breaks("late")
def no_move_ever_arrives(patch: Patch) -> None:
    patch.setattr(GroupMachine, "_rest", lambda machine: [])


@breaks("needless")
def one_bad_monitor_is_enough(patch: Patch) -> None:
    patch.setattr(results, "BAD_MONITORS_BEFORE_RESTART", 1)


@pytest.mark.parametrize("name", sorted(MISTAKES))
def test_an_oracle_finds_the_mistake_it_is_for(name: str, monkeypatch: Patch) -> None:
    rule, mistake, directed = MISTAKES[name]
    mistake(monkeypatch)
    found: list[str] = []
    with quiet():
        for plan in directed or (scenario(seed) for seed in SEEDS):
            found.append(run(plan).rule)
            if found[-1] == rule:
                return
    pytest.fail(f"{rule} found nothing; found by {sorted(set(found))} alone")


@pytest.mark.parametrize("plan", [A_DEVICE_THAT_FAILS, A_HOST_THAT_DIES])
def test_what_was_directed_is_no_violation_by_itself(plan: Scenario) -> None:
    with quiet():
        assert run(plan).violations == []
