"""The highest term of each cluster on disk, so that it outlives the agent.

Without it, a leader that was replaced could be served again after a restart of the agent. So a file
that cannot be understood stops the start: an administrator decides that its terms may be forgotten.

Everything here blocks. The agent calls it at start-up, and from a thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import structlog

from halo.core.errors import AdministratorError
from halo.core.peers.bounds import MANAGER_NAME_LIMIT, NAME_LIMIT, TERM_LIMIT
from halo.error_words import words_of

FORMAT = 1
CLUSTERS = 16
"""Clusters whose terms are remembered. The one that was served longest ago is forgotten first."""

SIZE_LIMIT = 256 * 1024
SUFFIX = ".terms.json"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Seen:
    """The highest term of a cluster, and the manager that had it."""

    term: int
    manager: str


Terms: TypeAlias = Mapping[str, Seen]
"""By cluster. The one that was served last is the last."""


class InUse(Exception):
    """Another agent uses the file."""


class TermFile:
    """The file of one agent. It is locked from the first read or write of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def read(self) -> Terms:
        """What is on record. Raises OSError, InUse, and AdministratorError for damage."""
        if _is_absent(self.path):
            return {}
        with contextlib.suppress(OSError):  # a file system that is only read: no agent writes there
            self._take_lock()
        with self.path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
        found = _terms_in(content)
        if found is None:
            raise AdministratorError(
                f"{self.path} is damaged. It holds the terms of the leaders that this agent "
                "served, so that none that was replaced is served again. Put a copy back. Or, if "
                "every manager but the present leader is stopped, remove the file"
            )
        return found

    def write(self, terms: Terms) -> None:
        """Replace what is on record; on return it is on the disk. Raises OSError, InUse."""
        self._take_lock()
        rows = [
            {"cluster": cluster, "term": seen.term, "manager": seen.manager}
            for cluster, seen in terms.items()
        ]
        content = json.dumps({"format": FORMAT, "clusters": rows}, indent=1).encode()
        draft = self.path.with_name(f"{self.path.name}.new")
        with open(draft, "wb", opener=_only_for_us) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.path)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def release(self) -> None:
        """Give the lock back. Safe to repeat."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        held = os.open(self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # Of the process: a script that the agent forks does not keep it.
            fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(held)
            raise InUse(f"another agent uses {self.path}") from error
        self._lock = held


def _is_absent(path: Path) -> bool:
    """Is there certainly no such file?"""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _only_for_us(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _terms_in(content: bytes) -> Terms | None:
    """None: the file is not one that this version wrote."""
    try:
        said = json.loads(content)
        rows = said["clusters"]
        if said["format"] != FORMAT or len(content) > SIZE_LIMIT or len(rows) > CLUSTERS:
            return None
        found = {row["cluster"]: Seen(row["term"], row["manager"]) for row in rows}
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    if len(found) != len(rows) or not all(map(_is_sound, found.items())):
        return None
    return found


def _is_sound(entry: tuple[object, Seen]) -> bool:
    cluster, seen = entry
    return (
        isinstance(cluster, str)
        and len(cluster) <= NAME_LIMIT + len("...")
        and type(seen.term) is int
        and 0 < seen.term <= TERM_LIMIT
        and isinstance(seen.manager, str)
        and len(seen.manager) <= MANAGER_NAME_LIMIT + len("...")
    )


def open_terms(folder: Path, agent: str) -> tuple[TermFile | None, Terms]:
    """The file of this agent and what is on record; no file if the folder cannot be written.

    Raises AdministratorError for a damaged file, or one that another agent uses."""
    file = TermFile(folder / f"{agent}{SUFFIX}")
    terms: Terms = {}
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        terms = file.read()
        if os.access(folder, os.W_OK | os.X_OK):
            return file, terms
        problem = "it cannot be written"
    except InUse as error:
        raise AdministratorError(f"{error}; give this one its own --state-directory") from error
    except OSError as error:
        if not _is_absent(file.path):  # what it holds is not known, so nothing may be assumed
            raise AdministratorError(
                f"{file.path} cannot be read: {words_of(error)}. It holds the terms of the leaders "
                "that this agent served. Correct that, or name another folder with "
                "--state-directory"
            ) from error
        problem = words_of(error)
    log.warning(
        "the terms of leaders are kept in memory only: after a restart of this agent, a leader "
        "that was replaced could be served again",
        folder=str(folder),
        error=problem,
        remedy="make the folder writable, or name another one with --state-directory",
    )
    return None, terms


def forget(folder: Path, cluster: str) -> list[str]:
    """Remove a cluster's term from the files of all agents in this folder, and say what was done.

    Raises AdministratorError if an agent runs that would write it again, or nothing is on record.
    """
    done, known = [], set[str]()
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        file = TermFile(path)
        try:
            terms = dict(file.read())
            known |= terms.keys()
            if (seen := terms.pop(cluster, None)) is None:
                continue
            file.write(terms)
        except InUse as error:
            raise AdministratorError(
                f"the agent that uses {path} runs. Stop it first, which stops no service: "
                "systemctl stop halo-remote"
            ) from error
        except OSError as error:
            raise AdministratorError(f"{path}: {words_of(error)}") from error
        finally:
            file.release()
        done.append(
            f"{path}: forgot the term {seen.term} of the cluster {cluster}, of {seen.manager}"
        )
    if not done:
        on_record = ", ".join(sorted(known)) or "none"
        raise AdministratorError(
            f"no term of the cluster {cluster!r} is on record in {folder} (clusters on record: "
            f"{on_record})"
        )
    return done
