"""The log about peers: an event that a peer causes is logged a few times, and then counted.

A peer decides how often something goes wrong. It must not be able to fill the log. Lines are of the
same kind if they tell the same event of the same host, peer, or kind of resource. A few lines of
each kind are written in a minute, and then one line that says how many more there were.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

LINES = 10
"""Lines of one kind that are written within :data:`WINDOW_S`."""

WINDOW_S = 60.0
KINDS = 1000
"""Kinds that are counted separately. All further kinds are counted together."""

_ABOUT = ("host", "peer", "kind")
_Kind = tuple[str, str, str]  # the event, and about whom
_OTHERS: _Kind = ("", "", "")


class _Count:
    """The lines of one kind since its window began."""

    __slots__ = ("began", "kept_back", "written")

    def __init__(self, began: float) -> None:
        self.began = began
        self.written = 0
        self.kept_back = 0

    def is_over(self, now: float) -> bool:
        return now - self.began >= WINDOW_S and not self.kept_back


class PeerLog:
    """Writes like a structlog logger. The field `host`, or else `peer`, or else `kind`, says who
    caused the event.

    Needs a running event loop, for the time and for the line with the count. Lines that are held
    back are written at level debug.
    """

    def __init__(self, name: str | None = None) -> None:
        self._log = structlog.get_logger(name) if name else structlog.get_logger()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._counts: dict[_Kind, _Count] = {}

    def info(self, event: str, /, **fields: Any) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, /, **fields: Any) -> None:
        self._write("warning", event, fields)

    def exception(self, event: str, /, **fields: Any) -> None:
        """Log a defect of ours, which a peer can cause again and again, with its traceback."""
        self._write("exception", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        field = next((field for field in _ABOUT if field in fields), "")
        kind = (event, field, str(fields.get(field, "")))
        if self._is_due(level, kind):
            getattr(self._log, level)(event, **fields)
        else:
            self._log.debug(event, **fields)

    def _is_due(self, level: str, kind: _Kind) -> bool:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # tests use several loops, each with its own clock
            self._loop, self._counts = loop, {}
        now = loop.time()
        if kind not in self._counts and len(self._counts) >= KINDS:
            self._counts = {k: c for k, c in self._counts.items() if not c.is_over(now)}
            if len(self._counts) >= KINDS:
                kind = _OTHERS
        count = self._counts.get(kind)
        if count is None or count.is_over(now):
            count = self._counts[kind] = _Count(now)
        if count.written < LINES:
            count.written += 1
            return True
        count.kept_back += 1
        if count.kept_back == 1:
            loop.call_at(count.began + WINDOW_S, self._tell_count, level, kind)
        return False

    def _tell_count(self, level: str, kind: _Kind) -> None:
        count = self._counts.pop(kind, None)
        if count is not None:
            event, field, who = kind
            write = self._log.info if level == "info" else self._log.warning
            text = f"{count.kept_back} more in the last minute"
            write(f"{event}: {text}" if event else text, **({field: who} if field else {}))
