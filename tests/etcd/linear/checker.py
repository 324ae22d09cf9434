"""Is a history linearizable? A search over all orders that the clients' clocks allow.

Every operation must take effect at one moment between its call and its return. If the outcome is
unknown, it may take effect at any moment after its call, or never.

The method is that of Wing and Gong, in the form of Lowe ("Testing for linearizability", 2017): go
through calls and returns in the order of time, and keep every configuration that is possible so
far. At a return, let operations under way take effect in every order, until that one has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

State: TypeAlias = Hashable
Effect: TypeAlias = Callable[[State], State | None]
"""The state after an operation, or None: with this answer, it is not possible in that state. The
state itself is never None."""

NEVER = math.inf


@dataclass(frozen=True)
class Operation:
    """One operation on one object. `returned` is NEVER if the outcome is unknown. `what` is for
    people; of operations with unknown outcome, those with the same `what` have the same effect. A
    `question` changes no state."""

    what: str
    called: float
    returned: float
    effect: Effect
    question: bool = False

    def __str__(self) -> str:
        end = "?" if self.returned == NEVER else f"{self.returned:.3f}"
        return f"{self.called:.3f} - {end}: {self.what}"


@dataclass(frozen=True)
class Violation:
    """No order fits. `operation` is the first one that cannot be explained."""

    operation: Operation
    under_way: tuple[Operation, ...]
    states: tuple[State, ...]

    def __str__(self) -> str:
        lines = [
            f"no order explains {self.operation}",
            f"  possible states before: {', '.join(map(repr, self.states))}",
            *(f"  under way: {operation}" for operation in self.under_way),
        ]
        return "\n".join(lines)


Configuration: TypeAlias = tuple[State, frozenset[int], frozenset[int]]
"""A state, and the operations under way that took effect: those that return, and the unknown."""


def violation(operations: Sequence[Operation], initial: State) -> Violation | None:
    """None if the history is linearizable from this state."""
    found: set[Configuration] = {(initial, frozenset(), frozenset())}
    under_way: set[int] = set()
    for _at, is_return, number in _in_time(operations):
        if not is_return:
            under_way.add(number)
            continue
        before = {state for state, _, _ in found}
        found = _until(number, found, under_way, operations)
        if not found:
            others = tuple(operations[n] for n in sorted(under_way) if n != number)
            states = tuple(sorted(before, key=repr))[:5]
            return Violation(operations[number], others, states)
        under_way.discard(number)
    return None


def _in_time(operations: Sequence[Operation]) -> list[tuple[float, bool, int]]:
    """Calls and returns. At the same moment calls come first: then no order is forced."""
    calls = [(op.called, False, n) for n, op in enumerate(operations)]
    returns = [(op.returned, True, n) for n, op in enumerate(operations) if op.returned != NEVER]
    return sorted(calls + returns)


def _until(
    number: int,
    found: Iterable[Configuration],
    under_way: set[int],
    operations: Sequence[Operation],
) -> set[Configuration]:
    """The configurations after this operation has taken effect: it is not under way any more."""
    done: set[Configuration] = set()
    seen = set(found)
    waiting = list(seen)
    while waiting:
        state, known, unknown = waiting.pop()
        known = _answered(state, known, under_way, operations)
        if number in known:
            done.add((state, known - {number}, unknown))
            continue
        for next_one in _first_of_equals(under_way - known - unknown, operations):
            operation = operations[next_one]
            if operation.question:  # this state gives another answer
                continue
            after = operation.effect(state)
            if after is None:
                continue
            if operation.returned == NEVER:
                if after == state:  # it may as well have taken effect never
                    continue
                new = (after, known, unknown | {next_one})
            else:
                new = (after, known | {next_one}, unknown)
            if new not in seen:
                seen.add(new)
                waiting.append(new)
    return _least(done)


def _answered(
    state: State, known: frozenset[int], under_way: set[int], operations: Sequence[Operation]
) -> frozenset[int]:
    """With all questions that this state answers. To answer one later gains nothing, and to try
    both would double the configurations with each question."""
    return known | {
        number
        for number in under_way - known
        if operations[number].question and operations[number].effect(state) is not None
    }


def _first_of_equals(left: set[int], operations: Sequence[Operation]) -> list[int]:
    """Of unknown operations with the same effect, one is as good as another."""
    chosen: dict[str, int] = {}
    others = []
    for number in sorted(left):
        if operations[number].returned == NEVER:
            chosen.setdefault(operations[number].what, number)
        else:
            others.append(number)
    return others + list(chosen.values())


def _least(found: set[Configuration]) -> set[Configuration]:
    """Without those in which more unknown operations were used up for the same."""
    by_rest: dict[tuple[State, frozenset[int]], list[frozenset[int]]] = {}
    for state, known, unknown in sorted(found, key=lambda each: len(each[2])):
        kept = by_rest.setdefault((state, known), [])
        if not any(less <= unknown for less in kept):
            kept.append(unknown)
    return {(*rest, unknown) for rest, kept in by_rest.items() for unknown in kept}
