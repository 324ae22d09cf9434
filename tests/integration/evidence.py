"""What the scripts of a test wrote down: the proof that nothing was ever started twice."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Action:
    """One line of the script log; see tests/ocf_resources/lib/emulated.sh.

    `others` are the hosts that had the resource, or were starting it, at that moment; `code` is
    the exit code of an END, None for a BEGIN.
    """

    at: float
    host: str
    resource: str
    operation: str
    phase: str
    code: int | None = None
    others: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.operation} {self.resource} on {self.host}"


def read_actions(log: Path) -> list[Action]:
    """The script log in the order in which things happened; `resource` is like `zfs.pool0`.

    Where a line crosses the edge of a page, a reader may see its first part alone for a moment."""
    if not log.exists():
        return []
    booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    whole_lines = log.read_text().split("\n")[:-1]
    return [_action(line, booted) for line in whole_lines]


def _action(line: str, booted: float) -> Action:
    at, host, kind, name, operation, phase, *rest = line.split()
    detail = rest[0] if rest else ""
    others = detail.removeprefix("others=") if phase == "BEGIN" else ""
    return Action(
        booted + float(at[2:]) if at.startswith("up") else float(at),
        host,
        f"{kind}.{name}",
        operation,
        phase,
        int(detail) if phase == "END" else None,
        tuple(filter(None, others.split(","))),
    )


def double_starts(actions: list[Action], exclusive: set[str]) -> list[str]:
    """Every start of an exclusive resource while another host had it, in words."""
    return [
        f"{action} at {action.at:.3f} while it was on {', '.join(action.others)}"
        for action in actions
        if (action.operation, action.phase) == ("start", "BEGIN")
        and action.resource in exclusive
        and action.others
    ]
