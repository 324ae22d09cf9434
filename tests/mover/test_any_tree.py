"""Whatever a tree looks like, its copy is the same."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from halo.remote.mover.tree.content import BLOCK
from halo.remote.mover.tree.large import LARGE, SEGMENT
from tests.mover.ground import Ground, carry_out, picture
from tests.mover.steps import die_at

_SIZES = st.one_of(
    st.integers(0, 10_000),
    st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, LARGE, LARGE + 1, SEGMENT, SEGMENT + 1]),
)
_TIMES = st.integers(-(10**18), 4 * 10**18)
_NAMES = st.binary(min_size=1, max_size=12).filter(
    lambda name: name not in (b".", b"..") and not set(name) & set(b"/\0")
)


@dataclass(frozen=True)
class File:
    """Mostly hole: `data` says where there is something."""

    size: int
    data: tuple[tuple[int, bytes], ...]
    mode: int
    time_ns: int


@dataclass(frozen=True)
class Link:
    text: bytes


@dataclass(frozen=True)
class Again:
    """A further name of an earlier file, if there is one."""

    which: int


@dataclass(frozen=True)
class Folder:
    entries: dict[bytes, Node]
    mode: int
    time_ns: int


Node = File | Link | Again | Folder

_FILES = st.builds(
    File,
    _SIZES,
    st.lists(
        st.tuples(st.integers(0, SEGMENT + 10), st.binary(min_size=1, max_size=50)), max_size=4
    ).map(tuple),
    st.integers(0, 0o777).map(lambda mode: mode | 0o400),
    _TIMES,
)
_LINKS = st.builds(Link, st.binary(min_size=1, max_size=30).filter(lambda text: 0 not in text))
_LEAVES: st.SearchStrategy[Node] = st.one_of(_FILES, _LINKS, st.builds(Again, st.integers(0, 9)))
_TREES = st.recursive(
    _LEAVES,
    lambda inner: st.builds(
        Folder,
        st.dictionaries(_NAMES, inner, max_size=5),
        st.integers(0, 0o777).map(lambda mode: mode | 0o700),
        _TIMES,
    ),
    max_leaves=12,
)


def make(path: bytes, node: Node, files: list[bytes]) -> None:
    """Make a tree. `files` collects what may get a further name."""
    if isinstance(node, Link):
        os.symlink(node.text, path)
    elif isinstance(node, Again):
        if files:
            os.link(files[node.which % len(files)], path)
    elif isinstance(node, Folder):
        os.mkdir(path)
        for name, inner in node.entries.items():
            make(path + b"/" + name, inner, files)
        _dress(path, node)
    else:
        with open(path, "wb") as file:
            file.truncate(node.size)
            for offset, content in node.data:
                if offset < node.size:
                    file.seek(offset)
                    file.write(content[: node.size - offset])
        _dress(path, node)
        files.append(path)


def _dress(path: bytes, node: File | Folder) -> None:
    os.chmod(path, node.mode)
    os.utime(path, ns=(node.time_ns, node.time_ns))


@settings(max_examples=60)
@given(
    st.builds(Folder, st.dictionaries(_NAMES, _TREES, max_size=6), st.just(0o755), _TIMES),
    st.integers(1, 4),
    st.one_of(st.none(), st.integers(1, 200)),
)
def test_the_copy_of_any_tree_is_the_same(tree: Folder, threads: int, dies_at: int | None) -> None:
    """Also if a mover died on the way."""
    folder = Path(tempfile.mkdtemp(prefix="halo-mover-"))
    try:
        ground = Ground(folder)
        make(os.fsencode(ground.source), tree, [])
        order = ground.order(threads=threads)
        if dies_at is not None:
            carry_out(order, die_at(dies_at))
        outcome = carry_out(order)
        assert outcome["state"] == "ready", outcome
        assert picture(ground.destination) == picture(ground.source)
        assert space(ground.destination) <= space(ground.source)
    finally:
        shutil.rmtree(folder)


def space(top: Path) -> int:
    """Bytes that the files of a tree take, but for what a file system adds to each."""
    found = 0
    for folder, _, files in os.walk(os.fsencode(top)):
        for name in files:
            found += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return found
