"""Logging for both daemons: structlog to standard error, for people or as JSON lines."""

from __future__ import annotations

import logging
import os
import sys
import unicodedata
from collections.abc import Mapping
from typing import Any

import structlog

LOG_FORMATS = ("auto", "console", "json")

TEXT_LIMIT = 4096
"""Characters of one value of a log line."""

_CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: controls, directions of writing, half surrogates, ends of lines."""

_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
    "off": logging.CRITICAL,  # the reason why a program ends is always logged
}


def configure(
    verbose: bool = False,
    format: str = "auto",
    environment: Mapping[str, str] = os.environ,
) -> None:
    """Set logging up, once, at the start of a program.

    HALO_LOG gives the level. Without it, the level is debug with `verbose`, and else info. `auto`
    is for people, with colours on a terminal. `json` writes one object in each line. A line of a
    disabled level costs one call that does nothing.
    """
    wanted = environment.get("HALO_LOG", "").strip().lower()
    level = _LEVELS.get(wanted, logging.DEBUG if verbose else logging.INFO)
    structlog.configure(
        processors=_processors(format, environment),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    _take_in_libraries(level, format, environment)
    if wanted and wanted not in _LEVELS:
        structlog.get_logger().warning(
            "HALO_LOG names no level; using the default", known=", ".join(_LEVELS)
        )


def _take_in_libraries(level: int, format: str, environment: Mapping[str, str]) -> None:
    """Give the lines of asyncio and aiohttp our own format, so that JSON stays JSON.

    Their debug lines are for their developers, so only warnings and worse are logged.
    """
    handler = logging.StreamHandler(sys.stderr)
    processors = _processors(format, environment)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *processors[:-1]],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                processors[-1],
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))


def _bounded(_logger: Any, _method: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Texts of a line may come from a peer, a script or a file. So they are cut, and lose
    characters that move a terminal's cursor or begin a new line. Tracebacks are our own."""
    for key, value in entry.items():
        if isinstance(value, str):
            if len(value) > TEXT_LIMIT:
                value = f"{value[:TEXT_LIMIT]} [{len(value) - TEXT_LIMIT} more characters were cut]"
            if not value.isprintable():
                value = _spelled_out(value)
            entry[key] = value
    return entry


def _spelled_out(text: str) -> str:
    """The text, with control characters spelled as in Python."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in _CONTROLS else c
        for c in text
    )


def _processors(format: str, environment: Mapping[str, str]) -> list[Any]:
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _bounded,
    ]
    if format == "json":
        return [
            *common,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ]
    if "JOURNAL_STREAM" not in environment:  # systemd's journal adds the time to every line
        common.append(structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S.%f", utc=False))
    colors = sys.stderr.isatty() and "NO_COLOR" not in environment
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )
    return [*common, renderer]
