"""What the tests of the mover share."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mover.ground import Ground


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


@pytest.fixture
def shared() -> Iterator[Ground]:
    """A ground that other users reach, too."""
    folder = Path(tempfile.mkdtemp(prefix="halo-mover-"))
    folder.chmod(0o755)
    try:
        yield Ground(folder)
    finally:
        shutil.rmtree(folder)
