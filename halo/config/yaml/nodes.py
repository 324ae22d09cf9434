"""From YAML events to a light graph of nodes.

Rejected: PyYAML's own composer. Its nodes keep two marks each. For 30,000 resources, this costs
half a second and 80 MB more at start-up, which the system never gets back. And it recurses in C, so
a file of brackets ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import yaml

_PARSER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


class Node:
    """One value of a document. `line` and `column` count from 1. `tag` is None if not written."""

    __slots__ = ("column", "line", "tag")

    def __init__(self, event: Any) -> None:
        self.line: int = event.start_mark.line + 1
        self.column: int = event.start_mark.column + 1
        self.tag: str | None = event.tag


class ScalarNode(Node):
    """Text as it was written. `is_plain`: without quotes, so that `null` may mean no value."""

    __slots__ = ("is_plain", "value")

    def __init__(self, event: Any) -> None:
        super().__init__(event)
        self.value: str = event.value
        self.is_plain = not event.style


class SequenceNode(Node):
    """A list."""

    __slots__ = ("value",)

    def __init__(self, event: Any) -> None:
        super().__init__(event)
        self.value: list[Node] = []


class MappingNode(Node):
    """A mapping: its keys with their values, including repeated keys."""

    __slots__ = ("value",)

    def __init__(self, event: Any) -> None:
        super().__init__(event)
        self.value: list[tuple[Node, Node]] = []


Collection: TypeAlias = SequenceNode | MappingNode


class TooDeep(Exception):
    """A collection is nested deeper than the caller allows."""

    def __init__(self, line: int, column: int) -> None:
        self.line = line
        self.column = column
        super().__init__("nested too deeply")


def compose(text: str, max_depth: int) -> Node | None:
    """The root node of the one document in a text; None if there is none.

    Raises yaml.YAMLError for text that is not one YAML document, and TooDeep.
    """
    events: Iterator[Any] = yaml.parse(text, Loader=_PARSER)
    builder = _Builder(max_depth)
    for event in events:
        builder.take(event)
    return builder.root


def _error(problem: str, event: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


class _Builder:
    def __init__(self, max_depth: int) -> None:
        self.root: Node | None = None
        self._max_depth = max_depth
        self._anchors: dict[str, Node] = {}
        self._open: list[Collection] = []
        self._keys: list[Node | None] = []  # per open collection, a key that waits for its value

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._place(ScalarNode(event), event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            self._keys.pop()
        elif isinstance(event, yaml.CollectionStartEvent):
            is_list = isinstance(event, yaml.SequenceStartEvent)
            node: Collection = SequenceNode(event) if is_list else MappingNode(event)
            self._place(node, event)
            self._open.append(node)
            self._keys.append(None)
            if len(self._open) > self._max_depth:
                raise TooDeep(node.line, node.column)
        elif isinstance(event, yaml.AliasEvent):
            self._attach(self._anchored(event))
        elif isinstance(event, yaml.DocumentStartEvent) and self.root is not None:
            raise _error("expected one document, but found another", event)

    def _anchored(self, event: Any) -> Node:
        if event.anchor not in self._anchors:
            raise _error("found undefined alias", event)
        return self._anchors[event.anchor]

    def _place(self, node: Node, event: Any) -> None:
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        self._attach(node)

    def _attach(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        if isinstance(parent, SequenceNode):
            parent.value.append(node)
        elif (key := self._keys[-1]) is None:
            self._keys[-1] = node
        else:
            parent.value.append((key, node))
            self._keys[-1] = None
