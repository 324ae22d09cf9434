"""What a fence and its proof do not outlive: signs of life, questions that could not be asked, late
answers, a cancellation, a freeze (S1b, S3, S4, S7)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from halo.core.cluster.host_state import FencePhase
from halo.core.errors import CommandFailed, CommandRefused, LossKind
from halo.core.journal.records import Event
from halo.core.model import LossPolicy
from halo.core.outcomes import PowerState

from .fence_bench import Bench, Levels, refusal_of, virtual
from .virtual_time import run

ANSWERS = [LossKind.BUSY, LossKind.TLS, LossKind.PROTOCOL]
NOT_ASKED = [LossKind.DNS, LossKind.LOCAL, LossKind.NO_ROUTE_TO_NETWORK]


async def fenced() -> Bench:
    """h1 died and was fenced; g runs on h2."""
    bench = Bench()
    await bench.up()
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    return bench


async def restarted(bench: Bench, **settings: Any) -> Bench:
    """The manager is killed; another one starts on its journal, with agents that are new to it."""
    bench.work.cancel()
    await asyncio.wait({bench.work})
    return Bench(disk=bench.disk, **settings)


async def run_by_hand_on_h1(bench: Bench, answers: LossKind) -> None:
    """h1 is powered on by hand and g is started there; its device says off all the same."""
    bench.outlet().says = PowerState.OFF
    bench.agents["h1"].refuses = answers
    bench.agents["h1"].up.add("g")
    await bench.until(lambda: bench.h1.power_proof is None)


@pytest.mark.parametrize("kind", ANSWERS)
def test_no_start_rests_on_a_power_proof_after_an_answer_of_the_agent(kind: LossKind) -> None:
    async def body() -> None:
        bench = await fenced()
        await run_by_hand_on_h1(bench, kind)
        operations = bench.manager.operations
        await operations.group_command("g", "stop", to=None, comment="x")
        await bench.until(lambda: "g" not in bench.agents["h2"].up)
        await operations.group_command("g", "start", to=None, comment="x")
        await asyncio.sleep(30)
        assert "g" not in bench.agents["h2"].up

    run(body())


@pytest.mark.parametrize("kind", ANSWERS)
def test_an_answer_of_the_agent_is_remembered_over_a_restart(kind: LossKind) -> None:
    async def body() -> None:
        bench = await fenced()
        await run_by_hand_on_h1(bench, kind)
        bench = await restarted(bench)
        bench.lose()
        bench.outlet().says = PowerState.OFF
        await asyncio.sleep(60)
        assert "g" not in bench.agents["h2"].up

    run(body())


@virtual
async def test_without_a_sign_of_life_the_proof_holds_over_a_restart() -> None:
    bench = await fenced()
    bench = await restarted(bench)
    bench.lose()
    bench.outlet().is_on = False
    await bench.until(lambda: "g" in bench.agents["h2"].up)


@pytest.mark.parametrize("restarts", [False, True])
def test_after_a_closed_port_an_older_answer_of_the_device_counts_for_nothing(
    restarts: bool,
) -> None:
    async def body() -> None:
        bench = await fenced()
        if restarts:
            bench = await restarted(bench)
            bench.agents["h2"].refuses = LossKind.DNS  # so that nothing else asks the device
            bench.lose()
            bench.outlet().is_on = False
        bench.outlet().status_takes_s = 6.0
        bench.manager.device_runner.verify("h1")
        await asyncio.sleep(2.0)
        bench.agents["h1"].refuses = LossKind.REFUSED
        await bench.until(lambda: bench.h1.power_proof.doubted_at > float("-inf"))
        bench.agents["h1"].refuses = None  # silent again, for whatever reason
        await asyncio.sleep(4.5)  # the answer to the question of before has come
        assert bench.h1.power_proof.verified_at == float("-inf")
        bench.outlet().is_on = True
        await asyncio.sleep(12.0)
        bench.manager.device_runner.verify("h1")
        await bench.until(lambda: bench.h1.power_proof is None)

    run(body())


@virtual
async def test_a_slow_device_proves_a_host_off_whose_port_is_closed_all_the_while() -> None:
    """The port is tried twice a second: each time a new doubt, and no answer would ever count."""
    bench = await fenced()
    bench.agents["h1"].refuses = LossKind.REFUSED
    bench.outlet().status_takes_s = 3.0
    await asyncio.sleep(5)
    operations = bench.manager.operations
    await operations.group_command("g", "stop", to=None, comment="x")
    await bench.until(lambda: "g" not in bench.agents["h2"].up)
    await operations.group_command("g", "start", to=None, comment="x")
    await bench.until(lambda: "g" in bench.agents["h2"].up, within_s=30)


@virtual
async def test_a_closed_port_where_the_device_still_says_off_keeps_no_group_down() -> None:
    """A firewall may answer for a host that is gone."""
    bench = await fenced()
    bench.agents["h1"].refuses = LossKind.REFUSED
    await asyncio.sleep(5)
    bench.agents["h2"].up.discard("g")
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    operations = bench.manager.operations
    await operations.group_command("g", "stop", to=None, comment="x")
    await bench.until(lambda: "g" not in bench.agents["h2"].up)
    bench.devices.asked.clear()
    await operations.group_command("g", "start", to=None, comment="x")
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    assert bench.devices.asked[0] == "status one"


@pytest.mark.parametrize("kind", NOT_ASKED)
def test_a_fence_by_command_is_not_confirmed_when_the_agent_could_not_be_asked(
    kind: LossKind,
) -> None:
    """The wrong plug: the device says off, h1 runs on, and the manager's resolver fails, say."""

    async def body() -> None:
        bench = Bench()
        await bench.up()
        bench.outlet().off_does_nothing = True
        bench.outlet().off_takes_s = 0.5
        bench.outlet().on_off = lambda: None
        command = asyncio.create_task(refusal_of(bench.command("fence")))
        await bench.until(lambda: bench.switched == ["off one"])
        bench.outlet().says = PowerState.OFF
        bench.agents["h1"].refuses = kind
        error = await command
        assert isinstance(error, CommandFailed)
        assert "could not ask whether" in str(error)
        await asyncio.sleep(20)
        bench.never_confirmed()

    run(body())


