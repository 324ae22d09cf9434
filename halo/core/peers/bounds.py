"""How much of what others say is taken in (S10), and how a text that is longer is cut.

Whatever comes from an agent, a manager or a script is cut where it comes in: nothing behind that
has to ask how large a text can be, or what it does to the terminal of an operator.
"""

from __future__ import annotations

import re

TEXT_LIMIT_BYTES = 4096
"""Of a refusal or a script's message, in UTF-8."""

NAME_LIMIT = 256
"""Characters of a kind, a version, an id of a boot or a start, the name of a parameter."""

MANAGER_NAME_LIMIT = 1024
"""A manager is named after its host and the path of its state file."""

INSTANCE_LIMIT = 1024
"""Characters of a resource's id."""

FEATURE_LIMIT = 64
FEATURE_NAME_LIMIT = 64

PARAMETER_LIMIT = 256
"""Parameters of one resource."""

PARAMETERS_LIMIT_BYTES = 32 * 1024
"""Names and values of one resource's parameters together, in UTF-8: 64 monitors in one call stay
far below the size of a message."""

ITEM_LIMIT = 2000
"""Resources of one watch: no host has as many."""

MONITOR_LIMIT = 256
"""Monitors in one call."""

TERM_LIMIT = 2**53 - 1
"""The highest term of a leader: etcd counts no revisions beyond, and JSON holds it exactly."""

BATCH_LIMIT = 256
"""Results in one report."""

REPORT_LIMIT = BATCH_LIMIT * 3 * 1024
"""Characters in one report: an agent cuts each message to 2,048, and an id has 1,024 at most."""

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
    """The beginning of a text, with a note of what was cut. What cannot be shown becomes `?`.

    What was cut once is not cut again: the note is within the limit."""
    data = _bytes_of(text)
    if len(data) <= limit_bytes:
        return _shown(data)
    kept = limit_bytes - _NOTE_BYTES
    return f"{_shown(data[:kept])} [{len(data) - kept} more bytes were cut]"


def cut_to_end(text: str | bytes, limit_bytes: int = TEXT_LIMIT_BYTES) -> str:
    """The end of a text, where scripts say what went wrong; otherwise as :func:`cut`."""
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
    # `translate` takes ten times as long over text that is not ASCII.
    return _UNSHOWN.sub("?", text.replace("\r", ""))


def name(text: str, limit: int = NAME_LIMIT) -> str:
    """A name for people, on one line: cut, and without what cannot be shown."""
    shown = text[:limit].translate(_SHOWN_AS).replace("\n", "?").replace("\t", "?")
    return shown if len(text) <= limit else f"{shown}..."
