"""Reads the diagrams and tables of docs/lifecycles.md, and looks on while an arrow is driven."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from halo.core.status.ours import snapshot

from .fence_bench import Bench
from .virtual_time import run

PAGE = Path(__file__).parents[2] / "docs" / "lifecycles.md"
START = "[*]"
LOOK_S = 0.05
PATIENCE_S = 120.0


@dataclass(frozen=True, order=True)
class Arrow:
    """From one state to another, for this cause."""

    source: str
    target: str
    cause: str

    def __str__(self) -> str:
        return f"{self.source} to {self.target}: {self.cause}"


@dataclass
class Diagram:
    """`within`: the states inside each state that has some."""

    arrows: list[Arrow] = field(default_factory=list)
    within: dict[str, set[str]] = field(default_factory=dict)

    @property
    def states(self) -> set[str]:
        """Every state that has none inside."""
        ends = {end for arrow in self.arrows for end in (arrow.source, arrow.target)}
        return ends - {START} - set(self.within)


def diagram(heading: str) -> Diagram:
    """The mermaid diagram below a heading."""
    [source] = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", _section(heading), re.DOTALL)
    names: dict[str, str] = {}
    found, outer = Diagram(), ""
    for line in filter(None, map(str.strip, source.splitlines())):
        if alias := re.fullmatch(r'state "(.+)" as (\w+)', line):
            names[alias[2]] = alias[1]
        elif opening := re.fullmatch(r"state (\w+) \{", line):
            outer = opening[1]
            found.within[outer] = set()
        elif line == "}":
            outer = ""
        else:
            arrow = re.fullmatch(r"(\S+) --> (\S+) : (.+)", line)
            assert arrow, f"not understood: {line}"
            source, target = (names.get(end, end) for end in (arrow[1], arrow[2]))
            found.arrows.append(Arrow(source, target, arrow[3]))
            if outer:
                found.within[outer] |= {source, target}
    assert len(set(found.arrows)) == len(found.arrows), "an arrow is drawn twice"
    return found


def table(heading: str) -> list[dict[str, str]]:
    """The rows of the table below a heading, by their columns' names."""
    lines = [line for line in _section(heading).splitlines() if line.startswith("|")]
    rows = [
        [cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines
    ]
    return [dict(zip(rows[0], row, strict=True)) for row in rows[2:]]


def _section(heading: str) -> str:
    [found] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.DOTALL)
    return str(found)


def shown(bench: Bench, kind: str, name: str) -> dict[str, Any]:
    """The row of a host or a group in the status."""
    whole = snapshot(bench.state, "1", now=bench.loop.time(), wall_now=0.0)
    return next(row for row in whole[kind] if row["id"] == name)


Before = Callable[[], Awaitable[Bench]]
Cause = Callable[[Bench], Awaitable[object]]


@dataclass(frozen=True)
class Story:
    """`before` leads to where an arrow begins; `cause` is what makes it happen."""

    before: Before
    cause: Cause


async def first(bench: Bench, state_of: Callable[[Bench], str], fits: Callable[[str], bool]) -> str:
    """The next state that fits."""
    deadline = bench.loop.time() + PATIENCE_S
    while not fits(state := state_of(bench)):
        assert bench.loop.time() < deadline, f"it stays {state}: {bench.events}"
        await asyncio.sleep(LOOK_S)
    return state


def drive(arrow: Arrow, story: Story, state_of: Callable[[Bench], str]) -> None:
    """Run a story; fails unless the arrow's source is followed by its target."""

    async def body() -> None:
        bench = await story.before()
        if arrow.source == START:
            assert state_of(bench) == arrow.target
            return
        assert state_of(bench) == arrow.source
        work = asyncio.ensure_future(story.cause(bench))
        state = await first(bench, state_of, lambda state: state != arrow.source)
        assert not work.done() or work.exception() is None, work
        assert state == arrow.target, f"it became {state}: {bench.events}"
        work.cancel()
        await asyncio.wait({work})

    run(body())


async def nothing_more(_bench: Bench) -> None:
    """The cause is on its way already: time passes."""
