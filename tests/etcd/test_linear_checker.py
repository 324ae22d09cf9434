"""The checker of histories: known ones, and small random ones against all orders by brute force."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, permutations
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.etcd.linear.checker import NEVER, Operation, State, violation

# A register with compare-and-set, the usual example.


def write(value: int, called: float, returned: float) -> Operation:
    return Operation(f"write {value}", called, returned, lambda _state: value)


def read(value: int, called: float, returned: float) -> Operation:
    return Operation(f"read {value}", called, returned, lambda s: s if s == value else None, True)


def swap(old: int, new: int, called: float, returned: float) -> Operation:
    return Operation(f"{old} to {new}", called, returned, lambda s: new if s == old else None)


def unknown_steps(steps: dict[int, int]) -> Operation:
    return Operation(f"{steps}", 0, NEVER, steps.get)  # type: ignore[arg-type]  # states are ints


FITS = {
    "either of two unknown ones came first, and this one is left": [
        *(unknown_steps({0: 1, 2: 1}), unknown_steps({0: 1, 3: 1})),
        *(read(1, 1, 2), write(2, 3, 4), read(1, 5, 6)),
    ],
    "or the other one": [
        *(unknown_steps({0: 1, 2: 1}), unknown_steps({0: 1, 3: 1})),
        *(read(1, 1, 2), write(3, 3, 4), read(1, 5, 6)),
    ],
    "nothing": [],
    "one after the other": [write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)],
    "a read during a write sees the old value": [write(1, 0, 9), read(0, 1, 2)],
    "or the new one": [write(1, 0, 9), read(1, 1, 2)],
    "first the old one, then the new one": [write(1, 0, 9), read(0, 1, 2), read(1, 3, 4)],
    "an unknown write never took effect": [write(1, 0, NEVER), read(0, 5, 6), read(0, 7, 8)],
    "an unknown write took effect late": [write(1, 0, NEVER), read(0, 5, 6), read(1, 7, 8)],
    "one unknown write for each change": [
        *(write(1, 0, NEVER), write(1, 0, NEVER), write(2, 2, 3)),
        *(read(1, 4, 5), write(2, 6, 7), read(1, 8, 9)),
    ],
    "the slow one of two writes is the last": [
        *(write(1, 0, 10), write(2, 1, 2), read(2, 3, 4), read(1, 5, 6)),
    ],
    "two at the same moment": [write(1, 0, 1), read(0, 1, 2)],
}

DOES_NOT_FIT = {
    "a stale read": [write(1, 0, 1), read(0, 2, 3)],
    "a read of a value that nobody wrote": [read(7, 0, 1)],
    "back to the old value": [write(1, 0, 9), read(1, 1, 2), read(0, 3, 4)],
    "a lost write": [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
    "two winners": [swap(0, 1, 0, 9), swap(0, 2, 0, 9)],
    "an unknown write takes effect once": [
        *(write(1, 0, NEVER), read(1, 1, 2), write(2, 3, 4), read(1, 5, 6)),
    ],
    "nothing takes effect before its call": [read(1, 0, 1), write(1, 2, NEVER)],
    "readers disagree about an order": [
        *(write(1, 0, 9), write(2, 0, 9), read(1, 10, 11), read(2, 12, 13)),
    ],
}


@pytest.mark.parametrize("history", FITS.values(), ids=FITS)
def test_histories_that_fit_an_order(history: list[Operation]) -> None:
    assert violation(history, 0) is None


@pytest.mark.parametrize("history", DOES_NOT_FIT.values(), ids=DOES_NOT_FIT)
def test_histories_that_fit_no_order(history: list[Operation]) -> None:
    assert violation(history, 0) is not None


def test_a_violation_is_told_in_words() -> None:
    found = violation([write(1, 0, 1), write(2, 1.5, NEVER), read(0, 2, 3)], 0)
    assert str(found).splitlines() == [
        "no order explains 2.000 - 3.000: read 0",
        "  possible states before: 1",
        "  under way: 1.500 - ?: write 2",
    ]


def test_many_unknown_operations_do_not_take_for_ever() -> None:
    unknown = [write(n % 2, n, NEVER) for n in range(60)]
    reads = [read(n % 2, 100 + 2 * n, 101 + 2 * n) for n in range(50)]
    assert violation([*unknown, *reads], 0) is None
    assert violation([*unknown, *reads, read(5, 300, 301)], 0) is not None


def test_many_questions_do_not_take_for_ever() -> None:
    questions = [read(n % 3, 0, 100 + n) for n in range(60)]
    assert violation([*questions, write(1, 1, 90), write(2, 1, 90)], 0) is None
    assert violation([*questions, write(1, 1, 90), write(2, 1, 90), read(3, 5, 6)], 0) is not None


def by_brute_force(operations: Sequence[Operation], initial: State) -> bool:
    """Does any order of any choice of the unknown ones fit?"""
    known = [op for op in operations if op.returned != NEVER]
    unknown = [op for op in operations if op.returned == NEVER]
    return any(
        _is_legal(order, initial)
        for count in range(len(unknown) + 1)
        for chosen in combinations(unknown, count)
        for order in permutations([*known, *chosen])
    )


def _is_legal(order: Sequence[Operation], state: State | None) -> bool:
    for place, operation in enumerate(order):
        if any(later.returned < operation.called for later in order[place + 1 :]):
            return False
        state = operation.effect(state)
        if state is None:
            return False
    return True


_KINDS: tuple[Callable[..., Operation], ...] = (write, read, swap)


@st.composite
def histories(draw: Callable[..., Any]) -> list[Operation]:
    """Up to six operations; some moments are the same."""

    def one() -> Iterator[Operation]:
        for _ in range(draw(st.integers(0, 6))):
            kind = draw(st.sampled_from(_KINDS))
            values = [draw(st.integers(0, 2)) for _ in range(2 if kind is swap else 1)]
            called = draw(st.integers(0, 8))
            returned = draw(st.one_of(st.just(NEVER), st.integers(called, 10)))
            if kind is not read or returned != NEVER:
                yield kind(*values, called, returned)

    return list(one())


@given(histories())
def test_it_decides_as_all_orders_by_brute_force_do(history: list[Operation]) -> None:
    fits = by_brute_force(history, 0)
    event("fits" if fits else "does not fit")
    assert (violation(history, 0) is None) == fits
