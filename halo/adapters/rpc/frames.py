"""Checks every byte of a peer before pycapnp sees it.

A refusal whose text is not UTF-8 makes pycapnp end the process. And Cap'n Proto keeps all messages
that wait for something, as many as a peer sends. So every frame is checked here: its size, its
segments, and whether managers and agents use its kind of message. A peer that uses other parts of
the protocol (promises, embargoes, third parties) loses its connection.

An exception is not handed on as it came. It is written again from its reason, which is cut and
cleaned. So no text of a peer ever becomes a library's exception. The rest of a message is read only
when needed, with Cap'n Proto's own bounds checks, and is judged there.

Rejected: reading frames with the schema of pycapnp. This costs ten times as much for each frame,
and it is pycapnp that has to be protected.

Source: the encoding specification of Cap'n Proto, and its `rpc.capnp`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from halo.adapters.rpc.frame_layout import (
    EXCEPTION,
    MESSAGE_LIMIT_BYTES,
    WORD,
    WORD_BYTES,
    Frame,
    FrameError,
    Kind,
    StructAt,
    exception,
)
from halo.core.peers.bounds import cut

TRAVERSAL_LIMIT_WORDS = 4 * MESSAGE_LIMIT_BYTES // 8
"""How much pycapnp may read of one message. Several pointers to one place make a message look
larger than it is."""

_CALL_WORD, _RETURN_WORD = int(Kind.CALL), int(Kind.RETURN)  # compared a million times an hour
_LIMIT_WORDS = MESSAGE_LIMIT_BYTES // WORD_BYTES - 1

_RESULTS, _CANCELED = 0, 2
_FAILED, _OVERLOADED, _DISCONNECTED, _UNIMPLEMENTED = 0, 1, 2, 3
_IMPORTED_CAP = 0
_TO_CALLER = 0

_INTRODUCTIONS = 8
_CAPABILITIES = 8


class PeerGone(Exception):
    """The peer said an orderly goodbye."""


@dataclass(frozen=True)
class Limits:
    """What one end of a connection may do.

    `asks_first`: it may ask for our main interface. `rate` and `burst` limit its messages that are
    not answers: per second over a long time, and at once.
    """

    asks_first: bool
    rate: float
    burst: float


OF_AGENTS = Limits(asks_first=False, rate=100, burst=500)
"""An agent calls only the manager's observer: one report at a time, at most twenty a second."""

OF_MANAGERS = Limits(asks_first=True, rate=4000, burst=40000)
"""A manager that knows only `operation` sends two messages for each monitor of a resource."""


class Inspector:
    """The frames of one peer, in their order.

    `ending`: why to disconnect the peer after the result of :meth:`feed` was handed on.
    """

    def __init__(self, limits: Limits) -> None:
        self.ending: FrameError | PeerGone | None = None
        self._limits = limits
        self._partial = bytearray()
        self._needed = 0  # bytes until `_partial` can be judged further
        self._introductions: set[int] = set()  # questions for our main interface, not let go of
        self._allowance = limits.burst
        self._now = self._allowed_at = 0.0

    def feed(self, data: memoryview, now: float) -> memoryview | bytearray:
        """The frames that are complete with `data`, to be handed on. If nothing had to be changed
        or kept back, this is `data` itself. `now` is in seconds of any steady clock.

        At a bad frame or a goodbye, it sets `ending`, returns the frames before, and takes no more.
        """
        if self.ending is not None:
            return bytearray()
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
        """The frames at the beginning of `data` if one had to be changed, and where they end."""
        at, size, changed_to, copied_to = 0, len(data), None, 0
        self._needed = 0
        try:
            while size - at >= WORD_BYTES:
                end = _end_of_plain(data, at, size)
                if end:
                    if data[at + _PLAIN_KIND] == _CALL_WORD:
                        self._spend()
                    at = end
                    continue
                frame = Frame(data, at)
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
        except (FrameError, PeerGone) as error:
            self.ending = error
        if changed_to is not None:
            changed_to += data[copied_to:at]
        return changed_to, at

    def _judge(self, frame: Frame) -> bytes | None:
        """Raises FrameError. Returns the bytes to hand on instead of the frame, if any."""
        message = frame.root()
        kind = frame.u16(message, 0)
        if kind == Kind.RETURN:
            return _judged_return(frame, frame.struct_at(message, 0))
        self._spend()
        body = frame.struct_at(message, 0)
        if kind == Kind.CALL:
            self._judge_call(frame, body)
        elif kind == Kind.FINISH:
            self._introductions.discard(frame.u32(body, 0))
        elif kind == Kind.BOOTSTRAP and self._limits.asks_first:
            self._introductions.add(frame.u32(body, 0))
            if len(self._introductions) > _INTRODUCTIONS:
                raise FrameError("it asks again and again for the same interface")
        elif kind == Kind.ABORT:
            raise _goodbye(frame, body)
        elif kind != Kind.RELEASE:
            raise FrameError(f"it sent a message of kind {kind}, which HALO does not use")
        return None

    def _spend(self) -> None:
        limits = self._limits
        allowance = self._allowance + (self._now - self._allowed_at) * limits.rate
        self._allowance = (limits.burst if allowance > limits.burst else allowance) - 1
        self._allowed_at = self._now
        if self._allowance < 0:
            raise FrameError(f"it sends more than {self._limits.rate:g} messages a second")

    def _judge_call(self, frame: Frame, call: StructAt) -> None:
        """A call on an answer that has not come yet would wait in Cap'n Proto, unseen and without
        limit. So only the answer to the first question may be called before it has come."""
        target = frame.struct_at(call, 0)
        if frame.u16(target, 4) != _IMPORTED_CAP:
            question = frame.u32(frame.struct_at(target, 0), 0)
            if question not in self._introductions:
                raise FrameError("it calls an interface that it has not been given")
        if frame.u16(call, 6) != _TO_CALLER:
            raise FrameError("it does not want the results of its call")
        _judge_capabilities(frame, frame.struct_at(call, 1))


