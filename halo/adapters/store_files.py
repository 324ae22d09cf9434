"""The files that belong to a store, as the command line names them.

They are apart from the store's own code, which is loaded only where a store is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class StoreFiles:
    """The files and the user's name that belong to a store. None: not given."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    user: str | None = None
    password_file: Path | None = None


NO_FILES = StoreFiles()
