"""What `GET /v1/status` answers: each line for each state of things, and nothing secret."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from halo.core.cluster.group_state import MakingRoom
from halo.core.cluster.host_state import FencePhase, PowerProof
from halo.core.errors import Loss, LossKind
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import ErrorKind
from halo.core.model import Operation, ResourceGroup
from halo.core.outcomes import AgentIdentity
from halo.core.status.ours import event, snapshot

from .builders import ERROR, RUNNING, STOPPED, Step, World, amounts, make_group, then

PAIR = {"g": ["x"], "x": []}


def status(world: World) -> dict[str, Any]:
    for group in world.cluster.groups:
        if group not in world.state.ledger.holders:
            world.state.ledger.mint(group, "desk")
    answer = snapshot(world.state, "1", now=world.now, wall_now=1000.0)
    json.dumps(answer)  # it has to be fit for the API as it is
    return answer


def row(world: World, name: str, kind: str = "resources") -> dict[str, Any]:
    return next(found for found in status(world)[kind] if found["id"] == name)


def a_world(**options: Any) -> World:
    world = World(make_group("g", ["h1", "h2", "h3"], PAIR), **options)
    world.up("h1", "h2", "h3")
    return world


# --- a resource ---------------------------------------------------------------------------------

RUNS_AT_HOME: Step = lambda w: w.see("g", "h1", RUNNING)  # noqa: E731  # read as a line of a table

RESOURCE: list[tuple[str, Step, str]] = [
    ("stopped on all candidates", lambda w: None, "Stopped"),
    ("running at home", RUNS_AT_HOME, "Running"),
    ("running elsewhere", lambda w: w.see("g", "h3", RUNNING), "Running (Failed Over)"),
    ("unknown on one, stopped on the others", lambda w: w.connect("h2"), "Unknown"),
    ("an error on one, stopped on the others", lambda w: w.see("g", "h2", ERROR), "Error"),
    (
        "running at home, an error elsewhere",
        then(RUNS_AT_HOME, lambda w: w.see("g", "h2", ERROR)),
        "Running",
    ),
    ("two copies", then(RUNS_AT_HOME, lambda w: w.see("g", "h2", RUNNING)), "Error"),
    (
        "all out of sight",
        then(*(lambda w, h=h: w.disconnect(h) for h in ("h1", "h2", "h3"))),
        "Unknown",
    ),
    ("fenced there, stopped elsewhere", lambda w: w.fenced("h1"), "Stopped"),
]


@pytest.mark.parametrize(("story", "arrange", "expected"), RESOURCE)
def test_the_status_of_a_resource(story: str, arrange: Step, expected: str) -> None:
    world = a_world()
    arrange(world)
    found = row(world, "g")
    assert found["status"] == expected, found["comment"]


def test_a_resource_says_where_it_is_and_how_it_is_elsewhere() -> None:
    world = a_world()
    world.see("g", "h2", RUNNING)
    world.see("g", "h3", ERROR, reason="monitor: timed out", at=101.0)
    found = row(world, "x")
    assert (found["host"], found["home_host"], found["failover_host"]) == ("h2", "h1", "h2")
    assert found["failover_hosts"] == ["h2", "h3"]
    assert found["candidates"] == {
        "h1": {"status": "Stopped", "comment": None},
        "h2": {"status": "Running", "comment": None},
        "h3": {"status": "Error", "comment": "monitor: timed out"},
    }


def test_a_degraded_resource_runs_and_says_how() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING, only=["x"], reason="running, degraded (exit 190)")
    found = row(world, "x")
    assert (found["status"], found["comment"]) == ("Running", "running, degraded (exit 190)")


def test_two_copies_are_named() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING)
    world.see("g", "h3", RUNNING)
    assert "h1 and h3" in row(world, "g")["comment"]


def test_a_former_host_is_shown_where_the_group_may_run_or_is_seen_running() -> None:
    """h2 and h3 were candidates of g, and h4 has left the config."""
    world = World(make_group("g", ["h1"], former_hosts=("h2", "h3")), hosts=["h2", "h3"])
    world.up("h1", "h2", "h3")
    assert row(world, "g", "groups")["former_hosts"] == {}
    world.state.remembered.group("g").former = {"h4": "g", "h3": "g"}
    assert row(world, "g", "groups")["former_hosts"] == {"h3": "Stopped", "h4": "Unknown"}
    world.see("g", "h2", RUNNING)
    expected = {"h2": "Running", "h3": "Stopped", "h4": "Unknown"}
    assert row(world, "g", "groups")["former_hosts"] == expected


def test_a_failed_start_or_stop_is_shown_on_its_host() -> None:
    world = a_world()
    world.state.knowledge.mark_failure("x", "h1", "start of x on h1: not configured (exit 6)")
    found = row(world, "x")
    assert found["status"] == "Error"
    assert "exit 6" in found["comment"]
    assert found["candidates"]["h1"]["status"] == "Error"
    assert found["candidates"]["h2"]["status"] == "Stopped"


def test_why_nothing_is_known_is_said() -> None:
    world = a_world()
    world.disconnect("h2", Loss(LossKind.REFUSED))
    assert "h2 is disconnected" in row(world, "g")["comment"]


def test_a_shared_resource_is_listed_once() -> None:
    world = World(
        make_group("g", tree={"g": ["net"], "net": []}, shared=["net"]),
        make_group("f", tree={"f": ["net"], "net": []}, shared=["net"]),
    )
    world.up("h1", "h2")
    assert [found["id"] for found in status(world)["resources"]] == ["g", "net", "f"]


def test_a_shared_resource_may_run_on_several_hosts() -> None:
    world = World(make_group("g", tree={"g": ["net"], "net": []}, shared=["net"]))
    world.up("h1", "h2")
    world.see("g", "h1", RUNNING)
    world.see("g", "h2", RUNNING, only=["net"])
    found = row(world, "net")
    assert (found["status"], found["shared"]) == ("Running", True)
    assert row(world, "g")["status"] == "Running"


def two_groups_that_share() -> World:
    """The shared `net` is at home on h1 and h2, and may run on h3, too."""
    world = World(
        make_group("g", ["h1", "h3"], {"g": ["net"], "net": []}, shared=["net"]),
        make_group("f", ["h2", "h3"], {"f": ["net"], "net": []}, shared=["net"]),
    )
    world.up("h1", "h2", "h3")
    return world


SHARED: list[tuple[str, list[str], str]] = [
    ("nowhere", [], "Stopped"),
    ("on the home of the one", ["h1"], "Running"),
    ("on the home of the other", ["h2"], "Running"),
    ("on both", ["h1", "h2"], "Running"),
    ("away from both", ["h3"], "Running (Failed Over)"),
]


@pytest.mark.parametrize(("story", "hosts", "expected"), SHARED)
def test_a_shared_resource_names_all_hosts_it_runs_on(
    story: str, hosts: list[str], expected: str
) -> None:
    world = two_groups_that_share()
    for host in hosts:
        world.see("f" if host == "h2" else "g", host, RUNNING, only=["net"])
    found = row(world, "net")
    assert (found["status"], found["hosts"]) == (expected, hosts)
    assert found["host"] == (hosts[0] if len(hosts) == 1 else None)
    assert (found["group"], found["groups"]) == ("g", ["g", "f"])
    assert list(found["candidates"]) == ["h1", "h2", "h3"]


def test_a_shared_resource_is_managed_while_any_of_its_groups_is() -> None:
    world = two_groups_that_share()
    world.unmanage("g")
    assert row(world, "net")["managed"]
    world.unmanage("f")
    assert not row(world, "net")["managed"]


def test_an_error_of_a_shared_resource_is_told_from_any_of_its_groups() -> None:
    world = two_groups_that_share()
    world.see("f", "h2", ERROR, only=["net"], reason="monitor: exit 5")
    found = row(world, "net")
    assert (found["status"], found["comment"]) == ("Error", "monitor: exit 5")


@pytest.mark.parametrize("name", ["password", "passwd", "PASSWORD", "api_token", "client_secret"])
def test_what_looks_like_a_secret_is_not_shown(name: str) -> None:
    group = make_group("g")
    resource = replace(group.resources[0], parameters={"pool": "p0", name: "hunter2"})
    world = World(replace(group, resources=(resource,)))
    world.up("h1", "h2")
    assert row(world, "g")["parameters"] == {"pool": "p0", name: "***"}
    assert "hunter2" not in json.dumps(status(world))


# --- a group ------------------------------------------------------------------------------------

GROUP: list[tuple[str, Step, str, str]] = [
    ("stopped", lambda w: None, "Stopped", ""),
    ("running", lambda w: w.see("g", "h1", RUNNING), "Running", ""),
    ("in part", lambda w: w.see("g", "h1", RUNNING, only=["g"]), "Unknown", ""),
    ("an error of one resource", lambda w: w.see("g", "h1", ERROR, only=["x"]), "Error", ""),
    (
        "a remembered error",
        lambda w: w.error("g", ErrorKind.STOP_FAILED, "stuck"),
        "Error",
        "stuck",
    ),
    (
        "its way out",
        lambda w: w.error("g", ErrorKind.STOP_FAILED, "stuck"),
        "Error",
        "halo cleanup g",
    ),
    ("why a start failed", lambda w: w.start_failed("g", "h2", "exit 5"), "Stopped", "exit 5"),
    (
        "why it waits",
        lambda w: setattr(w.state.groups["g"], "comment", "waiting"),
        "Stopped",
        "waiting",
    ),
]


@pytest.mark.parametrize(("story", "arrange", "expected", "words"), GROUP)
def test_the_status_of_a_group(story: str, arrange: Step, expected: str, words: str) -> None:
    world = a_world()
    arrange(world)
    found = row(world, "g", "groups")
    assert found["status"] == expected
    assert words in (found["comment"] or "")


def test_a_group_says_what_was_commanded_and_who_holds_its_token() -> None:
    world = a_world()
    world.journal(Event.MOVE, "g", to="h3")
    found = row(world, "g", "groups")
    assert (found["wanted"], found["move_target"], found["managed"]) == ("started", "h3", True)
    assert found["token"] == "desk"
    world.journal(Event.STOP, "g")
    world.unmanage("g")
    found = row(world, "g", "groups")
    assert (found["wanted"], found["move_target"], found["managed"]) == ("stopped", None, False)
    assert found["candidates"] == {"h1": "Stopped", "h2": "Stopped", "h3": "Stopped"}


def test_a_managed_group_says_to_which_other_it_gives_way() -> None:
    other = make_group("other", ["h1"], priority=7, preempt=True)
    world = World(make_group("g", ["h1", "h2"]), other)
    world.up("h1", running=["g"])
    world.up("h2")
    at = world.state.groups["g"]
    at.managed_on = at.placed_on = "h1"
    assert row(world, "g", "groups")["gives_way_to"] is None
    world.state.make_room("other", MakingRoom("h1", ("g",), world.now))
    found = row(world, "g", "groups")
    assert found["comment"] == "gives way to other, which has priority 7"
    assert (found["gives_way_to"], found["preempt"]) == ("other", False)
    world.journal(Event.FREEZE, "test", "x")
    assert "gives way" not in (row(world, "g", "groups")["comment"] or "")


def test_a_managed_group_says_why_it_is_held_and_what_does_not_run() -> None:
    world = a_world()
    world.see("g", "h1", RUNNING, only=["g"])
    world.state.groups["g"].managed_on = "h1"
    world.unmanage("g", "disk swap")
    comment = row(world, "g", "groups")["comment"]
    assert "disk swap" in comment
    assert "not running on h1: x" in comment


# --- a host -------------------------------------------------------------------------------------

HOST: list[tuple[str, Step, str]] = [
    ("connected", lambda w: None, "connected"),
    ("an answer is overdue", lambda w: w.suspect("h1"), "suspect"),
    ("disconnected", lambda w: w.disconnect("h1"), "disconnected"),
    ("declared lost", lambda w: w.lose("h1"), "lost"),
    (
        "being fenced",
        lambda w: setattr(w.state.hosts["h1"], "fence_phase", FencePhase.RUNNING),
        "fencing",
    ),
    (
        "its fence failed",
        lambda w: setattr(w.state.hosts["h1"], "fence_phase", FencePhase.FAILED),
        "fence failed",
    ),
    ("fenced", lambda w: w.fenced("h1"), "fenced"),
    ("fenced, and back", then(lambda w: w.fenced("h1"), lambda w: w.up("h1")), "connected"),
]


@pytest.mark.parametrize(("story", "arrange", "expected"), HOST)
def test_the_state_of_a_host(story: str, arrange: Step, expected: str) -> None:
    world = a_world()
    arrange(world)
    assert row(world, "h1", "hosts")["state"] == expected


def test_a_host_says_what_is_the_matter() -> None:
    world = a_world()
    assert row(world, "h1", "hosts")["comment"] is None
    world.disconnect("h1", Loss(LossKind.REFUSED))
    at = world.state.hosts["h1"]
    at.fence_phase, at.fence_error, at.fence_held = FencePhase.FAILED, "no power", "in a storm"
    world.journal(Event.DISTRUST, "h1", "it lies")
    comment = row(world, "h1", "hosts")["comment"]
    for words in ("connection refused", "fencing failed: no power", "in a storm", "it lies"):
        assert words in comment


def test_fenced_means_fenced_and_not_reset() -> None:
    world = a_world()
    world.fenced("h1")
    world.up("h1")
    assert row(world, "h1", "hosts")["fenced"]
    world.journal(Event.RESET, "h1")
    assert not row(world, "h1", "hosts")["fenced"]


def test_a_host_gives_its_config_and_since_when_it_is_so() -> None:
    world = a_world()
    world.state.hosts["h1"].since = 90.0
    world.state.hosts["h1"].power_proof = PowerProof(1.0)
    found = row(world, "h1", "hosts")
    assert found["since"] == 990.0
    assert (found["active"], found["connected"], found["legacy"]) == (True, True, False)
    assert (found["address"], found["port"], found["version"]) == ("127.0.0.1", 8000, "1")
    assert found["fence_agents"] == ["fence_test"]
    world.journal(Event.DEACTIVATE, "h1")
    assert not row(world, "h1", "hosts")["active"]


# --- the manager and its events -----------------------------------------------------------------


def test_events_are_told_oldest_first_with_their_words() -> None:
    world = a_world()
    world.journal(Event.STOP, "g", "maintenance")
    world.journal(Event.CONNECT, "h1")
    world.journal(Event.START, "g")
    told = status(world)["events"]
    assert [(line["event"], line["obj_id"], line["comment"]) for line in told] == [
        ("stop", "g", "maintenance"),
        ("start", "g", ""),
    ]


def test_a_manager_that_stepped_down_had_no_defect() -> None:
    """The record has a name that older versions know."""
    world = a_world()
    world.journal(Event.DEFECT, "1", "manager 1 gives the leadership back", step_down="1")
    world.journal(Event.DEFECT, "halo", "the manager ended itself")
    assert [line["event"] for line in status(world)["events"]] == ["step-down", "defect"]


def test_an_events_time_is_readable() -> None:
    line = event(Record(86400.25 * 365, Event.FENCE, "h1", "why"))
    assert line["timestamp"].startswith("197")
    assert len(line["timestamp"]) == len("1970-12-31 23:59:59.123456")


def test_the_manager_says_its_mode_and_its_troubles() -> None:
    world = a_world()
    told = status(world)["manager"]
    assert (told["mode"], told["frozen"], told["journal"], told["notices"]) == (
        "manage",
        False,
        "ok",
        [],
    )
    world.journal(Event.FREEZE, "test", "migration")
    world.state.journal_trouble = "disk full"
    told = status(world)["manager"]
    assert (told["frozen"], told["frozen_comment"], told["journal"]) == (
        True,
        "migration",
        "disk full",
    )
    assert "disk full" in told["notices"][0]
    assert status(World(make_group(), observe_only=True))["manager"]["mode"] == "observe"


def test_agents_of_another_version_are_noticed_but_not_old_protocols() -> None:
    world = a_world()
    world.state.host_connected("h1", AgentIdentity("2"), world.now)
    world.state.host_connected("h2", AgentIdentity(legacy=True), world.now)
    [notice] = status(world)["manager"]["notices"]
    assert "h1" in notice
    assert "h2" not in notice


def test_a_group_that_was_removed_while_it_may_run_is_named() -> None:
    world = a_world()
    gone = {f"old{n}": ["h1", "h2"] for n in range(10)}
    world.journal(Event.CONFIG, "test", groups=gone, gone=[])
    world.journal(Event.CONFIG, "test", groups={}, gone=list(gone))
    told = status(world)["manager"]
    assert told["removed_groups"] == gone
    assert told["notices"][0].startswith("old0 was removed from the config and may still run on h1")
    assert "`halo cleanup old0`" in told["notices"][0]
    assert told["notices"][-1].startswith("2 more were removed from the config")


def test_it_says_which_loss_would_leave_groups_down() -> None:
    def needy(name: str, *hosts: str, need: int) -> ResourceGroup:
        return make_group(name, hosts, needs=amounts({"gb": need}))

    world = World(
        needy("a", "h1", "h2", need=6),
        needy("b", "h2", "h1", need=5),
        capacity={"h1": {"gb": 10}, "h2": {"gb": 10}},
    )
    world.up("h1", running=["a"])
    world.up("h2", running=["b"])
    told = status(world)["manager"]
    assert told["survival"] == {
        "host": "h1",
        "groups": 1,
        "reasons": {"a": "h2 would have 5 of 10 gb free, and a needs 6"},
        "further_hosts": 1,
    }
    assert told["notices"][0].startswith("the loss of h1 would leave 1 group down: a (h2 would ")
    world.see("b", "h2", STOPPED)
    told = status(world)["manager"]
    assert told["survival"] == {"host": None, "groups": 0, "reasons": {}, "further_hosts": 0}
    assert told["notices"] == []


def test_where_groups_need_no_room_nothing_is_said_of_a_loss() -> None:
    world = World(make_group("g", ["h1", "h2"]), capacity={"h1": {"gb": 1}, "h2": {"gb": 1}})
    world.up("h1", running=["g"])  # nothing could take it: that is seen at the host
    told = status(world)["manager"]
    assert (told["survival"], told["notices"]) == (None, [])


def test_what_was_stopped_everywhere_is_stopped_and_no_unknown() -> None:
    world = a_world()
    world.see("g", "h1", STOPPED, at=200.0)
    assert row(world, "g", "groups")["status"] == "Stopped"


# --- what runs, and what could not take over ------------------------------------------------------


def managed_at_home(**options: Any) -> World:
    world = a_world(**options)
    world.see("g", "h1", RUNNING)
    world.state.groups["g"].managed_on = "h1"
    return world


def test_starts_and_stops_that_are_under_way_are_shown() -> None:
    world = managed_at_home()
    count = world.state.hosts["h1"].operation_count("x")
    count.sent, count.last = 1, Operation.STOP
    group = row(world, "g", "groups")
    assert group["under_way"] == ["stop of x on h1"]
    assert "stop of x on h1 is under way" in group["comment"]
    count.answered = 1
    assert row(world, "g", "groups")["under_way"] == []


def test_candidates_that_could_not_take_over_are_shown() -> None:
    world = managed_at_home()
    world.see("g", "h2", ERROR, only=["x"], reason="monitor: hangs")
    world.start_failed("g", "h3", "exit 1")
    group = row(world, "g", "groups")
    assert group["cannot_take"] == {"h2": "x on h2: monitor: hangs", "h3": "exit 1"}
    assert "h2 cannot take it: x on h2: monitor: hangs" in group["comment"]
    world.disconnect("h2")
    assert list(row(world, "g", "groups")["cannot_take"]) == ["h3"]


def test_a_group_that_cannot_leave_a_deactivated_host_says_why() -> None:
    world = managed_at_home()
    world.journal(Event.DEACTIVATE, "h1")
    assert "it stays" not in (row(world, "g", "groups")["comment"] or "")
    world.disconnect("h3")
    comment = row(world, "g", "groups")["comment"]
    assert "it stays on h1, deactivated: h3 is disconnected" in comment
