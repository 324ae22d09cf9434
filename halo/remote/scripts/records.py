"""Records of running scripts under /run, for the next agent if this one crashes.

A record is written before its script is started (`pid` 0), and again when the pid is known. If the
agent dies in between, the next agent finds the script by the operation id in its environment.
Nothing is flushed, because a record must survive the agent, but not the host.

The monitors of a watch run too often for records. Instead, the operation id in their environment
holds all that a record would say, and the next agent finds them in /proc (:class:`WatchMarker`).
This misses a script that became another program by `exec`, with other arguments. Then an operation
may begin beside such a monitor, and nobody ends the monitor at its deadline. For a start that would
be wrong.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import structlog

from halo.error_words import words_of
from halo.remote.scripts import sessions

log = structlog.get_logger()

OPERATION_VARIABLE = "HALO_OPERATION_ID"


@dataclass(frozen=True)
class RunningScript:
    """One script that was started. `resource_key` reveals no parameter.

    `deadline_boot_s` is a time of the boot-time clock, which all processes of one boot share.
    `deadline_unix_s` is the same moment for people.
    """

    id: str
    resource_key: str
    kind: str
    operation: str
    boot_id: str
    deadline_boot_s: float
    deadline_unix_s: float
    pid: int = 0
    start_ticks: int = 0

    def find(self) -> RunningScript | None:
        """The record with its live process, or None if that has gone. Blocks (reads /proc)."""
        if self.boot_id != sessions.boot_id():
            return None
        if self.pid:
            process = sessions.stat_of(self.pid)
            if process is not None and process.start_ticks != self.start_ticks:
                process = None
        else:
            marker = f"{OPERATION_VARIABLE}={self.id}"
            process = sessions.find_started(f"/{self.kind}", self.operation, marker)
        if process is None or not process.is_running:
            return None
        return replace(self, pid=process.pid, start_ticks=process.start_ticks)


class WatchMarker:
    """Marks the monitors of one agent's watch in their environment.

    `agent` is the folder of the agent's records, which no other agent of this machine uses.
    `scripts` is the folder of the resource agents.
    """

    def __init__(self, agent: Path, scripts: Path) -> None:
        name = hashlib.sha256(os.fsencode(agent.absolute())).hexdigest()[:16]
        self._prefix = f"watch-{name}-"
        self._scripts = f"{scripts}/"

    def operation_id(self, resource_key: str, timeout_s: float) -> str:
        """The value of OPERATION_VARIABLE for a monitor of this resource."""
        return f"{self._prefix}{round(timeout_s * 1000)}-{resource_key}"

    def find(self) -> list[RunningScript]:
        """The monitors that an earlier agent's watch left running. Blocks (reads /proc)."""
        found = []
        prefix = f"{OPERATION_VARIABLE}={self._prefix}"
        for process, rest, script in sessions.find_marked(prefix, self._scripts, "monitor"):
            timeout_ms, _, key = rest.partition("-")
            if not timeout_ms.isdecimal():
                continue
            deadline_boot_s = process.started_boot_s + int(timeout_ms) / 1000
            found.append(
                RunningScript(
                    id=f"{self._prefix}{process.pid}",
                    resource_key=key,
                    kind=script.removeprefix(self._scripts),
                    operation="monitor",
                    boot_id=sessions.boot_id(),
                    deadline_boot_s=deadline_boot_s,
                    deadline_unix_s=time.time() + deadline_boot_s - sessions.boot_clock(),
                    pid=process.pid,
                    start_ticks=process.start_ticks,
                )
            )
        return found


class RunDirectory:
    """The folder of one agent's records. All methods block as long as a small write to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    def open(self) -> None:
        """Make the folder, only for root. Raises OSError."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, record: RunningScript) -> None:
        """Keep a record, atomically. If the folder cannot be written, only the record is lost."""
        target = self._path / f"{record.id}.json"
        draft = self._path / f"{record.id}.tmp"
        try:
            draft.write_text(json.dumps(asdict(record)))
            os.replace(draft, target)
        except OSError as error:
            log.warning(
                "cannot record a running script: if this agent crashes, the next agent will not "
                "wait for the script; free space in the folder or repair it",
                folder=str(self._path),
                error=words_of(error),
            )

    def remove(self, id: str) -> None:
        """Forget a script that has ended. Safe to repeat."""
        with contextlib.suppress(OSError):
            (self._path / f"{id}.json").unlink(missing_ok=True)

    def load(self) -> list[RunningScript]:
        """All records of an earlier agent. Drafts and unreadable records are removed."""
        for draft in self._path.glob("*.tmp"):
            draft.unlink(missing_ok=True)
        found = []
        for path in sorted(self._path.glob("*.json")):
            try:
                found.append(RunningScript(**json.loads(path.read_text())))
            except (OSError, ValueError, TypeError) as error:
                log.warning("dropped a damaged record", path=str(path), error=words_of(error))
                path.unlink(missing_ok=True)
        return found
