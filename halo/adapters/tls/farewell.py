"""The last words of an agent to a manager whose certificate it refuses.

If the agent ended the connection without a word, the operator would have to guess. So it sends the
message *abort* of `rpc.capnp`, which every Cap'n Proto peer understands. It reads nothing, because
the parser of messages is only for accepted peers.
"""

from __future__ import annotations

import struct

_WORDS_AT_MOST = 500
_MARK = "this manager's certificate is refused: "

_ABORT = 1  # `Message.abort`, of type `Exception`


def farewell(reason: str) -> bytes:
    """The message for this reason, in Cap'n Proto's encoding: one segment of three structures."""
    text = (_MARK + reason).encode()[:_WORDS_AT_MOST].decode(errors="ignore").encode() + b"\0"
    padded = text + b"\0" * (-len(text) % 8)
    segment = b"".join(
        (
            _struct_pointer(data_words=1, pointers=1),
            struct.pack("<HHHH", _ABORT, 0, 0, 0),
            _struct_pointer(data_words=1, pointers=1),
            bytes(8),  # of the exception: type `failed`
            struct.pack("<II", 1, len(text) << 3 | 2),  # a list of bytes, right behind
            padded,
        )
    )
    return struct.pack("<II", 0, len(segment) // 8) + segment


def refusal_in(error: BaseException | None) -> str | None:
    """The reason, if the error that ended a call or a connection comes from :func:`farewell`."""
    _, mark, reason = str(getattr(error, "description", error)).partition(_MARK)
    lines = reason[:_WORDS_AT_MOST].splitlines() if mark else []
    return "".join(c if c.isprintable() else "?" for c in lines[0]) or None if lines else None


def _struct_pointer(*, data_words: int, pointers: int) -> bytes:
    """A pointer to a structure that comes directly after it."""
    return struct.pack("<IHH", 0, data_words, pointers)
