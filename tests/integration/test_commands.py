"""Commands on groups and hosts: what they do, what they refuse, and what they leave alone."""

from __future__ import annotations

import asyncio
import time

from tests.integration.cluster import ClusterHarness, Status, group
from tests.integration.conftest import MakeCluster
from tests.integration.telling import (
    QUICK_MONITORS,
    again,
    ask,
    at_once,
    comes_to_rest,
    nothing_happens,
    refused,
    story,
    story_of,
    until_says,
    wanted_state,
)

# stop and start ------------------------------------------------------------------------------


async def test_a_stopped_group_stays_stopped_over_a_killed_manager(quick: ClusterHarness) -> None:
    await quick.start()
    assert "will be stopped" in await ask(quick, "stop", "g1", "--reason", "disks", "--wait", "20")
    await quick.until(g1="Stopped", g2="Running on h2")
    again(quick)
    await until_says(quick, "g1", "stopped by the administrator", status="Stopped")
    await nothing_happens(quick)
    assert quick.running_on("g1") == set()
    assert "(Wanted Stopped)" in await ask(quick, "status")

    await ask(quick, "start", "g1", "--wait", "20")
    await quick.until(g1="Running on h1")
    again(quick)
    await quick.until(g1="Running on h1")
    assert quick.count("g1", "start") == 2


async def test_a_group_stopped_by_hand_can_be_started_where_it_was_wanted(
    quick: ClusterHarness,
) -> None:
    await quick.start()
    await ask(quick, "stop", "g1", "g2", "--wait", "20")
    await quick.until(g1="Stopped", g2="Stopped")
    await ask(quick, "start", "g1", "g2", "--wait", "20")
    await quick.until(g1="Running on h1", g2="Running on h2")


# move and failback ---------------------------------------------------------------------------


async def test_a_group_moves_and_stays_there(quick: ClusterHarness) -> None:
    await quick.start()
    before = story_of(quick, "h2")
    assert "moving to h2" in await ask(quick, "move", "g1", "--to", "h2", "--wait", "20")
    await quick.until_event("moved", "g1")
    await quick.until(g1="Running (Failed Over) on h2", g2="Running on h2")
    assert story_of(quick, "h1") == [
        *("start g1", "start g1_mnt0"),
        *("stop g1_mnt0", "stop g1"),
    ]
    assert story_of(quick, "h2") == [*before, "start g1", "start g1_mnt0"]
    await nothing_happens(quick, seconds=2)  # no group ever moves back by itself


async def test_failback_brings_home_what_is_away_and_nothing_else(quick: ClusterHarness) -> None:
    await quick.start()
    await ask(quick, "move", "g1", "--to", "h2", "--wait", "20")
    await ask(quick, "move", "g2", "--to", "h1", "--wait", "20")
    answer = await ask(quick, "failback", "--onto", "h1", "--reason", "all well", "--wait", "20")
    assert "moving to h1: g1" in answer
    assert "g2" not in answer
    await quick.until(g1="Running on h1", g2="Running (Failed Over) on h1")
    await nothing_happens(quick)
    assert "no group whose home host is h1 runs elsewhere" in await ask(
        quick, "failback", "--onto", "h1"
    )


async def lose_h1(cluster: ClusterHarness) -> None:
    """Start the cluster; returns when g1 runs on h2, and h1 is off and was reset."""
    await cluster.start()
    cluster.kill("h1")
    await cluster.until(g1="Running (Failed Over) on h2")
    await cluster.until_host("h1", fenced=True)
    await ask(cluster, "reset", "h1")


async def test_failback_waits_for_a_target_that_is_just_connecting(quick: ClusterHarness) -> None:
    await lose_h1(quick)
    log = quick.folder / "manager_log"
    order = asyncio.create_task(quick.halo("failback", "--onto", "h1", "--wait", "20"))
    await quick.until_true(
        lambda: '"failback" of host h1' in log.read_text(), "the command has come"
    )
    quick.boot("h1")
    result = await order
    assert (result.code, result.stderr) == (0, ""), result
    assert "moving to h1: g1" in result.stdout
    await quick.until(g1="Running on h1", g2="Running on h2")


async def test_failback_waits_until_its_target_is_looked_through(quick: ClusterHarness) -> None:
    await lose_h1(quick)
    quick.fault("g1", "monitor-slow 1", host="h1")
    quick.boot("h1")
    await quick.until_host("h1", connected=True)
    assert "moving to h1: g1" in await at_once(quick, "/v1/hosts/h1", "failback")
    quick.fault("g1", host="h1")
    await quick.until(g1="Running on h1", g2="Running on h2")


