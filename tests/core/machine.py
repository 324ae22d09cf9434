"""Drives a GroupMachine in a test: whole stories of what it asks for and what came of it."""

from __future__ import annotations

from collections.abc import Callable

from halo.core.cluster.knowledge import Presence
from halo.core.groups.actions import (
    Action,
    Leave,
    Left,
    Report,
    ReportMoved,
    ReportStartFailure,
    Run,
)
from halo.core.groups.machine import GroupMachine
from halo.core.journal.records import Event
from halo.core.model import Operation
from halo.core.outcomes import OperationResult

from .builders import NOT_RUNNING, OK, RUNNING, STOPPED, World

MONITOR, START, STOP = Operation.MONITOR, Operation.START, Operation.STOP


class Driver:
    """One machine on one host. `running`: what is asked for and not yet answered, in words.

    What the shell does is done here too: records are folded, and answers are observed.
    """

    def __init__(self, world: World, group: str = "g", host: str = "h1") -> None:
        self.world = world
        self.group = world.group(group)
        self.host = host
        self.machine = GroupMachine(
            world.state, self.group, host, world.state.hosts[host].epoch, world.now
        )
        world.state.groups[group].managed_on = host
        self.running: list[str] = []
        self.told: list[Action] = []
        self.left: Leave | None = None
        self._up: dict[str, bool] = {}

    # --- the caller's part ---------------------------------------------------------------------

    def step(self) -> list[str]:
        """What it asks for now."""
        return self._take(self.machine.step(self.world.now))

    def answer(self, what: str, result: OperationResult = OK) -> list[str]:
        """`what`, such as "start g", ended so. Returns what it asks for next."""
        self.running.remove(what)
        verb, name = what.split(" ", 1)
        self._observe(name, Operation(verb), result)
        return self._take(self.machine.finished(name, Operation(verb), result, self.world.now))

    def _observe(self, name: str, operation: Operation, result: OperationResult) -> None:
        """What the shell writes down of an answer."""
        presence = Presence.ERROR
        if operation is MONITOR and result.code in (0, 8, 190, 191):
            presence = Presence.RUNNING
        elif operation is MONITOR and result == NOT_RUNNING:
            presence = Presence.STOPPED
        elif result == OK:
            presence = Presence.RUNNING if operation is START else Presence.UNKNOWN
        self.world.see(self.group.id, self.host, presence, only=[name])

    def interrupt(self, what: str) -> list[str]:
        """The connection ended under `what`."""
        self.running.remove(what)
        return self._take(
            self.machine.interrupted(what.split(" ", 1)[1], "connection lost", self.world.now)
        )

    def refuse(self, what: str) -> list[str]:
        """The start `what` was not sent: it lacks proof."""
        self.running.remove(what)
        return self._take(self.machine.start_refused(what.split(" ", 1)[1], self.world.now))

    def withdraw(self, what: str) -> list[str]:
        """A start is not sent, since the resource was just seen running."""
        self.running.remove(what)
        return self._take(self.machine.start_withdrawn(what.split()[1], self.world.now))

    def report(self, name: str, result: OperationResult) -> list[str]:
        """A watching agent reported one resource."""
        self.learn(name, result)
        return self.told_by_report(name, result)

    def learn(self, name: str, result: OperationResult) -> None:
        """What the shell writes down of a report."""
        self.world.state.observe_report(
            self.group,
            self.group.by_id[name],
            self.host,
            RUNNING if result.code == OK.code else STOPPED,
            epoch=self.world.state.hosts[self.host].epoch,
        )

    def told_by_report(self, name: str, result: OperationResult) -> list[str]:
        """What it asks for after that."""
        return self._take(self.machine.reported(name, result, self.world.now))

    def pass_time(self, seconds: float) -> list[str]:
        self.world.now += seconds
        return self.step()

    def _take(self, actions: list[Action]) -> list[str]:
        asked = []
        for action in actions:
            match action:
                case Run():
                    asked.append(f"{action.operation.value} {action.resource.id}")
                case Leave():
                    assert self.left is None, "it left twice"
                    self.left = action
                    self.world.state.groups[self.group.id].managed_on = None
                    if action.why is not Left.REVOKED:
                        self.world.state.needs.drop_group(self.group.id, self.host)
                case _:
                    self.told.append(action)
                    self._record(action)
        self.running += asked
        return asked

    def _record(self, action: Action) -> None:
        name, journal = self.group.id, self.world.journal
        match action:
            case Report():
                journal(Event.ERROR, name, action.text, kind=action.kind.value)
                if self.world.state.memory_of(self.group).move_target is not None:
                    journal(Event.MOVE_FAILED, name, action.text)
            case ReportStartFailure():
                journal(Event.START_FAILED, name, action.text, host=self.host)
            case ReportMoved():
                journal(Event.MOVED, name, host=self.host)

    # --- a world that behaves ------------------------------------------------------------------

    def settle(
        self, answer: Callable[[str], OperationResult] | None = None, steps: int = 200
    ) -> list[str]:
        """Answer whatever it asks for until it rests; returns what was asked, monitors left out.

        By default starts and stops work, and a monitor tells what the last of them made it."""
        asked: list[str] = []
        self.step()
        for _ in range(steps):
            if not self.running:
                return asked
            what = self.running[0]
            if not what.startswith("monitor"):
                asked.append(what)
            self.answer(what, answer(what) if answer else self._as_it_behaves(what))
        raise AssertionError(f"it never rests: {asked}, {self.running}")

    def _as_it_behaves(self, what: str) -> OperationResult:
        verb, name = what.split(" ", 1)
        if verb != "monitor":
            self._up[name] = verb == "start"
            return OK
        return OK if self._up.get(name, False) else NOT_RUNNING

    def is_up(self, *names: str, up: bool = True) -> None:
        """What the behaving world begins with."""
        for name in names:
            self._up[name] = up

    @property
    def words(self) -> str:
        """What it told, in words."""
        return "; ".join(getattr(action, "text", type(action).__name__) for action in self.told)
