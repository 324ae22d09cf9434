"""The key `after` of a resource group: which groups have to run before it is started."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from halo.config.yaml.document import MistakeList, Section, shortened, text_of
from halo.config.yaml.nodes import Node, ScalarNode
from halo.core.model import GroupId, ResourceId

Named = Sequence[tuple[GroupId, Node]]
"""The groups that one group names, each with its place."""


def read_after(section: Section, mistakes: MistakeList) -> list[tuple[GroupId, Node]]:
    """The names in one entry, as they are written."""
    node = section.get("after")
    if isinstance(node, ScalarNode):
        mistakes.add(node, f'after: expected a list; write ["{shortened(node.value)}"]')
        return []
    items = section.items("after") if node is not None else []
    texts = [(text_of(each, "after", mistakes, expected="a group"), each) for each in items]
    return [(text, each) for text, each in texts if text is not None]


class Order:
    """The order of all groups. `after` holds for each group those that it is started after."""

    def __init__(
        self,
        named: Mapping[GroupId, Named],
        members: Mapping[GroupId, Collection[ResourceId]],
        mistakes: MistakeList,
    ) -> None:
        """`members`: the resources of each group. Every mistake is noted at its place."""
        self._named = named
        self._members = members
        self._mistakes = mistakes
        self.after: dict[GroupId, tuple[GroupId, ...]] = {
            group: tuple(self._known(group)) for group in named
        }
        self._find_circles()

    def _known(self, group: GroupId) -> Iterator[GroupId]:
        seen: set[GroupId] = set()
        for name, node in self._named[group]:
            if name == group:
                self._mistakes.add(node, "after: a group cannot be started after itself")
            elif name not in self._named:
                self._mistakes.add(node, self._unknown(name))
            elif name in seen:
                self._mistakes.add(node, f'after: "{shortened(name)}" appears twice')
            else:
                seen.add(name)
                yield name

    def _unknown(self, name: GroupId) -> str:
        of = next((group for group, found in self._members.items() if name in found), None)
        if of is not None:
            return f'after: "{shortened(name)}" is a resource of the group "{of}"; name the group'
        hint = self._mistakes.nearest(name, self._named)
        return f'after: unknown group "{shortened(name)}"{hint}'

    def _find_circles(self) -> None:
        """Note each circle once, where it closes. Depth first, and without recursion, because a
        chain of groups may be longer than Python's stack."""
        finished: set[GroupId] = set()
        for start in self.after:
            path: dict[GroupId, Iterator[GroupId]] = {}
            if start not in finished:
                path[start] = iter(self.after[start])
            while path:
                current = next(reversed(path))
                earlier = next(path[current], None)
                if earlier is None:
                    finished.add(current)
                    del path[current]
                elif earlier in path:
                    self._report_circle(list(path), earlier)
                elif earlier not in finished:
                    path[earlier] = iter(self.after[earlier])

    def _report_circle(self, path: list[GroupId], closing: GroupId) -> None:
        circle = [*path[path.index(closing) :], closing]
        node = next(node for name, node in self._named[path[-1]] if name == closing)
        shown = circle if len(circle) <= 8 else [*circle[:4], "...", *circle[-3:]]
        self._mistakes.add(node, f"after: groups wait for each other: {' -> '.join(shown)}")
