"""Making a copy of a tree in the working folder. Each step may be repeated: what is there is kept.

The order of the steps:

1. Walk through the source. Make the folders, and hand out files and links to the threads.
2. Make the hard links, now that the files are there that they name.
3. Put the metadata on the folders. Earlier, each new entry would have changed their times.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from functools import partial

from halo.remote.mover.kernel import flushes_as_a_whole, open_beneath
from halo.remote.mover.log import Log
from halo.remote.mover.outcomes import End, changed, failure_of
from halo.remote.mover.pace import Pace, Stop, Stopped
from halo.remote.mover.progress import Tally
from halo.remote.mover.tree.content import Desk
from halo.remote.mover.tree.crew import Crew, Work
from halo.remote.mover.tree.large import LARGE, Ends, LargeFile, complete, copy_segment, make
from halo.remote.mover.tree.metadata import Keeper, attributes_of
from halo.remote.mover.tree.small import Batch, SmallFiles, Todo
from halo.remote.mover.tree.walk import (
    Entry,
    Piece,
    check_supported,
    identity,
    join,
    name_of,
    walk,
)
from halo.remote.mover.workspace import lstat, remove

BATCH = 64
_FOLDER = os.O_RDONLY | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class Tools:
    """What all copies of an order share."""

    threads: int
    pace: Pace
    pace_back: Pace
    tally: Tally
    keeper: Keeper
    stop: Stop


@dataclass(slots=True)
class Filling:
    """One copy. `seen` has the identity of everything that was copied, for the check at the end."""

    ends: Ends
    only: bytes | None
    log: Log
    tools: Tools
    taken_up: bool
    seen: dict[bytes, bytes] = field(default_factory=dict)
    _crew: Crew | None = None
    _first: dict[tuple[int, int], bytes] = field(default_factory=dict)
    _links: list[tuple[bytes, bytes]] = field(default_factory=list)
    _names: set[bytes] = field(default_factory=set)
    _folders: list[bytes] = field(default_factory=list)

    def fill(self) -> None:
        """Steps 1 to 3. Raises Failure and Stopped.

        After that a thread may still hang in a call to the system: the caller ends the program,
        and closes no descriptor before.
        """
        self._crew = Crew(self.tools.threads, self._small_files, self.tools.stop)
        try:
            for piece in walk(self.ends.source, self.only, self.tools.stop):
                self._take(piece)
            self._crew.finish()
        except BaseException as error:
            self._crew.abandon()
            if isinstance(error, Stopped) and self._crew.failure is not None:
                raise self._crew.failure from error
            raise
        self._make_links()
        self._dress_folders()

    def _small_files(self) -> SmallFiles:
        tools = self.tools
        desk = Desk(tools.pace, tools.pace_back, tools.tally)
        return SmallFiles(self.ends, self.log, desk, tools.keeper, tools.tally, tools.stop)

    def _do(self, work: Work) -> None:
        if self._crew is None:
            raise AssertionError("no threads")
        self._crew.do(work)

    # --- the walk ----------------------------------------------------------------------------

    def _take(self, piece: Piece) -> None:
        if piece.is_first:
            if self.only is None:
                self.seen[name_of(piece.path)] = identity(piece.info)
                self._folders.append(piece.path)
            self._make_folder(piece.path)
            self._names.clear()
        small: list[Todo] = []
        for entry in piece.entries:
            path = join(piece.path, entry.name)
            check_supported(path, entry.info)
            if self.taken_up:
                self._names.add(entry.name)
            if stat.S_ISDIR(entry.info.st_mode):
                continue
            key, seen = name_of(path), identity(entry.info)
            self.seen[key] = seen
            if self._is_further_link(path, entry.info):
                continue
            if stat.S_ISREG(entry.info.st_mode) and entry.info.st_size > LARGE:
                self._copy_large(piece.path, entry)
            else:
                small.append(Todo(entry, key, seen))
        for start in range(0, len(small), BATCH):
            batch = Batch(piece.path, small[start : start + BATCH])
            self._do(partial(SmallFiles.copy, batch=batch))
        if piece.is_last and self.taken_up:
            self._drop_others(piece.path)

    def _is_further_link(self, path: bytes, info: os.stat_result) -> bool:
        """Is it a name of a file that has had another name already?"""
        if info.st_nlink < 2 or not stat.S_ISREG(info.st_mode):
            return False
        first = self._first.setdefault((info.st_dev, info.st_ino), path)
        if first == path:
            return False
        self._links.append((first, path))
        return True

    def _make_folder(self, path: bytes) -> None:
        """Closed to others until its metadata is put on. What else has its name is removed."""
        if not path:
            return
        above, _, name = path.rpartition(b"/")
        try:
            folder = open_beneath(self.ends.copy, above, _FOLDER)
            try:
                found = lstat(folder, name)
                if found is not None and not stat.S_ISDIR(found.st_mode):
                    remove(folder, name)
                    found = None
                if found is None:
                    os.mkdir(name, 0o700, dir_fd=folder)
                else:
                    os.chmod(name, 0o700, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise failure_of(error, End.DESTINATION, path) from error

    def _drop_others(self, path: bytes) -> None:
        """Remove from a folder what a predecessor copied and the source has no longer."""
        try:
            folder = open_beneath(self.ends.copy, path, _FOLDER)
            try:
                for name in map(os.fsencode, os.listdir(folder)):
                    if name not in self._names:
                        remove(folder, name)
            finally:
                os.close(folder)
        except OSError as error:
            raise failure_of(error, End.DESTINATION, path) from error

    # --- large files -------------------------------------------------------------------------

    def _copy_large(self, folder: bytes, entry: Entry) -> None:
        path, info, tally = join(folder, entry.name), entry.info, self.tools.tally
        large = LargeFile(path, info, self.log)
        try:
            at = open_beneath(self.ends.copy, folder, _FOLDER)
        except OSError as error:
            raise failure_of(error, End.DESTINATION, path) from error
        try:
            found = lstat(at, entry.name)
            is_there = (
                found is not None and stat.S_ISREG(found.st_mode) and found.st_size == info.st_size
            )
            if is_there and self.log.files.get(large.key) == large.identity:
                tally.kept(1, info.st_size)
                return
            if not (is_there and large.kept_bytes):
                if found is not None:
                    remove(at, entry.name)
                large.forget_segments()
                make(self.ends, path, at, entry.name, info)
        except OSError as error:
            raise failure_of(error, End.DESTINATION, path) from error
        finally:
            os.close(at)
        tally.kept(0, large.kept_bytes)
        for segment in large.missing:
            self._do(partial(self._segment, large, segment))
        if not large.missing:
            self._complete(large)

    def _segment(self, large: LargeFile, segment: int, files: SmallFiles) -> None:
        if copy_segment(self.ends, large, segment, files.desk, self.log):
            self._complete(large)

    def _complete(self, large: LargeFile) -> None:
        complete(self.ends, large, self.tools.keeper, self.log)
        self.tools.tally.completed(1)

    # --- hard links and folders --------------------------------------------------------------

    def _make_links(self) -> None:
        for first, path in self._links:
            self.tools.stop.check()
            above, _, name = path.rpartition(b"/")
            first_above, _, first_name = first.rpartition(b"/")
            try:
                size = self._link(first_above, first_name, above, name)
            except OSError as error:
                raise failure_of(error, End.DESTINATION, path) from error
            self.tools.tally.copied(size)
            self.tools.tally.completed(1)

    def _link(self, from_folder: bytes, from_name: bytes, to_folder: bytes, name: bytes) -> int:
        """Make one hard link, unless it is there. Returns the size of the file."""
        source = open_beneath(self.ends.copy, from_folder, _FOLDER)
        try:
            target = open_beneath(self.ends.copy, to_folder, _FOLDER)
            try:
                info = os.stat(from_name, dir_fd=source, follow_symlinks=False)
                found = lstat(target, name)
                if found is not None and os.path.samestat(found, info):
                    return info.st_size
                remove(target, name)
                os.link(
                    from_name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False
                )
                return info.st_size
            finally:
                os.close(target)
        finally:
            os.close(source)

    def _dress_folders(self) -> None:
        """Inner folders first: one that is dressed may be closed to its owner, too."""
        flushed = flushes_as_a_whole(self.ends.copy)
        for path in reversed(self._folders):
            self.tools.stop.check()
            self._dress_folder(path, flushed)

    def _dress_folder(self, path: bytes, flushed: bool) -> None:
        try:
            fd = open_beneath(self.ends.source, path, _FOLDER)
            try:
                info, attributes = os.fstat(fd), attributes_of(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise failure_of(error, End.SOURCE, path) from error
        if identity(info) != self.seen[name_of(path)]:
            raise changed(path)
        try:
            fd = open_beneath(self.ends.copy, path, _FOLDER)
            try:
                self.tools.keeper.dress(fd, info, attributes)
                if not flushed:
                    os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            raise failure_of(error, End.DESTINATION, path) from error
