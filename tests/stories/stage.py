"""Plays a story: lets each step happen in the simulated world, and gathers the log below it."""

from __future__ import annotations

import re

from tests.simulation.runner import quiet
from tests.simulation.settle import Settling
from tests.simulation.simulation import Simulation
from tests.stories.happenings import NotUnderstood, happen
from tests.stories.mistakes import Mistake
from tests.stories.story import Step, Story
from tests.stories.telling import StoryOperator, StoryWorld, group_lines

LOOK_S = 0.25
"""How often the status is looked at, in virtual seconds."""

REST_S = 10.0
"""Things are at rest when nothing was told for so long, and nothing is under way."""

STEP_S = 0.01
"""How soon a wait for a text ends after it was told."""

LIMIT_S = 900.0


class Stage:
    """One story on its way."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.simulation = Simulation(story.scenario, world_type=StoryWorld)
        world = self.simulation.world
        assert isinstance(world, StoryWorld)
        self.world = world
        self.log = world.log
        self.simulation.operator = StoryOperator(self.simulation)
        self._shown: dict[str, str] = {}
        self._look_at = LOOK_S

    def play(self) -> list[list[str]]:
        """The log of each step. Raises Mistake where a step cannot be played."""
        try:
            return self._play()
        finally:
            self.simulation.dispose()

    def _play(self) -> list[list[str]]:
        steps = self.story.steps
        self.simulation.clock.after(1.0, self.simulation.tick)
        if all(step.text != "manager starts" for step in steps):
            self.log.is_silent = True
            self.simulation.start_manager()
            self._come_to_rest(steps[0])
            self.log.is_silent = False
        logs = []
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            self.log.lines = []
            self._take(step, is_hurried=following is not None and following.is_wait)
            logs.append(self.log.lines)
            if self.world.violations:
                raise self._mistake(step, f"a rule is broken: {self.world.violations[0]}")
        self._end_well(steps[-1])
        return logs

    def _take(self, step: Step, *, is_hurried: bool) -> None:
        clock = self.simulation.clock
        if not step.is_wait:
            self.log.began_at = self.log.told_at = clock.now
            self._look_at = clock.now + LOOK_S
            try:
                happen(self, step.text)
            except NotUnderstood as error:
                raise self._mistake(step, str(error)) from error
            if not is_hurried:
                self._come_to_rest(step)
        elif (found := re.fullmatch(r"wait until (.+)", step.text)) is not None:
            self._wait_until(step, found[1])
        elif (found := re.fullmatch(r"wait ([\d.]+)", step.text)) is not None:
            self._pass_time(float(found[1]))
        else:
            raise self._mistake(step, "`wait` takes seconds, or `until` and a text of the log")

    # --- time --------------------------------------------------------------------------------

    def _pass_time(self, seconds: float) -> None:
        clock = self.simulation.clock
        end = clock.now + seconds
        while clock.now < end and not self.world.violations:
            self.simulation.run_until(min(self._look_at, end))
            if clock.now >= self._look_at:
                self._look_at += LOOK_S
                self._look()

    def _come_to_rest(self, step: Step) -> None:
        clock, began_at = self.simulation.clock, self.simulation.clock.now
        quiet_since = began_at
        while clock.now - quiet_since < REST_S and not self.world.violations:
            if clock.now - began_at > LIMIT_S:
                raise self._mistake(step, f"nothing comes to rest within {LIMIT_S:g} s")
            self._pass_time(LOOK_S)
            if self._is_busy():
                quiet_since = clock.now
            quiet_since = max(quiet_since, self.log.told_at)

    def _is_busy(self) -> bool:
        simulation = self.simulation
        will_start = simulation.current is None and bool(simulation.graveyard)
        stands_still = simulation.stalled_until > simulation.clock.now
        return (
            will_start or stands_still or bool(simulation.operator.pending) or self.world.is_busy()
        )

    def _wait_until(self, step: Step, text: str) -> None:
        clock, began_at = self.simulation.clock, self.simulation.clock.now
        while text not in self.log.text() and not self.world.violations:
            if clock.now - began_at > LIMIT_S:
                raise self._mistake(step, f"nothing says {text!r} within {LIMIT_S:g} s")
            self._pass_time(STEP_S)

    # --- what the status says ----------------------------------------------------------------

    def _look(self) -> None:
        """Tell what the status says anew of each group."""
        current = self.simulation.current
        now = self.simulation.clock.now
        if current is None or now < self.simulation.stalled_until:
            return
        if now - self.world.oracle.started_at < LOOK_S:
            return  # it has just begun to ask around
        for group, line in group_lines(current.manager.operations.status()).items():
            # A count of seconds that runs on is no news, nor how a host is found silent.
            news = re.sub(r"\d+|\(silent: [^)]*\)", "", line)
            if self._shown.get(group) != news:
                self._shown[group] = news
                self.log.say(line)

    def _end_well(self, last: Step) -> None:
        """All faults end, and every group has to come to rest."""
        self.log.is_silent = True
        Settling(self.simulation).run()
        if self.world.violations:
            raise self._mistake(last, f"afterwards: {self.world.violations[0]}")

    def _mistake(self, step: Step, text: str) -> Mistake:
        return Mistake(self.story.path, step.line, f"`> {step.text}`: {text}")


def play(story: Story) -> list[list[str]]:
    """The log of each step of a story. Raises Mistake."""
    with quiet():
        try:
            return Stage(story).play()
        except Mistake as error:
            # What its frames hold on to has to be collected while all is quiet.
            mistake = Mistake(error.path, error.line, error.text)
    raise mistake
