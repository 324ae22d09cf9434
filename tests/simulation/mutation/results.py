"""The results file: a JSON line for everything that a child has told, so that a run can go on.

A line counts only for the source that it was made of (:mod:`~tests.simulation.mutation.scope`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class ResultsFile:
    """Appends to one file, and finds what it has of this source."""

    def __init__(self, path: Path, versions: dict[str, str]) -> None:
        """`versions`: of each stage, the hash of its source."""
        self._path = path
        self._versions = versions
        self._lines: dict[tuple[str, str], list[Line]] = {}
        for line in self._earlier():
            self._keep(line)

    def of(self, stage: str, what: str) -> list[Line]:
        """All lines of one kind, in order."""
        return self._lines.get((stage, what), [])

    def append(self, stage: str, what: str, line: Line) -> Line:
        """Write a line down."""
        whole = {"stage": stage, "what": what, "code": self._versions[stage], **line}
        self._keep(whole)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._is_torn() + json.dumps(whole) + "\n")
        return whole

    def _keep(self, line: Line) -> None:
        self._lines.setdefault((line["stage"], line["what"]), []).append(line)

    def _earlier(self) -> Iterator[Line]:
        if not self._path.exists():
            return
        with self._path.open(encoding="utf-8") as file:
            for text in file:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue  # cut short by a crash
                if self._versions.get(line.get("stage")) == line.get("code"):
                    yield line

    def _is_torn(self) -> bool:
        """Did a crash leave the last line unfinished?"""
        if not self._path.exists() or self._path.stat().st_size == 0:
            return False
        with self._path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) != b"\n"
