"""The simulated world of a story: without chance, and told in words."""

from __future__ import annotations

import json
import textwrap
from random import Random
from typing import Any

from halo.cli.show.render import status_lines
from halo.core.journal.records import Event
from halo.core.model import FenceDevice, Operation
from halo.core.outcomes import FenceAction, FenceResult, OperationResult, Outcome, PowerState
from tests.simulation.hosts import SimCall
from tests.simulation.loop import Clock
from tests.simulation.model import Scenario
from tests.simulation.operator import Operator, Pending
from tests.simulation.world import World

WIDTH = 100
TIME_COLUMNS = 9
DEVICE_S = 1.0

SILENT_EVENTS = {
    *(Event.CONNECT, Event.CONFIG, Event.SNAPSHOT, Event.AT_REST),
    *(Event.SEEN_STOPPED, Event.MAY_RUN),
}
"""They say nothing that another line does not say."""

WORDS = {
    Event.DISCONNECT: "is lost",
    Event.RECONNECT: "is connected, and is looked at",
    Event.SUSPECT: "is suspect",
    Event.ANSWERS: "answers again",
    Event.NOT_OFF: "does not count as off any more",
    Event.FENCE_INTENT: "is to be fenced",
}
"""The records of the journal that `halo events show` does not show."""


class Middling(Random):
    """Chance that is always in the middle: what is drawn in another order comes out the same."""

    def random(self) -> float:
        return 0.5


