"""What a peer sends is looked at before pycapnp sees a byte of it.

pycapnp ends the process over a refusal whose text is not UTF-8, and Cap'n Proto itself keeps
whatever waits for something else, as much as a peer likes to send. So every frame is judged here:
its size and segments, and whether its kind of message is one that managers and agents have any use
for. All else of the protocol (promises, embargoes, third parties) costs the peer its connection.

An exception is not handed on as it came. It is written anew, from its cut and cleaned reason, so
that no text of a peer ever becomes a library's exception. What a message holds beyond that is read
lazily, with Cap'n Proto's own checks of bounds, and judged where it is read.

Rejected: reading frames by the schema that pycapnp ships. It costs ten times as much for each, and
it is the library that has to be protected.

Source: the encoding specification of Cap'n Proto, and its `rpc.capnp`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from halo.core.bounds import cut

MESSAGE_LIMIT_BYTES = 4 * 1024 * 1024
"""The largest legitimate message is a `watch` of 2,000 resources with 2 KiB of parameters each."""

SEGMENT_LIMIT = 64
TRAVERSAL_LIMIT_WORDS = 4 * MESSAGE_LIMIT_BYTES // 8
"""What pycapnp may read of one message. Pointers to the same place make a message larger than it
is."""

_WORD_BYTES = 8
_U32 = struct.Struct("<I")
_WORD = struct.Struct("<Q")


class _Kind(IntEnum):
    """The kinds of `Message` in rpc.capnp that HALO has a use for, by their discriminants."""

    ABORT = 1
    CALL = 2
    RETURN = 3
    FINISH = 4
    RELEASE = 6
    BOOTSTRAP = 8


_CALL_WORD, _RETURN_WORD = int(_Kind.CALL), int(_Kind.RETURN)  # compared a million times an hour
_LIMIT_WORDS = MESSAGE_LIMIT_BYTES // _WORD_BYTES - 1

_RESULTS, _EXCEPTION, _CANCELED = 0, 1, 2
_FAILED, _OVERLOADED, _DISCONNECTED, _UNIMPLEMENTED = 0, 1, 2, 3
_IMPORTED_CAP = 0
_TO_CALLER = 0

_INTRODUCTIONS = 8
_CAPABILITIES = 8


NO_RPC = "it does not speak Cap'n Proto RPC"


class FrameError(Exception):
    """The peer broke a rule of the protocol or a bound; the text is one sentence for people."""


class PeerGone(Exception):
    """The peer said an orderly goodbye."""


@dataclass(frozen=True)
class Limits:
    """What one end of a connection may do.

    `asks_first`: it may ask for our main interface. `rate`, `burst`: its messages a second that are
    no answers, over a long and a short time.
    """

    asks_first: bool
    rate: float
    burst: float


OF_AGENTS = Limits(asks_first=False, rate=100, burst=500)
"""An agent calls nothing but the manager's observer: one report at a time, twenty a second."""

OF_MANAGERS = Limits(asks_first=True, rate=4000, burst=40000)
"""A manager that knows `operation` alone sends two messages for each look at each resource."""


