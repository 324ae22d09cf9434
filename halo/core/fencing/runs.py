"""The works of a fence that are under way, by number, and the actions that leave a step."""

from __future__ import annotations

from halo.core.fencing.steps import Action, Do, Stop, Work


class Outbox:
    """Collects the actions of one step, in order."""

    def __init__(self) -> None:
        self._actions: list[Action] = []
        self._runs = 0

    def say(self, *actions: Action) -> None:
        """Add one or more actions that have no result."""
        self._actions += actions

    def next_run(self) -> int:
        """A number that no other work of this machine has."""
        self._runs += 1
        return self._runs

    def take(self) -> list[Action]:
        """Return the actions that were collected since the last call."""
        actions, self._actions = self._actions, []
        return actions


class Runs:
    """The works whose results are awaited."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._awaited: set[int] = set()
        self._stopping: set[int] = set()  # the works among them that were told to end

    def do(self, work: Work) -> int:
        """Begin a work. Returns its number."""
        run = self._out.next_run()
        self._awaited.add(run)
        self._out.say(Do(run, work))
        return run

    def stop(self, run: int, *, wait: bool = False) -> None:
        """End a work if it is under way. `wait`: wait for its end."""
        if run in self._awaited and run not in self._stopping:
            # Once: a second one would cut the kill short.
            self._out.say(Stop(run))
            self._stopping.add(run)
        if not wait:
            self.take(run)

    def awaits(self, run: int) -> bool:
        """Is this work waited for?"""
        return run in self._awaited

    def take(self, run: int) -> bool:
        """Note that a work has ended. False: nobody waits for it any more."""
        was_awaited = run in self._awaited
        self._awaited.discard(run)
        self._stopping.discard(run)
        return was_awaited

    def awaited(self) -> list[int]:
        """Every work that is waited for."""
        return sorted(self._awaited)
