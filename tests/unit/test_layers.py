"""The arrows between layers: who may import whom, held by a walk over every module's syntax tree.

core is at the bottom and knows no loop, clock, file or socket; ports and config stand on it,
adapters on ports, the programs on top. Only a program's `main` puts real adapters into it.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import halo

ROOT = Path(halo.__file__).parent

# What stands beside the layers: words for people, for everything that meets the outside.
BESIDE = ("halo.telling", "halo.error_words")

# What each layer may import of ours. An entry may be a layer or a single module.
MAY_IMPORT: dict[str, set[str]] = {
    "halo.core": {"halo.core"},
    "halo.ports": {"halo.core"},
    "halo.telling": set(),
    "halo.error_words": set(),
    "halo.config": {"halo.config", "halo.core", "halo.ports", "halo.error_words"},
    "halo.adapters": {"halo.adapters", "halo.core", "halo.ports", *BESIDE},
    "halo.manager": {"halo", "halo.manager", "halo.core", "halo.ports", *BESIDE},
    "halo.remote": {"halo", "halo.remote", "halo.core", "halo.ports", *BESIDE},
    "halo.cli": {"halo", "halo.cli", "halo.core", "halo.config", "halo.ports", "halo.error_words"},
    "halo": set(),
}

# Modules that may import more, each with its reason.
EXCEPTIONS: dict[str, set[str]] = {
    "halo.manager.main": {"halo.adapters", "halo.config"},  # puts the program together
    "halo.manager.answering": {"halo.adapters"},  # opens the sockets
    "halo.manager.serving": {"halo.adapters"},  # puts the adapters into the manager
    "halo.manager.leadership.config_file": {"halo.adapters.slow_files"},  # the file may hang
    "halo.manager.leadership.opening": {"halo.adapters"},  # loads the code for etcd only if used
    "halo.remote.main": {"halo.adapters"},  # puts the program together
    "halo.cli.commands.power": {
        "halo.adapters.fence.programs",
        "halo.adapters.fence.host_power",
    },  # needs no manager
    "halo.cli.commands.store": {"halo.adapters"},  # needs no manager
    "halo.cli.tls.commands": {"halo.adapters.tls.files"},  # the files that the programs use
    "halo.cli.tls.store": {"halo.adapters.tls.certificates"},  # names as the programs compare them
    "halo.cli.tls.inspect": {"halo.adapters.tls.files", "halo.adapters.tls.certificates"},
}

# The standard library is no business of the deciding core, but for these plain data modules.
CORE_STANDARD = {
    *("__future__", "collections", "collections.abc", "dataclasses", "datetime", "decimal", "enum"),
    *("functools", "hashlib", "itertools", "json", "math", "re", "typing", "zlib"),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    # What lies under share is shipped, not imported.
    files = (path for path in ROOT.rglob("*.py") if "share" not in path.relative_to(ROOT).parts)
    return {module_name(path): path for path in files}


def imports(name: str) -> Iterator[str]:
    """Every module that `name` imports, also inside functions and under TYPE_CHECKING."""
    path = modules()[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                source = ".".join([*parents, *([source] if source else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield inner if inner in modules() else source


def is_within(name: str, layer: str) -> bool:
    """Is `name` the layer, or below it? The bare package `halo` holds its version alone."""
    return name == layer or (layer != "halo" and name.startswith(layer + "."))


def layer_of(name: str) -> str:
    return next(layer for layer in MAY_IMPORT if is_within(name, layer))


def test_there_is_something_to_look_at() -> None:
    assert len(modules()) > 50
    assert {"halo.core.cluster.state", "halo.manager.main", "halo.ports"} <= set(modules())
    assert "halo.core.cluster.state" in set(imports("halo.core.groups.placement"))


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_downwards(name: str) -> None:
    allowed = MAY_IMPORT[layer_of(name)] | EXCEPTIONS.get(name, set())
    wrong = sorted(
        {
            imported
            for imported in imports(name)
            if is_within(imported, "halo") or imported.startswith("halo.")
            if not any(is_within(imported, layer) for layer in allowed)
        }
    )
    assert wrong == [], f"{name} may not import {', '.join(wrong)}"


def room_of(name: str) -> str:
    """The folder of a module within its layer; a module beside the rooms stands for itself."""
    return ".".join(name.split(".")[:3])


def test_rooms_import_in_no_circle() -> None:
    """Between the rooms of one layer arrows point downwards, too."""
    graph: dict[str, set[str]] = {}
    for name in modules():
        graph.setdefault(room_of(name), set()).update(map(room_of, imports_of_ours(name)))
    assert cycle_in({room: sorted(below - {room}) for room, below in graph.items()}) == []


FOLDER_LIMIT = 13  # a dozen modules and `__init__`


def test_no_folder_holds_more_than_a_dozen_modules() -> None:
    folders = Counter(path.parent for path in modules().values())
    crowded = {str(f.relative_to(ROOT)): n for f, n in folders.items() if n > FOLDER_LIMIT}
    assert crowded == {}


def test_every_exception_is_still_needed() -> None:
    for name, allowed in EXCEPTIONS.items():
        found = set(imports(name))
        for layer in allowed:
            assert any(is_within(imported, layer) for imported in found), f"{name}: {layer}"


@pytest.mark.parametrize("name", sorted(n for n in modules() if layer_of(n) == "halo.core"))
def test_the_core_knows_no_loop_clock_file_or_socket(name: str) -> None:
    foreign = {i for i in imports(name) if not i.startswith("halo.") and i not in CORE_STANDARD}
    assert foreign == set(), f"{name} imports {', '.join(sorted(foreign))}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_third_party_libraries_stay_where_they_are_translated(name: str) -> None:
    """capnp and YAML belong to one layer each; the command needs no RPC library to start."""
    found = {imported.split(".")[0] for imported in imports(name)}
    third_party = {f for f in found if f not in sys.stdlib_module_names and f != "halo"}
    homes = {
        "capnp": ("halo.adapters", "halo.manager.serving", "halo.remote.main"),
        "yaml": ("halo.config", "halo.cli"),
        "cryptography": ("halo.cli.tls",),
        "xxhash": ("halo.remote.mover",),
        "aiohttp": ("halo.manager", "halo.adapters"),
        "click": ("halo.cli", "halo.manager.main", "halo.remote.main", "halo.adapters.usage"),
    }
    for library in third_party & set(homes):
        assert any(is_within(name, home) for home in homes[library]), f"{name}: {library}"


def test_the_api_stands_on_top_of_the_manager() -> None:
    """It knows the operations by their port alone. Only the program knows it, and the room that
    sends requests on to another manager."""
    room, outside = "halo.manager.api", set()
    for name in modules():
        for imported in imports(name):
            if is_within(imported, room) and not is_within(name, room):
                outside.add(name)
            if is_within(name, room) and is_within(imported, "halo.manager"):
                assert is_within(imported, room), f"{name} imports {imported}"
    outside = {name for name in outside if not is_within(name, "halo.manager.peers")}
    assert outside == {"halo.manager.serving", "halo.manager.answering"}


def test_no_decision_asks_for_a_forecast() -> None:
    """It is for operators. In a large cluster it takes long, and no group may wait for it."""
    room = "halo.core.survival"
    asks = {name for name in modules() if any(is_within(i, room) for i in imports(name))}
    outside = {name for name in asks if not is_within(name, room)}
    assert outside == {"halo.core.status.ours", "halo.config.checks"}


def test_no_modules_import_each_other() -> None:
    assert cycle_in({name: sorted(imports_of_ours(name)) for name in modules()}) == []


def imports_of_ours(name: str) -> set[str]:
    return {imported for imported in imports(name) if imported in modules()} - {name}


def cycle_in(graph: dict[str, list[str]]) -> list[str]:
    """One cycle as a path, or nothing."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for imported in graph[name]:
            found = visit(imported, [*path, name])
            if found:
                return found
        done.add(name)
        return []

    return next((found for name in graph if (found := visit(name, []))), [])


def test_a_cycle_would_be_found() -> None:
    assert cycle_in({"a": ["b"], "b": ["c"], "c": ["b"]}) == ["b", "c", "b"]
    assert cycle_in({"a": ["b", "c"], "b": ["c"], "c": []}) == []
