"""How figures are shown: with the machine they come from, and against their bars."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


def machine() -> str:
    """One line on where the figures come from, and how busy it is."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores of {model}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load {load:.1f}"
    )


def bar(value: float, limit: float | None, *, at_least: bool = False) -> str:
    """The bar and whether it was met."""
    if limit is None:
        return ""
    return f"bar {limit:g}: {'met' if _meets(value, limit, at_least) else 'MISSED'}"


def _meets(value: float, limit: float, at_least: bool) -> bool:
    return value >= limit if at_least else value <= limit


@dataclass(frozen=True)
class Row:
    """One figure of several runs. The median is held against `limit`, the most it may be, or with
    `at_least` the least."""

    name: str
    values: Sequence[float]
    unit: str
    limit: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Is the median within the bar?"""
        middle = statistics.median(self.values)
        return self.limit is None or _meets(middle, self.limit, self.at_least)

    def __str__(self) -> str:
        low, middle, high = min(self.values), statistics.median(self.values), max(self.values)
        return (
            f"{self.name:<74} {low:>8.4g} {middle:>8.4g} {high:>8.4g} {self.unit:<4} "
            f"{bar(middle, self.limit, at_least=self.at_least)}"
        )
