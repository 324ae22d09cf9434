"""Changes of bytes that find what a parser does not expect."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_EDGES = (0, 1, 2, 3, 7, 8, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 61)


def mutated(data: bytes, chance: random.Random, pool: Sequence[bytes] = ()) -> bytes:
    """`data` after one to four changes; some take pieces of `pool`."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 4))):
        chance.choice(_CHANGES)(changed, chance)
        if pool and chance.random() < 0.15:
            _splice(changed, chance, chance.choice(pool))
    return bytes(changed)


def flip_bits(data: bytearray, chance: random.Random) -> None:
    """One to eight bits, anywhere."""
    for _ in range(chance.randrange(1, 9) if data else 0):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _set_bytes(data: bytearray, chance: random.Random) -> None:
    if data:
        at = chance.randrange(len(data))
        data[at : at + 4] = chance.randbytes(min(4, len(data) - at))


def _set_number(data: bytearray, chance: random.Random) -> None:
    """A number at the edge of its range, where a number may be."""
    width = chance.choice((1, 2, 4, 8))
    if len(data) >= width:
        at = chance.randrange(0, len(data) - width + 1, width)
        value = (chance.choice(_EDGES) + chance.choice((-1, 0, 0, 1))) % (1 << (8 * width))
        data[at : at + width] = value.to_bytes(width, "little")


def _cut(data: bytearray, chance: random.Random) -> None:
    if data:
        at = chance.randrange(len(data))
        del data[at : at + chance.randrange(1, 33)]


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data) + 1) :]


def _insert(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    data[at:at] = chance.randbytes(chance.choice((1, 2, 4, 8, 8, 16, 100)))


def _repeat(data: bytearray, chance: random.Random) -> None:
    if data:
        at = chance.randrange(len(data))
        piece = data[at : at + chance.choice((1, 8, 8, 16, 64))]
        data[at:at] = piece * chance.choice((1, 1, 2, 10, 300))


def _splice(data: bytearray, chance: random.Random, other: bytes) -> None:
    if other:
        start = chance.randrange(len(other))
        at = chance.randrange(len(data) + 1)
        piece = other[start : start + chance.choice((4, 8, 16, 64, 256))]
        if chance.random() < 0.5:
            data[at : at + len(piece)] = piece
        else:
            data[at:at] = piece


_CHANGES: Sequence[Callable[[bytearray, random.Random], None]] = (
    flip_bits, flip_bits, _set_bytes, _set_number, _set_number, _cut, _truncate, _insert, _repeat,
)  # fmt: skip
