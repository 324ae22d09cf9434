"""S5, clause by clause: when a host is not powered off by itself, or not by an administrator."""

from __future__ import annotations

from typing import Any

import pytest

from halo.core.cluster.host_state import FencePhase
from halo.core.errors import Loss, LossKind
from halo.core.fencing import rules
from halo.core.journal import fold
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from halo.core.model import LossPolicy
from halo.core.outcomes import FenceResult, PowerState

from .builders import RUNNING, STOPPED, Step, World, make_group, then


def lost_host(**options: Any) -> World:
    """g ran on h1, which was declared lost; h2 is up and answered since. u is idle on both."""
    u = make_group("u", tree={"u": ["u2"], "u2": []})
    world = World(make_group("g"), u, hosts=["h3", "h4"], **options)
    world.up("h1", running=["g"])
    world.up("h2")
    world.lose("h1")
    world.answers("h2")
    return world


def automatic(world: World) -> str | None:
    return rules.automatic_refusal(world.state, "h1", world.now)


def phase(value: FencePhase, error: str = "", retry_at: float = 0.0) -> Step:
    def step(world: World) -> None:
        at = world.state.hosts["h1"]
        at.fence_phase, at.fence_error, at.fence_retry_at = value, error, retry_at

    return step


def obeys_another(world: World) -> None:
    """h1's agent answers this manager that it serves another."""
    world.up("h1", running=["g"])
    world.disconnect("h1", Loss(LossKind.BUSY, "this agent serves another manager, m2"))
    world.state.host_alive("h1")


def unmanaged(last: object) -> Step:
    """u is unmanaged, and was last seen so on h1, before h1 was lost."""

    def step(world: World) -> None:
        world.up("h1", running=["g"] + (["u"] if last is RUNNING else []))
        world.lose("h1")
        world.answers("h2")
        world.unmanage("u")

    return step


def partly_elsewhere(world: World) -> None:
    """u is unmanaged. u2 came to it from another group, and still runs on h2."""
    world.up("h1", running=["g", "u"])
    world.see("u", "h1", STOPPED, only=["u2"])
    world.lose("h1")
    world.answers("h2")
    world.see("u", "h2", RUNNING, only=["u2"])
    world.unmanage("u")


AUTOMATIC: list[tuple[str, Step, str | None]] = [
    ("lost, with a partner that answered since", lambda w: None, None),
    ("frozen", lambda w: w.journal(Event.FREEZE, "c", "migration"), "frozen: migration"),
    ("it answers", lambda w: w.connect("h1"), "h1 answers"),
    (
        "it obeys another manager",
        obeys_another,
        "does not serve this manager: this agent serves another manager, m2",
    ),
    (
        "it obeys another manager, and was never seen",
        then(obeys_another, lambda w: w.journal(Event.RESET, "h1")),
        "does not serve this manager: this agent serves another manager, m2",
    ),
    (
        "lost after it obeyed another manager",
        then(obeys_another, lambda w: w.lose("h1"), lambda w: w.answers("h2")),
        None,
    ),
    ("fenced, and not reset since", lambda w: w.journal(Event.FENCE, "h1"), "halo reset h1"),
    (
        "fenced and reset: it was not seen since",
        then(lambda w: w.journal(Event.FENCE, "h1"), lambda w: w.journal(Event.RESET, "h1")),
        "has not answered since its last reset",
    ),
    ("its device lies", lambda w: w.journal(Event.DISTRUST, "h1", "says off"), "not trusted"),
    (
        "silent, without a verdict",
        lambda w: setattr(w.state.hosts["h1"], "lost_at", None),
        "HALO waits until h1 is silent for the loss budget",
    ),
    ("it holds an unmanaged group", unmanaged(RUNNING), "unmanaged groups: u"),
    ("the unmanaged group was last seen stopped there", unmanaged(STOPPED), None),
    (
        "the unmanaged group runs elsewhere",
        then(unmanaged(RUNNING), lambda w: w.see("u", "h2", RUNNING)),
        None,
    ),
    (
        "of the unmanaged group only a part runs elsewhere, which was never here",
        partly_elsewhere,
        "unmanaged groups: u",
    ),
    ("its own group is unmanaged", lambda w: w.unmanage("g"), "unmanaged groups: g"),
    ("its group is stopped", lambda w: w.journal(Event.STOP, "g"), None),  # u still lacks proof
    (
        "nothing wanted waits for it",
        then(lambda w: w.journal(Event.STOP, "g"), lambda w: w.journal(Event.STOP, "u")),
        "no other host can take",
    ),
    ("the partner is gone", lambda w: w.disconnect("h2"), "h2 is disconnected"),
    (
        "the partner is deactivated",
        lambda w: w.journal(Event.DEACTIVATE, "h2"),
        "h2 is deactivated",
    ),
    ("the partner has not reported", lambda w: w.connect("h2"), "has not probed the group"),
    (
        "the start failed on the partner",
        then(lambda w: w.start_failed("g", "h2", "exit 1"), lambda w: w.start_failed("u", "h2")),
        "exit 1",
    ),
    (
        "the partner answered before the verdict only",
        lambda w: setattr(w.state.hosts["h2"], "answered_at", w.now),
        "waiting for an answer from h2",
    ),
    ("it is being fenced", phase(FencePhase.RUNNING), "h1 is being fenced"),
    (
        "fencing failed, and the pause is not over",
        phase(FencePhase.FAILED, "no power", 107.0),
        "next try in 7 s",
    ),
    ("fencing failed, and the pause is over", phase(FencePhase.FAILED, "no power", 100.0), None),
    ("it was cancelled", phase(FencePhase.FAILED, "cancelled", float("inf")), "--confirm-off"),
]