@pytest.mark.parametrize("kind", NOT_ASKED)
def test_an_open_intent_is_not_confirmed_when_the_agent_could_not_be_asked(kind: LossKind) -> None:
    async def body() -> None:
        bench = Bench()
        await bench.up()
        bench.outlet().off_hangs = True
        bench.lose()
        await bench.until(lambda: bench.h1.fence_phase is FencePhase.RUNNING)
        await asyncio.sleep(1.0)
        bench = await restarted(bench)
        bench.agents["h1"].up.add("g")
        bench.agents["h1"].refuses = kind
        bench.outlet().says = PowerState.OFF
        await asyncio.sleep(30)
        bench.never_confirmed()
        assert "could not be asked" in bench.comments(Event.FENCE_FAILED)[-1]

    run(body())


@virtual
async def test_a_host_that_was_silent_is_fenced_though_names_do_not_resolve() -> None:
    """Its silence was proven for a whole loss budget; the resolver may have died with it."""
    bench = Bench()
    await bench.up()
    bench.lose()
    await bench.until(lambda: bench.switched == ["off one"])
    bench.agents["h1"].refuses = LossKind.DNS
    await bench.until(lambda: "g" in bench.agents["h2"].up)


@virtual
async def test_a_cancelled_fence_stays_cancelled_over_a_restart_until_the_host_answers() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_fails = "no"
    bench.lose()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.FAILED)
    assert "not fenced automatically until it has answered again" in await bench.command(
        "cancel-fence"
    )
    bench = await restarted(bench)
    bench.lose()
    await asyncio.sleep(120)
    assert bench.switched == []
    assert "was cancelled" in bench.state.groups["g"].comment
    bench.agents["h1"].live_again()
    await bench.until(lambda: "g" in bench.agents["h1"].up)
    bench.lose()
    await bench.until(lambda: "off one" in bench.switched)