_PLAIN = struct.Struct("<IIQQQQQQQQ")
_PLAIN_KIND = 16
_PLAIN_CAPABILITIES = 88
_PLAIN_TARGET = 64


def _end_of_plain(data: memoryview, at: int, size: int) -> int:
    """The end of a plain frame, which needs no further check; 0 if the frame has to be checked.

    A plain frame is a call of an interface that was handed over, or an answer with results. It has
    no interfaces of its own, and the layout that Cap'n Proto uses. Nearly every frame is plain, and
    this test takes a sixth of the time of a full check."""
    if size - at < _PLAIN.size:
        return 0
    segments, words, root, kind, body, w3, _, w5, w6, w7 = _PLAIN.unpack_from(data, at)
    end: int = at + WORD_BYTES + WORD_BYTES * words
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
        and WORD.unpack_from(data, at + _PLAIN_CAPABILITIES)[0] == 0
    ):
        offset = w6 & 0xFFFF_FFFF  # in words, times four: a struct that lies further on
        target = at + _PLAIN_TARGET + 2 * offset
        if (
            offset & 0x8000_0003 == 0
            and target + WORD_BYTES <= end
            and data[target + 4] == data[target + 5] == _IMPORTED_CAP
        ):
            return end
    return 0


def _judged_return(frame: Frame, answer: StructAt) -> bytes | None:
    what = frame.u16(answer, 6)
    if what == EXCEPTION:
        error = frame.struct_at(answer, 0)
        kind = frame.u16(error, 4)
        return exception(
            question=frame.u32(answer, 0),
            flags=frame.u16(answer, 4),
            # Only we may say "disconnected": the connection that brings the answer stands.
            kind=kind if kind in (_OVERLOADED, _UNIMPLEMENTED) else _FAILED,
            reason=cut(bytes(frame.text_at(error, 0))),
        )
    if what == _RESULTS:
        _judge_capabilities(frame, frame.struct_at(answer, 0))
    elif what != _CANCELED:
        raise FrameError(f"it answered a call in a way ({what}) that HALO does not use")
    return None


def _judge_capabilities(frame: Frame, payload: StructAt) -> None:
    if (count := frame.count_at(payload, 1)) > _CAPABILITIES:
        raise FrameError(f"it sent {count} interfaces in one message")


def _goodbye(frame: Frame, error: StructAt) -> FrameError | PeerGone:
    """The exception for an end of the connection that the peer announces."""
    if frame.u16(error, 4) == _DISCONNECTED:
        return PeerGone()
    reason = cut(bytes(frame.text_at(error, 0)), 500)
    return FrameError(f"it ended the connection: {reason or 'no reason given'}")
