"""Every frame is judged before pycapnp sees it: what passes, what is cut, what ends it all."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halo.adapters.rpc.frame_layout import MESSAGE_LIMIT_BYTES, FrameError
from halo.adapters.rpc.frames import OF_AGENTS, OF_MANAGERS, Inspector, PeerGone
from halo.core.peers.bounds import TEXT_LIMIT_BYTES
from tests.unit import raw_frames as raw


def fed(*pieces: bytes, of_agent: bool = True, now: float = 1.0) -> bytes:
    """What an inspector hands on of these pieces."""
    inspector = Inspector(OF_AGENTS if of_agent else OF_MANAGERS)
    frames = b"".join(bytes(inspector.feed(memoryview(bytearray(p)), now)) for p in pieces)
    if inspector.ending is not None:
        raise inspector.ending
    return frames


def exception_of(data: bytes) -> tuple[int, bool, str, str]:
    with raw.rpc.Message.from_bytes(data) as message:
        answer = getattr(message, "return")
        error = answer.exception
        return answer.answerId, answer.releaseParamCaps, str(error.type), str(error.reason)


def far_exception(reason: bytes, *, is_double: bool) -> bytes:
    """An exception whose text lies in another segment, as Cap'n Proto puts a long one."""
    text = reason + b"\0"
    text += bytes(-len(text) % 8)
    tag = 1 | 2 << 32 | (len(reason) + 1) << 35
    first = b"".join(
        [
            raw.WORD.pack(1 << 32 | 1 << 48),
            raw.WORD.pack(3),
            raw.WORD.pack(2 << 32 | 1 << 48),
            struct.pack("<IHHQ", 7, 0, 1, 0),
            raw.WORD.pack(1 << 32 | 1 << 48),
            raw.WORD.pack(0),
            raw.WORD.pack(2 | is_double << 2 | 1 << 32),
        ]
    )
    if not is_double:
        return raw.segments(first, raw.WORD.pack(tag) + text)
    return raw.segments(first, raw.WORD.pack(2 | 2 << 32) + raw.WORD.pack(tag), text)


LEGITIMATE = [
    raw.results(1, "heartbeat"),
    raw.welcome(1),
    raw.interface_results(0),
    raw.results(3, "monitorMany", lambda r: r.init("outcomes", 64)),
    raw.report(2),
    raw.finish(9),
]


@pytest.mark.parametrize("data", LEGITIMATE)
def test_what_both_ends_need_passes_as_it_is(data: bytes) -> None:
    assert fed(data) == data


@given(st.lists(st.integers(1, 400), max_size=20))
def test_frames_pass_whole_however_they_are_cut_up(sizes: list[int]) -> None:
    data = b"".join(LEGITIMATE) + raw.exception(5, b"no \xff text") + LEGITIMATE[0]
    whole = fed(data)
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    assert fed(*pieces, data) == whole


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        (b"\xff\xfe no text", "?? no text"),
        (b"\xed\xa0\x80", "???"),
        (b"\x1b[2J gone", "?[2J gone"),
        (b"", ""),
        ("straße".encode(), "straße"),
        (b"x" * 5000, "x" * (TEXT_LIMIT_BYTES - 60) + " [964 more bytes were cut]"),
    ],
)
def test_an_exception_is_written_anew_with_a_clean_text(reason: bytes, shown: str) -> None:
    for data in (
        raw.exception(7, reason, "overloaded", trace=b"\xff"),
        far_exception(reason, is_double=False),
        far_exception(reason, is_double=True),
    ):
        assert exception_of(fed(data))[-1] == shown


def test_an_exception_keeps_its_question_and_its_kind() -> None:
    data = raw.exception(70000, "busy", "overloaded")
    assert exception_of(fed(data)) == (70000, True, "overloaded", "busy")


def test_nobody_else_says_that_a_connection_has_ended() -> None:
    assert exception_of(fed(raw.exception(1, "gone", "disconnected")))[2] == "failed"


def test_an_unknown_kind_of_exception_is_a_failure() -> None:
    data = bytearray(raw.exception(7, "why", "unimplemented"))
    place = data.index(struct.pack("<IHH", 0, 3, 0))
    data[place + 4 : place + 6] = b"\xff\xff"
    assert exception_of(fed(bytes(data))) == (7, True, "failed", "why")


def refusal_of(*pieces: bytes, of_agent: bool = True) -> str:
    with pytest.raises(FrameError) as raised:
        fed(*pieces, of_agent=of_agent)
    return str(raised.value)


@pytest.mark.parametrize(
    "kind", ["resolve", "disembargo", "provide", "accept", "join", "unimplemented", "obsoleteSave"]
)
def test_the_rest_of_the_protocol_ends_the_connection(kind: str) -> None:
    def fill(message: object) -> None:
        if kind == "obsoleteSave":
            message.init(kind).as_struct(raw.rpc.Release)  # type: ignore[attr-defined]  # made at run time, from the schema
        else:
            message.init(kind)  # type: ignore[attr-defined]  # made at run time, from the schema

    for of_agent in (True, False):
        assert "does not use" in refusal_of(raw.frame(fill), of_agent=of_agent)


