"""From YAML text to nodes that know their place, and the accessors that collect mistakes.

The text becomes nodes, and never Python objects. So no tag can make an object. Every scalar stays
as it was written: `0755`, `yes` and `1:30` are text until a key needs another type. The implicit
types of YAML 1.1 would change them.
"""

from __future__ import annotations

import difflib
import gc
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from halo.config.yaml import nodes
from halo.config.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from halo.core.errors import ConfigError, Mistake

MAX_DEPTH = 64
"""Deeper nesting is refused, because no config needs it."""

_MAX_HINTS = 10
_STANDARD_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")
)
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
# The library quotes what it found, and that may be a part of a password.
_QUOTED = re.compile(r""" (?:'[^<'].+'|"[^<"].+")""")


class MistakeList:
    """Every mistake found so far in one file."""

    def __init__(self) -> None:
        self._found: list[Mistake] = []
        self._hints = 0

    def add(self, node: Node | None, message: str) -> None:
        """Note a mistake at a node. None: a mistake of the whole file."""
        if node is None:
            self.add_at(0, 0, message)
        else:
            self.add_at(*place(node), message)

    def add_at(self, line: int, column: int, message: str) -> None:
        """Note a mistake at a line and column, both counted from 1.

        A message quotes the file. Control characters are removed, since terminals and logs must not
        get them.
        """
        self._found.append(Mistake(line, column, _shown(message)))

    def nearest(self, word: str, known: Collection[str]) -> str:
        """:func:`nearest` for names of the config. There may be many names, so only the first
        mistakes of a file get the hint."""
        if self._hints >= _MAX_HINTS:
            return ""
        self._hints += 1
        return nearest(word, known)

    def raise_if_any(self, source: str) -> None:
        """Raise ConfigError with all mistakes in file order, each once."""
        if self._found:
            ordered = sorted(dict.fromkeys(self._found), key=lambda m: (m.line, m.column))
            raise ConfigError(source, ordered)


def _shown(message: str) -> str:
    """The message on one line, with unprintable characters spelled as in Python."""
    if message.isprintable():
        return message
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping with its value, each with its place."""

    key: Node
    value: Node


def place(node: Node) -> tuple[int, int]:
    """Line and column of a node, both counted from 1."""
    return node.line, node.column


def _position(mark: Any) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def compose(text: str, mistakes: MistakeList) -> Node | None:
    """The root node of a document. If there is none, the mistake is noted, and None returned."""
    try:
        root = nodes.compose(text, MAX_DEPTH)
    except nodes.TooDeep as error:
        message = f"nested more than {MAX_DEPTH} levels deep"
        mistakes.add_at(error.line, error.column, message)
        return None
    except yaml.MarkedYAMLError as error:
        position = _position(error.problem_mark or error.context_mark)
        if "maximum nesting depth" in (error.problem or ""):  # libyaml's own, since it reads ahead
            mistakes.add_at(*position, f"nested more than {MAX_DEPTH} levels deep")
        else:
            mistakes.add_at(*position, f"not valid YAML: {_problem(error)}")
        return None
    except yaml.YAMLError as error:
        line, column = _first_unprintable(text)
        reason = str(getattr(error, "reason", "")) or "it cannot be read"
        mistakes.add_at(line, column, f"not valid YAML: {reason}")
        return None
    if root is None or is_null(root):
        mistakes.add_at(1, 1, "the config is empty; expected at least the key hosts")
        return None
    return root


@contextmanager
def garbage_collection_paused() -> Iterator[None]:
    """Pause the collector. Otherwise, three quarters of the time for a large config would go into
    collections that find nothing, because every node is alive."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _problem(error: yaml.MarkedYAMLError) -> str:
    words = ", ".join(part for part in (error.context, error.problem) if part)
    hint = "; quote a value that begins with *" if "alias" in words else ""
    return (_QUOTED.sub("", words) or "it cannot be parsed") + hint


def _first_unprintable(text: str) -> tuple[int, int]:
    for line_number, line in enumerate(text.split("\n"), 1):
        for column, character in enumerate(line, 1):
            if not (character.isprintable() or character in "\t\r\x85\xa0"):
                return line_number, column
    return 0, 0


def is_null(node: Node) -> bool:
    """True for an empty value, `~` and `null`, if they are not quoted."""
    return isinstance(node, ScalarNode) and node.is_plain and node.value in _NULLS


def found(node: Node, *, secret: bool = False) -> str:
    """The content of a node, for an error message. `secret`: only its kind."""
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    if is_null(node):
        return "nothing"
    if secret:
        return "a value"
    return f'"{shortened(node.value)}"' if isinstance(node, ScalarNode) else "a value"


def shortened(text: str) -> str:
    """Text from the config, shortened for a message of one line."""
    clipped = text if len(text) <= 60 else text[:57] + "..."
    return "".join(c if c.isprintable() else "?" for c in clipped)