class Log:
    """What was told since the last step that was no wait."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.began_at = 0.0
        self.told_at = 0.0
        self.lines: list[str] = []
        self.is_silent = False

    def say(self, text: str) -> None:
        """Tell something, now."""
        if not self.is_silent:
            self.told_at = self._clock.now
            shown = max(self.told_at - self.began_at, 0.0)
            self.lines += textwrap.wrap(
                text,
                WIDTH,
                initial_indent=f"{shown:7.1f}  ",
                subsequent_indent=" " * (TIME_COLUMNS + 2),
                break_long_words=False,
                break_on_hyphens=False,
            )

    def text(self) -> str:
        """All that was told since the last step, without times, in one line."""
        return " ".join(line[TIME_COLUMNS:].strip() for line in self.lines)


class StoryWorld(World):
    """Tells what crosses the ports of the manager and what its hosts do, but for routine looks."""

    def __init__(self, scenario: Scenario, clock: Clock) -> None:
        self.log = Log(clock)
        self.is_directed = False  # what happens now is what the step says
        self.fences_running = 0
        super().__init__(scenario, clock)
        self.random = Middling(0)
        for outlet in self.outlets.by_name.values():
            outlet.time_s = DEVICE_S
        self.disk.on_kept = self._kept

    def say(self, who: str, what: str) -> None:
        if (who, what) == ("manager", "crashes"):
            self.fences_running = 0
        if self.is_directed:
            return
        if who == "manager" and what.startswith(("starts", "goes on")):
            self.log.say(f"the manager {what}")
        elif who in self.scenario.hosts:
            if what.startswith("power off"):
                self.log.say(f"{who} has no power any more")
            elif what.startswith("power on"):
                self.log.say(f"{who} boots")
            elif what.startswith("agent "):
                self.log.say(f"the agent of {who} {what.removeprefix('agent ')}")

    def _kept(self, texts: list[str]) -> None:
        for text in texts:
            self._tell_record(json.loads(text))

    def _tell_record(self, record: dict[str, Any]) -> None:
        event = Event(record["event"])
        if event in SILENT_EVENTS:
            return
        said = f": {record['comment']}" if record["comment"] else ""
        if event in WORDS:
            self.log.say(f"{record['object']} {WORDS[event]}{said}")
        else:
            self.log.say(f"event {event.value} {record['object']}{said}")

    # --- operations --------------------------------------------------------------------------

    def operation_sent(self, call: SimCall) -> None:
        super().operation_sent(call)
        if call.operation is not Operation.MONITOR:
            self.log.say(f"{_words(call)} is sent")

    def operation_answered(self, call: SimCall, result: OperationResult) -> None:
        super().operation_answered(call, result)
        if call.operation is not Operation.MONITOR:
            is_done = result.outcome is Outcome.COMPLETED and result.code == 0
            self.log.say(f"{_words(call)}: {'done' if is_done else _failure(result)}")

    def operation_late(self, call: SimCall) -> None:
        super().operation_late(call)
        self.log.say(f"{_words(call)}: no answer in time")

    # --- fence devices -----------------------------------------------------------------------

    def fence_begins(self, device: FenceDevice, action: FenceAction) -> None:
        super().fence_begins(device, action)
        self.fences_running += 1
        if action is not FenceAction.STATUS:
            self.log.say(f"{action.value} is sent to {self._device(device)}")
        elif self._is_asked_for_a_reason(device):
            self.log.say(f"{self._device(device)} is asked")

    def fence_ends(
        self, device: FenceDevice, action: FenceAction, result: FenceResult | None, began: float
    ) -> None:
        self.fences_running -= 1
        if result is None:
            self.log.say(f"{action.value} by {self._device(device)} is broken off")
        elif not result.succeeded:
            why = result.message.removeprefix("simulated: ")
            self.log.say(f"{self._device(device)} fails: {action.value}: {why}")
        elif action is not FenceAction.STATUS:
            self.log.say(f"{self._device(device)}: {action.value} done")
        elif result.power is not PowerState.ON or self._is_asked_for_a_reason(device):
            self.log.say(f"{self._device(device)} says {result.power.value}")
        super().fence_ends(device, action, result, began)

    def _is_asked_for_a_reason(self, device: FenceDevice) -> bool:
        """Or only as every device is, now and then?"""
        return self.oracle.hosts[device.parameters["plug"]].connection is None

    def _device(self, device: FenceDevice) -> str:
        host, name = device.parameters["plug"], device.parameters["device"]
        level, number = (int(part) for part in name.split("/")[1].split("."))
        alike = [
            other for other in self.cluster.hosts[host].fence_levels[level]
            if other.agent == device.agent
        ]  # fmt: skip
        return f"{device.agent}{f' {number + 1}' if len(alike) > 1 else ''} of {host}"

    # --- hosts -------------------------------------------------------------------------------

    def is_busy(self) -> bool:
        """Is a script, or a fence program, under way?"""
        return bool(self.fences_running) or any(
            script.operation is not Operation.MONITOR and host.powered
            for host in self.hosts.values()
            for script in host.scripts.values()
        )


class StoryOperator(Operator):
    """Tells the answers."""

    def _answered(self, entry: Pending, outcome: str, answer: str = "") -> None:
        super()._answered(entry, outcome, answer)
        assert isinstance(self.world, StoryWorld)
        if outcome == "done":
            self.world.log.say(f"answer: {answer}")
        elif answer:
            _, _, sentence = answer.partition(": ")
            self.world.log.say(f"{outcome}: {sentence}")
        else:
            self.world.log.say("no answer: the manager is gone")


def group_lines(status: dict[str, Any]) -> dict[str, str]:
    """What the status says of each group that is not in the middle of a start or stop."""
    found = {}
    for group in status["groups"]:
        if not group["under_way"]:
            at = f" on {group['host']}" if group["host"] else ""
            held = "" if group["managed"] else " (Unmanaged)"
            why = f": {group['comment']}" if group["comment"] else ""
            found[group["id"]] = f"{group['id']}: {group['status']}{at}{held}{why}"
    return found


def whole_status(status: dict[str, Any]) -> list[str]:
    """The lines of `halo status`, without events."""
    return [f"           {line}" for line in status_lines(status, event_count=0)]


def _words(call: SimCall) -> str:
    return f"{call.operation.value} of {call.resource.id} on {call.connection.host.id}"


def _failure(result: OperationResult) -> str:
    if result.outcome is Outcome.TIMED_OUT:
        return "ended at its deadline"
    if result.outcome is not Outcome.COMPLETED:
        return "could not be run"
    return f"failed with {result.code}"