class Inspector:
    """The frames of one peer, in the order they come."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._partial = bytearray()
        self._needed = 0  # bytes until `_partial` can be judged further
        self._introductions: set[int] = set()  # questions for our main interface, not let go of
        self._allowance = limits.burst
        self._now = self._allowed_at = 0.0

    def feed(self, data: memoryview, now: float) -> memoryview | bytearray:
        """The frames that are complete with `data`, ready to be handed on; where nothing had to be
        changed or kept back, `data` itself. `now` is in seconds of any steady clock.

        Raises FrameError, and PeerGone. The peer is to be disconnected then.
        """
        self._now = now
        if self._partial:
            return self._feed_more(data)
        checked, end = self._check(data)
        if end < len(data):
            self._partial += data[end:]
            data = data[:end]
        return data if checked is None else checked

    def _feed_more(self, data: memoryview) -> bytearray:
        self._partial += data
        if len(self._partial) < self._needed:
            return bytearray()
        gathered, self._partial = self._partial, bytearray()
        with memoryview(gathered) as view:
            checked, end = self._check(view)
            self._partial += view[end:]
        if checked is not None:
            return checked
        del gathered[end:]
        return gathered

    def _check(self, data: memoryview) -> tuple[bytearray | None, int]:
        """The frames at the beginning of `data` where one had to be changed, and their end."""
        at, size, changed_to, copied_to = 0, len(data), None, 0
        self._needed = 0
        while size - at >= _WORD_BYTES:
            end = _end_of_plain(data, at, size)
            if end:
                if data[at + _PLAIN_KIND] == _CALL_WORD:
                    self._spend()
                at = end
                continue
            frame = _Frame(data, at)
            end = frame.end
            if end > size:
                self._needed = end - at
                break
            replacement = self._judge(frame)
            if replacement is not None:
                if changed_to is None:
                    changed_to = bytearray()
                changed_to += data[copied_to:at]
                changed_to += replacement
                copied_to = end
            at = end
        if changed_to is not None:
            changed_to += data[copied_to:at]
        return changed_to, at

    def _judge(self, frame: _Frame) -> bytes | None:
        """Raises FrameError; returns what is to be handed on instead of the frame, if anything."""
        message = frame.root()
        kind = frame.u16(message, 0)
        if kind == _Kind.RETURN:
            return _judged_return(frame, frame.struct_at(message, 0))
        self._spend()
        body = frame.struct_at(message, 0)
        if kind == _Kind.CALL:
            self._judge_call(frame, body)
        elif kind == _Kind.FINISH:
            self._introductions.discard(frame.u32(body, 0))
        elif kind == _Kind.BOOTSTRAP and self._limits.asks_first:
            self._introductions.add(frame.u32(body, 0))
            if len(self._introductions) > _INTRODUCTIONS:
                raise FrameError("it asks again and again for the interface that it has")
        elif kind == _Kind.ABORT:
            raise _goodbye(frame, body)
        elif kind != _Kind.RELEASE:
            raise FrameError(f"it sent a message of kind {kind}, which HALO has no use for")
        return None

    def _spend(self) -> None:
        limits = self._limits
        allowance = self._allowance + (self._now - self._allowed_at) * limits.rate
        self._allowance = (limits.burst if allowance > limits.burst else allowance) - 1
        self._allowed_at = self._now
        if self._allowance < 0:
            raise FrameError(f"it sends more than {self._limits.rate:g} messages a second")

    def _judge_call(self, frame: _Frame, call: _Struct) -> None:
        """A call that waits for another would wait in Cap'n Proto, unseen and unbounded: so the
        only answer that can be called before it has come is that to the first question."""
        target = frame.struct_at(call, 0)
        if frame.u16(target, 4) != _IMPORTED_CAP:
            question = frame.u32(frame.struct_at(target, 0), 0)
            if question not in self._introductions:
                raise FrameError("it calls what it has not been given")
        if frame.u16(call, 6) != _TO_CALLER:
            raise FrameError("it does not want the results of its call")
        _judge_capabilities(frame, frame.struct_at(call, 1))


_PLAIN = struct.Struct("<IIQQQQQQQQ")
_PLAIN_KIND = 16
_PLAIN_CAPABILITIES = 88
_PLAIN_TARGET = 64


def _end_of_plain(data: memoryview, at: int, size: int) -> int:
    """Where a frame ends that nobody can object to; 0 where it has to be looked at.

    It is a call of an interface that was handed over, or an answer with results, both without
    interfaces of their own, and laid out as Cap'n Proto itself does it. Nearly every frame is one:
    this takes a sixth of the time that a look does."""
    if size - at < _PLAIN.size:
        return 0
    segments, words, root, kind, body, w3, _, w5, w6, w7 = _PLAIN.unpack_from(data, at)
    end: int = at + _WORD_BYTES + _WORD_BYTES * words
    if segments or root != 0x0001_0001_0000_0000 or end > size or words > _LIMIT_WORDS:
        return 0
    if kind == _RETURN_WORD:
        if (
            body == 0x0001_0002_0000_0000
            and w3 >> 48 == _RESULTS
            and w5 == 0x0002_0000_0000_0000
            and w7 == 0
            and words >= 8
        ):
            return end
    elif (
        kind == _CALL_WORD
        and body == 0x0003_0003_0000_0000
        and w3 >> 48 == _TO_CALLER
        and w6 >> 32 == 0x0001_0001
        and w7 == 0x0002_0000_0000_0004
        and words >= 13
        and _WORD.unpack_from(data, at + _PLAIN_CAPABILITIES)[0] == 0
    ):
        offset = w6 & 0xFFFF_FFFF  # in words, times four: a struct that lies further on
        target = at + _PLAIN_TARGET + 2 * offset
        if (
            offset & 0x8000_0003 == 0
            and target + _WORD_BYTES <= end
            and data[target + 4] == data[target + 5] == _IMPORTED_CAP
        ):
            return end
    return 0


_Struct = tuple[int, int, int, int, int]
"""Segment, where its data begins, where that ends, where its pointers begin, where those end."""


class _Frame:
    """One frame within `data`, complete once `end` is there. Every access is within its segment, or
    raises FrameError."""

    __slots__ = ("_data", "_segments", "end")

    def __init__(self, data: memoryview, at: int) -> None:
        """Raises FrameError where its table is out of bounds. Needs eight bytes of it."""
        self._data = data
        count = _U32.unpack_from(data, at)[0] + 1
        if count > SEGMENT_LIMIT:
            raise FrameError(NO_RPC)
        begin = at + _WORD_BYTES * (count // 2 + 1)
        self._segments: list[tuple[int, int]] = []
        self.end = begin  # of the table alone, as long as that is not complete
        if begin > len(data):
            return
        for number in range(count):
            words = _U32.unpack_from(data, at + 4 + 4 * number)[0]
            self._segments.append((self.end, self.end + _WORD_BYTES * words))
            self.end += _WORD_BYTES * words
        if self.end - at > MESSAGE_LIMIT_BYTES:
            raise FrameError(
                f"it sent a message of {self.end - at} bytes; "
                f"{MESSAGE_LIMIT_BYTES >> 20} MiB are allowed"
            )

    def root(self) -> _Struct:
        begin, end = self._segments[0]
        if begin == end:
            raise FrameError("it sent an empty message")
        return self._struct(0, begin)

    def struct_at(self, of: _Struct, number: int) -> _Struct:
        """The struct that a pointer of another leads to; an empty one where there is none."""
        at = of[3] + _WORD_BYTES * number
        return self._struct(of[0], at) if at < of[4] else (0, 0, 0, 0, 0)

    def text_at(self, of: _Struct, number: int) -> memoryview:
        """The bytes of a text, without its terminator."""
        at = of[3] + _WORD_BYTES * number
        if at >= of[4] or self._word(at) == 0:
            return self._data[:0]
        segment, begin, pointer = self._follow(of[0], at)
        size = pointer >> 35
        if pointer & 3 != 1 or pointer >> 32 & 7 != 2 or size == 0:
            raise FrameError("it sent a refusal without a text")
        self._require(segment, begin, begin + size)
        return self._data[begin : begin + size - 1]

    def u16(self, of: _Struct, offset: int) -> int:
        """A field of a struct's data, with the default 0."""
        at = of[1] + offset
        return self._data[at] | self._data[at + 1] << 8 if at + 2 <= of[2] else 0

    def u32(self, of: _Struct, offset: int) -> int:
        at = of[1] + offset
        return int(_U32.unpack_from(self._data, at)[0]) if at + 4 <= of[2] else 0

    def count_at(self, of: _Struct, number: int) -> int:
        """How many entries the list has that a pointer of a struct leads to."""
        at = of[3] + _WORD_BYTES * number
        if at >= of[4] or self._word(at) == 0:
            return 0
        segment, begin, pointer = self._follow(of[0], at)
        if pointer & 3 != 1:
            raise FrameError(NO_RPC)
        if pointer >> 32 & 7 != 7:
            return pointer >> 35
        self._require(segment, begin, begin + _WORD_BYTES)  # entries of several words: a tag first
        return self._word(begin) >> 2 & 0x3FFF_FFFF

    def _struct(self, segment: int, at: int) -> _Struct:
        segment, begin, pointer = self._follow(segment, at)
        if pointer & 3 != 0:
            raise FrameError(NO_RPC)
        pointers = begin + _WORD_BYTES * (pointer >> 32 & 0xFFFF)
        end = pointers + _WORD_BYTES * (pointer >> 48)
        self._require(segment, begin, end)
        return segment, begin, pointers, pointers, end

    def _follow(self, segment: int, at: int) -> tuple[int, int, int]:
        """The segment and place that the pointer at `at` leads to, and the pointer that says what
        is there. One that leads to another segment has a landing pad there, of one or two words."""
        pointer = self._word(at)
        if pointer & 3 != 2:
            return segment, at + _WORD_BYTES + _WORD_BYTES * _offset_words(pointer), pointer
        segment, pad = self._far(pointer)
        is_double = bool(pointer & 4)
        self._require(segment, pad, pad + _WORD_BYTES * (1 + is_double))
        landing = self._word(pad)
        if not is_double:
            if landing & 3 == 2:
                raise FrameError("it sent a pointer that leads nowhere")
            return segment, pad + _WORD_BYTES + _WORD_BYTES * _offset_words(landing), landing
        if landing & 7 != 2:
            raise FrameError("it sent a pointer that leads nowhere")
        segment, begin = self._far(landing)
        return segment, begin, self._word(pad + _WORD_BYTES)

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
        return int(_WORD.unpack_from(self._data, at)[0])


