"""From the administrator's YAML to a validated :class:`halo.core.model.Cluster`.

The names below are imported on first use. The command line folds host names in every call, but it
needs the YAML library only when it reads a config.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from halo.config.checks import check_warnings
    from halo.config.describe import summary
    from halo.config.loader import load, load_text
    from halo.config.nodesets.folding import fold
    from halo.config.nodesets.nodeset import expand
    from halo.config.programs import bundled_folder, find_fence_program

__all__ = [
    "bundled_folder",
    "check_warnings",
    "expand",
    "find_fence_program",
    "fold",
    "load",
    "load_text",
    "summary",
]

_HOMES = {
    "bundled_folder": "programs",
    "check_warnings": "checks",
    "expand": "nodesets.nodeset",
    "find_fence_program": "programs",
    "fold": "nodesets.folding",
    "load": "loader",
    "load_text": "loader",
    "summary": "describe",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
