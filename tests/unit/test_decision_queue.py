"""Groups that are down are decided before those that run, and nobody waits for ever."""

from __future__ import annotations

from halo.manager.placement.decision_queue import (
    OTHERS_AT_ONCE,
    URGENT_AT_ONCE,
    DecisionQueue,
)


class Queue(DecisionQueue):
    """A queue in which the groups of `down` are urgent."""

    __slots__ = ("asked", "down")

    def __init__(self, *down: str) -> None:
        self.down = set(down)
        self.asked: list[str] = []
        super().__init__(self._is_down)

    def _is_down(self, group: str) -> bool:
        self.asked.append(group)
        return group in self.down


def many(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def test_an_urgent_group_overtakes_all_that_were_marked_before_it() -> None:
    queue = Queue("down")
    queue.mark([*many("runs", 1000), "down"])
    assert queue.take()[0] == "down"


def test_one_that_is_marked_while_others_wait_comes_next() -> None:
    queue = Queue("down")
    queue.mark(many("runs", 1000))
    queue.take()
    queue.mark(["down"])
    assert queue.take()[0] == "down"


def test_groups_that_are_alike_are_taken_in_the_order_of_their_first_marks() -> None:
    queue = Queue()
    queue.mark(["a", "b"])
    queue.mark(["c", "a"])
    assert queue.take() == ["a", "b", "c"]
    assert not queue
    assert queue.take() == []


def test_however_many_are_urgent_the_others_are_decided_too() -> None:
    queue = Queue(*many("down", 100))
    queue.mark(many("down", 100) + many("runs", 100))
    left = set(many("runs", 100))
    turns = 0
    while left:
        taken = queue.take()
        left -= set(taken)
        queue.mark([group for group in taken if group in queue.down])  # they never rest
        turns += 1
        assert turns < 1000, f"never decided: {left}"
    assert turns == 100 / OTHERS_AT_ONCE


def test_a_turn_has_a_bound() -> None:
    queue = Queue(*many("down", 100))
    queue.mark(many("down", 100) + many("runs", 100))
    while queue:
        taken = queue.take()
        down = [group for group in taken if group in queue.down]
        assert len(down) <= URGENT_AT_ONCE
        assert len(taken) - len(down) <= OTHERS_AT_ONCE


def test_a_group_that_comes_down_while_it_waits_becomes_urgent_and_is_taken_once() -> None:
    queue = Queue()
    queue.mark(many("g", 100))
    queue.take()
    queue.down.add("g99")
    queue.mark(["g99"])
    taken = queue.take()
    assert taken[0] == "g99"
    while queue:
        taken += queue.take()
    assert taken.count("g99") == 1


def test_a_group_that_runs_again_while_it_waits_is_not_urgent_any_more() -> None:
    queue = Queue(*many("down", 100))
    queue.mark(many("down", 100))
    queue.take()
    queue.down.discard("down99")
    queue.mark(["down99"])
    assert queue.take()[-1] == "down99"  # the others of that turn are urgent


def test_a_group_that_is_marked_often_in_one_turn_is_asked_about_once() -> None:
    queue = Queue()
    for _ in range(10):
        queue.mark(["g"])
    queue.take()
    assert queue.asked == ["g"]
