"""Puts other code in the place of modules as they are imported; no file is changed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from types import CodeType, ModuleType

from tests.simulation.mutation import derive, scope
from tests.simulation.mutation.marks import Marker, names_for


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, code: CodeType, names: Mapping[str, object]) -> None:
        super().__init__(name, path)
        self._code = code
        self._names = names

    def get_code(self, fullname: str) -> CodeType:
        return self._code

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self._names)
        super().exec_module(module)


class _Finder(MetaPathFinder):
    def __init__(
        self, codes: Mapping[str, tuple[str, CodeType]], names: Mapping[str, object]
    ) -> None:
        self._codes = codes
        self._names = names

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = self._codes.get(fullname)
        if found is None:
            return None
        loader = _Loader(fullname, *found, self._names)
        return spec_from_file_location(fullname, found[0], loader=loader)


def install(trees: Mapping[str, tuple[str, ast.Module]], names: Mapping[str, object]) -> None:
    """From now on, import these modules (name: path and tree) with `names` among their globals.

    Only before their first import; raises RuntimeError after it."""
    early = sorted(name for name in trees if name in sys.modules)
    if early:
        raise RuntimeError(f"imported already: {', '.join(early)}")
    codes = {name: (path, compile(tree, path, "exec")) for name, (path, tree) in trees.items()}
    sys.meta_path.insert(0, _Finder(codes, names))


def install_mutant(mutant_id: str) -> None:
    """Import the module of this mutant with the mistake in it. Raises KeyError for no known id."""
    modules = {module.short: module for module in scope.modules()}
    module = modules[mutant_id.split(":")[0]]
    flags = derive.flags_of(other.source for other in modules.values())
    tree = derive.mutated(module.name, module.source, flags, mutant_id)
    install({module.name: (str(module.path), tree)}, {})


def install_marks() -> bytearray:
    """Import all modules with their marks; the bytes that a mark sets, by :func:`points`."""
    marker = Marker()
    trees = {
        module.name: (str(module.path), marker.mark(module.name, module.source))
        for module in scope.modules()
    }
    hits = bytearray(len(marker.points))
    install(trees, names_for(hits))
    return hits


def points() -> list[tuple[str, str]]:
    """Module and point of every mark, in the order of their numbers."""
    marker = Marker()
    for module in scope.modules():
        marker.mark(module.name, module.source)
    return marker.points