@pytest.mark.parametrize(("story", "arrange", "said"), AUTOMATIC, ids=[row[0] for row in AUTOMATIC])
def test_automatic_fencing(story: str, arrange: Step, said: str | None) -> None:
    world = lost_host()
    arrange(world)
    refusal = automatic(world)
    assert (refusal is None) == (said is None), f"{story}: {refusal}"
    assert (said or "") in (refusal or "")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (LossKind.REFUSED, "run `systemctl start halo-remote` on h1"),
        (LossKind.RESET, "its agent ends the connection"),
        (LossKind.TLS, "HALO cannot talk to its agent (TLS failed)"),
        (LossKind.PROTOCOL, "HALO cannot talk to its agent (protocol error)"),
        (LossKind.DNS, "the manager cannot ask h1 (name resolution failed)"),
        (LossKind.LOCAL, "the manager cannot ask h1 (local error)"),
        (LossKind.SILENT, "HALO waits until h1 is silent for the loss budget"),
    ],
)
def test_without_a_verdict_the_operator_is_told_what_is_the_matter(
    kind: LossKind, said: str
) -> None:
    world = lost_host()
    world.state.hosts["h1"].lost_at = None
    world.state.hosts["h1"].loss = Loss(kind)
    assert said in (automatic(world) or "")


def test_observe_mode_and_policies_and_missing_devices() -> None:
    assert "observe" in (automatic(lost_host(observe_only=True)) or "")
    assert "on_loss: wait" in (automatic(lost_host(on_loss={"h1": LossPolicy.WAIT})) or "")
    assert "--confirm-off" in (automatic(lost_host(no_device=["h1"])) or "")


def test_a_host_with_reboot_is_fenced_also_where_nobody_could_take_over_and_once() -> None:
    world = lost_host(on_loss={"h1": LossPolicy.REBOOT})
    world.disconnect("h2")
    assert automatic(world) is None
    world.journal(Event.POWER_ON, "h1", policy="reboot")
    assert "no other host can take" in (automatic(world) or "")


@pytest.mark.parametrize("former", [{}, {"h1": "k"}], ids=["proven stopped", "not proven"])
def test_a_group_waits_for_a_former_host_only_until_it_is_proven_stopped_there(
    former: dict[str, str],
) -> None:
    """h1 was a candidate of k. g cannot start on h2, so only k could need the fence of h1."""
    world = World(make_group("g"), make_group("k", ["h2"], former_hosts=("h1",)))
    world.state.remembered.group("k").former = former
    world.up("h1", running=["g"])
    world.up("h2")
    world.lose("h1")
    world.answers("h2")
    world.start_failed("g", "h2", "exit 1")
    assert (automatic(world) is None) == bool(former)
    comment = rules.automatic_comment(world.state, "h1", world.now)
    assert comment.endswith("for g, k" if former else "for g")


