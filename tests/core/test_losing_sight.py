"""When silence is a verdict: a whole budget, two probes sent and unanswered, a loop in time."""

from __future__ import annotations

import pytest

from halo.core.hosts.losing_sight import LossDetector, heartbeat_period_s
from halo.core.model import Settings

BUDGETS = [3.0, 0.5]


def detector(budget_s: float = 3.0, now: float = 0.0, grace_s: float = 0.0) -> LossDetector:
    return LossDetector(Settings(loss_budget_s=budget_s), now, grace_s)


@pytest.mark.parametrize(
    ("budget_s", "interval_s", "period_s"),
    [(3.0, 1.0, 1.0), (0.75, 1.0, 0.25), (10.0, 1.0, 1.0), (3.0, 0.2, 0.2)],
)
def test_several_heartbeats_fit_into_a_budget(
    budget_s: float, interval_s: float, period_s: float
) -> None:
    settings = Settings(loss_budget_s=budget_s, heartbeat_interval_s=interval_s)
    assert heartbeat_period_s(settings) == period_s


@pytest.mark.parametrize("budget_s", BUDGETS)
def test_the_verdict_comes_after_exactly_one_budget(budget_s: float) -> None:
    watch = detector(budget_s)
    watch.sent()
    watch.sent()
    assert not watch.is_lost(budget_s - 0.001)
    assert watch.is_lost(budget_s)
    assert watch.verdict_at() == budget_s


@pytest.mark.parametrize("budget_s", BUDGETS)
def test_silence_without_two_probes_sent_proves_nothing(budget_s: float) -> None:
    watch = detector(budget_s)
    assert not watch.is_lost(100.0)
    watch.sent()
    assert not watch.is_lost(100.0)
    watch.sent()
    assert watch.is_lost(100.0)


def test_a_sign_of_life_begins_the_count_again() -> None:
    watch = detector()
    watch.sent()
    watch.sent()
    watch.alive(2.9)
    assert not watch.is_lost(3.0)
    assert watch.silent_since == 2.9
    watch.sent()
    assert not watch.is_lost(5.9)  # one probe
    watch.sent()
    assert not watch.is_lost(5.89)
    assert watch.is_lost(5.9)


@pytest.mark.parametrize(("budget_s", "late_s"), [(3.0, 0.25), (0.5, 0.25), (0.25, 0.125)])
def test_a_loop_that_ran_late_begins_the_count_again(budget_s: float, late_s: float) -> None:
    watch = detector(budget_s)
    watch.sent()
    watch.sent()
    watch.woke(budget_s + late_s, due=budget_s)
    assert watch.is_lost(budget_s + late_s)  # just in time: what was sent counts
    watch.woke(budget_s + late_s + 0.01, due=budget_s)
    assert not watch.is_lost(budget_s + late_s + 0.01)
    watch.sent()
    watch.sent()
    assert not watch.is_lost(2 * budget_s + late_s)
    assert watch.is_lost(2 * budget_s + late_s + 0.01)


def test_a_probe_that_could_not_be_sent_begins_the_count_again() -> None:
    watch = detector()
    watch.sent()
    watch.sent()
    watch.begin_afresh(2.5)
    assert not watch.is_lost(5.5)
    assert watch.silent_since == 2.5


def test_the_grace_after_a_restart_is_not_cut_short() -> None:
    watch = detector(grace_s=10.0)
    watch.sent()
    watch.sent()
    watch.begin_afresh(4.0)  # a late loop or a missing route does not bring the verdict forward
    watch.sent()
    watch.sent()
    assert not watch.is_lost(12.9)
    assert watch.is_lost(13.0)


def test_an_overdue_answer_is_suspect_before_it_is_a_verdict() -> None:
    watch = detector()
    assert not watch.is_suspect(2.0, period_s=0.75)  # nothing was asked
    watch.sent()
    assert not watch.is_suspect(1.125, period_s=0.75)
    assert watch.is_suspect(1.13, period_s=0.75)
    watch.alive(1.2)
    assert not watch.is_suspect(3.0, period_s=0.75)
