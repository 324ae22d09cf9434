"""What a process costs while others misbehave: its memory, its log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

MIB = 1 << 20


def memory_mib(pid: int) -> float:
    """The resident memory of a process now."""
    return _status_kib(pid, "VmRSS") / 1024


def peak_mib(pid: int) -> float:
    """The most that it was since :func:`forget_peak`."""
    return _status_kib(pid, "VmHWM") / 1024


def forget_peak(pid: int) -> None:
    """Begin a new peak. Source: proc(5), clear_refs."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def descriptors(pid: int) -> int:
    """How many files and sockets it has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _status_kib(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    raise ValueError(f"no {key} of process {pid}")


class LogReader:
    """What was added to a log since it was last looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def new_bytes(self) -> bytes:
        """What was added."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        self._at += len(data)
        return data

    def new_lines(self) -> Iterator[str]:
        """The lines that were added."""
        yield from self.new_bytes().decode(errors="replace").rstrip("\n").split("\n")


LINE_LIMIT = 8 * 1024
FORGED = "event=fence object=h1"
"""What rogues put behind a line feed, to have it stand in a log as a line of our own."""


def judge_log(lines: Sequence[str], limit: int) -> Iterator[str]:
    """What is wrong with what was added to a log while peers misbehaved."""
    if len(lines) > limit:
        yield f"{len(lines)} lines in the log, such as {lines[-1][:300]}"
    for what in (_too_long, _traceback, _forged, _control):
        found = [problem for line in lines if (problem := what(line))]
        if found:
            yield f"{found[0]} ({len(found)} times)"


def _too_long(line: str) -> str | None:
    return f"a log line of {len(line)} bytes: {line[:200]}..." if len(line) > LINE_LIMIT else None


def _traceback(line: str) -> str | None:
    return f"a traceback: {line[:3000]}" if "Traceback" in line else None


def _forged(line: str) -> str | None:
    return f"a forged line: {line[:200]}" if line.startswith(FORGED) else None


def _control(line: str) -> str | None:
    if any(ord(character) < 32 and character != "\t" for character in line):
        return f"control characters: {line[:200]!r}"
    return None