def _offset_words(pointer: int) -> int:
    """Bits 2 to 31, with their sign."""
    offset = pointer >> 2 & 0x3FFF_FFFF
    return offset - 0x4000_0000 if offset & 0x2000_0000 else offset


def _judged_return(frame: _Frame, answer: _Struct) -> bytes | None:
    what = frame.u16(answer, 6)
    if what == _EXCEPTION:
        error = frame.struct_at(answer, 0)
        kind = frame.u16(error, 4)
        return _exception(
            question=frame.u32(answer, 0),
            flags=frame.u16(answer, 4),
            # "Disconnected" is ours to say: the connection that brings the answer stands.
            kind=kind if kind in (_OVERLOADED, _UNIMPLEMENTED) else _FAILED,
            reason=cut(bytes(frame.text_at(error, 0))),
        )
    if what == _RESULTS:
        _judge_capabilities(frame, frame.struct_at(answer, 0))
    elif what != _CANCELED:
        raise FrameError(f"it answered a call in a way ({what}) that HALO has no use for")
    return None


def _judge_capabilities(frame: _Frame, payload: _Struct) -> None:
    if (count := frame.count_at(payload, 1)) > _CAPABILITIES:
        raise FrameError(f"it sent {count} interfaces in one message")


def _goodbye(frame: _Frame, error: _Struct) -> Exception:
    """What the end that the peer announces comes to."""
    if frame.u16(error, 4) == _DISCONNECTED:
        return PeerGone()
    reason = cut(bytes(frame.text_at(error, 0)), 500)
    return FrameError(f"it gave the connection up: {reason or 'no reason given'}")


