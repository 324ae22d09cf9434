"""Lists of groups that one group names: `after`, `together_with`, `apart_from`, ..."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from halo.config.yaml.document import MistakeList, Section, shortened, text_of
from halo.config.yaml.nodes import Node, ScalarNode
from halo.core.model import GroupId, ResourceId

Named = Sequence[tuple[GroupId, Node]]
"""The groups that one group names, each with its place."""


def read_names(
    section: Section, key: str, mistakes: MistakeList
) -> tuple[tuple[GroupId, Node], ...]:
    """The names in one list, as they are written."""
    node = section.get(key)
    if isinstance(node, ScalarNode):
        mistakes.add(node, f'{key}: expected a list; write ["{shortened(node.value)}"]')
        return ()
    items = section.items(key) if node is not None else []
    texts = [(text_of(each, key, mistakes, expected="a group"), each) for each in items]
    return tuple((text, each) for text, each in texts if text is not None)


class KnownNames:
    """Finds the groups that are named. `members`: the resources of each group."""

    def __init__(
        self, members: Mapping[GroupId, Collection[ResourceId]], mistakes: MistakeList
    ) -> None:
        self._members = members
        self._mistakes = mistakes

    def of(self, group: GroupId, key: str, named: Named, itself: str) -> tuple[GroupId, ...]:
        """The known ones, each once. Every other one is noted as a mistake at its place.

        `itself` says what a group cannot be to itself."""
        return tuple(self._known(group, key, named, itself))

    def _known(self, group: GroupId, key: str, named: Named, itself: str) -> Iterator[GroupId]:
        seen: set[GroupId] = set()
        for name, node in named:
            if name == group:
                self._mistakes.add(node, f"{key}: {itself}")
            elif name not in self._members:
                self._mistakes.add(node, self._unknown(name, key))
            elif name in seen:
                self._mistakes.add(node, f'{key}: "{shortened(name)}" appears twice')
            else:
                seen.add(name)
                yield name

    def _unknown(self, name: GroupId, key: str) -> str:
        of = next((group for group, found in self._members.items() if name in found), None)
        if of is not None:
            return f'{key}: "{shortened(name)}" is a resource of the group "{of}"; name the group'
        hint = self._mistakes.nearest(name, self._members)
        return f'{key}: unknown group "{shortened(name)}"{hint}'


def report_circles(
    key: str,
    known: Mapping[GroupId, Sequence[GroupId]],
    named: Mapping[GroupId, Named],
    mistakes: MistakeList,
) -> None:
    """Note each circle of groups that wait for each other once, where it closes.

    Depth first, and without recursion, because a chain of groups may be longer than Python's
    stack."""
    finished: set[GroupId] = set()
    for start in known:
        path: dict[GroupId, Iterator[GroupId]] = {}
        if start not in finished:
            path[start] = iter(known[start])
        while path:
            current = next(reversed(path))
            other = next(path[current], None)
            if other is None:
                finished.add(current)
                del path[current]
            elif other in path:
                circle = [*list(path)[list(path).index(other) :], other]
                node = next(node for name, node in named[current] if name == other)
                shown = circle if len(circle) <= 8 else [*circle[:4], "...", *circle[-3:]]
                text = f"{key}: groups wait for each other: {' -> '.join(shown)}"
                mistakes.add(node, text)
            elif other not in finished:
                path[other] = iter(known[other])
