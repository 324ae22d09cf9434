"""The journal in etcd, on three members on loopback: one record, and one command of a manager."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.small import append_times_ms
from halo.adapters.etcd.medium import EtcdMedium
from tests.etcd.members import Members
from tests.unix_http import get, send

CONFIG = """\
hosts:
- {hostname: 127.0.0.1:1, fence_agent: null}
resources:
- {name: web, kind: test/Service}
resource_groups:
- {root: web, home_host: 127.0.0.1, failover_hosts: []}
"""
START_DEADLINE_S = 30.0


def is_here() -> bool:
    """Is etcd installed on this machine?"""
    return shutil.which("etcd") is not None


@contextmanager
def members() -> Iterator[tuple[Members, Path]]:
    """Three members that flush their writes, and a folder."""
    with tempfile.TemporaryDirectory(prefix="halo-bench-") as name:
        found = Members(Path(name), fsync=True)
        try:
            found.start()
            yield found, Path(name)
        finally:
            found.close()


def journal_writes(runs: int) -> list[float]:
    """Milliseconds of one record."""

    async def write(at: Members) -> list[float]:
        return await append_times_ms(EtcdMedium.open(at.store()), runs)

    with members() as (at, _folder):
        return asyncio.run(write(at))


def commands(runs: int) -> list[float]:
    """Milliseconds of one command over the socket: a freeze or a thaw, which are recorded."""
    with members() as (at, folder):
        (folder / "halo.conf").write_text(CONFIG)
        socket = str(folder / "socket")
        command = [sys.executable, "-m", "halo.manager.main", "--store", str(at.store())]
        command += ["--config", str(folder / "halo.conf"), "--socket", socket]
        command += ["--manage-resources", "--statefile", str(folder / "none"), "--node-id", "1"]
        with (folder / "log").open("wb") as log:
            manager = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_for(socket)
            found = []
            for number in range(runs):
                body = {"command": "thaw" if number % 2 else "freeze"}
                began = time.perf_counter()
                send(socket, "/v1/cluster", body)
                found.append((time.perf_counter() - began) * 1000)
            return found
        finally:
            manager.kill()
            manager.wait()


def _wait_for(socket: str) -> None:
    ends = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < ends:
        with contextlib.suppress(OSError, RuntimeError):
            get(socket, "/v1/status")
            return
        time.sleep(0.02)
    raise RuntimeError("the manager did not start in time")
