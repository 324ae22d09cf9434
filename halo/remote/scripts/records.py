"""What is running, on disk under /run, so that a successor of a crashed agent knows it.

A record is written before its script is started (`pid` 0) and again when the pid is known. A
successor finds a script whose agent died in between by the operation id in its environment.
Nothing is flushed: a record must outlive the agent, not the host.

The monitors of a watch run too often for that. Each carries in its environment, as its operation
id, all that a record would say, and a successor finds them in /proc (:class:`WatchMarker`). What
that misses is a script that became another program by `exec`, with other arguments: beside such a
monitor an operation may begin, and nobody ends it at its deadline. For a start that would be
wrong.
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

from halo.remote.scripts import sessions

log = structlog.get_logger()

OPERATION_VARIABLE = "HALO_OPERATION_ID"


@dataclass(frozen=True)
class RunningScript:
    """One script that was started. `resource_key` gives no parameter away.

    `deadline_boot_s` is on the boot-time clock, which all processes of one boot share;
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
        """The record with its live process, or None where that is gone. Blocks (reads /proc)."""
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
    """What marks the monitors of one agent's watch in their environment.

    `agent` is the folder of its records, which no other agent of this machine shares; `scripts` is
    the folder of the resource agents.
    """

    def __init__(self, agent: Path, scripts: Path) -> None:
        name = hashlib.sha256(os.fsencode(agent.absolute())).hexdigest()[:16]
        self._prefix = f"watch-{name}-"
        self._scripts = f"{scripts}/"

    def operation_id(self, resource_key: str, timeout_s: float) -> str:
        """The value of OPERATION_VARIABLE for a monitor of this resource."""
        return f"{self._prefix}{round(timeout_s * 1000)}-{resource_key}"

    def find(self) -> list[RunningScript]:
        """The monitors that a predecessor's watch left running. Blocks (reads /proc)."""
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
    """The folder of one agent's records. All methods block for the time of a small file write."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def path(self) -> Path:
        """The folder."""
        return self._path

    def open(self) -> None:
        """Make the folder, for root alone. Raises OSError."""
        self._path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def write(self, record: RunningScript) -> None:
        """Keep a record, atomically. A folder that cannot be written costs the record only."""
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
                error=error.strerror,
            )

    def remove(self, id: str) -> None:
        """Forget a script that has ended. Safe to repeat."""
        with contextlib.suppress(OSError):
            (self._path / f"{id}.json").unlink(missing_ok=True)

    def load(self) -> list[RunningScript]:
        """All records of a predecessor; drafts and unreadable ones are removed."""
        for draft in self._path.glob("*.tmp"):
            draft.unlink(missing_ok=True)
        found = []
        for path in sorted(self._path.glob("*.json")):
            try:
                found.append(RunningScript(**json.loads(path.read_text())))
            except (OSError, ValueError, TypeError) as error:
                log.warning("dropped a damaged record", path=str(path), error=str(error))
                path.unlink(missing_ok=True)
        return found
