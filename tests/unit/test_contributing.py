"""docs/contributing leads a newcomer to places that exist: paths, links, and names in the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "contributing").glob("*.md"))
LISTS = ROOT / "docs" / "contributing" / "adding.md"

_IN_FOLDERS = re.compile(
    r"(?<![\w./-])(?:halo|tests|docs|demo|benchmarks|examples|packaging|fence_agents|ocf_agents)"
    r"/[\w./-]*\w"
)
_AT_THE_TOP = re.compile(r"`(Makefile|[\w-]+\.(?:md|toml|capnp|py))`")
_LINK = re.compile(r"\]\(([^)#:]+)[^):]*\)")
_NAME = re.compile(r"`([A-Za-z_]*(?:[A-Z]|_)\w*)`")


def paths_in(text: str) -> list[str]:
    """Every path that a text names, seen from the root of the repository."""
    return _IN_FOLDERS.findall(text) + _AT_THE_TOP.findall(text)


def items() -> list[str]:
    """The items of the tick lists."""
    return re.findall(r"^- \[ \] .*(?:\n  .*)*", LISTS.read_text(encoding="utf-8"), re.MULTILINE)


def source_of(path: str) -> str:
    """The text of a file, or of all modules in a folder."""
    place = ROOT / path
    files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def missing_names(item: str) -> list[str]:
    """The names of code in an item that stand in none of its files."""
    source = "\n".join(map(source_of, paths_in(item)))
    return [name for name in _NAME.findall(item) if name not in source]


def test_there_is_something_to_look_at() -> None:
    assert [page.name for page in PAGES] == ["README.md", "adding.md"]
    assert len(items()) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_path_exists(page: Path) -> None:
    paths = paths_in(page.read_text(encoding="utf-8"))
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    assert targets, "no link leads from here to another page"
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("item", items(), ids=lambda item: item[6:50])
def test_every_item_names_a_place_and_what_is_in_it(item: str) -> None:
    assert paths_in(item), "the item names no path"
    assert missing_names(item) == []


def test_a_wrong_path_and_a_wrong_name_would_be_found() -> None:
    assert paths_in("see `halo/core/nowhere.py`, NOWHERE.md, `NOWHERE.md` and http://x/docs/y") == [
        "halo/core/nowhere.py",
        "NOWHERE.md",
    ]
    assert missing_names("- [ ] `halo/ports.py`: `JournalMedium`, `NoSuchThing`") == ["NoSuchThing"]


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md"])
def test_newcomers_are_sent_there(page: str) -> None:
    assert "contributing/README.md" in (ROOT / page).read_text(encoding="utf-8")