def test_what_has_to_be_mended_is_said_in_order_of_what_helps() -> None:
    """A host without an agent in the config says so, and not that it is frozen out by a pause."""
    world = lost_host(no_device=["h1"])
    phase(FencePhase.FAILED, "x", 999.0)(world)
    assert "no fence agent" in (automatic(world) or "")


# --- the warrant is looked at again in the step that sends each off -----------------------------


def all_stopped(world: World) -> None:
    """Every group is to be stopped."""
    for group in world.cluster.groups:
        world.journal(Event.STOP, group)


WARRANT: list[tuple[str, Step, bool]] = [
    ("as it was", lambda w: None, True),
    ("connected again", lambda w: w.connect("h1"), False),
    ("answered and lost again", lambda w: setattr(w.state.hosts["h1"], "lost_at", 101.0), False),
    ("answered, and is silent", lambda w: w.state.host_alive("h1"), False),
    ("frozen", lambda w: w.journal(Event.FREEZE, "c"), False),
    ("its group was unmanaged", lambda w: w.unmanage("g"), False),
    ("one of its groups was stopped", lambda w: w.journal(Event.STOP, "g"), True),
    ("its groups were stopped", all_stopped, False),
]


@pytest.mark.parametrize(("story", "arrange", "goes_on"), WARRANT)
def test_an_automatic_fence_goes_on_only_while_its_reasons_hold(
    story: str, arrange: Step, goes_on: bool
) -> None:
    world = lost_host()
    verdict_at = world.state.hosts["h1"].lost_at
    arrange(world)
    assert (rules.abandon_reason(world.state, "h1", verdict_at) is None) == goes_on, story


def test_without_a_verdict_there_is_no_warrant() -> None:
    world = lost_host()
    assert rules.abandon_reason(world.state, "h1", None) is not None


# --- storms and limits --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "suspects", "refused"),
    [
        (2, 1, False),
        (2, 2, False),  # never more than two
        (3, 2, False),
        (3, 3, True),
        (6, 2, False),
        (6, 3, True),  # more than two, and more than a third
        (9, 3, False),  # a third is not more than a third
        (9, 4, True),
        (100, 33, False),
        (100, 34, True),
    ],
)
def test_when_many_fall_silent_together_none_is_fenced(
    hosts: int, suspects: int, refused: bool
) -> None:
    names = [f"h{number}" for number in range(1, hosts + 1)]
    world = World(make_group("g", ["h1", names[-1]]), hosts=names)
    world.up(*names)
    world.lose("h1")
    for name in names[1:suspects]:
        world.suspect(name, since=world.now + 59.0)
    world.answers(names[-1])
    told = automatic(world)
    assert (told is not None) == refused, told
    if refused:
        assert f"{suspects} hosts fell silent together" in (told or "")
        assert (told or "").endswith("If you know that h1 is dead, run `halo fence h1`")


def test_hosts_that_fall_silent_one_after_the_other_are_no_storm() -> None:
    names = [f"h{number}" for number in range(1, 7)]
    world = World(make_group("g", ["h1", "h6"]), hosts=names)
    world.up(*names)
    world.lose("h1")
    for number, name in enumerate(names[1:5], start=1):
        world.suspect(name, since=world.now + 60.1 * number)
    world.answers("h6")
    assert automatic(world) is None


@pytest.mark.parametrize("names", [["h1", "h2"], ["h1", "h2", "h3"]])
def test_when_one_comes_back_the_others_get_the_time_to_do_so_too(names: list[str]) -> None:
    # As when the manager's network is mended: the first one to be back could take the group.
    world = World(make_group("g", ["h1", names[-1]]), hosts=names)
    world.up(*names)
    world.lose(*names)
    world.now += 20.0
    world.up(names[-1])
    world.answers(names[-1])
    assert f"{names[-1]} was also silent and is back" in (automatic(world) or "")
    world.now += 5.1  # loss budget and connect timeout are over, and h1 stays away
    assert automatic(world) is None


def test_a_host_that_was_silent_long_before_is_not_waited_for() -> None:
    world = World(make_group("g", ["h1", "h2"]), hosts=["h1", "h2"])
    world.up("h1", "h2")
    world.lose("h2")
    world.now += 100.0
    world.lose("h1")
    world.now += 1.0
    world.up("h2")
    world.answers("h2")
    assert automatic(world) is None


