"""Where the programs that a config names are found on this machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

BUNDLED_AGENTS = ("powerman", "redfish", "ipmi", "fence_test")
"""The fence agents that come with HALO, by their names in a config."""

SBIN_FOLDERS = ("/usr/sbin", "/sbin", "/usr/local/sbin")
"""Folders to search after PATH, which often lacks them for a service or an ordinary user."""

_PACKAGE = Path(__file__).resolve().parent.parent


def bundled_folder(name: str) -> Path:
    """The folder of files that comes with HALO: `fence_agents` or `ocf_agents`.

    In a checkout, it is the top-level folder itself. In an installed copy, it is the folder in the
    package. Raises FileNotFoundError if this copy of HALO lacks it.
    """
    for folder in (_PACKAGE.parent / name, _PACKAGE / "share" / name):
        if folder.is_dir() and (folder.parent / "halo.capnp").is_file():
            return folder.resolve()
    raise FileNotFoundError(
        f"the folder {name} of this HALO installation is missing; install HALO again"
    )


def find_fence_program(agent: str) -> Path | None:
    """The executable that a config's `fence_agent` names, or None if there is none.

    `powerman`, `redfish` and `ipmi` are the bundled agents. `fence_*` is searched on PATH, then in
    the system's sbin folders, then among the bundled agents. An absolute path is taken as it is.
    """
    if agent.startswith("/"):
        path = Path(agent)
        return path if _is_program(path) else None
    if "/" in agent or agent in ("", ".", ".."):
        return None
    if agent.startswith("fence_"):
        if installed := shutil.which(agent, path=os.pathsep.join(_search_path())):
            return Path(installed).absolute()
        return _bundled(agent)
    return _bundled(agent) if agent in BUNDLED_AGENTS else None


def installed_fence_agents() -> set[str]:
    """All names, not paths, under which :func:`find_fence_program` finds a program."""
    names = set(BUNDLED_AGENTS)
    for folder in _search_path():
        try:
            names.update(path.name for path in Path(folder).glob("fence_*") if _is_program(path))
        except OSError:  # a folder that cannot be read holds nothing to propose
            continue
    return names


def _search_path() -> list[str]:
    return [*os.environ.get("PATH", os.defpath).split(os.pathsep), *SBIN_FOLDERS]


def _bundled(agent: str) -> Path | None:
    try:
        path = bundled_folder("fence_agents") / agent
    except FileNotFoundError:
        return None
    return path if _is_program(path) else None


def _is_program(path: Path) -> bool:
    try:
        return path.is_file() and os.access(path, os.X_OK)
    except (OSError, ValueError):  # ValueError: a NUL in the path
        return False
