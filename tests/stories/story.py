"""A story as text: read from its file with the place of every mistake, and written back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.model import Scenario
from tests.stories.cluster import ClusterLines
from tests.stories.mistakes import Mistake

FOLDER = Path(__file__).parent


@dataclass
class Step:
    """One line that begins with `>`: `text` without it, `line` its number, `above` the remarks
    before it, and the log that follows it."""

    text: str
    line: int
    above: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def is_wait(self) -> bool:
        """Does it only let time pass?"""
        return self.text.split()[0] == "wait"


@dataclass
class Story:
    """One file: what stands above the first step, the cluster, and the steps."""

    path: Path
    head: list[str]
    scenario: Scenario
    steps: list[Step]

    def with_logs(self, logs: Sequence[Sequence[str]]) -> str:
        """The text of the file with these logs, one for each step."""
        lines = list(self.head)
        for step, log in zip(self.steps, logs, strict=True):
            if not (step.is_wait and lines[-1].startswith(">")):
                lines.append("")
            lines += [*step.above, f"> {step.text}", *log]
        return "\n".join(lines) + "\n"


def names() -> list[str]:
    """All stories, by the names of their files."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def load(name: str) -> Story:
    """The story of this name. Raises Mistake."""
    path = FOLDER / f"{name}.txt"
    if not path.is_file():
        raise Mistake(path, 0, f"there is no such story; there are {', '.join(names())}")
    return read(path, path.read_text())


def read(path: Path, text: str) -> Story:
    """The story that this text tells. Raises Mistake."""
    lines = list(enumerate(text.splitlines(), 1))
    first = next((at for at, (_, line) in enumerate(lines) if line[:1] in (">", "#")), len(lines))
    head = [line for _, line in lines[:first]]
    while head and not head[-1].strip():
        head.pop()
    story = Story(path, head, _scenario(path, lines[: len(head)]), [])
    above: list[str] = []
    for number, line in lines[first:]:
        if line.startswith(">"):
            if not line[1:].strip():
                raise Mistake(path, number, "nothing happens here")
            story.steps.append(Step(line[1:].strip(), number, above))
            above = []
        elif line.startswith("#"):
            above.append(line)
        elif line.startswith(" ") and story.steps and not above:
            story.steps[-1].log.append(line)
        elif line.strip():
            raise Mistake(
                path, number, "a step begins with `>`, a remark with `#`, a log with a space"
            )
    if not story.steps:
        raise Mistake(path, len(lines), "nothing happens: there is no line that begins with `>`")
    if above:
        raise Mistake(path, len(lines), "a remark stands above a step")
    if story.steps[0].is_wait:
        raise Mistake(path, story.steps[0].line, "a story does not begin with a wait")
    return story


def _scenario(path: Path, head: list[tuple[int, str]]) -> Scenario:
    parts = list(_paragraphs(head))
    if len(parts) != 2:
        raise Mistake(path, 1, "above the steps stand what the story shows, and the cluster")
    cluster = ClusterLines(path)
    for number, line in parts[1]:
        cluster.take(number, line)
    return cluster.scenario(parts[1][0][0])


def _paragraphs(lines: list[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    found: list[tuple[int, str]] = []
    for number, line in [*lines, (0, "")]:
        if line.strip():
            found.append((number, line))
        elif found:
            yield found
            found = []