@virtual
async def test_a_cancellation_and_an_outcome_are_one_after_the_other() -> None:
    """The disk is slow: a cancellation that comes while the outcome is written down is refused,
    and not written down itself."""
    bench = Bench()
    await bench.up()
    bench.lose()
    await bench.until(lambda: bench.switched == ["off one"])
    bench.disk.delay_s = 0.8
    await asyncio.sleep(0.2)
    assert isinstance(await refusal_of(bench.command("cancel-fence")), CommandRefused)
    assert "fence h1" in bench.events
    assert "fence-cancel h1" not in bench.events


@virtual
async def test_an_outcome_waits_for_the_cancellation_that_came_first() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_takes_s = 2.0
    bench.lose()
    await bench.until(lambda: bench.switched == ["off one"])
    await asyncio.sleep(1.5)
    bench.disk.delay_s = 1.8  # longer than the off has yet to take
    assert (await bench.command("cancel-fence")).startswith("cancelled: ")
    await asyncio.sleep(30)
    assert "fence h1" not in bench.events
    assert bench.h1.power_proof is None


@virtual
async def test_the_second_level_is_not_used_on_a_host_that_answers_again() -> None:
    """Level one took 50 s to fail; meanwhile a switch came back, and the host is well."""
    bench = Bench(levels=(("one",), ("two",)))
    await bench.up()
    bench.outlet("one").off_takes_s = 50.0
    bench.outlet("one").off_fails = "no"
    bench.lose()
    await bench.until(lambda: "off one" in bench.devices.asked)
    await asyncio.sleep(5)
    bench.agents["h1"].speak_again()
    await bench.until(lambda: bool(bench.comments(Event.FENCE_FAILED)))
    assert "off two" not in bench.devices.asked
    assert "it answers again" in bench.comments(Event.FENCE_FAILED)[-1]
    await bench.until(lambda: bench.h1.ready)
    assert bench.agents["h1"].up == {"g"}


@virtual
async def test_no_off_is_sent_after_a_freeze_that_came_while_it_waited_for_its_turn() -> None:
    bench = Bench(levels=(("one", "other"),))
    await bench.up()
    bench.devices.queue_s["off one"] = 5.0
    bench.lose()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.RUNNING)
    await asyncio.sleep(1.0)
    await bench.manager.operations.cluster_command("freeze", comment="hands off")
    await asyncio.sleep(30)
    assert bench.outlet("one").is_on
    bench.never_confirmed()


@virtual
async def test_a_probe_that_is_answered_ends_an_older_proof_at_once() -> None:
    """h1 was proven off, is powered on, and is fenced again: before that has come to an end, no
    start may rest on the first fence."""
    bench = await fenced()
    bench.outlet().status_takes_s = 5.0
    bench.agents["h1"].refuses = LossKind.TLS
    bench.manager.hosts["h1"].link.stand_down()  # nothing but the fence asks
    command = asyncio.create_task(refusal_of(bench.command("fence", force=True)))
    await bench.until(lambda: "off one" in bench.switched[1:])
    await asyncio.sleep(0.5)
    assert bench.h1.fence_phase is FencePhase.RUNNING
    assert bench.h1.power_proof is None
    assert "still answers" in str(await command)


@virtual
async def test_a_host_that_answers_while_its_slow_device_is_asked_is_heard_at_once() -> None:
    bench = Bench(fence_timeout_s=60.0)
    await bench.up()
    bench.outlet().status_takes_s = 50.0
    bench.lose()
    await bench.until(lambda: bench.switched == ["off one"])
    await asyncio.sleep(5.0)
    bench.outlet().is_on = True
    bench.agents["h1"].speak_again()
    answered_at = asyncio.get_running_loop().time()
    await bench.until(lambda: bench.h1.ready)
    assert asyncio.get_running_loop().time() - answered_at < 3.0
    assert "answers again" in bench.comments(Event.FENCE_FAILED)[-1]
    assert "distrust h1" not in bench.events
    await asyncio.sleep(120)
    assert bench.switched == ["off one"]
    bench.never_confirmed()


def lies_slowly(bench: Bench, status_takes_s: float, level: str = "one") -> None:
    """The device acknowledges an off, does not switch, and says off all the same."""
    bench.outlet(level).on_off = lambda: None
    bench.outlet(level).says = PowerState.OFF
    bench.outlet(level).status_takes_s = status_takes_s


