"""What `benchmarks/failover.py` measures with: logs read as they grow, and tables of figures."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

_POLL_S = 0.05


class Log:
    """A JSON log that is followed without reading it twice: the machine has work to do."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, Any]] = []
        self._offset = 0
        self._rest = b""

    def read(self) -> None:
        """Take in what was written since."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        self._offset += len(data)
        *whole, self._rest = (self._rest + data).split(b"\n")
        for text in whole:
            try:
                line = json.loads(text)
                line["at"] = datetime.fromisoformat(line["timestamp"]).timestamp()
            except (ValueError, KeyError, TypeError):
                continue
            self.lines.append(line)

    def find(self, event: str, since: float, **fields: Any) -> list[dict[str, Any]]:
        """Lines of an event not before a time of day, with these fields."""
        return [
            line
            for line in self.lines
            if line["at"] >= since
            and line.get("event") == event
            and all(line.get(key) == value for key, value in fields.items())
        ]

    def until(
        self, event: str, since: float, deadline_s: float = 60.0, **fields: Any
    ) -> dict[str, Any]:
        """Wait for the first such line. Raises TimeoutError with the end of the log."""
        end = time.monotonic() + deadline_s
        while not (found := self.find(event, since, **fields)):
            if time.monotonic() > end:
                last = "\n".join(json.dumps(line)[:300] for line in self.lines[-15:])
                raise TimeoutError(f"no {event} {fields} within {deadline_s:g} s:\n{last}")
            time.sleep(_POLL_S)
            self.read()
        return found[0]


@dataclass
class Series:
    """The runs of one scenario: each figure in seconds, by its name; a bar for some of them."""

    title: str
    bars: Mapping[str, float] = field(default_factory=dict)
    runs: list[dict[str, float]] = field(default_factory=list)

    def add(self, **figures: float) -> None:
        """One more run."""
        self.runs.append(figures)

    def missed(self) -> list[str]:
        """The bars that the slowest run did not keep, in words."""
        return [
            f"{self.title}: {name} took up to {max(self.of(name)):.3f} s, bar {bar:.3f} s"
            for name, bar in self.bars.items()
            if self.runs and max(self.of(name)) > bar
        ]

    def of(self, name: str) -> list[float]:
        """All values of one figure."""
        return [run[name] for run in self.runs]

    def table(self) -> str:
        """As Markdown, in milliseconds."""
        rows = [
            f"### {self.title}",
            "",
            "| ms | min | median | max | bar |",
            "|---|---|---|---|---|",
        ]
        for name in self.runs[0] if self.runs else ():
            values = [value * 1000 for value in self.of(name)]
            middle = statistics.median(values)
            bar = f"{self.bars[name] * 1000:.0f}" if name in self.bars else ""
            rows.append(
                f"| {name} | {min(values):.0f} | {middle:.0f} | {max(values):.0f} | {bar} |"
            )
        return "\n".join([*rows, "", f"{len(self.runs)} runs.", ""])


def report(series: Sequence[Series]) -> str:
    """All tables, then what missed its bar."""
    missed = [line for one in series for line in one.missed()]
    return "\n".join([*(one.table() for one in series), *(missed or ["Every bar was kept."])])
