"""What happened: a timeline while it does, and figures at the end."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]


class Timeline:
    """Lines with the seconds since the begin, to standard output and into a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self._lock = threading.Lock()
        self.begun = time.time()

    def say(self, who: str, what: str, at: float | None = None) -> None:
        """One line; `who`: fault, command, operator, seen, ..."""
        seconds = (time.time() if at is None else at) - self.begun
        with self._lock:
            for line in what.splitlines() or [""]:
                text = f"{seconds:8.1f}  {who:8}  {line}"
                print(text, flush=True)
                print(text, file=self._file, flush=True)


class Follower:
    """Reads a log of JSON lines as it grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.lines: list[Line] = []

    def read(self) -> list[Line]:
        """The lines since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            whole = file.read().rpartition(b"\n")[0]
        self._offset += len(whole) + 1 if whole else 0
        new: list[Line] = [json.loads(line) for line in whole.splitlines()]
        self.lines += new
        return new


@dataclass
class Course:
    """Where one group was, as the hosts showed it."""

    on: str = ""
    last: str = ""
    went: float = 0.0
    longest_s: float = 0.0
    longest_at: float = 0.0
    failovers: int = 0
    moves: int = 0
    died: set[str] = field(default_factory=set)


def follow(courses: Mapping[str, Course], line: Line) -> str:
    """Take in one line of the world's log; what is to be told of it, or nothing."""
    what, name = line["what"], line["name"]
    if what in ("died", "boot"):
        if what == "died":
            for course in courses.values():
                course.died.add(name)
        return f"{name} {'is dead' if what == 'died' else 'boots'}"
    if what in ("double mount", "double copy"):
        return f"{what.upper()}: {name} on {', '.join(line['hosts'])}"
    if what == "ended" and name == "manager":
        return f"the manager ended with status {line['status']}"
    if name not in courses:
        return ""
    course = courses[name]
    if what == "went":
        course.last, course.on, course.went = course.on, "", line["at"]
        return f"{name} is gone from {line['host']}"
    return _came(course, name, line) if what == "came" else ""


def _came(course: Course, name: str, line: Line) -> str:
    host, away = line["host"], line["at"] - course.went if course.went else 0.0
    if away > course.longest_s:
        course.longest_s, course.longest_at = away, course.went
    words = f"{name} is on {host}" + (f", after {away:.1f} s" if away else "")
    if course.last and host != course.last:
        if course.last in course.died:
            course.failovers += 1
            words += " (failover)"
        else:
            course.moves += 1
    course.died.clear()
    course.on = host
    return words


def longest_gap(times: Sequence[float], since: float, until: float) -> tuple[float, float]:
    """The longest time without an answer, and when it began."""
    within = [since, *(at for at in times if since < at < until), until]
    gaps = [(after - before, before) for before, after in itertools.pairwise(within)]
    return max(gaps)


def counted(counts: Counter[str]) -> str:
    """Counts in words, the most frequent first."""
    return ", ".join(f"{count} × {what}" for what, count in counts.most_common()) or "none"


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows with their columns below each other."""
    made = [list(row) for row in rows]
    widths = [max(len(row[i]) for row in made) for i in range(len(made[0]))]
    lines = ["  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)) for row in made]
    return "\n".join(line.rstrip() for line in lines)