async def test_failback_gives_up_on_a_target_that_stays_away_after_three_seconds(
    quick: ClusterHarness,
) -> None:
    await lose_h1(quick)
    before, begun = story(quick), time.monotonic()
    text = await refused(quick, "failback", "--onto", "h1")
    assert 3 <= time.monotonic() - begun < 15  # with the start of a program, on a slow machine
    assert "g1 cannot move to h1: h1 is disconnected" in text
    assert text.count("\n") == 1, text
    quick.boot("h1")
    await quick.until_host("h1", connected=True)
    await nothing_happens(quick)  # the order is not remembered
    assert story(quick) == before


async def test_a_move_that_a_killed_manager_had_begun_is_finished(quick: ClusterHarness) -> None:
    await quick.start()
    quick.fault("g1", "stop-slow 1.5", host="h1")
    await ask(quick, "move", "g1", "--to", "h2")
    await quick.until_true(lambda: "stop g1" in story_of(quick, "h1"), "the stop")
    again(quick)
    await quick.until(g1="Running (Failed Over) on h2")
    await quick.until_event("moved", "g1")
    assert (await quick.group("g1"))["move_target"] is None


async def test_a_stop_ends_a_move(quick: ClusterHarness) -> None:
    await quick.start()
    quick.fault("g1", "stop-slow 1", host="h1")
    await ask(quick, "move", "g1", "--to", "h2")
    await quick.until_true(lambda: "stop g1" in story_of(quick, "h1"), "the stop")
    await ask(quick, "stop", "g1", "--wait", "20")
    await comes_to_rest(quick)
    assert quick.running_on("g1") == set()
    assert (await quick.group("g1"))["move_target"] is None


# activate and deactivate ---------------------------------------------------------------------


async def test_a_deactivated_host_gives_its_groups_up(quick: ClusterHarness) -> None:
    await quick.start()
    answer = await ask(quick, "deactivate", "h1", "--reason", "dimm", "--wait", "20")
    assert "moving away: g1" in answer
    await quick.until(g1="Running (Failed Over) on h2", g2="Running on h2")
    assert "Connected hosts: h2, h1 (deactivated)" in await ask(quick, "status")
    assert "h1 is deactivated" in await refused(quick, "failback", "--onto", "h1")
    assert "last active candidate of g1" in await refused(quick, "deactivate", "h2")

    await ask(quick, "activate", "h1", "--wait", "20")
    await nothing_happens(quick)
    await ask(quick, "failback", "--onto", "h1", "--wait", "20")
    await quick.until(g1="Running on h1")


async def test_a_deactivated_host_found_running_groups_gives_them_up(
    quick: ClusterHarness,
) -> None:
    await quick.start()
    await ask(quick, "deactivate", "h1")
    await quick.until(g1="Running (Failed Over) on h2")  # completely: no start is left to end
    quick.kill_manager()
    quick.stop_by_hand("g1", "h2")
    quick.start_by_hand("g1", "h1")
    quick.start_manager()
    await quick.until(g1="Running (Failed Over) on h2", g2="Running on h2")
    assert story_of(quick, "h1")[-2:] == ["stop g1_mnt0", "stop g1"]
    assert not (await quick.host("h1"))["active"]


async def test_unmanaged_dominates_deactivated(quick: ClusterHarness) -> None:
    await quick.start()
    before = story(quick)
    await ask(quick, "unmanage", "g1")
    assert "staying here: g1" in await ask(quick, "deactivate", "h1")
    await nothing_happens(quick)
    assert story(quick) == before
    await ask(quick, "manage", "g1")
    await quick.until(g1="Running (Failed Over) on h2")


async def test_a_deactivated_host_that_is_lost_is_still_fenced_for_what_it_holds(
    make_cluster: MakeCluster,
) -> None:
    cluster = make_cluster(groups=[group("g1")], flags=QUICK_MONITORS)
    await cluster.start()
    cluster.fault("g1", "stop-hang", host="h1")
    await ask(cluster, "deactivate", "h1")
    await cluster.until_true(lambda: "stop g1" in story_of(cluster, "h1"), "the stop")
    cluster.kill("h1")
    await cluster.until(g1="Running (Failed Over) on h2")


# reset and events ----------------------------------------------------------------------------


async def test_reset_forgives_a_fence_and_causes_none(quick: ClusterHarness) -> None:
    await quick.start()
    assert "not fenced" in await refused(quick, "reset", "h1")
    quick.kill("h1")
    await quick.until(g1="Running (Failed Over) on h2")
    await quick.until_host("h1", fenced=True)
    again(quick)
    await quick.until_host("h1", fenced=True)
    await quick.until(g1="Running (Failed Over) on h2")
    await ask(quick, "reset", "h1", "--reason", "new board")
    await quick.until_host("h1", fenced=False)
    await nothing_happens(quick, seconds=2)
    assert [e["event"] for e in (await quick.status())["events"]].count("fence") == 1
    assert 'event=reset object=h1 comment="new board"' in await ask(quick, "events", "show")


