"""The program: lines, exit codes, signals, limits, and how it keeps out of the way."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mover.ground import DEADLINE_S, ROOT, Ground, Mover, picture, start, wait_for, write

MIB = 1 << 20
NEARLY_AT_ONCE_S = 0.5


def filled(ground: Ground, files: int = 8, size: int = MIB) -> Ground:
    for number in range(files):
        write(ground.source / f"f{number}", os.urandom(size))
    return ground


def begun(ground: Ground, **changes: object) -> Mover:
    """A slow mover that has begun to copy."""
    mover = start(ground.order(bandwidth_bytes_s=MIB, **changes))
    tree = ground.buffer / ".halo-mover-job-7-0" / "tree"
    wait_for("a file", lambda: tree.exists() and bool(os.listdir(tree)))
    return mover


def test_lines_and_exit_code_of_a_copy(ground: Ground) -> None:
    filled(ground)
    mover = start(ground.order(bandwidth_bytes_s=8 * MIB))
    *progress, outcome = mover.lines()
    assert mover.process.returncode == 0
    assert outcome["kind"] == "outcome"
    assert (outcome["id"], outcome["state"]) == ("job-7", "ready")
    assert (outcome["files"], outcome["bytes"]) == (8, 8 * MIB)
    assert {line["kind"] for line in progress} == {"progress"}
    last = progress[-1]
    assert (last["files_done"], last["files_total"]) == (8, 8)
    assert (last["bytes_done"], last["bytes_total"]) == (8 * MIB, 8 * MIB)
    middle = [line for line in progress if 0 < line["bytes_done"] < 8 * MIB]
    assert middle
    assert all(line["phase"] == "copying" for line in middle)
    assert all(0 < line["bytes_s"] < 16 * MIB and line["seconds_left"] > 0 for line in middle)
    assert picture(ground.destination) == picture(ground.source)


def test_a_failure_is_the_last_line(ground: Ground) -> None:
    mover = start(ground.order())
    outcome = mover.outcome()
    assert (outcome["state"], mover.process.returncode) == ("source-missing", 1)
    assert outcome["message"] == f"the source does not exist: {ground.source}"


def test_the_limit_of_bytes_a_second_is_kept(ground: Ground) -> None:
    filled(ground)
    began = time.monotonic()
    assert start(ground.order(bandwidth_bytes_s=4 * MIB)).outcome()["state"] == "ready"
    assert time.monotonic() - began > 8 / 4 - 0.5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_soon(ground: Ground, number: int) -> None:
    filled(ground, 4, 32 * MIB)
    mover = begun(ground)
    began = time.monotonic()
    mover.process.send_signal(number)
    outcome = mover.outcome()
    took = time.monotonic() - began
    assert (outcome["state"], mover.process.returncode) == ("cancelled", 4)
    assert took < NEARLY_AT_ONCE_S
    assert not ground.destination.exists()
    assert ground.copy()["state"] == "ready"
    assert picture(ground.destination) == picture(ground.source)


def test_what_a_cancelled_order_leaves_can_be_removed(ground: Ground) -> None:
    filled(ground, 4, 32 * MIB)
    mover = begun(ground)
    mover.process.terminate()
    mover.lines()
    assert ground.hidden() != []
    remover = start(ground.order(action="remove"))
    assert remover.outcome()["state"] == "removed"
    assert remover.process.returncode == 0
    assert os.listdir(ground.buffer) == []


def test_the_deadline_ends_it(ground: Ground) -> None:
    filled(ground)
    mover = start(ground.order(bandwidth_bytes_s=MIB, deadline_s=1))
    outcome = mover.outcome()
    assert (outcome["state"], mover.process.returncode) == ("deadline-passed", 5)
    assert outcome["message"].startswith("not complete within 1 s: ")
    assert ground.copy()["state"] == "ready"


def test_two_movers_never_work_on_one_order(ground: Ground) -> None:
    filled(ground, 4, 32 * MIB)
    mover = begun(ground)
    hidden = ground.buffer / ".halo-mover-job-7-0"
    wait_for("progress", lambda: (hidden / "progress").exists())
    for action in ("copy", "remove"):
        second = start(ground.order(action=action))
        outcome = second.outcome()
        assert (outcome["state"], second.process.returncode) == ("busy", 3)
        assert outcome["progress"]["kind"] == "progress"
        assert outcome["progress"]["bytes_total"] == 128 * MIB
    mover.kill()
    assert ground.copy()["state"] == "ready"


def test_it_goes_on_when_nobody_reads(ground: Ground) -> None:
    """The agent may be restarted, or stand still."""
    filled(ground)
    gone = start(ground.order(bandwidth_bytes_s=8 * MIB))
    assert gone.process.stdout is not None
    gone.process.stdout.close()
    assert gone.process.wait(DEADLINE_S) == 0
    assert picture(ground.destination) == picture(ground.source)
    assert ground.remove()["removed"] == 1

    heard, told = os.pipe()
    os.set_blocking(told, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(told, b"x" * 4096)
    os.set_blocking(told, True)
    pair = {"source": str(ground.source), "destination": str(ground.buffer / "second")}
    silent = start(ground.order(copies=[pair]), stdout=told)
    assert silent.process.wait(DEADLINE_S) == 0
    assert picture(ground.buffer / "second") == picture(ground.source)
    os.close(heard)
    os.close(told)


def test_everybody_else_comes_first(ground: Ground) -> None:
    filled(ground, 4, 32 * MIB)
    mover = begun(ground)
    if os.uname().machine == "x86_64":
        libc = ctypes.CDLL(None)
        for number in os.listdir(f"/proc/{mover.process.pid}/task"):
            assert libc.syscall(252, 1, int(number)) == 2 << 13 | 7, "ioprio_get"
    for thread in Path(f"/proc/{mover.process.pid}/task").iterdir():
        assert (thread / "stat").read_text().rpartition(")")[2].split()[16] == "19"
    mover.kill()


def test_the_memory_of_the_host_is_not_filled(ground: Ground) -> None:
    """What was copied is not kept in the page cache, where the file system can forget it."""
    write(ground.source, os.urandom(64 * MIB))
    os.sync()
    assert ground.copy()["state"] == "ready"
    for path in (ground.source, ground.destination):
        assert cached(path) < 8 * MIB, path


def cached(path: Path) -> int:
    """Bytes of a file that are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    size, page = path.stat().st_size, os.sysconf("SC_PAGE_SIZE")
    with path.open("rb") as file:
        at = libc.mmap(None, ctypes.c_size_t(size), 1, 1, file.fileno(), ctypes.c_long(0))
    found = (ctypes.c_ubyte * (-(-size // page)))()
    assert libc.mincore(ctypes.c_void_p(at), ctypes.c_size_t(size), found) == 0
    libc.munmap(ctypes.c_void_p(at), ctypes.c_size_t(size))
    return sum(byte & 1 for byte in found) * page


def test_it_loads_little() -> None:
    """It is started for each copy, and must be quick and small."""
    text = "import sys, halo.remote.mover.__main__ as m; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"asyncio", "capnp", "click", "structlog", "subprocess", "yaml"})