@pytest.mark.parametrize("status_takes_s", [0.5, 1.5, 20.0])
def test_a_slow_device_that_says_off_while_the_agent_answers_is_not_believed_again(
    status_takes_s: float,
) -> None:
    async def body() -> None:
        bench = Bench(fence_timeout_s=60.0)
        await bench.up()
        lies_slowly(bench, status_takes_s)
        assert "still answers" in str(await refusal_of(bench.command("fence", force=True)))
        assert "distrust h1" in bench.events
        await bench.until(lambda: bench.h1.ready)
        bench.lose()
        await asyncio.sleep(120)
        assert "g" not in bench.agents["h2"].up
        bench.never_confirmed()

    run(body())


@pytest.mark.parametrize("kind", [LossKind.BUSY, LossKind.TLS])
def test_a_slow_device_that_lies_of_a_host_that_is_not_let_in_is_not_believed_again(
    kind: LossKind,
) -> None:
    async def body() -> None:
        bench = Bench(fence_timeout_s=60.0)
        await bench.up()
        lies_slowly(bench, 1.5)
        bench.agents["h1"].refuses = kind
        bench.agents["h1"].end(LossKind.RESET)
        await asyncio.sleep(3)
        await refusal_of(bench.command("fence", force=True))
        bench.agents["h1"].refuses = None
        bench.lose()
        await asyncio.sleep(120)
        assert "g" not in bench.agents["h2"].up
        bench.never_confirmed()

    run(body())


@virtual
async def test_a_slow_device_that_lies_ends_the_attempt_before_the_second_level() -> None:
    bench = Bench(levels=(("one",), ("two",)), fence_timeout_s=60.0)
    await bench.up()
    lies_slowly(bench, 2.0)
    await refusal_of(bench.command("fence", force=True))
    assert "distrust h1" in bench.events
    assert bench.switched == ["off one"]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_port_that_was_closed_after_the_question_has_the_device_asked_again(
    restarts: bool,
) -> None:
    """The host was powered on by hand, without its agent, while its slow device was asked."""

    async def body() -> None:
        bench = Bench(fence_timeout_s=60.0)
        await bench.up()
        bench.outlet().off_hangs = restarts
        bench.outlet().status_takes_s = 20.0
        bench.lose()
        await bench.until(lambda: bench.h1.fence_phase is FencePhase.RUNNING)
        if restarts:
            bench = await restarted(bench, fence_timeout_s=60.0)
            bench.lose()
            bench.outlet().is_on = False
            bench.outlet().status_takes_s = 20.0
        await bench.until(lambda: "status one" in bench.devices.asked)
        await asyncio.sleep(10)
        bench.agents["h1"].refuses_after_s = 0.02
        bench.agents["h1"].refuses = LossKind.REFUSED
        await bench.until(lambda: "g" in bench.agents["h2"].up)
        assert bench.devices.asked.count("status one") == 2

    run(body())


@virtual
async def test_an_open_intent_that_is_cancelled_does_not_end_the_fence_after_it() -> None:
    bench = Bench(fence_timeout_s=60.0)
    await bench.up()
    bench.outlet().off_hangs = True
    bench.lose()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.RUNNING)
    bench = await restarted(bench, fence_timeout_s=60.0)
    bench.lose()
    bench.outlet().status_takes_s = 20.0
    await asyncio.sleep(3)
    await bench.command("cancel-fence")
    bench.outlet().off_takes_s = 30.0
    command = asyncio.create_task(bench.command("fence", force=True))
    await bench.until(lambda: "off one" in bench.devices.asked)
    bench.agents["h1"].speak_again()
    await asyncio.sleep(25)
    assert bench.h1.fence_phase is FencePhase.RUNNING
    assert bench.agents["h1"].up == set()
    await asyncio.wait({command})


@virtual
async def test_an_open_intent_of_a_host_that_answers_does_not_wait_for_its_slow_device() -> None:
    bench = Bench(fence_timeout_s=60.0)
    await bench.up()
    bench.outlet().off_hangs = True
    bench.lose()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.RUNNING)
    bench = await restarted(bench)
    bench.outlet().status_takes_s = 50.0
    restarted_at = asyncio.get_running_loop().time()
    await bench.until(lambda: bench.h1.ready)
    assert asyncio.get_running_loop().time() - restarted_at < 3.0
    assert "HALO decides again" in bench.comments(Event.FENCE_FAILED)[-1]
    bench.never_confirmed()


