"""The commands of a page of the handbook, and the machines on which its reader runs them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.packaging.manifests import ROOT

PAGE = ROOT / "docs" / "replicated-managers.md"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_HEADING = re.compile(r"^##+ (.+)$", re.M)
_WHERE = re.compile(r"# on (.+)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """Commands that a reader pastes into a root shell on one machine, or on each."""

    chapter: str
    where: str
    commands: str


def blocks(page: Path = PAGE) -> list[Block]:
    """All commands of the page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        if match[1] == "sh":
            chapter = _HEADING.findall(text[: match.start()])[-1]
            where = _WHERE.match(match[2])
            assert where is not None, f"the block does not say where: {match[2]}"
            found.append(Block(chapter, where[1], match[2]))
    return found


def of_chapter(chapter: str) -> list[Block]:
    """The commands of one chapter."""
    found = [block for block in blocks() if block.chapter == chapter]
    assert found, f"no commands in the chapter {chapter!r}"
    return found
