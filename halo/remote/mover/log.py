"""The log of a copy: what is complete, so that a successor need not copy it again.

A line is written after what it says is on the disk. Each line bears a checksum, since the end of a
file may hold anything after a power cut. Reading ends at the first line that is not whole.

    H {...}                             the copy that this log is about
    F path identity checksum            a file is complete
    S path identity segment checksum    a segment of a large file is complete
    P inode                             the tree is complete; it is now moved to its destination
    D inode {...}                       it is there
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from xxhash import xxh32_intdigest

NAME = b"log"
_DRAFT = b"log.new"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE = 1 << 20

Header = dict[str, object]


@dataclass(slots=True)
class Part:
    """What is complete of a large file: the checksum of each segment that is."""

    identity: bytes
    segments: dict[int, bytes] = field(default_factory=dict)


class Log:
    """The log in one working folder. Opened under its lock; used by all threads."""

    def __init__(self, folder: int) -> None:
        """Reads what is there. Raises OSError."""
        self._folder = folder
        self._lock = threading.Lock()
        self.header: Header | None = None
        self.files: dict[bytes, bytes] = {}
        """The identity of each source file whose copy is complete, by the name of its path."""
        self.parts: dict[bytes, Part] = {}
        self.published: int | None = None
        """The inode that was, or is, about to be moved to the destination."""
        self.finished: Header | None = None
        self._fd = os.open(NAME, _FLAGS, 0o600, dir_fd=folder)
        try:
            end = self._read()
            os.ftruncate(self._fd, end)
            os.lseek(self._fd, end, os.SEEK_SET)
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def has_begun(self) -> bool:
        """Is anything complete?"""
        return bool(self.files or self.parts or self.published or self.finished)

    def close(self) -> None:
        """Nothing is written afterwards."""
        os.close(self._fd)

    def begin(self, header: Header) -> None:
        """Say what this log is about, and forget everything else."""
        self.files.clear()
        self.parts.clear()
        self.published = self.finished = None
        self.header = header
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)
        self._write([b"H " + json.dumps(header).encode()])
        os.fsync(self._folder)

    def add_files(self, files: Iterable[tuple[bytes, bytes, bytes]]) -> None:
        """Files are complete: the name of the path, the identity, the checksum of each."""
        self._write([b"F %s %s %s" % tuple(map(_hex, file)) for file in files])

    def add_segment(self, path: bytes, identity: bytes, segment: int, checksum: bytes) -> None:
        """A segment of a large file is complete."""
        self._write([b"S %s %s %d %s" % (_hex(path), _hex(identity), segment, _hex(checksum))])

    def publishing(self, inode: int) -> None:
        """The tree, whose inode this is, is about to be moved to its destination."""
        self._write([b"P %d" % inode])
        self.published = inode

    def finish(self, inode: int, result: Header) -> None:
        """The tree is at its destination. What is written of its files is dropped: one file of two
        lines takes the place of the log."""
        header = json.dumps(self.header).encode()
        lines = [b"H " + header, b"D %d " % inode + json.dumps(result).encode()]
        draft = os.open(_DRAFT, _FLAGS | os.O_TRUNC, 0o600, dir_fd=self._folder)
        try:
            _write_whole(draft, b"".join(map(_line, lines)))
            os.fsync(draft)
        finally:
            os.close(draft)
        os.rename(_DRAFT, NAME, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder)
        self.published, self.finished = inode, result

    def _write(self, lines: list[bytes]) -> None:
        if lines:
            with self._lock:
                _write_whole(self._fd, b"".join(map(_line, lines)))
                os.fdatasync(self._fd)

    def _read(self) -> int:
        """Take in every whole line. Returns where the last one ends."""
        end, rest = 0, b""
        while piece := os.read(self._fd, _PIECE):
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                body, _, checksum = line.rpartition(b" ")
                if checksum != b"%08x" % xxh32_intdigest(body) or not self._take(body):
                    return end
                end += len(line) + 1
        return end

    def _take(self, body: bytes) -> bool:
        """One line. False if it makes no sense."""
        kind, _, rest = body.partition(b" ")
        try:
            if kind == b"H":
                self.header = json.loads(rest)
            elif kind == b"F":
                path, identity, _checksum = map(bytes.fromhex, rest.decode().split(" "))
                self.files[path] = identity
                self.parts.pop(path, None)
            elif kind == b"S":
                self._take_segment(*rest.decode().split(" "))
            elif kind == b"P":
                self.published = int(rest)
            elif kind == b"D":
                inode, _, result = rest.partition(b" ")
                self.published, self.finished = int(inode), json.loads(result)
            else:
                return False
        except (ValueError, TypeError):
            return False
        return True

    def _take_segment(self, path: str, identity: str, segment: str, checksum: str) -> None:
        key, seen = bytes.fromhex(path), bytes.fromhex(identity)
        part = self.parts.get(key)
        if part is None or part.identity != seen:
            part = self.parts[key] = Part(seen)
        part.segments[int(segment)] = bytes.fromhex(checksum)


def _hex(value: bytes) -> bytes:
    return value.hex().encode()


def _line(body: bytes) -> bytes:
    return b"%s %08x\n" % (body, xxh32_intdigest(body))


def _write_whole(fd: int, text: bytes) -> None:
    while text:
        text = text[os.write(fd, text) :]