async def test_cleared_events_stay_cleared(quick: ClusterHarness) -> None:
    await quick.start()
    await ask(quick, "stop", "g1", "--reason", "first")
    await ask(quick, "start", "g1", "--reason", "second")
    shown = await ask(quick, "events", "show")
    assert 'event=stop object=g1 comment="first"' in shown
    assert shown.index("first") < shown.index("second")
    await ask(quick, "events", "clear")
    assert "Events: none" in await ask(quick, "status")
    again(quick)
    await quick.until(g1="Running on h1")
    assert "Events: none" in await ask(quick, "status")
    assert (await quick.group("g1"))["wanted"] == "started"
    history = await ask(quick, "events", "show")
    assert history.index("first") < history.index("second") < history.index("event=clear")


# Refusals ------------------------------------------------------------------------------------


async def test_refusals_say_why_and_change_nothing(quick: ClusterHarness) -> None:
    await quick.start()
    before = story(quick)
    for command, words in {
        ("move", "g1", "--to", "h1"): "on h1 already",
        ("reset", "h1"): "not fenced",
        ("fence", "h1", "--cancel"): "not being fenced",
        ("fence", "h1", "--confirm-off", "--reason", "dark"): "h1 answers",
    }.items():
        text = await refused(quick, *command)
        assert words in text, (command, text)
        assert text.count("\n") == 1, text
    await nothing_happens(quick)
    assert story(quick) == before


async def test_unknown_objects_are_told_from_misplaced_names(quick: ClusterHarness) -> None:
    await quick.start()
    before = wanted_state(await quick.status())
    requests: list[tuple[str, str, dict[str, object], int]] = [
        ("POST", "/v1/groups/g9", {"command": "stop"}, 404),
        ("POST", "/v1/groups/g1_mnt0", {"command": "stop"}, 404),
        ("POST", "/v1/groups/g1", {"command": "move", "to": "h9"}, 404),
        ("POST", "/v1/hosts/h9", {"command": "fence"}, 404),
        ("PATCH", "/v1/resources/g9", {"managed": False}, 404),
        ("POST", "/v1/groups/g1", {"command": "move", "to": "h1"}, 409),
        ("POST", "/v1/hosts/h1", {"command": "reset"}, 409),
        ("POST", "/v1/groups/g1", {"command": "dance"}, 400),
        ("POST", "/v1/groups/g1", {"command": "move"}, 400),
        ("POST", "/v1/groups/g1", {}, 400),
        ("PATCH", "/v1/resources/g1", {"managed": "no"}, 400),
        ("POST", "/v1/hosts/h1", {"command": "reset", "colour": "red"}, 400),
        ("POST", "/v1/cluster", {"command": "melt"}, 400),
    ]
    for method, path, body, code in requests:
        answer = await quick.api(method, path, body)
        assert answer[0] == code, (method, path, body, answer)
        assert answer[1]["error"], answer
    done: list[tuple[str, str, dict[str, object]]] = [
        ("POST", "/v1/groups/g1", {"command": "start"}),
        ("PATCH", "/v1/resources/g1", {"managed": True}),
        ("POST", "/v1/hosts/h1", {"command": "activate"}),
        ("POST", "/v1/cluster", {"command": "thaw"}),
    ]
    for method, path, body in done:
        answer = await quick.api(method, path, body)
        assert (answer[0], list(answer[1])) == (200, ["message"]), (method, path, body, answer)
    assert wanted_state(await quick.status()) == before
    assert "g1_mnt0 is a resource of group g1" in await refused(quick, "stop", "g1_mnt0")
    assert "no host h9" in await refused(quick, "fence", "h9")


async def test_an_observing_manager_refuses_what_acts(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(flags=["--sleep-time", "200"])
    await cluster.start(settled=False)
    await cluster.until(g1="Stopped", g2="Stopped")
    for command in (
        ("start", "g1"),
        ("stop", "g1"),
        ("unmanage", "g1"),
        ("move", "g1", "--to", "h2"),
        ("cleanup", "g1"),
        ("fence", "h1"),
        ("deactivate", "h1"),
        ("freeze",),
    ):
        assert "--manage-resources" in await refused(cluster, *command)
    await ask(cluster, "events", "clear")
    assert "OBSERVE MODE" in await ask(cluster, "status")
    assert story(cluster) == []


async def test_every_answer_is_remembered_by_a_manager_killed_right_after_it(
    quick: ClusterHarness,
) -> None:
    await quick.start()
    for command, so in [
        (("unmanage", "g2"), lambda s: not s["groups"][1]["managed"]),
        (("stop", "g1"), lambda s: s["groups"][0]["wanted"] == "stopped"),
        (("freeze",), lambda s: s["manager"]["frozen"]),
        (("deactivate", "h2"), lambda s: not s["hosts"][1]["active"]),
    ]:
        await ask(quick, *command)
        again(quick)

        def remembers(status: Status, so: object = so) -> bool:
            return bool(so(status))  # type: ignore[operator]  # any callable

        await quick.until_status(remembers, f"{command} is remembered")
