"""What stands in a log line is bounded, whoever said it (S10)."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_SAYS = """
import sys
import structlog
from halo.adapters import logs
logs.configure(format=sys.argv[1], environment={"HALO_LOG": "info"})
log = structlog.get_logger()
log.info("peer", who="a\\x1b[2Jb\\nc\\u202ed\\ud800", why="x" * 100_000, count=3)
try:
    raise ValueError("two\\nlines")
except ValueError:
    log.exception("defect")
"""


def _said(format: str) -> str:
    run = subprocess.run(
        [sys.executable, "-c", _SAYS, format], capture_output=True, timeout=30, check=True
    )
    return run.stderr.decode()


@pytest.mark.parametrize("format", ["console", "json"])
def test_a_value_is_cut_and_moves_no_cursor(format: str) -> None:
    first = _said(format).split("\n")[0]
    assert "\x1b" not in first
    assert "\u202e" not in first
    assert "[95904 more characters were cut]" in first
    assert len(first) < 5000
    assert "Jb" in first
    assert "c" in first


def test_tracebacks_of_our_own_stay_whole() -> None:
    lines = [json.loads(line) for line in _said("json").strip().split("\n")]
    assert lines[0]["count"] == 3
    assert lines[1]["exception"].endswith("ValueError: two\nlines")
