"""A former host: asked for proof like a candidate, never chosen, and held on where it is gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from halo.core.admin import check_confirm_stopped, check_move
from halo.core.errors import BadRequest, CommandRefused
from halo.core.groups.placement import decide
from halo.core.groups.proof_search import search
from halo.core.journal.places import places
from halo.core.journal.records import Event
from halo.core.journal.remembered import Remembered
from halo.core.questions import former, holds, proof
from halo.core.status.ours import snapshot
from tests.core.builders import PAIR, RUNNING, STOPPED, World, make_group


def world(former_hosts: tuple[str, ...] = ("h3",)) -> World:
    """g may run on h1 and h2; the journal says that it may still run on the former hosts. h9 is not
    in the config."""
    remembered = Remembered()
    remembered.group("g").former = dict.fromkeys(former_hosts, "g")
    group = make_group("g", ["h1", "h2"], PAIR)
    asked = tuple(host for host in former_hosts if host not in ("h2", "h9"))
    group = replace(group, former_hosts=asked)
    there = World(group, remembered=remembered, hosts=["h3", "h4"])
    there.state.ledger.mint("g", "desk")
    return there


def decided(world: World):  # type: ignore[no-untyped-def]  # the decision is what the test reads
    group = world.group()
    return decide(world.state, group, world.state.candidates_of(group), 100.0, 101.0)


def test_a_start_waits_for_proof_from_a_former_host() -> None:
    there = world()
    there.up("h1", "h2")
    assert decided(there).start_on is None
    assert "h3 is disconnected" in decided(there).text
    there.connect("h3")
    assert decided(there).probe == ("h3",)
    there.see("g", "h3", STOPPED, only=["x"])
    assert decided(there).start_on is None  # a leaf alone proves nothing
    there.see("g", "h3", STOPPED)
    assert decided(there).start_on == "h1"


def test_the_gate_asks_it_too() -> None:
    there = world()
    there.up("h1", "h2")
    why = proof.start_refusal(there.state, there.group(), "h1", 1, 100.0, 101.0)
    assert "h3" in (why or "")
    there.up("h3")
    assert proof.start_refusal(there.state, there.group(), "h1", 1, 100.0, 101.0) is None


def test_a_fence_of_a_former_host_is_proof() -> None:
    there = world()
    there.up("h1", "h2", "h3")
    there.fenced("h3")
    assert decided(there).start_on == "h1"
    assert former.newly_stopped(there.state, there.group()) == ["h3"]


def test_a_former_host_that_is_lost_is_fenced_for_the_group() -> None:
    there = world()
    there.up("h1", "h2", "h3")
    there.lose("h3")
    there.answers("h1", "h2")
    state, group = there.state, there.group()
    seen = state.candidates_of(group)
    found = search(state, group, seen, decided(there).unproven, now=101.0)
    assert found.fence == ("h3",)


def test_a_former_host_is_never_chosen() -> None:
    there = world()
    there.up("h1", "h2", "h3")
    there.start_failed("g", "h1")
    there.start_failed("g", "h2")
    assert decided(there).start_on is None
    there.journal(Event.CLEANUP, "g")
    for host in ("h1", "h2"):
        there.journal(Event.DEACTIVATE, host)
    assert decided(there).start_on is None


def test_seen_running_there_it_is_started_nowhere_and_the_reason_says_what_to_do() -> None:
    there = world()
    there.up("h1", "h2", "h3", running=[])
    there.see("g", "h3", RUNNING, only=["x"])
    decision = decided(there)
    assert (decision.start_on, decision.manage_on, decision.failed) == (None, None, True)
    assert "running on h3, which is no candidate of g any more" in decision.text
    assert holds.hold_reason(there.state, there.group()) == decision.text


def test_a_copy_there_is_a_second_copy_like_any_other() -> None:
    there = world()
    there.up("h1", "h3", running=["g"])
    there.up("h2")
    assert decided(there).second_copy == ("h1", "h3")
    (shown,) = snapshot(there.state, "1", 101.0, 0.0)["groups"]
    assert (shown["status"], shown["former_hosts"]) == ("Error", {"h3": "Running"})


def test_a_group_that_runs_on_a_candidate_is_managed_there_whatever_is_unknown_elsewhere() -> None:
    there = world(("h3", "h9"))
    there.up("h1", running=["g"])
    there.up("h2")
    assert decided(there).manage_on == "h1"


def test_it_is_not_moved_while_it_could_not_be_started_again() -> None:
    there = world(("h9",))
    there.up("h1", running=["g"])
    there.up("h2")
    with pytest.raises(CommandRefused, match="h9, which the config does not have any more"):
        check_move(there.state, there.group(), "h2")


def test_a_host_that_left_the_config_holds_the_group_until_the_administrator_confirms() -> None:
    there = world(("h9",))
    there.up("h1", "h2")
    decision = decided(there)
    assert decision.start_on is None
    assert "`halo cleanup g --stopped-on h9 --reason ...`" in decision.text
    status = snapshot(there.state, "1", 101.0, 0.0)
    assert status["groups"][0]["status"] == "Unknown"
    assert any("h9" in notice for notice in status["manager"]["notices"])
    refused = proof.start_refusal(there.state, there.group(), "h1", 1, 100.0, 101.0)
    assert "h9" in (refused or "")
    there.journal(Event.CONFIRM_STOPPED, "g", "it was scrapped", host="h9")
    assert decided(there).start_on == "h1"
    assert snapshot(there.state, "1", 101.0, 0.0)["manager"]["notices"] == []


def test_a_group_that_is_to_stop_says_where_it_may_still_run() -> None:
    there = world(("h9",))
    there.up("h1", "h2")
    there.journal(Event.STOP, "g")
    decision = decided(there)
    assert not decision.at_rest
    assert "may still run on h9" in decision.text


@pytest.mark.parametrize(
    ("host", "comment", "error"),
    [
        ("h9", None, BadRequest),
        ("h3", "I looked", CommandRefused),  # HALO can look for itself
        ("h8", "I looked", CommandRefused),
    ],
)
def test_what_an_administrator_may_not_confirm(
    host: str, comment: str | None, error: type[Exception]
) -> None:
    there = world(("h3", "h9"))
    with pytest.raises(error):
        check_confirm_stopped(there.state, there.group(), host, comment)
    check_confirm_stopped(there.state, there.group(), "h9", "I looked")


def test_a_start_waits_until_the_journal_has_it() -> None:
    there = world(())
    there.up("h1", "h2")
    there.journal(Event.CONFIG, "c", groups={"g": ["h1", "h2"]})
    there.journal(Event.SEEN_STOPPED, "c", on={"g": ["h1"]})
    why = proof.start_refusal(there.state, there.group(), "h1", 1, 100.0, 101.0)
    assert "the journal" in (why or "")
    there.journal(Event.MAY_RUN, "c", on={"g": ["h1"]})
    assert proof.start_refusal(there.state, there.group(), "h1", 1, 100.0, 101.0) is None


@pytest.mark.parametrize(("origin", "completes"), [("g", True), ("k", False)])
@pytest.mark.parametrize("host", ["h2", "h3", "h9"])
def test_a_group_is_not_completed_in_place_with_a_service_that_may_run_elsewhere(
    origin: str, completes: bool, host: str
) -> None:
    """It runs on h1. What it gained from k may run on a candidate, elsewhere, or out of reach."""
    there = world((host,))
    there.state.remembered.group("g").former = {host: origin}
    there.up("h1", running=["g"])
    there.see("g", "h1", STOPPED, only=["x"])
    why = proof.start_refusal(there.state, there.group(), "h1", 1, 100.0, 101.0)
    assert (why is None) is completes
    there.journal(Event.SEEN_STOPPED, "c", on={"g": [host]})
    assert proof.start_refusal(there.state, there.group(), "h1", 1, 100.0, 101.0) is None


# --- what is recorded -----------------------------------------------------------------------------


def test_a_resource_that_may_run_on_a_former_host_says_so() -> None:
    there = world()
    there.up("h1", "h2")
    there.see("g", "h1", STOPPED)
    there.see("g", "h2", STOPPED)
    there.state.groups["g"].managed_on = "h1"  # then the desk's reason is shown no more
    row = snapshot(there.state, "1", 1.0, 1.0)["resources"][0]
    assert (row["status"], row["comment"]) == ("Unknown", "h3 is disconnected")


def test_a_former_host_that_was_proven_stopped_does_not_count_any_more() -> None:
    there = world()
    there.up("h1", "h2")
    there.see("g", "h1", STOPPED)
    there.see("g", "h2", STOPPED)
    there.state.remembered.group("g").former = {}
    assert snapshot(there.state, "1", 1.0, 1.0)["resources"][0]["status"] == "Stopped"


def test_a_report_of_a_former_host_is_no_proof_so_it_is_probed() -> None:
    there = world()
    there.connect("h3")
    group = there.group()
    for resource in group.resources:
        there.state.observe_report(group, resource, "h3", STOPPED, epoch=1)
    assert former.newly_stopped(there.state, group) == []
    assert former.to_probe(there.state, group) == ["h3"]
    there.see("g", "h3", STOPPED)
    assert former.newly_stopped(there.state, group) == ["h3"]
    assert former.to_probe(there.state, group) == []


def test_of_candidates_it_is_noted_only_while_another_one_manages_the_group() -> None:
    there = world(())
    there.up("h1", running=["g"])
    there.up("h2")
    assert former.newly_stopped(there.state, there.group()) == []
    there.state.groups["g"].managed_on = "h1"
    assert former.newly_stopped(there.state, there.group()) == ["h2"]
    there.journal(Event.CONFIG, "c", groups={"g": ["h1", "h2"]})
    there.journal(Event.SEEN_STOPPED, "c", on={"g": ["h2"]})
    assert former.newly_stopped(there.state, there.group()) == []
    there.journal(Event.MOVE, "g", to="h2")
    assert former.newly_stopped(there.state, there.group()) == []  # it will start there


def seen_running(host: str, **memory: Any) -> tuple[World, list[str]]:
    """Where the group is seen running on `host`, though the journal has something else."""
    there = world()
    there.journal(Event.CONFIG, "c", groups={"g": ["h1", "h2"]}, former={"g": {}})
    for key, value in memory.items():
        setattr(there.state.remembered.group("g"), key, value)
    there.up("h1", "h2", "h3")
    there.see("g", host, RUNNING, only=["x"])
    return there, former.newly_running(there.state, there.group())


@pytest.mark.parametrize("host", ["h1", "h3"])
def test_what_somebody_started_where_it_was_stopped_is_noted_even_if_unmanaged(host: str) -> None:
    there, found = seen_running(host, stopped_on=["h1", "h2"], managed=False)
    assert found == [host]
    there.journal(Event.MAY_RUN, "c", on={"g": found})
    assert set(places(there.state.remembered, "g")) == {host}
    assert former.newly_running(there.state, there.group()) == []


def test_a_group_at_rest_that_is_seen_running_may_run_on_every_candidate_again() -> None:
    there, found = seen_running("h2", at_rest=True)
    assert found == ["h2"]
    there.journal(Event.MAY_RUN, "c", on={"g": found})
    assert set(places(there.state.remembered, "g")) == {"h1", "h2"}


def test_what_runs_where_it_may_run_is_not_noted() -> None:
    assert seen_running("h1", stopped_on=["h2"])[1] == []


def test_a_candidate_with_a_gained_service_needs_proof() -> None:
    there = world(("h2",))
    there.state.remembered.group("g").former = {"h2": "k"}
    there.up("h1", running=["g"])
    there.connect("h2")
    group = there.group()
    for resource in group.resources:
        there.state.observe_report(group, resource, "h2", STOPPED, epoch=1)
    there.state.groups["g"].managed_on = "h1"
    assert former.newly_stopped(there.state, group) == []  # a report is no proof
    assert former.to_probe(there.state, group) == ["h2"]
    there.see("g", "h2", STOPPED)
    assert former.newly_stopped(there.state, group) == ["h2"]
    there.state.groups["g"].managed_on = None
    assert former.newly_stopped(there.state, group) == []  # it may be started there now


def test_a_former_host_that_was_fenced_before_a_restart_is_asked_for_by_its_device() -> None:
    """Else a group that runs on, and waits for proof of what it gained, would wait for ever."""
    there = world()
    there.state.remembered.group("g").former = {"h3": "k"}
    there.up("h1", running=["g"])
    there.fenced("h3", verified_at=former.NEVER)
    assert former.to_verify(there.state, there.group()) == []  # the placer asks
    there.state.groups["g"].managed_on = "h1"
    assert [at.id for at in former.to_verify(there.state, there.group())] == ["h3"]
    assert "fence device" in (former.gained_elsewhere(there.state, there.group(), "h1") or "")
    assert former.newly_stopped(there.state, there.group()) == []
    there.state.renew_power_proof("h3", asked_at=there.now, answered_at=there.now)
    assert former.to_verify(there.state, there.group()) == []
    assert former.newly_stopped(there.state, there.group()) == ["h3"]


def test_what_waits_for_a_gained_service_says_what_to_do_about_its_host() -> None:
    there = world()
    there.state.remembered.group("g").former = {"h3": "k"}
    there.up("h1", running=["g"])
    there.see("g", "h1", STOPPED, only=["x"])
    there.state.groups["g"].managed_on = "h1"

    def comment() -> str:
        return str(snapshot(there.state, "1", 101.0, 0.0)["groups"][0]["comment"])

    assert "what g has from k may still run on h3, which is out of sight" in comment()
    assert "`halo fence h3`" in comment()
    there.connect("h3")
    assert "HALO asks the host" in comment()


def test_many_notices_are_cut_short() -> None:
    groups = [
        replace(make_group(f"g{n}", ["h1"]), former_hosts=("h2",)) for n in range(former.NAMED + 2)
    ]
    remembered = Remembered()
    for group in groups:
        remembered.group(group.id).former = {"h2": group.id}
    there = World(*groups, remembered=remembered, hosts=["h2"])
    told = former.notices(there.state)
    assert len(told) == former.NAMED + 1
    assert told[-1].startswith("2 more groups")