def test_a_host_that_was_back_before_is_not_waited_for() -> None:
    world = World(make_group("g", ["h1", "h2"]), hosts=["h1", "h2"])
    world.up("h1", "h2")
    world.lose("h2")
    world.now += 2.0
    world.up("h2")
    world.now += 1.0
    world.lose("h1")
    world.answers("h2")
    assert automatic(world) is None


def test_automatic_fences_are_limited() -> None:
    world = lost_host(fence_limit=3, fence_limit_window_s=600.0)
    world.state.automatic_fences.extend([-600.0, -500.0, 50.0, 60.0])
    assert automatic(world) is None  # two of them are older than the window
    world.state.automatic_fences.append(70.0)
    assert "3 automatic fences within 600 s" in (automatic(world) or "")
    world.now = 650.0
    assert automatic(world) is None


def test_the_pause_after_failures_grows_and_is_bounded() -> None:
    pauses = [rules.retry_pause_s(attempts, 5.0, 300.0) for attempts in range(1, 9)]
    assert pauses == [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]
    assert rules.retry_pause_s(10**6, 5.0, 300.0) == 300.0


# --- the administrator --------------------------------------------------------------------------


def healthy() -> World:
    """g is managed on h1; both are up."""
    world = World(make_group("g"), make_group("u"))
    world.up("h1", running=["g"])
    world.up("h2")
    world.state.groups["g"].managed_on = "h1"
    return world


ADMINISTRATOR: list[tuple[str, Step, str | None, bool]] = [
    # the case, what brings it about, the refusal, does --force override it
    ("a healthy host", lambda w: None, None, True),
    ("a lost host", lambda w: w.lose("h1"), None, True),
    ("frozen: an administrator may", lambda w: w.journal(Event.FREEZE, "c"), None, True),
    ("being fenced", phase(FencePhase.RUNNING), "being fenced already", False),
    ("a device that lies", lambda w: w.journal(Event.DISTRUST, "h1", "x"), "not trusted", False),
    ("fenced already", lambda w: w.journal(Event.FENCE, "h1"), "not reset since", True),
    (
        "it runs an unmanaged group",
        then(lambda w: w.unmanage("u"), lambda w: w.see("u", "h1", RUNNING)),
        "unmanaged groups: u",
        True,
    ),
    (
        "an unmanaged group has two copies, one here",
        then(
            lambda w: w.unmanage("u"),
            lambda w: w.see("u", "h1", RUNNING),
            lambda w: w.see("u", "h2", RUNNING),
        ),
        "unmanaged groups: u",
        True,
    ),
    ("the partner is gone", lambda w: w.disconnect("h2"), "no other host can take g", True),
    (
        "the partner is deactivated",
        lambda w: w.journal(Event.DEACTIVATE, "h2"),
        "h2 is deactivated",
        True,
    ),
    (
        "the partner is gone, and the group is to be stopped anyway",
        then(lambda w: w.disconnect("h2"), lambda w: w.journal(Event.STOP, "g")),
        None,
        True,
    ),
]


@pytest.mark.parametrize(("story", "arrange", "said", "force_helps"), ADMINISTRATOR)
def test_an_administrators_fence(
    story: str, arrange: Step, said: str | None, force_helps: bool
) -> None:
    world = healthy()
    arrange(world)
    refusal = rules.administrator_refusal(world.state, "h1", force=False)
    assert (refusal is None) == (said is None), f"{story}: {refusal}"
    assert (said or "") in (refusal or "")
    forced = rules.administrator_refusal(world.state, "h1", force=True)
    assert (forced is None) == force_helps, f"{story}: {forced}"


@pytest.mark.parametrize("force", [False, True])
def test_no_force_fences_without_a_device_or_in_observe_mode(force: bool) -> None:
    world = World(make_group("g"), no_device=["h1"])
    assert "no fence agent" in (rules.administrator_refusal(world.state, "h1", force=force) or "")
    observing = World(make_group("g"), observe_only=True)
    assert "observes" in (rules.administrator_refusal(observing.state, "h1", force=force) or "")


# --- S3: what confirms --------------------------------------------------------------------------