@virtual
async def test_an_open_intent_that_is_cancelled_while_its_device_is_asked_is_not_confirmed() -> (
    None
):
    bench = Bench()
    await bench.up()
    bench.outlet().off_hangs = True
    bench.lose()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.RUNNING)
    await asyncio.sleep(1.0)
    bench = await restarted(bench)
    bench.lose()
    bench.outlet().is_on = False
    bench.outlet().status_takes_s = 3.0
    await asyncio.sleep(1.0)
    assert (await bench.command("cancel-fence")).startswith("cancelled: ")
    await asyncio.sleep(30)
    bench.never_confirmed()


# --- devices that are slow, levels that are dead ------------------------------------------------

SLOW_S = [11.0, 30.0, 50.0]


async def start_again(bench: Bench) -> None:
    """g is stopped, and some minutes later it is started again."""
    operations = bench.manager.operations
    await operations.group_command("g", "stop", to=None, comment="x")
    await bench.until(lambda: "g" not in bench.agents["h2"].up)
    await asyncio.sleep(180)
    bench.devices.asked.clear()
    await operations.group_command("g", "start", to=None, comment="x")


async def fenced_slowly(slow_s: float, levels: Levels = (("one",),), **settings: Any) -> Bench:
    bench = Bench(levels, **{"fence_timeout_s": 60.0, **settings})
    await bench.up()
    for name in {name for level in levels for name in level}:
        bench.outlet(name).status_takes_s = slow_s
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    return bench


@pytest.mark.parametrize("slow_s", SLOW_S)
def test_a_group_starts_on_the_word_of_a_device_that_is_slower_than_its_proof_is_young(
    slow_s: float,
) -> None:
    async def body() -> None:
        bench = await fenced_slowly(slow_s)
        await start_again(bench)
        await bench.until(lambda: "g" in bench.agents["h2"].up)
        assert bench.devices.asked == ["status one"]

    run(body())


@pytest.mark.parametrize("slow_s", SLOW_S)
def test_a_slow_device_proves_a_host_off_to_a_manager_that_is_restarted(slow_s: float) -> None:
    async def body() -> None:
        bench = await fenced_slowly(slow_s)
        bench.work.cancel()
        await asyncio.wait({bench.work})
        bench = Bench(disk=bench.disk, fence_timeout_s=60.0)
        bench.lose()
        bench.outlet().is_on = False
        bench.outlet().status_takes_s = slow_s
        await bench.until(lambda: "g" in bench.agents["h2"].up)

    run(body())


@virtual
async def test_a_slow_device_proves_a_host_off_after_a_cleanup() -> None:
    bench = await fenced_slowly(30.0)
    operations = bench.manager.operations
    await operations.group_command("g", "stop", to=None, comment="x")
    await bench.until(lambda: "g" not in bench.agents["h2"].up)
    await asyncio.sleep(60)
    await operations.group_command("g", "cleanup", to=None, comment="x")
    await operations.group_command("g", "start", to=None, comment="x")
    await bench.until(lambda: "g" in bench.agents["h2"].up)


@virtual
async def test_the_level_that_confirmed_is_asked_and_not_the_dead_one_before_it() -> None:
    """The controller lost its power with the host; the power strip on level two switched it off."""
    bench = Bench(levels=(("bmc",), ("pdu",)))
    await bench.up()
    bmc = bench.outlet("bmc")
    bmc.off_takes_s = bmc.status_takes_s = 10.0
    bmc.off_fails = bmc.status_fails = "no answer"
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    await start_again(bench)
    await bench.until(lambda: "g" in bench.agents["h2"].up, within_s=3)
    assert bench.devices.asked == ["status pdu"]


@virtual
async def test_a_manager_that_is_restarted_knows_which_level_confirmed() -> None:
    levels = (("bmc",), ("pdu",))
    bench = Bench(levels)
    await bench.up()
    bench.outlet("bmc").off_fails = "no answer"
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    bench.work.cancel()
    await asyncio.wait({bench.work})
    bench = Bench(levels, disk=bench.disk)
    bench.lose()
    bench.outlet("pdu").is_on = False
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    assert "status bmc" not in bench.devices.asked


