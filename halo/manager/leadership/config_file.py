"""The config file of a manager, which may stand by for months before it leads.

To apply a changed file, an operator restarts the manager that leads. Another one leads then, and it
must not lead with the file of the day on which it was started.
"""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import Callable
from pathlib import Path

import structlog

from halo.adapters.slow_files import in_daemon_thread
from halo.core.errors import AdministratorError
from halo.core.model import Cluster

LOOK_DEADLINE_S = 3.0
"""The file may be on a server that is dead. Nobody else can lead meanwhile."""
READ_DEADLINE_S = 30.0
"""A config of thirty thousand resources takes some seconds."""

log = structlog.get_logger("halo.manager")


class ConfigFile:
    """`read` gives the cluster of the file at `path`, pickled, or raises AdministratorError."""

    def __init__(self, path: Path, read: Callable[[], bytes]) -> None:
        self._path = path
        self._read = read
        self._content: bytes | None = None

    def first(self) -> Cluster:
        """The cluster, at the start of the program. Blocks. Raises AdministratorError."""
        self._content = _content_of(self._path)  # before the cluster: a change of both is noticed
        return _unpickled(self._read())

    async def renewed(self, cluster: Cluster) -> Cluster:
        """The cluster of the file as it is now; `cluster`, which was read before, if the file is
        the same, or cannot be used."""

        def look() -> bytes | None:
            return _content_of(self._path)

        def read() -> Cluster | str:
            try:
                return _unpickled(self._read())
            except AdministratorError as error:
                return str(error)
            except Exception as error:  # a defect, which must not keep this manager from leading
                return repr(error)

        found: Cluster | str = "no answer in time; check the file system that it is on"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_DEADLINE_S):
                content = await in_daemon_thread(look, f"look at {self._path}")
            if content is not None and content == self._content:
                return cluster
            async with asyncio.timeout(READ_DEADLINE_S):
                found = await in_daemon_thread(read, f"read {self._path}")
        if isinstance(found, Cluster):
            if found is not cluster:
                log.info("the config was changed while this manager stood by", file=str(self._path))
            return found
        log.error(
            "the config cannot be used: leading with that of this manager's start",
            file=str(self._path),
            problem=found,
            remedy="correct the file, and restart the manager",
        )
        return cluster


def _content_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _unpickled(data: bytes) -> Cluster:
    """Pickled, freed and read back, a cluster lies together in memory."""
    found: Cluster = pickle.loads(data)
    return found
