"""The layout of Cap'n Proto RPC messages in bytes: reads within bounds, and writes.

Source: the encoding specification of Cap'n Proto, and its `rpc.capnp`.
"""

from __future__ import annotations

import struct
from enum import IntEnum

MESSAGE_LIMIT_BYTES = 4 * 1024 * 1024
"""The largest legitimate message is a `watch` of 2,000 resources with 2 KiB of parameters each."""

SEGMENT_LIMIT = 64

WORD_BYTES = 8
WORD = struct.Struct("<Q")
_U32 = struct.Struct("<I")

EXCEPTION = 1
"""The kinds of content of a `Return`."""

NO_RPC = "it does not speak Cap'n Proto RPC"


class FrameError(Exception):
    """The peer broke a rule of the protocol, or a limit. The text is one sentence for people."""


class Kind(IntEnum):
    """The kinds of `Message` in rpc.capnp that HALO uses, by their discriminants."""

    ABORT = 1
    CALL = 2
    RETURN = 3
    FINISH = 4
    RELEASE = 6
    BOOTSTRAP = 8


StructAt = tuple[int, int, int, int, int]
"""Segment, begin and end of the data, begin and end of the pointers."""


class Frame:
    """One frame within `data`. It is complete if `data` reaches `end`. An access outside of its
    segment raises FrameError."""

    __slots__ = ("_data", "_segments", "end")

    def __init__(self, data: memoryview, at: int) -> None:
        """Raises FrameError if its table is out of bounds. Needs the table's first eight bytes."""
        self._data = data
        count = _U32.unpack_from(data, at)[0] + 1
        if count > SEGMENT_LIMIT:
            raise FrameError(NO_RPC)
        begin = at + WORD_BYTES * (count // 2 + 1)
        self._segments: list[tuple[int, int]] = []
        self.end = begin  # only the table's end, as long as the table is not complete
        if begin > len(data):
            return
        for number in range(count):
            words = _U32.unpack_from(data, at + 4 + 4 * number)[0]
            self._segments.append((self.end, self.end + WORD_BYTES * words))
            self.end += WORD_BYTES * words
        if self.end - at > MESSAGE_LIMIT_BYTES:
            raise FrameError(
                f"it sent a message of {self.end - at} bytes; "
                f"{MESSAGE_LIMIT_BYTES >> 20} MiB are allowed"
            )

    def root(self) -> StructAt:
        begin, end = self._segments[0]
        if begin == end:
            raise FrameError("it sent an empty message")
        return self._struct(0, begin)

    def struct_at(self, of: StructAt, number: int) -> StructAt:
        """The struct to which a pointer of another struct leads. It is empty if there is none."""
        at = of[3] + WORD_BYTES * number
        return self._struct(of[0], at) if at < of[4] else (0, 0, 0, 0, 0)

    def text_at(self, of: StructAt, number: int) -> memoryview:
        """The bytes of a text, without its terminator."""
        at = of[3] + WORD_BYTES * number
        if at >= of[4] or self._word(at) == 0:
            return self._data[:0]
        segment, begin, pointer = self._follow(of[0], at)
        size = pointer >> 35
        if pointer & 3 != 1 or pointer >> 32 & 7 != 2 or size == 0:
            raise FrameError("it sent a refusal without a text")
        self._require(segment, begin, begin + size)
        return self._data[begin : begin + size - 1]

    def u16(self, of: StructAt, offset: int) -> int:
        """A field of a struct's data, with the default 0."""
        at = of[1] + offset
        return self._data[at] | self._data[at + 1] << 8 if at + 2 <= of[2] else 0

    def u32(self, of: StructAt, offset: int) -> int:
        at = of[1] + offset
        return int(_U32.unpack_from(self._data, at)[0]) if at + 4 <= of[2] else 0

    def count_at(self, of: StructAt, number: int) -> int:
        """The number of entries of the list to which a pointer of a struct leads."""
        at = of[3] + WORD_BYTES * number
        if at >= of[4] or self._word(at) == 0:
            return 0
        segment, begin, pointer = self._follow(of[0], at)
        if pointer & 3 != 1:
            raise FrameError(NO_RPC)
        if pointer >> 32 & 7 != 7:
            return pointer >> 35
        self._require(segment, begin, begin + WORD_BYTES)  # entries of several words: a tag first
        return self._word(begin) >> 2 & 0x3FFF_FFFF

    def _struct(self, segment: int, at: int) -> StructAt:
        segment, begin, pointer = self._follow(segment, at)
        if pointer & 3 != 0:
            raise FrameError(NO_RPC)
        pointers = begin + WORD_BYTES * (pointer >> 32 & 0xFFFF)
        end = pointers + WORD_BYTES * (pointer >> 48)
        self._require(segment, begin, end)
        return segment, begin, pointers, pointers, end

    def _follow(self, segment: int, at: int) -> tuple[int, int, int]:
        """The segment and place to which the pointer at `at` leads, and the pointer that describes
        the content. In another segment, there is a landing pad of one or two words."""
        pointer = self._word(at)
        if pointer & 3 != 2:
            return segment, at + WORD_BYTES + WORD_BYTES * _offset_words(pointer), pointer
        segment, pad = self._far(pointer)
        is_double = bool(pointer & 4)
        self._require(segment, pad, pad + WORD_BYTES * (1 + is_double))
        landing = self._word(pad)
        if not is_double:
            if landing & 3 == 2:
                raise FrameError("it sent a pointer that leads nowhere")
            return segment, pad + WORD_BYTES + WORD_BYTES * _offset_words(landing), landing
        if landing & 7 != 2:
            raise FrameError("it sent a pointer that leads nowhere")
        segment, begin = self._far(landing)
        return segment, begin, self._word(pad + WORD_BYTES)

    def _far(self, pointer: int) -> tuple[int, int]:
        segment = pointer >> 32
        if segment >= len(self._segments):
            raise FrameError("it sent a pointer that leads nowhere")
        return segment, self._segments[segment][0] + (pointer & 0xFFFF_FFF8)

    def _require(self, segment: int, begin: int, end: int) -> None:
        first, last = self._segments[segment]
        if not first <= begin <= end <= last:
            raise FrameError("it sent a pointer that leads out of its message")

    def _word(self, at: int) -> int:
        return int(WORD.unpack_from(self._data, at)[0])


def _offset_words(pointer: int) -> int:
    """Bits 2 to 31, with their sign."""
    offset = pointer >> 2 & 0x3FFF_FFFF
    return offset - 0x4000_0000 if offset & 0x2000_0000 else offset


def exception(question: int, flags: int, kind: int, reason: str) -> bytes:
    """A frame that answers a question with an exception: one segment, depth first."""
    text = reason.encode() + b"\0"
    return _frame_of(
        _pointer(0, 1, 1),
        WORD.pack(Kind.RETURN),
        _pointer(0, 2, 1),
        struct.pack("<IHHQ", question, flags, EXCEPTION, 0),
        _pointer(0, 1, 1),
        struct.pack("<IHH", 0, kind, 0),
        WORD.pack(1 | 2 << 32 | len(text) << 35),
        text + bytes(-len(text) % WORD_BYTES),
    )


def abort(reason: str) -> bytes:
    """The frame that ends a connection in the protocol's way, and says why."""
    text = reason.encode() + b"\0"
    return _frame_of(
        _pointer(0, 1, 1),
        WORD.pack(Kind.ABORT),
        _pointer(0, 1, 1),
        WORD.pack(0),
        WORD.pack(1 | 2 << 32 | len(text) << 35),
        text + bytes(-len(text) % WORD_BYTES),
    )


def _pointer(offset: int, data_words: int, pointers: int) -> bytes:
    return WORD.pack(offset << 2 | data_words << 32 | pointers << 48)


def _frame_of(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("<II", 0, len(body) // WORD_BYTES) + body
