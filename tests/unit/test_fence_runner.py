"""S3, clause by clause: what confirms a fence, what never does, and what comes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from halo.core.cluster.host_state import FencePhase
from halo.core.errors import CommandFailed, CommandRefused, InvariantError, Loss, LossKind
from halo.core.journal import fold
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from halo.core.model import LossPolicy
from halo.core.outcomes import FenceAction, PowerState
from tests.fakes.memory_medium import MemoryDisk

from .fence_bench import Bench, refusal_of, virtual
from .virtual_time import run, settle

# --- confirmed ----------------------------------------------------------------------------------


@virtual
async def test_the_answer_to_the_ping_begins_the_fence_and_no_clock_does() -> None:
    bench = Bench()
    await bench.up()
    began: list[float] = []

    def on_off() -> None:
        began.append(bench.loop.time())
        bench.agents["h1"].die()

    bench.outlet().on_off = on_off
    await asyncio.sleep(0.4)
    bench.agents["h2"].end(LossKind.RESET)  # its heartbeats come at other moments from now on
    await bench.until(lambda: bench.agents["h2"].standing != [] and bench.state.hosts["h2"].ready)
    bench.agents["h2"].script_s = 0.8  # the answer of a monitor wakes the group, too
    bench.lose()
    await bench.until(lambda: began != [])
    assert began[0] - bench.state.last_verdict_at < 0.05


@virtual
async def test_the_intent_is_on_disk_before_the_off_and_the_outcome_before_the_start() -> None:
    bench = Bench()
    await bench.up()
    seen: list[str] = []

    def on_off() -> None:
        seen.extend(text for text in bench.disk.texts if "fence-intent" in text)
        bench.agents["h1"].die()

    bench.outlet().on_off = on_off
    bench.agents["h2"].on_start = lambda name: seen.extend(
        text for text in bench.disk.texts if '"fence"' in text
    )
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    assert len(seen) == 2


# --- never confirmed ----------------------------------------------------------------------------


def off_fails(bench: Bench) -> None:
    bench.outlet().off_fails = "login refused"


def off_hangs(bench: Bench) -> None:
    bench.outlet().off_hangs = True


def stays_on(bench: Bench) -> None:
    bench.outlet().off_does_nothing = True


def says_nothing(bench: Bench) -> None:
    bench.outlet().says = PowerState.UNKNOWN


def status_fails(bench: Bench) -> None:
    bench.outlet().status_fails = "connection timed out"


def status_hangs(bench: Bench) -> None:
    bench.outlet().status_takes_s = 10_000.0


FAULTS = [
    (off_fails, "login refused"),
    (off_hangs, "no answer within 60 s"),
    (stays_on, "says that the outlet is on"),
    (says_nothing, "does not say whether the outlet is off"),
    (status_fails, "connection timed out"),
    (status_hangs, "no answer within 60 s"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_what_never_confirms(fault: Callable[[Bench], None], words: str) -> None:
    async def body() -> None:
        bench = Bench()
        await bench.up()
        fault(bench)
        bench.lose()
        await bench.until(lambda: "fence-failed h1" in bench.events)
        assert words in bench.comments(Event.FENCE_FAILED)[0]
        assert bench.h1.fence_phase is FencePhase.FAILED
        await asyncio.sleep(600.0)
        bench.never_confirmed()

    run(body())


@pytest.mark.parametrize(("fault", "words"), FAULTS)
def test_an_administrator_is_told_and_it_is_one_attempt(
    fault: Callable[[Bench], None], words: str
) -> None:
    async def body() -> None:
        bench = Bench()
        await bench.up()
        fault(bench)
        error = await refusal_of(bench.command("fence"))
        assert isinstance(error, CommandFailed)
        assert words in str(error)
        assert len(bench.switched) == 1
        assert "fence h1" not in bench.events

    run(body())


@virtual
async def test_a_host_that_answers_again_is_not_fenced_any_more() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_fails = "no power"
    bench.lose()
    await bench.until(lambda: len(bench.switched) == 1)
    bench.agents["h1"].speak_again()
    await bench.until(lambda: bench.h1.connected)
    bench.outlet().off_fails = None
    await asyncio.sleep(600.0)
    assert len(bench.switched) == 1
    assert bench.agents["h1"].up == {"g"}
    assert bench.h1.fence_phase is FencePhase.IDLE


@virtual
async def test_the_same_silence_judged_once_more_does_not_call_a_fence_off() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_fails = "no power"
    bench.lose()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.FAILED)
    bench.outlet().off_fails = None
    bench.disk.hang()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.RUNNING)
    bench.manager.hosts["h1"].link_lost(Loss(LossKind.SILENT))
    bench.disk.release()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    assert bench.comments(Event.FENCE_FAILED) == ["no power"]


# --- devices that lie ---------------------------------------------------------------------------


def does_not_really_switch(bench: Bench) -> None:
    bench.outlet().on_off = lambda: None


@virtual
async def test_an_agent_that_answers_slowly_is_waited_for_after_an_administrators_off() -> None:
    bench = Bench()
    await bench.up()
    does_not_really_switch(bench)
    bench.agents["h1"].latency_s = 0.4
    error = await refusal_of(bench.command("fence"))
    assert "agent still answers" in str(error)


@virtual
async def test_a_lying_device_is_found_out_when_its_host_connects() -> None:
    bench = Bench()
    bench.outlet().says = PowerState.OFF
    await bench.until(lambda: "distrust h1" in bench.events)
    bench.lose()
    await asyncio.sleep(60.0)
    bench.never_confirmed()
    assert bench.switched == []
    assert "not trusted" in bench.h1.fence_held


@virtual
async def test_a_lying_device_is_found_out_within_the_hour() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().says = PowerState.OFF
    await asyncio.sleep(3600.0)
    await bench.until(lambda: "distrust h1" in bench.events)


@virtual
async def test_a_device_that_says_off_of_a_host_that_just_lost_its_power_does_not_lie() -> None:
    bench = Bench(device_check_interval_s=100.0)
    await bench.up()

    async def cut_just_before_the_check() -> None:
        while "status one" not in bench.devices.asked:
            bench.outlet().is_on = False
            bench.agents["h1"].fall_silent()
            await asyncio.sleep(0.01)

    began = bench.loop.time()
    await asyncio.sleep(99.8 - (began - 1000.0))
    await cut_just_before_the_check()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    assert "distrust h1" not in bench.events


@virtual
async def test_a_distrusted_device_proves_nothing_also_after_an_operators_word() -> None:
    bench = Bench()
    bench.outlet().says = PowerState.OFF
    await bench.until(lambda: "distrust h1" in bench.events)
    bench.agents["h2"].fall_silent()
    bench.lose()
    await bench.until(lambda: not bench.h1.connected)
    await bench.command("confirm-off", comment="saw it dark")
    await asyncio.sleep(30.0)  # the word has aged, and only the device could renew it
    bench.agents["h2"].speak_again()
    await asyncio.sleep(30.0)
    assert "g" not in bench.agents["h2"].up


# --- the operator steps in ----------------------------------------------------------------------


@virtual
async def test_what_the_operator_saw_dark_counts_as_fenced() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_fails = "no power"
    bench.lose()
    await bench.until(lambda: "fence-failed h1" in bench.events)
    answer = await bench.command("confirm-off", comment="saw it dark")
    assert "counts as fenced" in answer
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    assert bench.comments(Event.FENCE) == ["saw it dark"]


async def of_g(bench: Bench, command: str) -> str:
    return await bench.manager.operations.group_command("g", command, to=None, comment=None)


def said_of_g(bench: Bench) -> str:
    return bench.state.groups["g"].comment


@virtual
async def test_a_stopped_group_is_known_to_be_stopped_when_its_host_was_seen_dark() -> None:
    bench = Bench()
    await bench.up()
    await of_g(bench, "stop")
    await bench.until(lambda: said_of_g(bench) == "stopped by the administrator")
    bench.lose()
    await bench.until(lambda: said_of_g(bench) == "wanted stopped, but may still run on h1")
    await bench.command("confirm-off", comment="saw it dark")
    await asyncio.sleep(0.01)
    assert said_of_g(bench) == "stopped by the administrator"


@virtual
async def test_a_device_that_gives_no_answer_is_asked_now_and_then_for_a_stopped_group() -> None:
    bench = Bench()
    await bench.up()
    await of_g(bench, "stop")
    await bench.command("fence")
    await bench.until(lambda: said_of_g(bench) == "stopped by the administrator")
    bench.outlet().status_fails = "pulled for repair"
    bench.devices.asked.clear()
    await of_g(bench, "cleanup")
    await asyncio.sleep(600.0)
    assert "wanted stopped, but may still run on h1; h1 was fenced" in said_of_g(bench)
    assert 5 <= bench.devices.asked.count("status one") <= 11
    bench.outlet().status_fails = None
    await bench.until(lambda: said_of_g(bench) == "stopped by the administrator", 70.0)


@virtual
async def test_a_distrusted_device_is_not_asked_for_a_stopped_group() -> None:
    bench = Bench()
    bench.outlet().says = PowerState.OFF
    await bench.until(lambda: "distrust h1" in bench.events)
    await of_g(bench, "stop")
    bench.lose()
    await bench.until(lambda: not bench.h1.connected)
    await bench.command("confirm-off", comment="saw it dark")
    await asyncio.sleep(20.0)  # the word has aged
    await of_g(bench, "cleanup")
    bench.devices.asked.clear()
    await asyncio.sleep(600.0)
    assert bench.devices.asked.count("status one") == 0
    assert "`halo fence h1 --confirm-off --reason ...` once more" in said_of_g(bench)


@virtual
async def test_a_cancelled_fence_is_abandoned_and_its_result_discarded() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_takes_s = 20.0
    bench.lose()
    await bench.until(lambda: bench.switched == ["off one"])
    await bench.command("cancel-fence", comment="wrong host")
    assert bench.devices.running == set()
    await asyncio.sleep(600.0)
    bench.never_confirmed()
    assert bench.switched == ["off one"]
    assert "--confirm-off" in bench.h1.fence_held


@virtual
async def test_whoever_waits_for_a_fence_that_is_cancelled_is_told_so() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_takes_s = 20.0
    waiting = asyncio.create_task(refusal_of(bench.command("fence")))
    await bench.until(lambda: bench.switched == ["off one"])
    await bench.command("cancel-fence")
    assert "cancelled" in str(await waiting)


@virtual
async def test_a_fence_that_is_not_under_way_cannot_be_cancelled() -> None:
    bench = Bench()
    await bench.up()
    assert isinstance(await refusal_of(bench.command("cancel-fence")), CommandRefused)


@virtual
async def test_a_second_fence_of_a_host_is_refused_while_one_runs() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_takes_s = 5.0
    first = asyncio.create_task(bench.command("fence"))
    await bench.until(lambda: bench.switched == ["off one"])
    for force in (False, True):
        assert "being fenced already" in str(await refusal_of(bench.command("fence", force=force)))
    assert await first == "h1 is fenced"


# --- nothing of the host is acted on meanwhile --------------------------------------------------


@virtual
async def test_from_the_intent_to_the_outcome_the_host_is_not_listened_to() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_takes_s = 30.0
    fence = asyncio.create_task(bench.command("fence"))
    await bench.until(lambda: bench.switched == ["off one"])
    attempts = len(bench.agents["h1"].attempts)
    await asyncio.sleep(20.0)
    assert not bench.h1.ready
    assert bench.agents["h1"].standing == []
    assert len(bench.agents["h1"].attempts) == attempts
    await fence


@virtual
async def test_an_automatic_fence_does_not_listen_either() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_takes_s = 30.0
    bench.lose()
    await bench.until(lambda: bench.switched == ["off one"])
    attempts = len(bench.agents["h1"].attempts)
    bench.agents["h1"].speak_again()
    await asyncio.sleep(20.0)
    assert not bench.h1.connected
    assert len(bench.agents["h1"].attempts) == attempts


@virtual
async def test_after_the_outcome_it_is_discovered_as_at_the_start() -> None:
    bench = Bench()
    await bench.up()
    await bench.command("fence")
    await bench.until(lambda: bench.agents["h2"].up == {"g", "k"})
    bench.agents["h1"].live_again()
    bench.outlet().is_on = True
    await bench.until(lambda: bench.h1.ready)
    await asyncio.sleep(60.0)
    assert bench.agents["h1"].up == set()
    assert bench.agents["h2"].up == {"g", "k"}
    assert bench.h1.power_proof is None


@virtual
async def test_a_freeze_meanwhile_stops_an_automatic_fence_before_its_next_off() -> None:
    bench = Bench((("one",), ("pdu",)))
    await bench.up()
    bench.outlet("one").off_takes_s = 5.0
    bench.outlet("one").off_fails = "login refused"
    bench.lose()
    await bench.until(lambda: bench.switched == ["off one"])
    await bench.manager.operations.cluster_command("freeze", comment="wait")
    await asyncio.sleep(120.0)
    assert bench.switched == ["off one"]
    bench.never_confirmed()


@virtual
async def test_a_fence_that_was_called_off_before_its_off_is_begun_without_a_pause() -> None:
    bench = Bench(fence_retry_min_s=60.0, fence_retry_max_s=60.0)
    await bench.up()
    bench.disk.hang()
    bench.lose()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.RUNNING)
    stop = asyncio.ensure_future(
        bench.manager.operations.group_command("g", "stop", to=None, comment="")
    )
    await settle()
    bench.disk.release()
    await stop
    await bench.until(lambda: bool(bench.comments(Event.FENCE_FAILED)))
    assert bench.comments(Event.FENCE_FAILED) == ["abandoned: no group waits for it any more"]
    assert bench.switched == []
    await bench.manager.operations.group_command("g", "start", to=None, comment="")
    await bench.until(lambda: "g" in bench.agents["h2"].up, within_s=5.0)


@virtual
async def test_a_retry_that_is_called_off_leaves_the_failure_of_before_as_it_was() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_fails = "login refused"
    bench.lose()
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.FAILED)
    await asyncio.sleep(bench.h1.fence_retry_at - bench.loop.time() - 0.1)
    bench.disk.hang()
    command = bench.manager.operations.group_command
    stop = asyncio.ensure_future(command("g", "stop", to=None, comment=""))
    await bench.until(lambda: bench.h1.fence_phase is FencePhase.RUNNING)
    bench.disk.release()
    await stop
    await bench.until(lambda: len(bench.comments(Event.FENCE_FAILED)) == 2)
    await settle()
    assert bench.switched == ["off one"]
    assert bench.h1.fence_phase is FencePhase.FAILED
    assert bench.h1.fence_error == "login refused"
    await bench.command("cancel-fence")
    await command("g", "start", to=None, comment="")
    await asyncio.sleep(60.0)
    assert bench.switched == ["off one"]


# --- the journal --------------------------------------------------------------------------------


@virtual
async def test_an_administrators_fence_that_cannot_be_written_down_is_not_begun() -> None:
    bench = Bench()
    await bench.up()
    bench.disk.fail_next = 1
    error = await refusal_of(bench.command("fence"))
    assert isinstance(error, CommandFailed)
    assert "nothing was changed" in str(error)
    assert bench.switched == []
    assert bench.h1.ready
    assert len(bench.agents["h1"].connections) == 1
    assert bench.agents["h1"].up == {"g"}


@virtual
async def test_a_confirmed_fence_that_cannot_be_written_down_is_not_told_as_done() -> None:
    bench = Bench()
    await bench.up()

    def off_and_no_disk() -> None:
        bench.disk.hang()
        bench.agents["h1"].die()

    bench.outlet().on_off = off_and_no_disk
    error = await refusal_of(bench.command("fence"))
    assert "this could not be recorded" in str(error)
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    bench.disk.release()
    await settle()
    assert any('"fence"' in text for text in bench.disk.texts)


@virtual
async def test_a_rescue_waits_a_second_for_the_disk_and_goes_on() -> None:
    bench = Bench()
    await bench.up()
    bench.disk.hang()
    bench.lose()
    lost_at = bench.loop.time()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    assert bench.loop.time() - lost_at < 3.3 + 2.0
    assert bench.state.journal_trouble is not None
    bench.disk.release()
    await settle()
    assert bench.state.journal_trouble is None


# --- restarts of the manager --------------------------------------------------------------------


def journaled(*records: tuple[Event, str], **intent: object) -> MemoryDisk:
    """A journal of these records; `intent`: what those of intents carry besides."""
    disk = MemoryDisk()
    for event, name in records:
        data = intent if event is Event.FENCE_INTENT else {}
        comment = str(data.get("comment", ""))
        data = {key: value for key, value in data.items() if key != "comment"}
        disk.texts.append(json.dumps(Record(1.0, event, name, comment, data).to_json()))
    return disk


OPEN_INTENT = ((Event.CONNECT, "h1"), (Event.CONNECT, "h2"), (Event.FENCE_INTENT, "h1"))


@virtual
async def test_an_open_intent_whose_device_says_off_is_confirmed() -> None:
    bench = Bench(disk=journaled(*OPEN_INTENT))
    bench.outlet().is_on = False
    bench.agents["h1"].die()
    await bench.until(lambda: bench.agents["h2"].up == {"g", "k"})
    assert bench.switched == []
    assert "fence h1" in bench.events


@virtual
async def test_an_open_intent_of_ours_ends_as_it_would_have_ended() -> None:
    said = "Manager service initiated fence action. h1 was silent for 3.0 s; for g"
    disk = journaled(*OPEN_INTENT, comment=said, automatic=True)
    bench = Bench(disk=disk, on_loss=LossPolicy.REBOOT)
    bench.outlet().is_on = False
    bench.agents["h1"].die()
    await bench.until(lambda: "on one" in bench.switched)
    assert bench.comments(Event.FENCE) == [said]


@virtual
async def test_an_open_intent_of_an_administrator_leaves_the_host_off() -> None:
    said = "Manager service initiated fence action."  # in whatever words
    disk = journaled(*OPEN_INTENT, comment=said, automatic=False)
    bench = Bench(disk=disk, on_loss=LossPolicy.REBOOT)
    bench.outlet().is_on = False
    bench.agents["h1"].die()
    await bench.until(lambda: "fence h1" in bench.events)
    await asyncio.sleep(600.0)
    assert bench.switched == []


@virtual
async def test_a_command_right_after_the_start_does_not_come_before_an_open_intent() -> None:
    """The disk is slow, so the manager waits a moment before it connects to any host."""
    disk = journaled(*OPEN_INTENT)
    disk.delay_s = 0.5
    bench = Bench(disk=disk)
    bench.agents["h1"].fall_silent()
    await asyncio.sleep(0.1)
    refusal = await refusal_of(bench.command("fence", force=True))
    assert "h1 is being fenced already" in str(refusal)
    await bench.until(lambda: "fence h1" in bench.events)
    assert not bench.work.done()


@virtual
async def test_an_open_intent_of_a_host_that_answers_is_decided_afresh() -> None:
    bench = Bench(disk=journaled(*OPEN_INTENT))
    bench.outlet().says = PowerState.OFF
    await bench.until(lambda: bench.h1.connected)
    await asyncio.sleep(60.0)
    assert "fence h1" not in bench.events
    assert "the host's agent answers" in bench.comments(Event.FENCE_FAILED)[0]


@virtual
async def test_an_open_intent_of_a_silent_host_that_is_on_is_decided_afresh() -> None:
    bench = Bench(disk=journaled(*OPEN_INTENT))
    bench.agents["h1"].fall_silent()
    began = bench.loop.time()
    await bench.until(lambda: "fence h1" in bench.events)
    assert bench.switched == ["off one"]
    assert bench.loop.time() - began > 3.0  # it counts as lost after its budget, not before


@virtual
async def test_in_observe_mode_nothing_is_switched_whatever_was_open() -> None:
    bench = Bench(disk=journaled(*OPEN_INTENT), on_loss=LossPolicy.REBOOT, observe_only=True)
    bench.outlet().is_on = False
    bench.agents["h1"].die()
    await asyncio.sleep(600.0)
    assert bench.switched == []
    assert bench.agents["h2"].up == set()


@virtual
async def test_a_fence_from_before_a_restart_is_verified_before_anything_rests_on_it() -> None:
    disk = journaled((Event.CONNECT, "h1"), (Event.FENCE, "h1"))
    bench = Bench(disk=disk)
    bench.agents["h1"].fall_silent()
    bench.outlet().is_on = True  # somebody powered it on meanwhile
    await asyncio.sleep(60.0)
    assert "g" not in bench.agents["h2"].up
    assert "status one" in bench.devices.asked
    other = Bench(disk=journaled((Event.CONNECT, "h1"), (Event.FENCE, "h1")))
    other.agents["h1"].fall_silent()
    other.outlet().is_on = False
    await other.until(lambda: other.agents["h2"].up == {"g", "k"})
    assert other.switched == []


@virtual
async def test_when_the_manager_ends_its_fence_programs_end_with_it() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_hangs = True
    bench.lose()
    await bench.until(lambda: bench.switched == ["off one"])
    bench.work.cancel()
    await asyncio.wait({bench.work})
    await settle()
    assert bench.devices.running == set()
    remembered = Remembered()
    fold.apply_all(remembered, (Record.from_json(json.loads(text)) for text in bench.disk.texts))
    assert remembered.host("h1").fence_intent is not None  # settled by the next manager


# --- on_loss: reboot ----------------------------------------------------------------------------


async def rebooting() -> Bench:
    """h1 was lost and fenced, and is to be powered on again."""
    bench = Bench(on_loss=LossPolicy.REBOOT)
    await bench.up()
    bench.lose()
    await bench.until(lambda: "g" in bench.agents["h2"].up)
    return bench


@virtual
async def test_a_rebooted_host_is_off_confirmed_and_on_again() -> None:
    bench = await rebooting()
    await bench.until(lambda: bench.switched == ["off one", "on one"])
    assert bench.h1.power_proof is None
    await bench.until(lambda: bench.state.memory_of_host("h1").rebooted)


@virtual
async def test_a_frozen_cluster_powers_nothing_on() -> None:
    bench = await rebooting()
    await bench.manager.operations.cluster_command("freeze", comment="")
    await asyncio.sleep(120.0)
    assert bench.switched == ["off one"]
    await bench.manager.operations.cluster_command("thaw", comment="")
    await bench.until(lambda: bench.switched == ["off one", "on one"])


@virtual
async def test_a_host_that_was_fenced_anew_meanwhile_is_not_powered_on() -> None:
    for delay in (0.0, 5.0, 10.0, 11.0, 11.9):
        bench = await rebooting()
        bench.outlet().off_takes_s = 4.0
        await asyncio.sleep(delay)
        await bench.command("fence", force=True)
        await asyncio.sleep(120.0)
        assert "on one" not in bench.switched, delay
        assert not bench.outlet().is_on


@virtual
async def test_an_off_that_is_ordered_during_an_on_follows_it() -> None:
    bench = await rebooting()
    bench.outlet().off_takes_s = 4.0
    await bench.until(lambda: bench.switched == ["off one", "on one"])
    assert await bench.command("fence", force=True) == "h1 is fenced"
    assert bench.devices.overlaps == []
    assert not bench.outlet().is_on
    assert bench.switched == ["off one", "on one", "off one"]


@virtual
async def test_a_host_is_powered_on_again_although_the_manager_was_restarted_meanwhile() -> None:
    bench = await rebooting()
    await asyncio.sleep(3.0)
    bench.work.cancel()
    await asyncio.wait({bench.work})
    bench.disk.crash()
    successor = Bench(disk=bench.disk, on_loss=LossPolicy.REBOOT)
    successor.agents["h1"].fall_silent()
    successor.outlet().is_on = False
    await successor.until(lambda: successor.state.memory_of_host("h1").rebooted)
    assert successor.outlet().is_on
    assert successor.switched == ["on one"]


@virtual
async def test_a_power_on_that_fails_is_tried_again() -> None:
    bench = await rebooting()
    bench.outlet().on_fails = 2
    await bench.until(lambda: bench.state.memory_of_host("h1").rebooted)
    assert bench.outlet().is_on
    assert bench.switched == ["off one", "on one", "on one", "on one"]


@virtual
async def test_a_host_that_somebody_switched_off_stays_off_over_a_restart_of_the_manager() -> None:
    disk = journaled(*OPEN_INTENT[:-1])
    disk.texts.append(json.dumps(Record(1.0, Event.FENCE_INTENT, "h1", "a new fan").to_json()))
    bench = Bench(disk=disk, on_loss=LossPolicy.REBOOT)
    bench.outlet().is_on = False
    bench.agents["h1"].die()
    await bench.until(lambda: "fence h1" in bench.events)
    await asyncio.sleep(600.0)
    assert bench.switched == []


@virtual
async def test_a_fence_for_a_second_copy_ends_with_a_freeze() -> None:
    bench = Bench((("one",), ("two",)))
    await bench.up()
    bench.outlet("one").off_fails = "it does not answer"
    bench.outlet("one").off_takes_s = 20.0
    bench.manager.fence_runner.fence_second_copy("h1", "it ran a second copy of k")
    await asyncio.sleep(5.0)
    await bench.manager.operations.cluster_command("freeze", comment="")
    await bench.until(lambda: bool(bench.comments(Event.FENCE_FAILED)))
    assert bench.switched == ["off one"]
    assert "abandoned: frozen" in bench.comments(Event.FENCE_FAILED)[0]


# --- defects end the manager --------------------------------------------------------------------


@virtual
async def test_a_defect_of_the_device_adapter_ends_the_manager_and_confirms_nothing() -> None:
    bench = Bench()
    await bench.up()

    def broken() -> None:
        raise InvariantError("a defect")

    bench.outlet().on_off = broken
    bench.lose()
    await asyncio.wait({bench.work}, timeout=60.0)
    assert isinstance(bench.work.exception(), InvariantError)
    told = [
        record for text in bench.disk.texts if (record := json.loads(text))["event"] == "defect"
    ]
    assert [record["comment"] for record in told] == [
        "the manager ended itself (a defect); please report it with the manager's log"
    ]
    bench.never_confirmed()


@virtual
async def test_no_route_to_the_network_fences_nobody() -> None:
    bench = Bench()
    await bench.up()
    for agent in bench.agents.values():
        agent.refuses = LossKind.NO_ROUTE_TO_NETWORK
        agent.end(LossKind.LOCAL)
    await asyncio.sleep(600.0)
    assert bench.switched == []


# --- the end of the manager ---------------------------------------------------------------------


@virtual
async def test_a_command_that_waits_is_answered_when_the_manager_ends() -> None:
    bench = Bench()
    await bench.up()
    bench.outlet().off_hangs = True
    command = asyncio.create_task(refusal_of(bench.command("fence", force=True)))
    await bench.until(lambda: "off one" in bench.devices.asked)
    bench.work.cancel()
    await asyncio.wait({bench.work})
    assert "the manager is ending" in str(await command)


@virtual
async def test_no_off_is_sent_once_the_manager_ends() -> None:
    """A status is being killed just then, and the next level would be tried after it."""
    bench = Bench((("one",), ("two",)))
    await bench.up()
    bench.devices.dies_in_s[FenceAction.STATUS] = 3.0
    bench.outlet("one").status_takes_s = 50.0
    bench.outlet("one").on_off = bench.agents["h1"].fall_silent
    command = asyncio.create_task(refusal_of(bench.command("fence", force=True)))
    await bench.until(lambda: "off one" in bench.devices.asked)
    await asyncio.sleep(3.2)
    bench.agents["h1"].speak_again()
    await asyncio.sleep(0.5)
    bench.work.cancel()
    await asyncio.wait({bench.work, command})
    await asyncio.sleep(5)
    assert "off two" not in bench.devices.asked


@virtual
async def test_a_command_that_comes_as_the_manager_ends_is_refused_at_once() -> None:
    bench = Bench()
    await bench.up()
    bench.manager.fence_runner.close()
    runner = bench.manager.fence_runner
    for order in (runner.fence_by_command, runner.confirm_off, runner.cancel):
        with pytest.raises(CommandFailed, match="nothing was done"):
            await asyncio.wait_for(order("h1", "why"), 1.0)
