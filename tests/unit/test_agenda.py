"""Who is due at one moment is called in one turn of the loop, by one timer."""

from __future__ import annotations

import asyncio

from halo.manager.groups.agenda import TICK_S, Agenda
from tests.unit.virtual_time import loop_now, run


class Sleeper:
    def __init__(self) -> None:
        self.told: list[tuple[float, float]] = []

    def due(self, when: float) -> None:
        self.told.append((when, loop_now().time()))


def test_what_is_due_within_a_tick_is_one_moment_and_never_before_its_time() -> None:
    moment = Agenda.moment(1000.001)
    assert moment == Agenda.moment(1000.009)
    assert 1000.009 <= moment <= 1000.009 + TICK_S
    assert Agenda.moment(1000.011) > moment


def test_each_sleeper_is_told_at_its_moment_and_once() -> None:
    async def story() -> None:
        agenda, early, also, late = Agenda(), Sleeper(), Sleeper(), Sleeper()
        first, second = Agenda.moment(loop_now().time() + 1), Agenda.moment(loop_now().time() + 2)
        agenda.at(second, late)
        agenda.at(first, early)
        agenda.at(first, also)
        await asyncio.sleep(5)
        assert [when for when, _ in early.told + also.told + late.told] == [first, first, second]
        assert all(when <= now < when + TICK_S for when, now in early.told + also.told + late.told)

    run(story())


def test_a_moment_that_has_passed_comes_at_once() -> None:
    async def story() -> None:
        agenda, sleeper = Agenda(), Sleeper()
        agenda.at(0.0, sleeper)
        await asyncio.sleep(0.001)
        assert [when for when, _ in sleeper.told] == [0.0]

    run(story())
