"""The groups that have to be decided, and in which order.

After a takeover, ten thousand groups wait here, and one of them may be down. Its decisions come
before those of the groups that run. Rejected: passes over all groups that wait. A group that learns
something during a pass waits for the end of the pass, and each start needs two or three decisions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

from halo.core.model import GroupId

URGENT_AT_ONCE = 20
OTHERS_AT_ONCE = 5
"""Of other groups, few are decided in one turn of the event loop, and never none. In a quiet loop
ten thousand of them take about a second. In a busy loop they leave the time to hosts that are being
greeted, to reports, and to urgent groups. So all hosts are known before all groups are managed."""


class DecisionQueue:
    """Each group is in it once, at the place of its first mark. Urgent groups have a line of their
    own. Whether a group is urgent is asked once before each turn for all that were marked since."""

    __slots__ = ("_is_urgent", "_marked", "_others", "_urgent")

    def __init__(self, is_urgent: Callable[[GroupId], bool]) -> None:
        self._is_urgent = is_urgent
        self._marked: dict[GroupId, None] = {}
        self._urgent: OrderedDict[GroupId, None] = OrderedDict()
        self._others: OrderedDict[GroupId, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._marked or self._urgent or self._others)

    def mark(self, groups: Iterable[GroupId]) -> None:
        """Have these groups decided."""
        self._marked.update(dict.fromkeys(groups))

    def take(self) -> list[GroupId]:
        """Take out the groups that are to be decided in one turn of the event loop, in order."""
        for group in self._marked:
            line, other = self._others, self._urgent
            if self._is_urgent(group):
                line, other = other, line
            other.pop(group, None)
            line[group] = None
        self._marked.clear()
        return _first(self._urgent, URGENT_AT_ONCE) + _first(self._others, OTHERS_AT_ONCE)


def _first(line: OrderedDict[GroupId, None], count: int) -> list[GroupId]:
    return [line.popitem(last=False)[0] for _ in range(min(count, len(line)))]
