"""Nodesets: one short text for many host names, as in `oss[00-15]` or `oss[0,2-4],mds00`.

Rejected: ClusterShell's NodeSet. Its import reads /etc/clustershell and files under the user's
home, a group `@name` may run a command, and it takes 30 ms of the 80 ms that a whole `halo status`
may take. The syntax here is the common part of it, so a set that HALO prints can be pasted into
clush, pdsh or powerman.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product

from halo.config.nodesets.folding import MAX_DIGITS, fold, is_padded, shortened

__all__ = ["MAX_NAMES", "expand", "fold", "is_nodeset"]

MAX_NAMES = 100_000
"""The largest number of names that one text may stand for."""

_ITEM = re.compile(r"(?:[^\s,\[\]]|\[[^\[\]]*\])+")
_SEPARATOR = re.compile(r"\s*,\s*|\s+")
_PART = re.compile(r"\[([^\[\]]*)\]|([^\[\]]+)")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+)(?:/([0-9]+))?)?")
_NOT_IN_A_NAME = re.compile(r"[\s,\[\]@!&^*?]")


def expand(text: str) -> list[str]:
    """The names that a nodeset stands for, in the order written, each once.

    Items are separated by commas or blanks. Brackets hold numbers and ranges (`0,2-4`, or with a
    step `0-8/2`). Leading zeros are kept. Raises ValueError with a sentence if the text is
    malformed, empty, or stands for more than MAX_NAMES names.
    """
    names: dict[str, None] = {}
    total = 0
    for item in _items(text):
        parts = [
            _numbers(text, brackets) if literal == "" else [literal]
            for brackets, literal in _PART.findall(item)
        ]
        count = 1
        for part in parts:
            count *= len(part)
        total += count
        if total > MAX_NAMES:
            raise ValueError(f'nodeset "{shortened(text)}" stands for more than {MAX_NAMES} names')
        names.update((("".join(combination), None)) for combination in product(*parts))
    return list(names)


def is_nodeset(text: str) -> bool:
    """True if the text is written as a set of names, and not as one name."""
    return "[" in text or "," in text


def _items(text: str) -> Iterator[str]:
    stripped = text.strip()
    if not stripped:
        raise ValueError("an empty nodeset names no host")
    position = 0
    while True:
        match = _ITEM.match(stripped, position)
        if match is None:
            raise _malformed(text, stripped[position : position + 1])
        outside = re.sub(r"\[[^\[\]]*\]", "", match.group())
        if operator := _NOT_IN_A_NAME.search(outside):
            raise _unreadable(
                text,
                f'"{operator.group()}" is not supported; write the names, or numbers and ranges in'
                " brackets",
            )
        yield match.group()
        position = match.end()
        if position == len(stripped):
            return
        separator = _SEPARATOR.match(stripped, position)
        if separator is None:
            raise _malformed(text, stripped[position : position + 1])
        position = separator.end()


def _malformed(text: str, found: str) -> ValueError:
    if found == "[":
        return _unreadable(text, "a bracket is not closed, or contains another bracket")
    if found == "]":
        return _unreadable(text, "a closing bracket has no opening bracket")
    return _unreadable(text, "a name is missing next to a comma")


def _unreadable(text: str, why: str) -> ValueError:
    """An error that begins with HALO's words, which scripts of existing sites search for."""
    return ValueError(f'nodeset syntax error: unable to parse "{shortened(text)}": {why}')


def _numbers(text: str, brackets: str) -> list[str]:
    """The numbers of one pair of brackets, padded as written."""
    found: list[str] = []
    for item in brackets.split(","):
        match = _RANGE.fullmatch(item.strip())
        if match is None or any(len(number) > MAX_DIGITS for number in match.groups("")):
            raise _unreadable(
                text,
                f'expected a number or a range like 0-15 in brackets, found "{shortened(item)}"',
            )
        found += _range(text, item, match[1], match[2] or match[1], int(match[3] or "1"))
        if len(found) > MAX_NAMES:
            raise ValueError(f'nodeset "{shortened(text)}" stands for more than {MAX_NAMES} names')
    return found


def _range(text: str, item: str, first: str, last: str, step: int) -> list[str]:
    width = len(first) if is_padded(first) else 0
    if int(last) < int(first) or step < 1:
        raise _unreadable(text, f'the range "{shortened(item)}" is empty')
    if is_padded(last) and len(last) != width:
        raise _unreadable(
            text, f'both ends of the range "{shortened(item)}" need the same number of digits'
        )
    if (int(last) - int(first)) // step >= MAX_NAMES:
        raise ValueError(f'nodeset "{shortened(text)}" stands for more than {MAX_NAMES} names')
    return [str(number).zfill(width) for number in range(int(first), int(last) + 1, step)]
