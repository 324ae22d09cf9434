"""Which modules are mutated, and of which source a result is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]

PLACES = (
    "halo/core",
    "halo/manager/placement",
    "halo/manager/groups",
    "halo/manager/fencing",
    "halo/manager/hosts/host_task.py",
    "halo/manager/hosts/surveyor.py",
    "halo/manager/hosts/watcher.py",
)
"""What decides. The rest of the manager carries out, or talks to people."""

RUN_BY_A_SEED = (
    "halo/core",
    "halo/manager",
    "halo/ports.py",
    "halo/telling.py",
    "halo/__init__.py",
)
ONLY_SHOWS = ("report.py",)


@dataclass(frozen=True, slots=True)
class Module:
    """One module that is mutated."""

    name: str
    path: Path

    @property
    def source(self) -> str:
        """Its text."""
        return self.path.read_text(encoding="utf-8")

    @property
    def short(self) -> str:
        """Its name as reports show it."""
        return self.name.removeprefix("halo.")


def modules() -> list[Module]:
    """Everything in :data:`PLACES`, in the order of the names."""
    found = [_module(path) for place in PLACES for path in _files(place) if path.stem != "__init__"]
    return sorted(found, key=lambda module: module.name)


def _module(path: Path) -> Module:
    return Module(".".join(path.relative_to(ROOT).with_suffix("").parts), path)


def _files(place: str) -> Iterator[Path]:
    path = ROOT / place
    return iter(sorted(path.rglob("*.py")) if path.is_dir() else [path])


def simulation_version() -> str:
    """A hash over everything that the outcome of a mutant in the simulation depends on."""
    own = Path(__file__).parent
    simulation = [path for path in _files("tests/simulation") if not _is_irrelevant(path, own)]
    return _digest([*(path for place in RUN_BY_A_SEED for path in _files(place)), *simulation])


def core_tests_version() -> str:
    """The same for the tests of the core."""
    own = Path(__file__).parent
    tool = [path for path in _files("tests/simulation/mutation") if not _is_irrelevant(path, own)]
    return _digest([*_files("halo/core"), *_files("tests/core"), *tool])


def _is_irrelevant(path: Path, own: Path) -> bool:
    shows = path.parent == own and path.name in ONLY_SHOWS
    return shows or path.name == "mutate.py" or path.name.startswith("test_")


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
