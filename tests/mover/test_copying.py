"""A copy is the same as its source, and nobody sees half of it."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from halo.remote.mover.workspace import remove
from tests.mover.ground import Ground, carry_out, picture, write

MIB = 1 << 20


def test_a_tree_is_copied(ground: Ground) -> None:
    write(ground.source / "a" / "small", b"hello", 0o640)
    write(ground.source / "a" / "b" / "none", b"")
    write(ground.source / "medium", os.urandom(3 * MIB + 7), 0o444)
    write(ground.source / "one block", os.urandom(MIB))
    (ground.source / "empty" / "within").mkdir(parents=True)
    (ground.source / "empty").chmod(0o555)
    os.utime(ground.source / "empty", ns=(10**18, 10**18 + 7))
    before = picture(ground.source)
    outcome = ground.copy()
    assert outcome["state"] == "ready"
    assert (outcome["files"], outcome["bytes"]) == (4, 4 * MIB + 12)
    assert (outcome["files_kept"], outcome["bytes_kept"], outcome["attributes_lost"]) == (0, 0, 0)
    assert picture(ground.destination) == before


def test_a_single_file_is_copied(ground: Ground) -> None:
    write(ground.source, b"alone", 0o600)
    write(ground.home / "other", b"not this one")
    os.utime(ground.source, ns=(5, 10**18 + 3))
    assert ground.copy()["state"] == "ready"
    assert ground.destination.read_bytes() == b"alone"
    found, source = ground.destination.stat(), ground.source.stat()
    assert (found.st_mtime_ns, found.st_mode) == (source.st_mtime_ns, source.st_mode)
    assert sorted(os.listdir(ground.buffer)) == [".halo-mover-job-7-0", "data"]


def test_a_whole_root_is_copied(ground: Ground) -> None:
    write(ground.home / "x", b"1")
    copies = [{"source": str(ground.home), "destination": str(ground.destination)}]
    assert ground.copy(copies=copies)["state"] == "ready"
    assert picture(ground.destination) == picture(ground.home)


def test_times_of_the_last_access_are_kept(ground: Ground) -> None:
    path = write(ground.source / "x", b"1")
    os.utime(path, ns=(10**18 + 1, 10**18 + 2))
    assert ground.copy()["state"] == "ready"
    assert (ground.destination / "x").stat().st_atime_ns == 10**18 + 1


def test_links_are_copied_as_text(ground: Ground) -> None:
    secret = write(ground.home / "secret", b"do not copy")
    write(ground.source / "x", b"1")
    for name, text in {"out": str(secret), "up": "../../..", "gone": "nowhere", "in": "x"}.items():
        (ground.source / name).symlink_to(text)
    os.utime(ground.source / "gone", ns=(10**18, 10**18), follow_symlinks=False)
    assert ground.copy()["state"] == "ready"
    assert picture(ground.destination) == picture(ground.source)
    assert os.readlink(ground.destination / "out") == str(secret)


def test_hard_links_within_a_tree_are_kept(ground: Ground) -> None:
    first = write(ground.source / "b" / "first", b"x" * 5000)
    (ground.source / "a").mkdir()
    os.link(first, ground.source / "a" / "second")
    os.link(first, ground.home / "outside")
    os.link(write(ground.source / "lonely", b"y"), ground.home / "outside2")
    assert ground.copy()["state"] == "ready"
    a, b = ground.destination / "a" / "second", ground.destination / "b" / "first"
    assert a.stat().st_ino == b.stat().st_ino
    assert a.stat().st_nlink == 2
    assert (ground.destination / "lonely").stat().st_nlink == 1
    assert a.read_bytes() == b"x" * 5000


def sparse(path: Path, size: int, *data: tuple[int, bytes]) -> Path:
    """A file of holes, with some data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
        for offset, content in data:
            file.seek(offset)
            file.write(content)
        os.fsync(file.fileno())
    return path


def test_holes_stay_holes(ground: Ground) -> None:
    pieces = [(0, b"a" * 4096), (300 * MIB, b"b" * 8192), (600 * MIB - 10, b"c" * 10)]
    large = sparse(ground.source / "large", 600 * MIB, *pieces)
    sparse(ground.source / "all hole", 300 * MIB)
    sparse(ground.source / "hole at the end", 64 * 1024, (0, b"d" * 4096))
    sparse(ground.source / "hole first", 5 * MIB, (5 * MIB - 4096, b"e" * 4096))
    assert large.stat().st_blocks * 512 < MIB, "the file system of the test has no holes"
    outcome = ground.copy()
    assert outcome["state"] == "ready"
    assert outcome["bytes"] == 905 * MIB + 64 * 1024
    assert picture(ground.destination) == picture(ground.source)
    for path in ground.source.iterdir():
        copied = (ground.destination / path.name).stat()
        assert copied.st_blocks == path.stat().st_blocks, path.name


def test_a_large_file_is_copied_in_segments(ground: Ground) -> None:
    content = os.urandom(MIB) * 17
    sparse(ground.source / "large", 520 * MIB, (0, content), (250 * MIB, content))
    write(ground.source / "dense", content + b"end")
    assert ground.copy(threads=4)["state"] == "ready"
    assert picture(ground.destination) == picture(ground.source)


def test_names_may_be_anything(ground: Ground) -> None:
    ground.source.mkdir()
    top = os.fsencode(ground.source)
    names = [b"\xff\xfe", b"new\nline", b"-rf", b"*", b" ", b"x" * 255, b".halo-mover-", b"'\"\\"]
    for name in names:
        os.mkdir(top + b"/" + name)
        for inner in names:
            with open(top + b"/" + name + b"/" + inner, "wb") as file:
                file.write(inner)
    assert ground.copy()["state"] == "ready"
    assert picture(ground.destination) == picture(ground.source)