def test_a_size_is_judged_when_it_is_announced() -> None:
    head = struct.pack("<II", 0, MESSAGE_LIMIT_BYTES // 8)
    assert "4 MiB are allowed" in refusal_of(head)
    assert "not speak" in refusal_of(struct.pack("<II", 0xFFFF_FFFF, 0))
    assert "not speak" in refusal_of(struct.pack("<II", 64, 0))


def test_the_largest_message_passes_in_pieces() -> None:
    words = MESSAGE_LIMIT_BYTES // 8 - 1
    data = raw.segments(raw.results(1, "heartbeat")[8:].ljust(8 * words, b"\0"))
    assert len(data) == MESSAGE_LIMIT_BYTES
    assert fed(*(data[at : at + 250_000] for at in range(0, len(data), 250_000))) == data


def test_pointers_stay_within_their_message() -> None:
    root = raw.WORD.pack(100 << 2 | 1 << 32 | 1 << 48)
    assert "out of its message" in refusal_of(raw.segments(root))
    assert "leads nowhere" in refusal_of(raw.segments(raw.WORD.pack(2 | 9 << 32)))
    assert "leads nowhere" in refusal_of(raw.segments(raw.WORD.pack(2)))
    assert "not speak" in refusal_of(raw.segments(raw.WORD.pack(3)))
    assert "empty" in refusal_of(raw.segments(b""))


def test_a_call_of_what_was_not_given_ends_the_connection() -> None:
    assert fed(raw.bootstrap(0), raw.call(1), of_agent=False)
    assert "not been given" in refusal_of(raw.call(1), of_agent=False)
    assert "not been given" in refusal_of(
        raw.bootstrap(0), raw.finish(0), raw.call(1), of_agent=False
    )
    assert "does not use" in refusal_of(raw.bootstrap(0))  # of a manager


def test_a_target_behind_the_message_is_looked_at() -> None:
    """The short cut for plain calls must not take a negative offset for a large one."""
    data = bytearray(raw.report(1))
    target = 8 + 8 * 6
    assert data[target + 4 : target + 8] == b"\1\0\1\0"
    struct.pack_into("<i", data, target, -100 << 2)
    assert "out of its message" in refusal_of(bytes(data))


def test_interfaces_by_the_thousand_end_the_connection() -> None:
    def fill(message: object) -> None:
        message.init("return").init("results").init("capTable", 1000)  # type: ignore[attr-defined]  # made at run time, from the schema

    assert "1000 interfaces" in refusal_of(raw.frame(fill))


def test_asking_for_the_interface_again_and_again_ends_the_connection() -> None:
    asked = [raw.bootstrap(number) for number in range(9)]
    assert fed(*asked[:8], of_agent=False)
    assert "again and again" in refusal_of(*asked, of_agent=False)
    with_finish = [asked[0] + raw.finish(0)] * 20
    assert fed(*with_finish, of_agent=False)


def test_a_flood_ends_the_connection_and_a_steady_stream_does_not() -> None:
    assert "messages a second" in refusal_of(*[raw.report(1)] * 501)
    inspector = Inspector(OF_AGENTS)
    for number in range(5000):
        inspector.feed(memoryview(bytearray(raw.report(1))), number / 20)
    assert inspector.ending is None


def test_answers_are_no_flood() -> None:
    assert fed(*[raw.results(1, "heartbeat")] * 1000)


def test_a_goodbye_is_no_fault() -> None:
    with pytest.raises(PeerGone):
        fed(raw.abort(b"\xff", "disconnected"))
    assert refusal_of(raw.abort(b"why\xff")) == "it ended the connection: why?"


@pytest.mark.parametrize("last", [raw.abort("why"), raw.abort("", "disconnected"), bytes(16)])
@pytest.mark.parametrize("first", [raw.results(1, "run"), raw.exception(1, "why")])
def test_what_came_before_a_bad_frame_or_a_goodbye_is_handed_on(first: bytes, last: bytes) -> None:
    inspector = Inspector(OF_AGENTS)
    whole = first + last + raw.results(2, "run")
    assert bytes(inspector.feed(memoryview(whole), 1.0)) == fed(first)
    assert inspector.ending is not None
    assert bytes(inspector.feed(memoryview(raw.results(3, "run")), 1.0)) == b""


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_do_worse_than_end_the_connection(data: bytes, of_agent: bool) -> None:
    with contextlib.suppress(FrameError, PeerGone):
        fed(data, of_agent=of_agent)


@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(LEGITIMATE))
def test_no_changed_byte_does_worse_than_end_the_connection(
    at: int, value: int, data: bytes
) -> None:
    changed = bytearray(data + raw.exception(3, "why") + far_exception(b"x" * 50, is_double=True))
    changed[at % len(changed)] = value
    with contextlib.suppress(FrameError, PeerGone):
        fed(bytes(changed))
