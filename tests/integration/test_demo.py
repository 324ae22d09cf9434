"""`make demo` and `make demo-ha` do what they say, and leave nothing behind, however they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.debian import require
from tests.integration.site import ROOT

DEADLINE_S = 90.0


def start_demo(folder: Path, name: str = "demo.py") -> subprocess.Popen[str]:
    return subprocess.Popen(
        # A shell's background jobs, and so what they start, ignore SIGINT; `env` ends that.
        ["env", "--default-signal=INT", sys.executable, str(ROOT / "demo" / name)],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def place() -> str:
    """A short path, since a Unix socket is made below it."""
    return tempfile.mkdtemp(prefix="halo-test-")


def left(folder: Path) -> list[str]:
    """Processes and files of the demo that are still there."""
    found = [str(path) for path in folder.iterdir()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                stopped = (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
                if not stopped and f"HALO_DEMO={folder}/" in (entry / "environ").read_text():
                    found.append((entry / "cmdline").read_text())
            except (OSError, UnicodeDecodeError):
                continue
    return found


def test_the_demo_tells_its_story(place: str) -> None:
    folder = Path(place)
    demo = start_demo(folder)
    story, _ = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 0, story
    for sentence in (
        r"s  both groups run at home",
        r"s  alpha is fenced: confirmed to be off",
        r"s  both groups run on beta",
        r"\| website \(halo/WebServer\): Running \(Failed Over\) on beta",
        r"s  the website runs on alpha",
    ):
        assert re.search(sentence, story), f"{sentence} is missing in:\n{story}"
    outages = re.findall(r"no answer for ([0-9.]+) s", story)
    assert len(outages) == 2
    assert all(float(seconds) > 0 for seconds in outages)
    assert left(folder) == []
    folder.rmdir()


def test_the_demo_of_three_managers_tells_its_story(place: str) -> None:
    require("etcd-server")
    folder = Path(place)
    demo = start_demo(folder, "ha.py")
    story, _ = demo.communicate(timeout=2 * DEADLINE_S)
    assert demo.returncode == 0, story
    killed = re.search(r"manager (\d) is killed", story)
    successor = re.search(r"manager (\d) leads; the lease is 2 s", story)
    assert killed is not None, story
    assert successor is not None, story
    assert killed[1] != successor[1]
    for sentence in (
        r"s  all three managers show the same status",
        r"s  alpha is fenced: confirmed to be off",
        r"s  both groups run on beta",
        rf"s  all three answer, and manager {killed[1]} stands by",
        rf"Manager {successor[1]} gives the leadership back",
        rf"s  manager {successor[1]} has ended",
    ):
        assert re.search(sentence, story), f"{sentence} is missing in:\n{story}"
    assert left(folder) == []
    folder.rmdir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(place: str, number: signal.Signals) -> None:
    folder = Path(place)
    demo = start_demo(folder)
    until(lambda: len(left(folder)) >= 4, "the demo's processes run")
    demo.send_signal(number)
    story, _ = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 130, story
    assert left(folder) == []
    folder.rmdir()


def test_a_demo_that_cannot_go_on_says_so(place: str) -> None:
    folder = Path(place)
    demo = start_demo(folder)
    until(lambda: any("halo_manager" in words for words in left(folder)), "the manager runs")
    (socket_folder,) = folder.iterdir()
    for entry in Path("/proc").iterdir():
        words = b""
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
        if b"halo_manager" in words and str(socket_folder).encode() in words:
            os.kill(int(entry.name), signal.SIGKILL)
    story, _ = demo.communicate(timeout=DEADLINE_S)
    assert demo.returncode == 1, story
    assert "The demo failed: " in story
    assert left(folder) == []
    folder.rmdir()


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)