@virtual
async def test_an_intent_that_was_open_is_settled_by_the_first_level_that_says_off() -> None:
    """The dead level takes its 20 s; the answer of the other is used when it comes."""
    levels = (("bmc",), ("pdu",))
    bench = Bench(levels)
    await bench.up()
    bench.outlet("bmc").off_fails = "no answer"
    bench.outlet("pdu").off_hangs = True
    bench.lose()
    await bench.until(lambda: "off pdu" in bench.devices.asked)
    bench.work.cancel()
    await asyncio.wait({bench.work})
    bench = Bench(levels, disk=bench.disk)
    bench.lose()
    bench.outlet("bmc").status_takes_s = 20.0
    bench.outlet("bmc").status_fails = "no answer"
    bench.outlet("pdu").is_on = False
    await bench.until(lambda: "g" in bench.agents["h2"].up, within_s=10)
    assert bench.devices.running == set()


@virtual
async def test_a_person_who_saw_it_dark_is_followed_by_whatever_level_says_so() -> None:
    bench = Bench(levels=(("bmc",), ("pdu",)))
    await bench.up()
    for name in ("bmc", "pdu"):
        bench.outlet(name).off_fails = "no answer"
    bench.outlet("bmc").status_fails = "no answer"
    bench.outlet("bmc").status_takes_s = 20.0
    bench.lose()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.FAILED)
    bench.outlet("pdu").is_on = False
    await bench.command("confirm-off")
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    await start_again(bench)
    await bench.until(lambda: "g" in bench.agents["h2"].up, within_s=10)


@virtual
async def test_the_level_that_confirmed_says_on_and_is_believed_whatever_another_says() -> None:
    bench = Bench(levels=(("bmc",), ("pdu",)))
    await bench.up()
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    bench.outlet("pdu").is_on = False
    bench.outlet("bmc").is_on = True
    bench.h1.power_proof.verified_at = float("-inf")
    bench.manager.device_runner.verify("h1")
    await bench.until(lambda: bench.h1.power_proof is None)


@virtual
async def test_a_host_that_is_powered_on_while_a_slow_device_answers_is_not_confirmed() -> None:
    """The device looked before, and answers after: the agent is asked once more."""
    bench = Bench(fence_timeout_s=60.0)
    await bench.up()
    bench.outlet().status_takes_s = 30.0
    bench.lose()
    await bench.until(lambda: "status one" in bench.devices.asked)
    bench.outlet().says = PowerState.OFF
    await asyncio.sleep(15)
    bench.agents["h1"].live_again()
    await bench.until(lambda: bool(bench.comments(Event.FENCE_FAILED)))
    bench.never_confirmed()
    assert bench.state.memory_of_host("h1").distrusted is None  # it told the truth, of before


@virtual
async def test_a_port_that_closes_behind_a_slow_answer_has_the_device_asked_once_more() -> None:
    """Something was switched on there meanwhile: no start may rest on the answer of before."""
    bench = Bench(fence_timeout_s=60.0)
    await bench.up()
    bench.outlet().status_takes_s = 30.0
    bench.lose()
    await bench.until(lambda: "status one" in bench.devices.asked)
    await asyncio.sleep(15)
    bench.agents["h1"].refuses = LossKind.REFUSED
    await bench.until(lambda: "fence h1" in bench.events)
    assert "g" not in bench.agents["h2"].up
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    assert bench.devices.asked.count("status one") == 2


async def stop(bench: Bench) -> None:
    await bench.manager.operations.group_command("g", "stop", to=None, comment="x")
    await bench.until(lambda: "g" not in bench.agents["h2"].up)


async def start(bench: Bench) -> None:
    bench.devices.asked.clear()
    await bench.manager.operations.group_command("g", "start", to=None, comment="x")


