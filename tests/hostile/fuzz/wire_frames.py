"""The judge of frames: what it lets through is harmless, however the bytes arrive.

See :mod:`halo.adapters.rpc.frames`. Its judgement is compared with Cap'n Proto's own reading.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import capnp

from halo.adapters.rpc.frames import (
    OF_AGENTS,
    OF_MANAGERS,
    Inspector,
    Limits,
)
from tests.hostile import frames
from tests.hostile.fuzz.fuzzer import Finding
from tests.hostile.fuzz.mutate import mutated
from tests.hostile.fuzz.wire_agent import session
from tests.hostile.nonsense import BYTES, MESSAGES
from tests.hostile.rogue import completed

KINDS = ("call", "return", "finish", "release", "bootstrap")
REASON_LIMIT = 8192
CASES_AT_ONCE = 50


def samples() -> list[bytes]:
    """Frames of both ends, and what is none."""
    return [
        *session(),
        *(message for messages in MESSAGES.values() for message in messages),
        *(data for data in BYTES.values() if len(data) < 5000),
        frames.bootstrap_results(0),
        frames.results(1, "hello", lambda r: r.init("greeting").init("welcome")),
        frames.results(2, "monitorMany", lambda r: completed(1, "x")(r.init("outcomes", 1)[0])),
        frames.exception(3, b"\xff\xfe", trace=b"\xff"),
        frames.exception(4, "x" * 3000),
        frames.exception(5, "", "unimplemented"),
        frames.abort(b"\xff\xfe"),
    ]


class FrameFuzzer:
    """Streams of changed frames, in pieces of any size, to :class:`Inspector`."""

    def __init__(self) -> None:
        self._samples: Sequence[bytes] = ()

    async def open(self, folder: Path) -> None:
        self._samples = samples()

    async def case(self, chance: random.Random) -> None:
        for _ in range(CASES_AT_ONCE):
            parts = [chance.choice(self._samples) for _ in range(chance.choice((1, 1, 2, 3, 6)))]
            at = chance.randrange(len(parts))
            parts[at] = mutated(parts[at], chance, self._samples)
            check(b"".join(parts), [chance.randrange(1, 200) for _ in range(8)])

    async def close(self) -> None:
        pass


def check(data: bytes, pieces: Sequence[int]) -> None:
    """Judge a stream at once and in pieces, by the rules for either end. Raises Finding."""
    for limits in (OF_AGENTS, OF_MANAGERS):
        whole, ending = _judged(limits, [data])
        in_pieces, same_ending = _judged(limits, _cut(data, pieces))
        if ending == same_ending == "" and whole != in_pieces:
            raise Finding(f"in pieces of {pieces} another stream comes out: {data!r:.1000}")
        if ending != same_ending:
            raise Finding(f"{ending!r}, in pieces of {pieces} {same_ending!r}: {data!r:.1000}")
        if not whole.startswith(in_pieces) and not in_pieces.startswith(whole):
            raise Finding(f"in pieces of {pieces} another stream comes out: {data!r:.1000}")
        for let_through in (whole, in_pieces):
            _check_harmless(let_through, data)


def _cut(data: bytes, pieces: Sequence[int]) -> Iterator[bytes]:
    at, number = 0, 0
    while at < len(data):
        size = pieces[number % len(pieces)] if number < 500 else len(data)
        yield data[at : at + size]
        at, number = at + size, number + 1


def _judged(limits: Limits, pieces: Iterator[bytes] | Sequence[bytes]) -> tuple[bytes, str]:
    """What comes out, and in what words it ended, if it did."""
    inspector = Inspector(limits)
    out = bytearray()
    for piece in pieces:
        out += inspector.feed(memoryview(piece), 0.0)
    if (ending := inspector.ending) is not None:
        return bytes(out), f"{type(ending).__name__}: {ending}"
    return bytes(out), ""


def _check_harmless(stream: bytes, data: bytes) -> None:
    """Every frame is whole, of a kind that is used, and its exception is a short text."""
    for frame in _frames(stream):
        try:
            with frames.rpc.Message.from_bytes(frame) as message:
                problem = _problem_of(message)
        except capnp.KjException:
            continue  # Cap'n Proto refuses it: pycapnp will, too
        except UnicodeDecodeError as error:
            problem = str(error)
        if problem:
            raise Finding(f"let through: {problem}: {frame!r:.600} of {data!r:.1000}")


def _problem_of(message: Any) -> str | None:
    kind = str(message.which())
    if kind not in KINDS:
        return f"a message of kind {kind}"
    if kind != "return":
        return None
    answer = getattr(message, kind)
    if answer.which() == "exception":
        if (
            len(answer.exception.reason) > REASON_LIMIT
            or len(answer.exception.trace) > REASON_LIMIT
        ):
            return "an exception of a long text"
    elif answer.which() not in ("results", "canceled"):
        return f"an answer of kind {answer.which()}"
    return None


def _frames(stream: bytes) -> Iterator[bytes]:
    at = 0
    while len(stream) - at >= frames.WORD:
        count = struct.unpack_from("<I", stream, at)[0] + 1
        table = 4 * (1 + count) + (-4 * (1 + count)) % frames.WORD
        if count > 512 or len(stream) - at < table:
            return
        sizes = struct.unpack_from(f"<{count}I", stream, at + 4)
        end = at + table + frames.WORD * sum(sizes)
        if end > len(stream):
            return
        yield stream[at:end]
        at = end
