"""Each example config is started as it stands: a real manager, hosts that this machine does not
know. It serves its status, waits with a reason for every group, and fences nobody."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
PROGRAMS = Path(sys.executable).parent
DEADLINE_S = 30.0


def status_of(socket: Path) -> dict[str, list[dict[str, object]]]:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        done = subprocess.run(
            [PROGRAMS / "halo", "--socket", socket, "status", "--json"],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        if done.returncode == 0 or time.monotonic() > deadline:
            assert done.returncode == 0, done.stderr
            found: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
            return found


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_can_be_started_as_it_stands(example: Path, tmp_path: Path) -> None:
    valid = subprocess.run(
        [PROGRAMS / "halo", "--config", example, "validate"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert valid.returncode == 0, valid.stdout + valid.stderr
    socket = tmp_path / "s"
    with (tmp_path / "log").open("wb") as log:
        flags = ["--config", str(example), "--socket", str(socket)]
        flags += ["--statefile", str(tmp_path / "state"), "--manage-resources"]
        manager = subprocess.Popen([str(PROGRAMS / "halo_manager"), *flags], stdout=log, stderr=log)
    try:
        status = status_of(socket)
        assert status["groups"]
        assert all(group["status"] == "Unknown" for group in status["groups"])
        assert all(group["comment"] for group in status["groups"])
        assert all(not host["fenced"] for host in status["hosts"])
    finally:
        manager.terminate()
        assert manager.wait(DEADLINE_S) == 0, (tmp_path / "log").read_text()
