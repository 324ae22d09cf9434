"""Limits on what others send (S10), and how a longer text is cut.

Every text of an agent, a manager or a script is cut where it comes in. Other code need not ask how
long a text can be, or what it does to an operator's terminal.
"""

from __future__ import annotations

import re

TEXT_LIMIT_BYTES = 4096
"""Bytes of a refusal or of a script's message, in UTF-8."""

NAME_LIMIT = 256
"""Characters of a kind, a version, an id of a boot or a start, or the name of a parameter."""

MANAGER_NAME_LIMIT = 1024
"""Characters of a manager's name, which is made of its host and the path of its state file."""

INSTANCE_LIMIT = 1024
"""Characters of a resource's id."""

FEATURE_LIMIT = 64
FEATURE_NAME_LIMIT = 64

PARAMETER_LIMIT = 256
"""Parameters of one resource."""

PARAMETERS_LIMIT_BYTES = 32 * 1024
"""Bytes of all names and values of one resource's parameters, in UTF-8. So 64 monitors in one call
stay far below the largest message."""

ITEM_LIMIT = 2000
"""Resources of one watch; no host has so many."""

MONITOR_LIMIT = 256
"""Monitors in one call."""

TERM_LIMIT = 2**53 - 1
"""The highest term of a leader: etcd's revisions end there, and JSON can hold it exactly."""

BATCH_LIMIT = 256
"""Results in one report."""

REPORT_LIMIT = BATCH_LIMIT * 3 * 1024
"""Characters in one report. An agent cuts each message to 2,048, and an id has at most 1,024."""

_CONTROLS = (*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000), 0xFFFD)
_SHOWN_AS: dict[int, str | None] = {
    **dict.fromkeys(_CONTROLS, "?"),
    ord("\t"): "\t",
    ord("\n"): "\n",
    ord("\r"): None,
}
_UNSHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffd]")


_NOTE_BYTES = 60


def cut(text: str | bytes, limit_bytes: int = TEXT_LIMIT_BYTES) -> str:
    """The beginning of a text, with a note of how much was cut. Bad characters become `?`.

    A text that was cut once is not cut again, because the note is within the limit."""
    data = _bytes_of(text)
    if len(data) <= limit_bytes:
        return _shown(data)
    kept = limit_bytes - _NOTE_BYTES
    return f"{_shown(data[:kept])} [{len(data) - kept} more bytes were cut]"


def cut_to_end(text: str | bytes, limit_bytes: int = TEXT_LIMIT_BYTES) -> str:
    """The end of a text, where scripts say what went wrong. Otherwise like :func:`cut`."""
    data = _bytes_of(text)
    left = len(data) - limit_bytes
    if left <= 0:
        return _shown(data)
    left += _NOTE_BYTES
    return f"[{left} bytes before this were cut] {_shown(data[left:])}"


def _bytes_of(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "replace")


def _shown(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    if text.isascii():
        return text.translate(_SHOWN_AS)
    # `translate` takes ten times as long for text that is not ASCII.
    return _UNSHOWN.sub("?", text.replace("\r", ""))


def name(text: str, limit: int = NAME_LIMIT) -> str:
    """A name for people, on one line: cut, and without characters that cannot be shown."""
    shown = text[:limit].translate(_SHOWN_AS).replace("\n", "?").replace("\t", "?")
    return shown if len(text) <= limit else f"{shown}..."
