"""Bytes and messages that either end of a connection may be thrown, by name."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from tests.hostile import frames

UNKNOWN = 4_000_000_000
NO_TEXT = b"\xff\xfe\xfd\x80"


def _far_pointers_in_a_circle() -> tuple[bytes, bytes]:
    far_0 = struct.pack("<II", 2 | (0 << 3), 1)
    far_1 = struct.pack("<II", 2 | (0 << 3), 0)
    return far_0, far_1


def _list_of_nothing() -> bytes:
    """A list of 2^29 structs of no words, in eight bytes: the amplification that limits stop."""
    root = struct.pack("<iHH", 0 << 2, 0, 1)
    pointer = struct.pack("<II", 1 | (0 << 2), 7 | (0 << 3))
    tag = struct.pack("<iHH", (2**29 - 1) << 2, 0, 0)
    return root + pointer + tag


BYTES: Mapping[str, bytes] = {
    "http": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" * 50,
    "tls": bytes.fromhex("160301020001") + bytes(512),
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "zeros": bytes(1 << 20),
    "ones": b"\xff" * (1 << 20),
    "a_frame_of_half_a_gigabyte_announced": frames.head(1 << 26),
    "a_frame_of_32_gigabytes_announced": frames.head(0xFFFFFFFF),
    "two_billion_segments": struct.pack("<I", 0x7FFFFFFF) + bytes(4096),
    "segments_whose_count_overflows": struct.pack("<I", 0xFFFFFFFF) + bytes(4096),
    "five_hundred_empty_segments": frames.head(*[0] * 512) * 200,
    "empty_frames": frames.head(0) * 10_000,
    "frames_of_a_null_pointer": frames.raw_frame(bytes(8)) * 10_000,
    "half_a_frame": frames.abort("half")[:20],
    "a_pointer_out_of_bounds": frames.raw_frame(struct.pack("<iHH", 1 << 28, 1, 1)),
    "far_pointers_in_a_circle": frames.raw_frame(*_far_pointers_in_a_circle()),
    "a_far_pointer_to_no_segment": frames.raw_frame(struct.pack("<II", 2, 99)),
    "half_a_billion_structs_of_nothing": frames.raw_frame(_list_of_nothing()),
}
"""What is no message, or no end of one, or one whose pointers lie."""


def _nested(depth: int) -> bytes:
    """A message that says `unimplemented` about itself, again and again."""

    def fill(message: Any) -> None:
        for _ in range(depth):
            message = message.init("unimplemented")
        message.init("finish").questionId = 0

    return frames.other(fill)


def _set(kind: str, **fields: Any) -> bytes:
    """A message of this kind, with these fields; a dict is a struct."""
    return frames.other(lambda message: _fill(message.init(kind), fields))


def _fill(target: Any, fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, dict):
            _fill(target.init(name), value)
        else:
            setattr(target, name, value)


MESSAGES: Mapping[str, tuple[bytes, ...]] = {
    "answers_to_questions_never_asked": (
        frames.results(UNKNOWN, "heartbeat"),
        frames.results(999, "hello"),
    ),
    "an_exception_to_a_question_never_asked": (frames.exception(77, NO_TEXT),),
    "lets_go_of_what_nobody_gave": (frames.release(UNKNOWN, 2**32 - 1),),
    "lets_go_of_the_interface_too_often": (frames.release(0, 2**32 - 1),),
    "ends_questions_never_asked": (frames.finish(UNKNOWN), frames.finish(0)),
    "resolves_what_was_no_promise": (_set("resolve", promiseId=UNKNOWN, cap={"senderHosted": 5}),),
    "resolves_with_a_bad_text": (_set("resolve", promiseId=1, exception={"reason": NO_TEXT}),),
    "lifts_an_embargo_that_is_none": (
        _set("disembargo", target={"importedCap": UNKNOWN}, context={"receiverLoopback": 99}),
    ),
    "asks_for_an_embargo": (
        _set("disembargo", target={"importedCap": 0}, context={"senderLoopback": 1}),
    ),
    "asks_for_an_embargo_of_an_answer": (
        _set(
            "disembargo",
            target={"promisedAnswer": {"questionId": 1}},
            context={"senderLoopback": 1},
        ),
    ),
    "provides_a_third_party": (_set("provide", questionId=5, target={"importedCap": 0}),),
    "accepts_a_third_party": (_set("accept", questionId=6, embargo=True),),
    "joins_a_third_party": (_set("join", questionId=7, target={"importedCap": 0}),),
    "says_unimplemented": (_nested(1),),
    "says_unimplemented_in_fifty_layers": (_nested(50),),
    "says_unimplemented_in_ten_thousand_layers": (_nested(10_000),),
    "a_bad_text_in_an_unimplemented_exception": (
        frames.other(lambda m: setattr(m.init("unimplemented").init("abort"), "reason", NO_TEXT)),
    ),
    "asks_for_the_interface_and_calls_it": (
        frames.bootstrap(901),
        frames.call(902, "heartbeat", on_answer=901),
    ),
    "calls_an_interface_that_was_never_given": (frames.call(903, "heartbeat", on_import=77),),
    "calls_on_an_answer_that_is_none": (frames.call(904, "heartbeat", on_answer=UNKNOWN),),
}
"""Well-formed messages that make no sense where they come."""
