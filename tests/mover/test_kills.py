"""Movers that are killed at random moments. `python -m tests.mover.kills` does it for longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.mover.kills import run

KILLS = 20


@pytest.mark.long
def test_killed_movers_have_successors(tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    found = run(KILLS, seed, tmp_path)
    assert found.kills >= KILLS
    assert found.files_kept > 0, "no successor took up anything"
