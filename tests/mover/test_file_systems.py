"""Real file systems of their own: full disks, disks that fail, other ways to publish.

As root, since they are mounted for each test. Whoever is not root sees each skip with its reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from halo.remote.mover.tree.publishing import move_by_steps
from tests.debian import give_up, require_program
from tests.mover.ground import Ground, Mover, picture, start, wait_for, write

MIB = 1 << 20


def command(*words: str | Path) -> str:
    """Run a program. Fails the test if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


def require_root() -> None:
    if os.geteuid() != 0:
        give_up("needs root, to mount file systems")


def mount_ext4(folder: Path, image: Path, size: int) -> str:
    """Mount an image of its own. Returns the loop device."""
    mkfs, losetup = require_program("mkfs.ext4"), require_program("losetup")
    with image.open("wb") as file:
        file.truncate(size)
    command(mkfs, "-q", "-m", "0", "-O", "^has_journal", image)
    done = subprocess.run(
        [losetup, "--find", "--show", image], capture_output=True, text=True, check=False
    )
    if done.returncode:
        give_up(f"needs loop devices: {done.stderr.strip()}")
    device = done.stdout.strip()
    command("mount", device, folder)
    return device


@pytest.fixture(params=["tmpfs", "ext4"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ground]:
    """A ground whose buffer is a file system of 24 MiB."""
    require_root()
    buffer, device = tmp_path / "bb", ""
    buffer.mkdir()
    if request.param == "tmpfs":
        command("mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "halo-mover", buffer)
    else:
        device = mount_ext4(buffer, tmp_path / "image", 24 * MIB)
    try:
        yield Ground(tmp_path, buffer)
    finally:
        command("umount", "--lazy", buffer)
        if device:
            command("losetup", "--detach", device)


def hidden_files(ground: Ground) -> int:
    """Files that a mover has begun so far."""
    tree = ground.buffer / ".halo-mover-job-7-0" / "tree"
    return len(os.listdir(tree)) if tree.exists() else 0


def fill(ground: Ground) -> Path:
    """Somebody else takes all the room."""
    filler = ground.buffer / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(MIB // 16))
    return filler


def test_a_tree_with_all_kinds(mounted: Ground) -> None:
    write(mounted.source / "a" / "x", b"1", 0o640)
    os.link(mounted.source / "a" / "x", mounted.source / "y")
    (mounted.source / "link").symlink_to("a")
    (mounted.source / "empty").mkdir()
    os.setxattr(mounted.source / "a", "user.colour", b"blue")
    with (mounted.source / "holes").open("wb") as file:
        file.truncate(100 * MIB)
        file.seek(50 * MIB)
        file.write(b"data")
    write(mounted.source / "medium", os.urandom(5 * MIB))
    assert mounted.copy()["state"] == "ready"
    assert picture(mounted.destination) == picture(mounted.source)


def test_no_room_is_seen_before_anything_is_copied(mounted: Ground) -> None:
    write(mounted.source / "x", os.urandom(30 * MIB))
    outcome = mounted.copy()
    assert outcome["state"] == "no-space"
    assert outcome["needed_bytes"] == 30 * MIB
    assert 15 * MIB < outcome["free_bytes"] <= 24 * MIB
    assert mounted.hidden() == []


def test_holes_need_no_room(mounted: Ground) -> None:
    mounted.source.mkdir()
    with (mounted.source / "x").open("wb") as file:
        file.truncate(1000 * MIB)
    assert mounted.copy()["state"] == "ready"


def test_two_copies_are_counted_together(mounted: Ground) -> None:
    pairs = []
    for name in ("a", "b"):
        write(mounted.home / name, os.urandom(13 * MIB))
        pair = {"source": str(mounted.home / name), "destination": str(mounted.buffer / name)}
        pairs.append(pair)
    outcome = mounted.copy(copies=pairs)
    assert (outcome["state"], outcome["needed_bytes"]) == ("no-space", 26 * MIB)
    assert mounted.hidden() == []


def test_a_disk_that_becomes_full(mounted: Ground) -> None:
    """Somebody else fills it meanwhile. When there is room again, a successor goes on."""
    for number in range(30):
        write(mounted.source / f"f{number}", os.urandom(MIB // 2))
    mover = start(mounted.order(bandwidth_bytes_s=3 * MIB))
    wait_for("some files", lambda: hidden_files(mounted) > 6)
    filler = fill(mounted)
    outcome = mover.outcome()
    assert (outcome["state"], mover.process.returncode) == ("no-space", 1)
    assert outcome["needed_bytes"] == 15 * MIB
    assert 0 <= outcome["free_bytes"] < MIB
    assert not mounted.destination.exists()
    filler.unlink()
    outcome = mounted.copy()
    assert (outcome["state"], outcome["files"]) == ("ready", 30)
    assert picture(mounted.destination) == picture(mounted.source)


def test_a_full_disk_can_be_cleaned(mounted: Ground) -> None:
    for number in range(30):
        write(mounted.source / f"f{number}", os.urandom(MIB // 2))
    mover = start(mounted.order(bandwidth_bytes_s=3 * MIB))
    wait_for("some files", lambda: hidden_files(mounted) > 6)
    filler = fill(mounted)
    assert mover.outcome()["state"] == "no-space"
    assert mounted.remove() == {"state": "removed", "removed": 1}
    assert mounted.hidden() == []
    filler.unlink()
    found = os.statvfs(mounted.buffer)
    assert (found.f_blocks - found.f_bfree) * found.f_frsize < 2 * MIB, "something is left"


def test_no_room_for_so_many_files(tmp_path: Path) -> None:
    require_root()
    ground = Ground(tmp_path)
    command("mount", "-t", "tmpfs", "-o", "size=24m,nr_inodes=50", "halo-mover", ground.buffer)
    try:
        for number in range(60):
            write(ground.source / f"f{number}", b"")
        outcome = ground.copy()
        assert outcome["state"] == "no-space"
        assert (outcome["needed_files"], outcome["free_files"] < 50) == (61, True)
    finally:
        command("umount", "--lazy", ground.buffer)


def test_a_disk_that_fails(tmp_path: Path) -> None:
    """The image of the file system lies on a disk that is full, so its blocks cannot be written."""
    require_root()
    below, buffer = tmp_path / "below", tmp_path / "bb"
    below.mkdir()
    buffer.mkdir()
    command("mount", "-t", "tmpfs", "-o", "size=8m", "halo-mover", below)
    device = ""
    try:
        device = mount_ext4(buffer, below / "image", 100 * MIB)
        ground = Ground(tmp_path, buffer)
        write(ground.source / "x", os.urandom(20 * MIB))
        write(ground.source / "y", os.urandom(MIB))
        outcome = ground.copy()
        # The block device says "no room", and the file system may say so of itself.
        assert outcome["state"] in ("io-error", "no-space", "permission-denied"), outcome
        assert outcome["errno"] in ("EIO", "ENOSPC", "EROFS")
        assert not ground.destination.exists()
    finally:
        if os.path.ismount(buffer):
            command("umount", "--lazy", buffer)
        if device:
            command("losetup", "--detach", device)
        command("umount", "--lazy", below)


def test_a_copy_from_one_file_system_to_another_and_back(mounted: Ground) -> None:
    write(mounted.source / "x", os.urandom(2 * MIB))
    assert mounted.copy()["state"] == "ready"
    back = {"source": str(mounted.destination), "destination": str(mounted.home / "back")}
    roots = {"source_roots": [str(mounted.buffer)], "destination_roots": [str(mounted.home)]}
    assert mounted.copy(id="back", copies=[back], **roots)["state"] == "ready"
    assert picture(mounted.home / "back") == picture(mounted.source)


# --- publishing without RENAME_NOREPLACE -----------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_moving_by_steps(folder: int, tmp_path: Path, kind: str) -> None:
    write(tmp_path / "old" if kind == "file" else tmp_path / "old" / "x", b"1")
    inode = (tmp_path / "old").stat().st_ino
    move_by_steps(folder, b"old", folder, b"new")
    assert os.listdir(tmp_path) == ["new"]
    assert (tmp_path / "new").stat().st_ino == inode
    assert (tmp_path / "new").stat().st_nlink == (1 if kind == "file" else 2)


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("taken", ["file", "empty folder", "folder", "link"])
def test_moving_by_steps_overwrites_nothing(
    folder: int, tmp_path: Path, kind: str, taken: str
) -> None:
    write(tmp_path / "old" if kind == "file" else tmp_path / "old" / "x", b"1")
    if taken == "link":
        (tmp_path / "new").symlink_to("nowhere")
    elif taken == "file":
        write(tmp_path / "new", b"theirs")
    else:
        (tmp_path / "new").mkdir()
        if taken == "folder":
            write(tmp_path / "new" / "y", b"theirs")
    before = (tmp_path / "new").lstat()
    with pytest.raises(FileExistsError) as refused:
        move_by_steps(folder, b"old", folder, b"new")
    assert refused.value.errno == errno.EEXIST
    assert os.path.samestat((tmp_path / "new").lstat(), before)
    assert (tmp_path / "old").exists()


@pytest.mark.parametrize("mounted", ["ext4"], indirect=True)
def test_a_signal_frees_a_mover_that_waits_for_a_disk(mounted: Ground) -> None:
    """The file system is frozen, so each write hangs; the mover ends all the same."""
    fsfreeze = require_program("fsfreeze")
    for number in range(30):
        write(mounted.source / f"f{number}", os.urandom(MIB // 2))
    mover: Mover = start(mounted.order(bandwidth_bytes_s=3 * MIB))
    wait_for("some files", lambda: hidden_files(mounted) > 2)
    command(fsfreeze, "--freeze", mounted.buffer)
    try:
        mover.process.terminate()
        # The threads that hang end with the disk; what it said comes at once.
        assert mover.process.stdout is not None
        line = b""
        while b'"outcome"' not in line:
            line = mover.process.stdout.readline()
        assert b'"cancelled"' in line
    finally:
        command(fsfreeze, "--unfreeze", mounted.buffer)
    assert mover.process.wait(60) == 4
