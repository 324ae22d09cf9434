"""S8: which commands are refused, and that the sentence says what to do instead."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from halo.core import admin
from halo.core.cluster.host_state import FencePhase
from halo.core.errors import (
    BadRequest,
    CommandError,
    CommandRefused,
    Loss,
    LossKind,
    UnknownObject,
)
from halo.core.journal.records import Event
from halo.core.journal.remembered import ErrorKind

from .builders import ERROR, RUNNING, STOPPED, Step, World, make_group, then


def a_world() -> World:
    """g runs on h1, its home, of h1, h2; s can run on h1 alone, and does not."""
    world = World(
        make_group("g", ["h1", "h2"], {"g": ["x"], "x": []}),
        make_group("s", ["h1"]),
        hosts=["h9"],
    )
    world.up("h1", running=["g"])
    world.up("h2")
    world.state.groups["g"].managed_on = "h1"
    return world


def refusal_of(command: Callable[[], object]) -> str | None:
    try:
        command()
    except CommandError as error:
        return str(error)
    return None


Row = tuple[str, Step, str | None]


def check(rows: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("story", "arrange", "said"), rows, ids=[row[0] for row in rows])


def judge(world: World, arrange: Step, command: Callable[[], object], said: str | None) -> None:
    arrange(world)
    for name in world.cluster.hosts:
        world.state.memory_of_host(name)  # a look makes an empty memory
    for group in world.cluster.groups.values():
        world.state.memory_of(group)
    before = world.state.remembered.snapshot(0.0)
    refusal = refusal_of(command)
    assert (refusal is None) == (said is None), refusal
    assert (said or "") in (refusal or "")
    assert world.state.remembered.snapshot(0.0) == before, "a check changed something"


# --- names --------------------------------------------------------------------------------------


def test_a_group_is_named_by_its_root() -> None:
    world = a_world()
    assert admin.group_named(world.state, "g") is world.group()
    with pytest.raises(UnknownObject, match="x is a resource of group g"):
        admin.group_named(world.state, "x")
    with pytest.raises(UnknownObject, match="no resource group y"):
        admin.group_named(world.state, "y")


def test_a_host_has_to_be_in_the_config() -> None:
    world = a_world()
    admin.require_host(world.state, "h9")
    with pytest.raises(UnknownObject, match="no host h7"):
        admin.require_host(world.state, "h7")


def test_observe_mode_takes_no_command() -> None:
    admin.require_acting(a_world().state)
    with pytest.raises(CommandRefused, match="--manage-resources"):
        admin.require_acting(World(make_group(), observe_only=True).state)


@pytest.mark.parametrize(
    ("managed_on", "running", "expected"),
    [(None, [], None), (None, ["h2"], "h2"), ("h1", ["h2"], "h1"), (None, ["h1", "h2"], None)],
)
def test_where_a_group_is(managed_on: str | None, running: list[str], expected: str | None) -> None:
    world = World(make_group())
    for host in ("h1", "h2"):
        world.up(host, running=["g"] if host in running else [])
    world.state.groups["g"].managed_on = managed_on
    assert admin.where(world.state, world.group()) == expected


# --- move ---------------------------------------------------------------------------------------


@check(
    [
        ("possible", lambda w: None, None),
        ("unmanaged", lambda w: w.unmanage("g", "disk swap"), "disk swap"),
        ("frozen", lambda w: w.journal(Event.FREEZE, "c", "migration"), "migration"),
        ("stopped", lambda w: w.journal(Event.STOP, "g"), "halo start g"),
        ("in error", lambda w: w.error("g", ErrorKind.STOP_FAILED, "stuck"), "halo cleanup g"),
        ("the target is disconnected", lambda w: w.disconnect("h2"), "h2 is disconnected"),
        ("the target is deactivated", lambda w: w.journal(Event.DEACTIVATE, "h2"), "deactivated"),
        (
            "the target's monitor fails",
            lambda w: w.see("g", "h2", ERROR, only=["x"], reason="monitor: timed out"),
            "x on h2: monitor: timed out; remove the cause there",
        ),
        ("the target is just connected", lambda w: w.connect("h2"), "has not probed the group"),
        ("the start failed there", lambda w: w.start_failed("g", "h2", "exit 1"), "halo cleanup g"),
        (
            "the target is being fenced",
            lambda w: setattr(w.state.hosts["h2"], "fence_phase", FencePhase.RUNNING),
            "being fenced",
        ),
    ]
)
def test_a_move(story: str, arrange: Step, said: str | None) -> None:
    world = a_world()
    judge(world, arrange, lambda: admin.check_move(world.state, world.group(), "h2"), said)


@check(
    [
        ("stopped there", lambda w: w.up("h3"), None),
        ("out of sight", lambda w: None, "h3 is disconnected, so HALO cannot prove"),
        ("its monitor fails", lambda w: w.see("g", "h3", ERROR, reason="hangs"), "g on h3: hangs"),
        ("not looked at", lambda w: w.connect("h3"), "h3 is being probed"),
        ("fenced", lambda w: w.fenced("h3"), None),
    ]
)
def test_a_move_needs_the_third_candidate_to_be_proven_too(
    story: str, arrange: Step, said: str | None
) -> None:
    world = World(make_group("g", ["h1", "h2", "h3"]))
    world.up("h1", running=["g"])
    world.up("h2")
    if story == "its monitor fails":
        world.up("h3")
    world.state.groups["g"].managed_on = "h1"
    judge(world, arrange, lambda: admin.check_move(world.state, world.group(), "h2"), said)
    deactivation = refusal_of(deactivate(world, "h1"))
    assert (deactivation is None) == (said is None)
    assert (said or "") in (deactivation or "")


def test_a_move_is_taken_back_by_one_to_where_it_is() -> None:
    world = a_world()
    world.journal(Event.MOVE, "g", to="h2")
    admin.check_move(world.state, world.group(), "h1")


def test_a_move_to_where_it_is_or_cannot_be() -> None:
    world = a_world()
    with pytest.raises(CommandRefused, match="g is on h1 already"):
        admin.check_move(world.state, world.group(), "h1")
    with pytest.raises(CommandRefused, match="not a candidate of g; the candidates are h1, h2"):
        admin.check_move(world.state, world.group(), "h9")


def test_a_command_on_a_group_that_was_removed_says_what_can_be_done() -> None:
    world = a_world()
    world.journal(Event.CONFIG, "test", groups={"old": ["h1"]}, gone=[])
    world.journal(Event.CONFIG, "test", groups={}, gone=["old"])
    with pytest.raises(UnknownObject, match=r"removed from the config.*halo cleanup old"):
        admin.group_named(world.state, "old")


# --- failback -----------------------------------------------------------------------------------


def away() -> World:
    """g and f are at home on h1 and run on h2; k is at home on h2 and runs there."""
    world = World(make_group("g"), make_group("f"), make_group("k", ["h2", "h1"]))
    world.up("h1")
    world.up("h2", running=["g", "f", "k"])
    return world


def names(world: World, target: str = "h1") -> list[str]:
    return [group.id for group in admin.failback_groups(world.state, target)]


def test_a_failback_takes_what_is_at_home_there_and_runs_elsewhere() -> None:
    assert names(away()) == ["g", "f"]
    assert names(away(), "h2") == []


def test_a_failback_takes_what_it_can() -> None:
    world = away()
    world.unmanage("f")
    assert names(world) == ["g"]


@check(
    [
        ("all unmanaged", then(lambda w: w.unmanage("g"), lambda w: w.unmanage("f")), "unmanaged"),
        ("the target is disconnected", lambda w: w.disconnect("h1"), "h1 is disconnected"),
        ("the target is deactivated", lambda w: w.journal(Event.DEACTIVATE, "h1"), "deactivated"),
        ("frozen", lambda w: w.journal(Event.FREEZE, "c"), "frozen"),
    ]
)
def test_a_failback_that_can_take_nothing(story: str, arrange: Step, said: str | None) -> None:
    world = away()
    judge(world, arrange, lambda: admin.failback_groups(world.state, "h1"), said)


def test_a_failback_without_anything_to_take_still_looks_at_its_target() -> None:
    world = World(make_group("g"))
    with pytest.raises(CommandRefused, match="h1 is disconnected"):
        admin.failback_groups(world.state, "h1")
    world.up("h1", "h2")
    world.journal(Event.DEACTIVATE, "h1")
    with pytest.raises(CommandRefused, match="halo activate h1"):
        admin.failback_groups(world.state, "h1")


# --- activate and deactivate --------------------------------------------------------------------


def deactivate(world: World, host: str, force: bool = False) -> Callable[[], object]:
    return lambda: admin.check_activation(world.state, host, active=False, force=force)


@check(
    [
        ("its only other candidate runs nothing", lambda w: None, None),
        ("the last one", lambda w: w.journal(Event.DEACTIVATE, "h1"), "last active candidate of g"),
        (
            "nobody could take what runs there",
            then(
                lambda w: w.see("g", "h1", RUNNING),
                lambda w: setattr(w.state.groups["g"], "managed_on", "h2"),
                lambda w: w.disconnect("h1"),
            ),
            "no other host can take g from h2",
        ),
        (
            "so with an unmanaged group: it stays anyway",
            then(
                lambda w: w.unmanage("g"),
                lambda w: setattr(w.state.groups["g"], "managed_on", "h2"),
                lambda w: w.disconnect("h1"),
            ),
            None,
        ),
    ]
)
def test_deactivating(story: str, arrange: Step, said: str | None) -> None:
    world = a_world()
    judge(world, arrange, deactivate(world, "h2"), said)


def test_the_only_candidate_is_deactivated_by_force_alone() -> None:
    world = a_world()
    with pytest.raises(CommandRefused, match=r"only candidate of s.*halo stop s"):
        deactivate(world, "h1")()
    deactivate(world, "h1", force=True)()


@pytest.mark.parametrize("force", [False, True])
def test_what_is_active_or_deactivated_already(force: bool) -> None:
    world = a_world()

    def activation() -> str | None:
        return admin.check_activation(world.state, "h2", active=True, force=force)

    assert activation() == "h2 is active already"
    assert deactivate(world, "h2", force)() is None
    world.journal(Event.DEACTIVATE, "h2")
    assert deactivate(world, "h2", force)() == "h2 is deactivated already"
    assert activation() is None


# --- manage, start, stop, cleanup ---------------------------------------------------------------


def test_managing_what_is_managed() -> None:
    world = a_world()

    def managed(to: bool) -> str | None:
        return admin.check_managed(world.state, world.group(), managed=to)

    assert managed(True) == "g is managed already"
    assert managed(False) is None
    world.unmanage("g")
    assert managed(False) == "g is unmanaged already"
    assert managed(True) is None


def test_freezing_what_is_frozen() -> None:
    world = a_world()

    def frozen(to: bool) -> str | None:
        return admin.check_frozen(world.state, frozen=to)

    assert frozen(False) == "not frozen"
    assert frozen(True) is None
    world.journal(Event.FREEZE, "c", "switch work")
    assert frozen(True) == "frozen already: switch work"
    assert frozen(False) is None


@check(
    [
        ("running", lambda w: None, None),
        (
            "said before, and the stop failed",
            then(
                lambda w: w.journal(Event.STOP, "g"),
                lambda w: w.error("g", ErrorKind.STOP_FAILED, "busy"),
            ),
            "an error holds it: busy; remove the cause, then run `halo cleanup g`",
        ),
        ("unmanaged", lambda w: w.unmanage("g"), "unmanaged"),
        ("frozen", lambda w: w.journal(Event.FREEZE, "c"), "frozen"),
        ("in error", lambda w: w.error("g", ErrorKind.STOP_FAILED), None),
    ]
)
def test_stopping(story: str, arrange: Step, said: str | None) -> None:
    world = a_world()
    command = lambda: admin.check_wanted(world.state, world.group(), wanted=False)  # noqa: E731  # one use
    judge(world, arrange, command, said)


@check(
    [
        ("stopped", lambda w: w.journal(Event.STOP, "g"), None),
        (
            "held by an error",
            lambda w: w.error("g", ErrorKind.RESTART_LIMIT, "x"),
            "halo cleanup g",
        ),
        ("held by failed starts", lambda w: w.start_failed("g", "h1", "exit 5"), "halo cleanup g"),
        ("unmanaged", lambda w: w.unmanage("g"), "unmanaged"),
        (
            "frozen",
            then(lambda w: w.journal(Event.STOP, "g"), lambda w: w.journal(Event.FREEZE, "c")),
            "frozen",
        ),
    ]
)
def test_starting(story: str, arrange: Step, said: str | None) -> None:
    world = a_world()
    command = lambda: admin.check_wanted(world.state, world.group(), wanted=True)  # noqa: E731  # one use
    judge(world, arrange, command, said)


def test_starting_and_stopping_what_is_to_run_or_to_be_stopped() -> None:
    world = a_world()

    def wanted(to: bool) -> str | None:
        return admin.check_wanted(world.state, world.group(), wanted=to)

    assert wanted(True) == "g was told to run already"
    assert wanted(False) is None
    at = world.state.groups["g"]
    at.managed_on, at.comment = None, "h2 has to be probed again"
    assert wanted(True) == "g was told to run already; it waits: h2 has to be probed again"
    world.journal(Event.STOP, "g")
    at.managed_on = "h1"
    assert wanted(False) == "g was told to stop already"
    world.see("g", "h1", STOPPED)
    assert wanted(False) == "g is stopped already"
    assert wanted(True) is None


def test_cleanup_needs_a_managed_group() -> None:
    world = a_world()
    admin.check_cleanup(world.state, world.group())
    world.unmanage("g")
    with pytest.raises(CommandRefused, match="halo manage g"):
        admin.check_cleanup(world.state, world.group())


# --- reset and confirm-off ----------------------------------------------------------------------


@check(
    [
        ("never fenced", lambda w: None, "h1 is not fenced, so there is nothing to reset"),
        (
            "its fence failed",
            lambda w: setattr(w.state.hosts["h1"], "fence_phase", FencePhase.FAILED),
            "run `halo fence h1 --cancel`",
        ),
        ("fenced", lambda w: w.journal(Event.FENCE, "h1"), None),
        ("its device lies", lambda w: w.journal(Event.DISTRUST, "h1", "x"), None),
        (
            "being fenced again",
            then(
                lambda w: w.journal(Event.FENCE, "h1"),
                lambda w: setattr(w.state.hosts["h1"], "fence_phase", FencePhase.RUNNING),
            ),
            "wait for the outcome",
        ),
    ]
)
def test_resetting(story: str, arrange: Step, said: str | None) -> None:
    world = a_world()
    judge(world, arrange, lambda: admin.check_reset(world.state, "h1"), said)


@check(
    [
        ("it answers", lambda w: None, "answers, so it is not off"),
        ("it is suspect", lambda w: w.suspect("h1"), None),
        ("it is lost", lambda w: w.lose("h1"), None),
        ("it is disconnected", lambda w: w.disconnect("h1"), None),
        (
            "its kernel answers",
            lambda w: w.disconnect("h1", Loss(LossKind.REFUSED)),
            "something answers at the address of h1 (connection refused)",
        ),
        (
            "its agent serves another manager",
            lambda w: w.disconnect("h1", Loss(LossKind.BUSY)),
            "--force",
        ),
        (
            "it is being fenced",
            lambda w: setattr(w.state.hosts["h1"], "fence_phase", FencePhase.RUNNING),
            "--cancel",
        ),
    ]
)
def test_vouching_for_a_dark_host(story: str, arrange: Step, said: str | None) -> None:
    world = a_world()
    judge(world, arrange, lambda: admin.check_confirm_off(world.state, "h1", "saw it dark"), said)


def test_vouching_by_force_for_a_host_whose_address_another_machine_has() -> None:
    world = a_world()
    world.disconnect("h1", Loss(LossKind.REFUSED))
    admin.check_confirm_off(world.state, "h1", "saw it dark", force=True)


@pytest.mark.parametrize("comment", [None, ""])
def test_vouching_needs_a_reason(comment: str | None) -> None:
    world = a_world()
    world.lose("h1")
    with pytest.raises(BadRequest, match="--reason"):
        admin.check_confirm_off(world.state, "h1", comment)


def test_what_leaves_a_deactivated_host_and_what_stays() -> None:
    groups = [make_group(name, ["h1", "h2"]) for name in ("goes", "stopping", "held", "stuck")]
    world = World(*groups)
    world.up("h1", running=["goes", "stopping", "held", "stuck"])
    world.up("h2")
    for group in groups:
        world.state.groups[group.id].managed_on = "h1"
    world.journal(Event.STOP, "stopping")
    world.unmanage("held", "disk swap")
    world.see("stuck", "h2", ERROR, reason="hangs")
    world.journal(Event.DEACTIVATE, "h1")
    leaving, staying = admin.leaving_and_staying(world.state, "h1")
    assert leaving == ["goes"]
    assert staying == {
        "held": "unmanaged: disk swap",
        "stuck": "stuck on h2: hangs; remove the cause there",
    }