@virtual
async def test_an_answer_to_a_question_from_before_the_last_off_proves_nothing() -> None:
    """A doubt stood already, since the port was closed: it must not hide that of the off."""
    bench = Bench(fence_timeout_s=60.0)
    await bench.up()
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    await stop(bench)
    bench.outlet().status_takes_s = 20.0
    await asyncio.sleep(30)
    bench.agents["h1"].refuses = LossKind.REFUSED
    await start(bench)
    await bench.until(lambda: "status one" in bench.devices.asked)
    await asyncio.sleep(5)
    bench.outlet().off_takes_s = 40.0
    command = asyncio.create_task(bench.command("fence", force=True))
    await bench.until(lambda: "off one" in bench.devices.asked)
    await asyncio.sleep(20)
    assert bench.h1.fence_phase is FencePhase.RUNNING
    assert "g" not in bench.agents["h2"].up
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    await command


@virtual
async def test_nothing_starts_on_an_answer_from_between_two_levels_of_a_fence() -> None:
    bench = Bench((("bmc",), ("pdu",)), fence_timeout_s=60.0)
    await bench.up()
    bench.outlet("bmc").off_fails = "no"
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    await stop(bench)
    bench.outlet("pdu").status_takes_s = 20.0
    bench.outlet("bmc").off_takes_s = 12.0
    bench.outlet("pdu").off_takes_s = 40.0
    await asyncio.sleep(30)
    command = asyncio.create_task(bench.command("fence", force=True))
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.RUNNING)
    await asyncio.sleep(1)
    await start(bench)
    await bench.until(lambda: "off pdu" in bench.devices.asked)
    await asyncio.sleep(15)
    assert "g" not in bench.agents["h2"].up
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    await command


@virtual
async def test_a_level_of_two_devices_is_as_old_as_its_oldest_answer() -> None:
    """One says off at once, the other after 50 s; in between the first is switched on by hand."""
    bench = Bench((("one", "other"),), fence_timeout_s=60.0)
    await bench.up()
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    await stop(bench)
    bench.outlet("one").status_takes_s = 0.2
    bench.outlet("other").status_takes_s = 50.0
    await asyncio.sleep(30)
    await start(bench)
    await bench.until(lambda: "status other" in bench.devices.asked)
    await asyncio.sleep(20)
    bench.outlet("one").is_on = True
    await asyncio.sleep(60)
    assert "g" not in bench.agents["h2"].up
    assert bench.h1.power_proof is None


@virtual
async def test_two_devices_of_a_level_that_are_unequally_slow_prove_it_together() -> None:
    bench = await fenced_slowly(30.0, (("one", "other"),))
    bench.outlet("other").status_takes_s = 50.0
    await start_again(bench)
    await bench.until(lambda: "g" in bench.agents["h2"].up, within_s=300)


@pytest.mark.parametrize("latency_s", [0.02, 0.05, 0.2])
def test_an_agent_that_is_back_has_time_to_say_so_after_a_slow_answer(latency_s: float) -> None:
    """Nobody listened to it while the device took its time."""

    async def body() -> None:
        bench = Bench(fence_timeout_s=60.0)
        await bench.up()
        bench.outlet().status_takes_s = 30.0
        bench.lose()
        await bench.until(lambda: "status one" in bench.devices.asked)
        bench.outlet().says = PowerState.OFF
        await asyncio.sleep(15)
        bench.agents["h1"].live_again()
        bench.agents["h1"].latency_s = latency_s
        bench.agents["h1"].up.add("g")
        await asyncio.sleep(25)
        assert "g" not in bench.agents["h2"].up
        assert "fence h1" not in bench.events

    run(body())


@virtual
async def test_where_the_level_that_confirmed_is_dead_now_the_others_are_asked_too() -> None:
    """The plug was pulled for the repair: its controller answers no more, the power strip does."""
    bench = Bench((("bmc",), ("pdu",)))
    await bench.up()
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    bench.outlet("bmc").status_fails = "no answer"
    bench.outlet("pdu").is_on = False
    await start_again(bench)
    await bench.until(lambda: "g" in bench.agents["h2"].up)


@virtual
async def test_no_level_is_taken_for_the_one_that_confirmed_on_a_persons_word() -> None:
    bench = Bench((("bmc",), ("pdu",)))
    await bench.up()
    for name in ("bmc", "pdu"):
        bench.outlet(name).off_fails = "no answer"
    bench.lose()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.FAILED)
    bench.outlet("bmc").is_on = bench.outlet("pdu").is_on = False
    bench.outlet("pdu").status_takes_s = 1.0
    await bench.command("confirm-off")
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    await start_again(bench)
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    bench.outlet("bmc").status_fails = "no answer"
    await start_again(bench)
    await bench.until(lambda: "g" in bench.agents["h2"].up)