DONE = FenceResult(succeeded=True)
FAILED = FenceResult(succeeded=False, message="login refused")
SAYS_OFF = FenceResult(succeeded=True, power=PowerState.OFF)
SAYS_ON = FenceResult(succeeded=True, power=PowerState.ON)
SAYS_NOTHING = FenceResult(succeeded=True)
NO_STATUS = FenceResult(succeeded=False, message="no answer within 60 s")


@pytest.mark.parametrize(
    ("offs", "wrong"),
    [
        ([DONE], None),
        ([DONE, DONE], None),
        ([DONE, FAILED], "login refused"),
        ([FAILED, FAILED], "login refused; login refused"),
        ([FenceResult(succeeded=False)], "the device reports failure"),
    ],
)
def test_every_device_of_a_step_has_to_succeed(offs: list[FenceResult], wrong: str | None) -> None:
    assert rules.judge_off(offs) == wrong


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ([SAYS_OFF], None),
        ([SAYS_OFF, SAYS_OFF], None),
        ([SAYS_ON], "says that the outlet is on"),
        ([SAYS_OFF, SAYS_ON], "says that the outlet is on"),
        ([SAYS_NOTHING], "does not say whether the outlet is off"),
        ([SAYS_OFF, NO_STATUS], "no answer within 60 s"),
    ],
)
def test_every_device_of_a_step_has_to_say_off_afterwards(
    statuses: list[FenceResult], said: str | None
) -> None:
    wrong = rules.judge_status(statuses, after_off=True)
    assert (wrong is None) == (said is None)
    assert (said or "") in (wrong or "")


# --- why -----------------------------------------------------------------------------------------


def test_the_comment_of_an_automatic_fence_says_who_was_silent_and_for_whose_sake() -> None:
    world = lost_host()
    world.now += 3.14
    assert rules.automatic_comment(world.state, "h1", world.now) == (
        "Manager service initiated fence action. h1 was silent for 3.1 s; for g, u"
    )
    world.journal(Event.STOP, "u")
    assert rules.automatic_comment(world.state, "h1", world.now).endswith("; for g")


def test_the_comment_names_a_few_of_many_groups() -> None:
    world = World(*(make_group(f"g{n}") for n in range(9)))
    world.up("h1", "h2")
    world.lose("h1")
    comment = rules.automatic_comment(world.state, "h1", world.now)
    assert comment.endswith("; for g0, g1, g2, g3, g4 and 4 more")


def test_the_comment_of_a_fence_for_a_closed_port_and_of_a_reboot() -> None:
    world = World(make_group("g", ("h1",)), on_loss={"h1": LossPolicy.REBOOT})
    world.up("h1", running=["g"])
    world.journal(Event.STOP, "g")
    world.disconnect("h1", Loss(LossKind.REFUSED))
    assert rules.automatic_comment(world.state, "h1", world.now) == (
        "Manager service initiated fence action. h1 was lost: connection refused; on_loss: reboot"
    )


WORDS = rules.AUTOMATIC_COMMENT


@pytest.mark.parametrize(
    ("comment", "data", "automatic"),
    [
        (WORDS, {}, True),  # of before it was written down
        ("smoke", {}, False),
        (f"{WORDS} h1 was silent for 3.0 s; for g", {"automatic": True}, True),
        (WORDS, {"automatic": False}, False),  # an administrator's own words
    ],
)
def test_whose_fence_is_still_open_is_known_after_a_restart(
    comment: str, data: dict[str, bool], automatic: bool
) -> None:
    world = lost_host()
    world.journal(Event.FENCE_INTENT, "h1", comment, **data)
    assert rules.was_automatic(world.state.memory_of_host("h1")) is automatic
    compacted = Remembered()
    fold.apply(compacted, Record.from_json(world.state.remembered.snapshot(0.0).to_json()))
    assert rules.was_automatic(compacted.host("h1")) is automatic


def test_a_snapshot_of_before_it_was_written_down_is_understood() -> None:
    world = lost_host()
    world.journal(Event.FENCE_INTENT, "h1", WORDS)
    raw = world.state.remembered.snapshot(0.0).to_json()
    for host in raw["data"]["hosts"].values():
        del host["fence_automatic"]
    old = Remembered()
    fold.apply(old, Record.from_json(raw))
    assert rules.was_automatic(old.host("h1"))
