"""Looking at a whole source: what there is to copy, and at the end whether it is still the same."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

from halo.remote.mover.kernel import open_beneath
from halo.remote.mover.outcomes import Failure, State, changed
from halo.remote.mover.pace import Stop
from halo.remote.mover.tree.content import is_sparse
from halo.remote.mover.tree.walk import check_supported, identity, join, name_of, walk

_UNIT = 512  # of st_blocks


@dataclass(slots=True)
class Size:
    """How much a source is. `space` is the least that it takes on the file system of its copy."""

    files: int = 0
    folders: int = 0
    bytes: int = 0
    space: int = 0


def measure(root: int, only: bytes | None, parent: int, block: int, stop: Stop) -> Size:
    """Walk through a source. `parent` is the folder of its destination, and `block` the size of a
    block there. Raises Failure for what cannot be copied, and Stopped."""
    size, linked = Size(), set[tuple[int, int]]()
    above = os.fstat(parent)
    for piece in walk(root, only, stop):
        if only is None and piece.is_first:
            size.folders += 1
            if os.path.samestat(piece.info, above):
                raise _within_itself()
        for entry in piece.entries:
            info = entry.info
            check_supported(join(piece.path, entry.name), info)
            if stat.S_ISDIR(info.st_mode):
                continue
            size.files += 1
            if not stat.S_ISREG(info.st_mode):
                continue
            size.bytes += info.st_size
            if info.st_nlink > 1:
                inode = (info.st_dev, info.st_ino)
                if inode in linked:
                    continue
                linked.add(inode)
            size.space += _space(info, block)
    return size


def _space(info: os.stat_result, block: int) -> int:
    if is_sparse(info):
        return info.st_blocks * _UNIT
    return -(-info.st_size // block) * block


def _within_itself() -> Failure:
    return Failure(State.BAD_ORDER, "the destination lies within its source")


def space_taken(folder: int, name: bytes) -> int:
    """Bytes that a predecessor's copy takes on its file system. Too little where it may not be
    looked into."""
    taken, waiting = 0, [name]
    for path in waiting:
        try:
            fd = open_beneath(folder, path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode):
                        waiting.append(join(path, os.fsencode(entry.name)))
                    else:
                        taken += info.st_blocks * _UNIT // info.st_nlink
        finally:
            os.close(fd)
    return taken


def check_same(root: int, only: bytes | None, seen: Mapping[bytes, bytes], stop: Stop) -> None:
    """Raises Failure unless the source is as it was when each part of it was copied: nothing was
    written, replaced, added or removed. `seen` has the identity of each part."""
    count = 0
    for piece in walk(root, only, stop):
        if only is None and piece.is_first:
            count += 1
            if seen.get(name_of(piece.path)) != identity(piece.info):
                raise changed(piece.path)
        for entry in piece.entries:
            if stat.S_ISDIR(entry.info.st_mode):
                continue
            count += 1
            path = join(piece.path, entry.name)
            if seen.get(name_of(path)) != identity(entry.info):
                raise changed(path)
    if count != len(seen):
        raise changed(b"")