@pytest.mark.parametrize("closed_port", [False, True])
@pytest.mark.parametrize("takes_s", [3.0, 9.0, 14.0, 30.0])
def test_on_loss_reboot_lets_a_slow_device_prove_the_host_off_first(
    takes_s: float, closed_port: bool
) -> None:
    async def body() -> None:
        bench = Bench(on_loss=LossPolicy.REBOOT, fence_timeout_s=60.0)
        await bench.up()
        bench.outlet().status_takes_s = takes_s
        bench.lose()
        await bench.until(lambda: "off one" in bench.devices.asked)
        if closed_port:
            bench.agents["h1"].refuses = LossKind.REFUSED
        await bench.until(lambda: "g" in bench.agents["h2"].up, within_s=300)

    run(body())


@virtual
async def test_a_commands_failed_attempt_does_not_outlive_a_new_verdict() -> None:
    """The late probe was answered, so the attempt failed; then the host dies for good."""
    bench = Bench(fence_timeout_s=60.0)
    await bench.up()
    operations = bench.manager.operations
    await operations.cluster_command("freeze", comment="x")
    bench.outlet().status_takes_s = 30.0
    bench.outlet().on_off = lambda: None
    bench.lose()
    await asyncio.sleep(10)
    command = asyncio.create_task(refusal_of(bench.command("fence", force=True)))
    await bench.until(lambda: "status one" in bench.devices.asked)
    await asyncio.sleep(29.5)
    bench.agents["h1"].refuses = LossKind.TLS
    assert isinstance(await command, CommandFailed)
    bench.agents["h1"].refuses = None
    bench.agents["h1"].die()
    await operations.cluster_command("thaw", comment="x")
    await bench.until(lambda: "g" in bench.agents["h2"].up)


@virtual
async def test_a_device_that_says_on_when_asked_is_not_said_to_have_acknowledged_an_off() -> None:
    bench = Bench((("bmc",), ("pdu",)))
    await bench.up()
    for name in ("bmc", "pdu"):
        bench.outlet(name).off_fails = "no answer"
    bench.outlet("bmc").status_fails = "no answer"
    bench.lose()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.FAILED)
    await bench.command("confirm-off")
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    await start_again(bench)
    await bench.until(lambda: bool(bench.h1.verify_error))
    assert (
        bench.h1.verify_error
        == "level 1: no answer; level 2: the device says that the outlet is on"
    )


@virtual
async def test_a_hiccup_of_the_level_that_confirmed_lets_no_other_one_outvote_it() -> None:
    bench = Bench((("one",), ("two",)))
    await bench.up()
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    await stop(bench)
    bench.outlet("one").status_fails = "busy"
    await asyncio.sleep(60)
    bench.outlet("two").says = PowerState.OFF  # a port that was always off
    await start(bench)
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    await stop(bench)
    bench.outlet("one").status_fails = None
    bench.outlet("one").is_on = True
    bench.outlet("one").status_takes_s = 2.0
    await asyncio.sleep(60)
    await start(bench)
    await asyncio.sleep(20)
    assert "g" not in bench.agents["h2"].up
    assert bench.h1.power_proof is None


@virtual
async def test_one_slow_answer_does_not_delay_the_next_failover() -> None:
    """Of two devices of a level the quicker is asked later only where a proof has to be renewed."""
    bench = Bench((("one", "two"),), fence_timeout_s=60.0)
    await bench.up()
    bench.outlet("two").status_takes_s = 50.0
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    bench.outlet("two").status_takes_s = 0.0
    for name in ("one", "two"):
        bench.outlet(name).is_on = True
    bench.agents["h1"].live_again()
    await bench.until(lambda: bench.h1.ready)
    await bench.command("reset")
    await bench.manager.operations.group_command("g", "move", to="h1", comment="x")
    await bench.until(lambda: "g" in bench.agents["h1"].up)
    await asyncio.sleep(100)
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up, within_s=5)
