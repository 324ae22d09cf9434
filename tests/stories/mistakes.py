"""What is wrong with a story's file, and where."""

from __future__ import annotations

from pathlib import Path


class Mistake(Exception):
    """A story cannot be told as it is written. `line` counts from 1; 0 is the whole file."""

    def __init__(self, path: Path, line: int, text: str) -> None:
        place = f"{path.name}:{line}" if line else path.name
        super().__init__(f"{place}: {text}")
        self.path, self.line, self.text = path, line, text
