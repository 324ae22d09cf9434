"""Folds host names to a nodeset. It is separate from reading, and uses no regular expressions.

Every `halo status` folds host names, and may take little longer than Python's own start. Compiling
the regular expressions of `halo.config.nodesets.nodeset` would take a large part of that time.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_DIGITS = 12

_DIGITS = frozenset("0123456789")
_NOT_IN_A_NAME = frozenset(",[]@!&^*?")


def fold(names: Iterable[str]) -> str:
    """The shortest usual nodeset for these names: the inverse of `expand`.

    Names that differ only in their last number share one bracket, in ascending order. Raises
    ValueError for a name that has no place in a nodeset (blanks, commas, brackets).
    """
    numbers: dict[tuple[str, str | None], list[str]] = {}
    for name in dict.fromkeys(names):
        if name.split() != [name] or not _NOT_IN_A_NAME.isdisjoint(name):
            raise ValueError(f'"{shortened(name)}" cannot be part of a nodeset')
        prefix, number, suffix = _parted(name)
        if number:
            numbers.setdefault((prefix, suffix), []).append(number)
        else:
            numbers[name, None] = []  # nothing to fold
    return ",".join(
        prefix if suffix is None else f"{prefix}{_folded(found)}{suffix}"
        for (prefix, suffix), found in numbers.items()
    )


def is_padded(number: str) -> bool:
    """Is the number written with leading zeros?"""
    return len(number) > 1 and number[0] == "0"


def shortened(text: str) -> str:
    """A text, shortened for a message."""
    return text if len(text) <= 60 else text[:57] + "..."


def _parted(name: str) -> tuple[str, str, str]:
    """The parts of a name: before its last number, the number, and after it. An IPv6 address counts
    as without a number, because a range over its hexadecimal digits would confuse."""
    end = len(name)
    while end and name[end - 1] not in _DIGITS:
        end -= 1
    begin = end
    while begin and name[begin - 1] in _DIGITS:
        begin -= 1
    if ":" in name or end - begin > MAX_DIGITS:
        return name, "", ""
    return name[:begin], name[begin:end], name[end:]


def _folded(numbers: list[str]) -> str:
    """Numbers with the same prefix and suffix, as one bracket. A single number has no bracket."""
    if len(numbers) == 1:
        return numbers[0]
    runs: list[list[str]] = []
    for number in sorted(numbers, key=lambda text: (int(text), len(text))):
        if runs and number == _successor(runs[-1]):
            runs[-1].append(number)
        else:
            runs.append([number])
    return "[" + ",".join(r[0] if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs) + "]"


def _successor(run: list[str]) -> str:
    width = len(run[0]) if is_padded(run[0]) else 0
    return str(int(run[-1]) + 1).zfill(width)
