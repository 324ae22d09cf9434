"""The text of `halo status`: asks the manager, and adds colours for the terminal."""

from __future__ import annotations

import json
import os
import sys

from halo.cli.client import get_status
from halo.cli.errors import NoLeader
from halo.cli.show.render import plain, status_lines

_SGR_COLOURS = {"red": 31, "green": 32, "yellow": 33}
"""ECMA-48, select graphic rendition."""


def status_text(
    socket: str,
    *,
    exclude_normal: bool = False,
    event_count: int | None = None,
    as_json: bool = False,
    verbose: bool = False,
) -> str:
    """The text of `halo status`. Raises CliError if the manager gives no status."""
    found = get_status(socket)
    if as_json:
        return json.dumps(found, indent=2)
    return "\n".join(
        status_lines(
            found,
            exclude_normal=exclude_normal,
            event_count=event_count,
            verbose=verbose,
            paint=_paint if _wants_colour() else plain,
        )
    )


def old_text(error: NoLeader, *, as_json: bool = False) -> str:
    """What is known without a leader, for stdout. The sentence of the error goes to stderr."""
    if as_json:
        return json.dumps({"error": error.message, "known": error.known}, indent=2)
    import time

    from halo.cli.show.old import old_lines

    return "\n".join(old_lines(error.known, time.time()))


def _wants_colour() -> bool:
    """Colour on a terminal that can show it, unless NO_COLOR says no (https://no-color.org)."""
    return (
        sys.stdout is not None
        and sys.stdout.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )


def _paint(words: str, colour: str) -> str:
    return f"\x1b[{_SGR_COLOURS[colour]}m{words}\x1b[0m"
