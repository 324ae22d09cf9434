"""What the tests of the mover share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mover.ground import Ground


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)