def _exception(question: int, flags: int, kind: int, reason: str) -> bytes:
    """A frame that answers a question with an exception: one segment, depth first."""
    text = reason.encode() + b"\0"
    return _frame_of(
        _pointer(0, 1, 1),
        _WORD.pack(_Kind.RETURN),
        _pointer(0, 2, 1),
        struct.pack("<IHHQ", question, flags, _EXCEPTION, 0),
        _pointer(0, 1, 1),
        struct.pack("<IHH", 0, kind, 0),
        _WORD.pack(1 | 2 << 32 | len(text) << 35),
        text + bytes(-len(text) % _WORD_BYTES),
    )


def abort(reason: str) -> bytes:
    """The frame that ends a connection in the protocol's way, and says why."""
    text = reason.encode() + b"\0"
    return _frame_of(
        _pointer(0, 1, 1),
        _WORD.pack(_Kind.ABORT),
        _pointer(0, 1, 1),
        _WORD.pack(0),
        _WORD.pack(1 | 2 << 32 | len(text) << 35),
        text + bytes(-len(text) % _WORD_BYTES),
    )


def _pointer(offset: int, data_words: int, pointers: int) -> bytes:
    return _WORD.pack(offset << 2 | data_words << 32 | pointers << 48)


def _frame_of(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack("<II", 0, len(body) // _WORD_BYTES) + body