def make_deep(top: Path, name: bytes, depth: int) -> None:
    """Folders within folders, with a file in the innermost."""
    top.mkdir()
    at = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=at)
        inner = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(os.open(b"end", os.O_WRONLY | os.O_CREAT, dir_fd=at))
    os.close(at)


def test_a_deep_tree_is_copied_and_removed(ground: Ground) -> None:
    make_deep(ground.source, b"d", 1900)
    assert ground.copy()["state"] == "ready"
    assert len(picture(ground.destination)) == 1902
    for folder in (ground.home, ground.buffer):
        fd = os.open(folder, os.O_RDONLY)
        remove(fd, b"data")
        os.close(fd)
        assert "data" not in os.listdir(folder)


def test_a_tree_that_is_too_deep_is_refused(ground: Ground) -> None:
    make_deep(ground.source, b"d" * 200, 25)
    outcome = ground.copy()
    assert outcome["state"] == "path-too-long"
    assert "4000 bytes" in outcome["message"]
    assert len(outcome["message"]) < 500
    assert os.listdir(ground.buffer) == []


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An access control list as the kernel stores it: tag, permissions, id."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


ANYBODY = 0xFFFFFFFF
ACL = acl((1, 7, ANYBODY), (2, 5, 1234), (4, 5, ANYBODY), (16, 5, ANYBODY), (32, 0, ANYBODY))


def test_attributes_and_access_control_lists_are_kept(ground: Ground) -> None:
    path = write(ground.source / "x", b"1", 0o750)
    os.setxattr(path, "user.colour", b"blue")
    os.setxattr(ground.source, "user.empty", b"")
    os.setxattr(path, "system.posix_acl_access", ACL)
    os.setxattr(ground.source, "system.posix_acl_default", ACL)
    outcome = ground.copy()
    assert (outcome["state"], outcome["attributes_lost"]) == ("ready", 0)
    assert picture(ground.destination) == picture(ground.source)
    assert os.getxattr(ground.destination / "x", "system.posix_acl_access") == ACL


def test_nothing_is_inherited_from_the_folder_of_the_destination(ground: Ground) -> None:
    write(ground.source / "a" / "x", b"1", 0o600)
    ground.buffer.chmod(0o2775)
    os.setxattr(ground.buffer, "system.posix_acl_default", ACL)
    assert ground.copy()["state"] == "ready"
    assert picture(ground.destination) == picture(ground.source)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")
def test_owners_are_kept(ground: Ground) -> None:
    path = write(ground.source / "a" / "x", b"1")
    os.symlink("x", ground.source / "link")
    for owned in (path, ground.source / "a", ground.source / "link"):
        os.chown(owned, 1234, 4321, follow_symlinks=False)
    path.chmod(0o6755)  # the owner is set first, which would clear these bits
    assert ground.copy()["state"] == "ready"
    assert picture(ground.destination) == picture(ground.source)
    assert stat.S_IMODE((ground.destination / "a" / "x").stat().st_mode) == 0o6755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make devices")
def test_a_device_is_refused(ground: Ground) -> None:
    ground.source.mkdir()
    os.mknod(ground.source / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    outcome = ground.copy()
    assert (outcome["state"], outcome["path"]) == ("source-unsupported", "zero")
    assert "a device" in outcome["message"]


def test_a_pipe_is_refused_before_anything_is_copied(ground: Ground) -> None:
    write(ground.source / "a", b"1")
    os.mkfifo(ground.source / "pipe")
    outcome = ground.copy()
    assert (outcome["state"], outcome["path"]) == ("source-unsupported", "pipe")
    assert os.listdir(ground.buffer) == []


def test_the_ends_may_be_swapped(ground: Ground) -> None:
    """A stage-out is the same order."""
    write(ground.source / "a" / "x", b"result")
    assert ground.copy()["state"] == "ready"
    outcome = carry_out(
        {
            "id": "out",
            "copies": [
                {"source": str(ground.destination), "destination": str(ground.home / "back")}
            ],
            "source_roots": [str(ground.buffer)],
            "destination_roots": [str(ground.home)],
        }
    )
    assert outcome["state"] == "ready"
    assert picture(ground.home / "back") == picture(ground.source)


def test_working_folders_of_movers_are_not_copied(ground: Ground) -> None:
    write(ground.source / "x", b"1")
    assert ground.copy()["state"] == "ready"
    copies = [{"source": str(ground.buffer), "destination": str(ground.home / "all")}]
    roots = {"source_roots": [str(ground.buffer)], "destination_roots": [str(ground.home)]}
    assert ground.copy(id="out", copies=copies, **roots)["state"] == "ready"
    assert os.listdir(ground.home / "all") == ["data"]


def test_several_copies_in_one_order(ground: Ground) -> None:
    write(ground.home / "a" / "x", b"1")
    write(ground.home / "b", b"22")
    copies = [
        {"source": str(ground.home / name), "destination": str(ground.buffer / name)}
        for name in ("a", "b")
    ]
    outcome = ground.copy(copies=copies)
    assert (outcome["state"], outcome["files"], outcome["bytes"]) == ("ready", 2, 3)
    assert (ground.buffer / "a" / "x").read_bytes() == b"1"
    assert (ground.buffer / "b").read_bytes() == b"22"
    assert ground.copy(copies=copies)["files_kept"] == 2
    assert ground.copy(copies=copies, action="remove")["removed"] == 2
    assert sorted(os.listdir(ground.buffer)) == ["a", "b"]
