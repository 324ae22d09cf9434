"""What clients asked and were told, and what each answer means for each object.

The objects: the log of all commands that took effect, in their order (the events of the status);
whether each group is managed and wanted; and whether the cluster is frozen. The status does not
show them as of one moment, so each is looked at by itself.

What the API promises, and is checked:

- A command that is answered with 200 has taken effect, once, unless the answer says that nothing
  was to be done. Then that was so.
- A command that is refused, or not taken, takes effect never.
- A command whose answer says that it may have taken effect, or that has no answer, takes effect
  once or never.
- A status that is answered with 200 shows a moment between the question and the answer, whichever
  manager was asked. That of a manager which can ask no leader (503) shows a moment since `as_of`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tests.etcd.linear.checker import NEVER, Operation, State, Violation, violation

CLUSTER = "cluster"
TOLD_TWICE = (" already", "not frozen")
NOT_TAKEN = (
    "No manager leads just now",
    "This manager does not know who leads",
    "cannot be asked",
    "The request was sent on once",
    "so nothing was changed",
    "nothing was changed.",
    "Too many",
)
"""Words of answers that promise that nothing was done."""
MAY_HAVE = "may have taken effect"

_FROZEN_BY = re.compile(r"frozen(?: already)?: (\S+?)(?:;|$)")

Group: TypeAlias = tuple[bool, bool]
"""Is it managed, and is it wanted?"""


@dataclass(frozen=True)
class Call:
    """A request and its answer. `id` is in the comment of a command, and so in its event. `code` is
    0 if there was no answer."""

    node: str
    name: str
    target: str
    id: str
    called: float
    returned: float
    code: int
    answer: str

    def __str__(self) -> str:
        return f"{self.name} {self.target} ({self.id}, by {self.node}): {self.code} {self.answer}"

    @property
    def is_recorded(self) -> bool:
        """Did the answer say that it took effect?"""
        return self.code == 200 and not self.was_so_already

    @property
    def was_so_already(self) -> bool:
        """Did the answer say that there was nothing to do?"""
        return self.code in (200, 409) and any(words in self.answer for words in TOLD_TWICE)

    @property
    def is_unknown(self) -> bool:
        """May it have taken effect, as far as the client was told?"""
        if MAY_HAVE in self.answer:
            return True
        promised = self.code in (400, 404, 409) or any(w in self.answer for w in NOT_TAKEN)
        return self.code != 200 and not promised


@dataclass(frozen=True)
class Look:
    """A status, and what it shows: the ids of commands in their order, groups, the freeze. `called`
    is the moment since which it may be true. `log` is None if it shows no complete one."""

    node: str
    called: float
    returned: float
    log: tuple[str, ...] | None
    groups: Mapping[str, Group]
    frozen: str | None

    @staticmethod
    def of(node: str, called: float, returned: float, status: Mapping[str, Any]) -> Look:
        """What an answer with 200 shows."""
        return Look(
            node,
            called,
            returned,
            tuple(event["comment"] for event in status["events"]),
            {row["id"]: (row["managed"], row["wanted"] == "started") for row in status["groups"]},
            status["manager"]["frozen_comment"] or "",
        )

    @staticmethod
    def of_known(node: str, as_of: float, returned: float, known: Mapping[str, Any]) -> Look:
        """What a manager knows that can ask no leader. Groups without orders are left out."""
        rows = known["groups"].items()
        groups = {name: (row["managed"], row["wanted"]) for name, row in rows}
        return Look(node, as_of, returned, None, groups, None)


@dataclass
class History:
    """Everything since a look at which nothing was under way."""

    begin: Look
    calls: list[Call] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)

    def violations(self, end: Look) -> list[str]:
        """What cannot be explained. `end` was asked for after all else was answered."""
        log = self._new_in(end)
        found = [
            self._told(CLUSTER + "'s log", violation(list(self._on_log(end, log)), 0)),
            self._told(
                "freeze", violation(list(self._on_freeze(end, log)), self.begin.frozen or "")
            ),
        ]
        for name, state in self.begin.groups.items():
            operations = list(self._on_group(name, end, log))
            found.append(self._told(name, violation(operations, state)))
        return [text for text in found if text is not None]

    def unknown(self, end: Look) -> list[Call]:
        """The commands that may still take effect after this history."""
        log = self._new_in(end)
        return [call for call in self.calls if call.is_unknown and call.id not in log]

    def _told(self, name: str, found: Violation | None) -> str | None:
        return None if found is None else f"{name}: {found}"

    def _new_in(self, look: Look) -> tuple[str, ...]:
        """The commands in it that are of this history."""
        own = {call.id for call in self.calls}
        assert look.log is not None
        return tuple(id for id in look.log if id in own)

    def _on_log(self, end: Look, log: tuple[str, ...]) -> Iterator[Operation]:
        """The state is the number of commands that took effect: their order is that of the end."""
        for call in self.calls:
            if call.is_recorded or call.is_unknown:
                yield _operation(call, _appends(log, call.id), self._end_of(call))
        for look in (*self.looks, end):
            if look.log is not None:
                shown = self._new_in(look)
                effect = _shows_first(log, shown)
                what = f"a look by {look.node} with {len(shown)} commands"
                yield Operation(what, look.called, look.returned, effect, True)

    @staticmethod
    def _end_of(call: Call) -> float:
        return NEVER if call.is_unknown else call.returned

    def _took_effect(self, end: Look, log: Iterable[str]) -> Iterator[tuple[Call, float]]:
        """The commands that took effect, and until when: the log tells it of the unknown ones."""
        for call in self.calls:
            if call.is_recorded:
                yield call, call.returned
            elif call.is_unknown and call.id in log:
                yield call, end.returned

    def _on_freeze(self, end: Look, log: Sequence[str]) -> Iterator[Operation]:
        for call, returned in self._took_effect(end, log):
            if call.target == CLUSTER:
                becomes = call.id if call.name == "freeze" else ""
                yield _operation(call, _becomes(becomes), returned)
            elif call.name in ("start", "stop"):
                yield _operation(call, _is(""), returned)
        for call in self.calls:
            by = _FROZEN_BY.match(call.answer)
            if call.code in (200, 409) and by is not None and not call.is_recorded:
                yield _operation(call, _is(by[1]), call.returned)
            elif call.code == 200 and call.answer == "not frozen":
                yield _operation(call, _is(""), call.returned)
        for look in (*self.looks, end):
            if look.frozen is not None:
                what = f"a look by {look.node}: frozen {look.frozen!r}"
                yield Operation(what, look.called, look.returned, _is(look.frozen), True)

    def _on_group(self, name: str, end: Look, log: Sequence[str]) -> Iterator[Operation]:
        for call, returned in self._took_effect(end, log):
            if call.target == name:
                yield _operation(call, _ORDERS[call.name], returned)
        for call in self.calls:
            if call.target == name and (effect := _refusal(call)) is not None:
                yield _operation(call, effect, call.returned)
        for look in (*self.looks, end):
            if name in look.groups:
                state = look.groups[name]
                what = f"a look by {look.node}: {name} (managed, wanted) is {state}"
                yield Operation(what, look.called, look.returned, _is(state), True)


def _operation(call: Call, effect: Callable[[Any], State | None], returned: float) -> Operation:
    return Operation(str(call), call.called, returned, effect)


def _is(wanted: State) -> Callable[[State], State | None]:
    return lambda state: state if state == wanted else None


def _becomes(new: State) -> Callable[[State], State]:
    return lambda _state: new


def _appends(log: Sequence[str], id: str) -> Callable[[Any], State | None]:
    return lambda count: count + 1 if count < len(log) and log[count] == id else None


def _shows_first(log: Sequence[str], shown: Sequence[str]) -> Callable[[Any], State | None]:
    return lambda count: count if tuple(log[:count]) == tuple(shown) else None


def _wanted(wanted: bool) -> Callable[[Any], State | None]:
    """The order is taken only while the group is managed."""
    return lambda state: (True, wanted) if state[0] else None


_ORDERS: dict[str, Callable[[Any], State | None]] = {
    "manage": lambda state: (True, state[1]),
    "unmanage": lambda state: (False, state[1]),
    "start": _wanted(True),
    "stop": _wanted(False),
}


def _refusal(call: Call) -> Callable[[Any], State | None] | None:
    """What an answer proves that says why nothing was done."""
    if call.was_so_already:
        order = _ORDERS[call.name]
        return lambda state: state if order(state) == state else None
    if call.code == 409 and "is unmanaged; run" in call.answer:
        return lambda state: state if not state[0] else None
    return None
