"""The text of `halo why`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def why_lines(answer: Mapping[str, Any], now: float) -> Iterator[str]:
    """The answer as text. `now`: seconds since the epoch."""
    yield str(answer["text"])
    waiting = answer["waiting"]
    if waiting is not None:
        since = waiting["since"]
        waits = f"for {_duration(now - since)}" if since is not None else "now"
        yield f"Reason: {waiting['reason']} ({waits})"
        yield f"The wait ends when {waiting['ends_when']}."
    yield "Facts:"
    for fact in answer["facts"]:
        learnt = fact["how"]
        if fact["at"] is not None:
            learnt += f", {_duration(now - fact['at'])} ago"
        yield f"  {fact['about']}: {fact['text']} ({learnt})"
    yield from _listed("HALO:", answer["halo_does"])
    yield from _listed("You can:", answer["you_can"])


def _listed(title: str, sentences: list[str]) -> Iterator[str]:
    if sentences:
        yield title
        yield from (f"  - {sentence}" for sentence in sentences)


def _duration(seconds: float) -> str:
    if seconds < _MINUTE_S:
        return f"{max(seconds, 0.0):.1f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    if seconds < 2 * _DAY_S:
        return f"{seconds / _HOUR_S:.0f} h"
    return f"{seconds / _DAY_S:.0f} days"