def nearest(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str:
    """`; did you mean "x"?` for the known word that is most similar, or nothing.

    `likeness` is the smallest similarity that counts: 1 means the same word (difflib's ratio)."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)
    return f'; did you mean "{matches[0]}"?' if matches else ""


def text_of(
    node: Node, what: str, mistakes: MistakeList, *, expected: str = "text", secret: bool = False
) -> str | None:
    """The text of a scalar as it was written."""
    if not isinstance(node, ScalarNode) or is_null(node):
        mistakes.add(node, f"{what}: expected {expected}, found {found(node, secret=secret)}")
        return None
    if not _tag_is_known(node, what, mistakes):
        return None
    return str(node.value)


def items_of(node: Node, what: str, mistakes: MistakeList) -> list[Node] | None:
    """The items of a list. For anything else, the mistake is noted, and None returned."""
    if not isinstance(node, SequenceNode):
        hint = "; write [...] around it" if isinstance(node, ScalarNode) else ""
        mistakes.add(node, f"{what}: expected a list, found {found(node, secret=True)}{hint}")
        return None
    if not _tag_is_known(node, what, mistakes):
        return None
    return list(node.value)


def entries_of(node: Node, what: str, mistakes: MistakeList) -> dict[str, Entry] | None:
    """The entries of a mapping, with merge keys (`<<`). Duplicates are noted as mistakes."""
    if not isinstance(node, MappingNode):
        mistakes.add(node, f"{what}: expected a mapping, found {found(node, secret=True)}")
        return None
    if not _tag_is_known(node, what, mistakes):
        return None
    return _merged(node, what, mistakes, ())


def _merged(
    node: MappingNode, what: str, mistakes: MistakeList, within: tuple[MappingNode, ...]
) -> dict[str, Entry]:
    own: dict[str, Entry] = {}
    inherited: dict[str, Entry] = {}
    for key, value in node.value:
        if not isinstance(key, ScalarNode):
            mistakes.add(key, f"{what}: expected a key, found {found(key)}")
        elif key.value == "<<" and key.is_plain:
            for name, entry in _merge_sources(value, what, mistakes, (*within, node)):
                inherited.setdefault(name, entry)
        elif key.value in own:
            line, _ = place(own[key.value].key)
            mistakes.add(
                key,
                f'{what}: key "{shortened(key.value)}" appears twice (first in line {line})',
            )
        else:
            own[str(key.value)] = Entry(key, value)
    return {**inherited, **own}


def _merge_sources(
    value: Node, what: str, mistakes: MistakeList, within: tuple[MappingNode, ...]
) -> Iterator[tuple[str, Entry]]:
    sources = value.value if isinstance(value, SequenceNode) else [value]
    for source in sources:
        if not isinstance(source, MappingNode):
            mistakes.add(
                source, f"{what}: << expects a mapping, found {found(source, secret=True)}"
            )
        elif any(source is outer for outer in within):
            mistakes.add(source, f"{what}: << merges a mapping into itself")
        else:
            yield from _merged(source, what, mistakes, within).items()


def _tag_is_known(node: Node, what: str, mistakes: MistakeList) -> bool:
    if node.tag in (None, "!") or node.tag in _STANDARD_TAGS:
        return True
    mistakes.add(node, f"{what}: YAML tags are not supported; quote a value that begins with !")
    return False


class Section:
    """One mapping with a fixed set of keys, read key by key.

    Unknown keys are noted as mistakes when the section is made. A key with the value null counts as
    not given.
    """

    def __init__(
        self,
        node: Node,
        what: str,
        known: Iterable[str],
        mistakes: MistakeList,
        *,
        ignored_prefix: str | None = None,
    ) -> None:
        self.node = node
        self.what = what
        self.mistakes = mistakes
        self._entries: Mapping[str, Entry] = entries_of(node, what, mistakes) or {}
        self.is_mapping = isinstance(node, MappingNode)
        names = tuple(known)
        for name, entry in self._entries.items():
            if name in names or (ignored_prefix and name.startswith(ignored_prefix)):
                continue
            hint = nearest(name, names) or f"; known keys: {', '.join(names)}"
            mistakes.add(entry.key, f'{what}: unknown key "{shortened(name)}"{hint}')

    def has(self, key: str) -> bool:
        """True if the key is in the file, even with a null value."""
        return key in self._entries

    def key_node(self, key: str) -> Node:
        """The place of a key if it is in the file, or else of the section."""
        entry = self._entries.get(key)
        return entry.key if entry else self.node

    def get(self, key: str) -> Node | None:
        """The value of an optional key."""
        entry = self._entries.get(key)
        return None if entry is None or is_null(entry.value) else entry.value

    def require(self, key: str, expected: str) -> Node | None:
        """The value of a required key."""
        value = self.get(key)
        if value is None and self.is_mapping:
            at = self._entries[key].value if key in self._entries else self.node
            self.mistakes.add(at, f"{self.what}: {key} is missing; expected {expected}")
        return value

    def text(self, key: str) -> str | None:
        """The text of an optional key."""
        node = self.get(key)
        return None if node is None else text_of(node, key, self.mistakes)

    def items(self, key: str) -> list[Node]:
        """The items of an optional list."""
        node = self.get(key)
        return [] if node is None else items_of(node, key, self.mistakes) or []

    def entries(self, key: str) -> dict[str, Entry]:
        """The entries of an optional mapping."""
        node = self.get(key)
        return {} if node is None else entries_of(node, key, self.mistakes) or {}
