"""Who reaches what: seeds or tests on one side, the points of the code on the other."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence

_DIGITS = b"01" + bytes(254)


def pack(hits: bytes | bytearray) -> str:
    """Marks as text. Each of `hits` is 0 or 1."""
    bits = int(b"0" + bytes(hits).translate(_DIGITS), 2)
    return base64.b85encode(zlib.compress(bits.to_bytes((len(hits) + 7) // 8, "big"))).decode()


def unpack(text: str, size: int) -> frozenset[int]:
    """The numbers of the marks that are set, of `size` ones."""
    packed = zlib.decompress(base64.b85decode(text))
    digits = bin(int.from_bytes(packed, "big"))[2:].zfill(size)
    return frozenset(number for number, digit in enumerate(digits) if digit == "1")


class Reach:
    """Which of many runners (seeds, or tests) reach a point of a module."""

    def __init__(self, points: Sequence[tuple[str, str]]) -> None:
        self._numbers = {point: number for number, point in enumerate(points)}
        self._by_point: list[list[object]] = [[] for _ in points]
        self._all: list[object] = []
        self._imported: frozenset[int] = frozenset()

    def add(self, runner: object, hits: str) -> None:
        """A runner, and what it reaches."""
        self._all.append(runner)
        for number in unpack(hits, len(self._numbers)):
            self._by_point[number].append(runner)

    def imported(self, hits: str) -> None:
        """What is reached before any runner begins."""
        self._imported |= unpack(hits, len(self._numbers))

    def of(self, module: str, point: str | None) -> list[object]:
        """The runners that reach a point, in the order in which they were added. What is reached by
        an import may have an effect on everybody."""
        if point is None:
            return list(self._all)
        number = self._numbers[module, point]
        return list(self._all if number in self._imported else self._by_point[number])


def seeds_of(reach: Reach, module: str, point: str | None, first: int, end: int) -> list[int]:
    """The seeds from `first` to `end`-1 that reach a point."""
    return [s for s in reach.of(module, point) if isinstance(s, int) and first <= s < end]
