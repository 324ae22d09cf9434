"""Many clients command and ask three managers during faults: all answers fit one order.

`make linear` does the same for as long as one likes.
"""

from __future__ import annotations

import random
from typing import Any

import pytest

from tests.etcd.linear.history import Call, History, Look
from tests.etcd.linear.rounds import cluster_of
from tests.etcd.members import Members

LEASE_S = 5
FAULTS = ("stop", "kill", "cut", "member", "step_down")


@pytest.mark.timeout(600)
async def test_all_answers_fit_one_order_whatever_fails(fragile: Members) -> None:
    chance = random.Random(7)
    async with cluster_of("linear.faults", fragile, "/halo/a", chance, LEASE_S) as rounds:
        for fault in FAULTS:
            assert await rounds.once(fault) == [], fault
    assert rounds.commands > 20
    assert rounds.looks > 20


@pytest.mark.timeout(600)
async def test_answers_that_come_before_the_record_are_found(fragile: Members) -> None:
    """A mistake that is built into all three managers: see the others in `linear.mutants`."""
    chance, mutant = random.Random(7), "acknowledges_before_it_writes"
    async with cluster_of("linear.mutant", fragile, "/halo/a", chance, LEASE_S, mutant) as rounds:
        for _ in range(5):
            if await rounds.once("cut"):
                return
    pytest.fail("a leader that is cut off from etcd took no command, five times")


# What an answer means -----------------------------------------------------------------------------


def look(at: float, *log: str, g1: tuple[bool, bool] = (True, True), frozen: str = "") -> Look:
    return Look("1", at, at + 1, log, {"g1": g1}, frozen)


def call(at: float, name: str, id: str, code: int = 200, answer: str = "done", **more: Any) -> Call:
    target = "cluster" if name in ("freeze", "thaw") else "g1"
    return Call("1", name, target, id, at, more.get("until", at + 1), code, answer)


def explains(*seen: Call | Look, begin: Look | None = None) -> bool:
    """Does an order explain this? The last one is the look at the end."""
    *before, end = seen
    assert isinstance(end, Look)
    history = History(begin or look(0))
    for one in before:
        if isinstance(one, Call):
            history.calls.append(one)
        else:
            history.looks.append(one)
    return not history.violations(end)


STOPPED = (True, False)
UNCLEAR = "No answer. The command may have taken effect: look at `halo status`."
NOT_TAKEN = "No manager leads just now."


def test_what_was_told_as_done_is_done_once() -> None:
    assert explains(call(2, "stop", "a"), look(4, "a", g1=STOPPED))
    assert not explains(call(2, "stop", "a"), look(4))
    assert not explains(call(2, "stop", "a"), look(4, "a"))
    assert not explains(call(2, "stop", "a"), look(4, "a", "a", g1=STOPPED))
    assert not explains(call(2, "stop", "a"), look(4, g1=STOPPED), look(6, "a", g1=STOPPED))


def test_what_was_told_as_not_done_is_not_done() -> None:
    for code, answer in ((503, NOT_TAKEN), (409, "g1 is not possible.")):
        assert explains(call(2, "stop", "a", code, answer), look(4))
        assert not explains(call(2, "stop", "a", code, answer), look(4, "a", g1=STOPPED))


def test_what_may_have_been_done_is_done_once_or_never() -> None:
    for code, answer in ((503, UNCLEAR), (0, "")):
        unclear = call(2, "stop", "a", code, answer)
        assert explains(unclear, look(4))
        assert explains(unclear, look(4), look(6, "a", g1=STOPPED))
        assert not explains(unclear, look(4, "a", g1=STOPPED), look(6))
        assert not explains(unclear, look(4, "a", "a", g1=STOPPED))
        assert History(look(0), [unclear]).unknown(look(4)) == [unclear]
        assert History(look(0), [unclear]).unknown(look(4, "a")) == []


def test_an_answer_that_nothing_was_to_be_done_is_a_look() -> None:
    already = call(4, "stop", "b", answer="g1 is stopped already")
    assert explains(call(2, "stop", "a"), already, look(6, "a", g1=STOPPED))
    assert not explains(already, look(6))
    unmanaged = call(4, "stop", "b", 409, "g1 is unmanaged; run `halo manage g1` first")
    assert explains(call(2, "unmanage", "a"), unmanaged, look(6, "a", g1=(False, True)))
    assert not explains(unmanaged, look(6))
    assert not explains(
        call(2, "unmanage", "a"), call(4, "stop", "b"), look(6, "a", "b", g1=(False, False))
    )


def test_a_freeze_is_known_by_its_reason() -> None:
    freeze = call(2, "freeze", "a", answer="frozen: HALO takes no automatic action")
    assert explains(freeze, look(4, "a", frozen="a"))
    assert not explains(freeze, look(4, "a"))
    refused = call(4, "stop", "b", 409, "frozen: a; run `halo thaw` first")
    assert explains(freeze, refused, look(6, "a", frozen="a"))
    assert not explains(refused, look(6))
    assert not explains(freeze, call(4, "stop", "b"), look(6, "a", "b", frozen="a", g1=STOPPED))
    assert explains(freeze, call(4, "thaw", "b", answer="thawed"), look(6, "a", "b"))
    assert not explains(freeze, call(4, "thaw", "b", answer="not frozen"), look(6, "a", frozen="a"))


def test_old_knowledge_may_be_as_old_as_it_says_and_no_older() -> None:
    def known(as_of: float) -> Look:
        return Look("2", as_of, 9, None, {"g1": (True, True)}, None)

    stop = call(2, "stop", "a")
    assert explains(stop, known(1), look(10, "a", g1=STOPPED))
    assert not explains(stop, known(4), look(10, "a", g1=STOPPED))
