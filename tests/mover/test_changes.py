"""What happens to a source or a copy meanwhile is seen."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.mover.ground import Ground, carry_out, picture, write
from tests.mover.steps import has_listed, makes, once, reads_back

MIB = 1 << 20


def same_time(path: Path, content: bytes) -> None:
    """Write, and set the old time, as some programs do."""
    info = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def replaced(path: Path) -> None:
    """Another file of the same size and time takes the place."""
    info, other = path.stat(), path.parent.parent / "other"
    other.write_bytes(b"2")
    os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
    os.replace(other, path)


def becomes_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def leads_elsewhere(link: Path) -> None:
    link.unlink()
    link.symlink_to("elsewhere")


CHANGES: dict[str, Callable[[Path], object]] = {
    "longer": lambda source: (source / "x").write_bytes(b"longer"),
    "shorter": lambda source: (source / "x").write_bytes(b""),
    "other content, same size": lambda source: (source / "x").write_bytes(b"2"),
    "other content, same size and time": lambda source: same_time(source / "x", b"2"),
    "replaced": lambda source: replaced(source / "x"),
    "removed": lambda source: (source / "x").unlink(),
    "other mode": lambda source: (source / "x").chmod(0o600),
    "a pipe now": lambda source: becomes_a_pipe(source / "x"),
}
IN_THE_TREE: dict[str, Callable[[Path], object]] = {
    "a new file": lambda source: write(source / "sub" / "new", b"3"),
    "a new folder": lambda source: (source / "new").mkdir(),
    "a file removed": lambda source: (source / "sub" / "y").unlink(),
    "a folder removed": lambda source: shutil.rmtree(source / "sub"),
    "another link": lambda source: leads_elsewhere(source / "link"),
}


@pytest.fixture
def tree(ground: Ground) -> Ground:
    write(ground.source / "x", b"1")
    write(ground.source / "sub" / "y", b"2")
    (ground.source / "link").symlink_to("x")
    return ground


def never_published(ground: Ground, outcome: dict[str, object]) -> None:
    """The outcome names the change, and a second order copies what there is now."""
    assert outcome["state"] in ("source-changed", "source-unsupported"), outcome
    assert not ground.destination.exists()
    if outcome["state"] == "source-changed" and not (ground.source / "x").is_fifo():
        assert ground.copy()["state"] == "ready"
        assert picture(ground.destination) == picture(ground.source)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_file_that_changes_while_it_is_copied(
    tree: Ground, change: Callable[[Path], object]
) -> None:
    outcome = carry_out(tree.order(), once(makes(b"x"), lambda: change(tree.source)))
    assert outcome["path"] == "x"
    never_published(tree, outcome)


@pytest.mark.parametrize(
    "change", [*CHANGES.values(), *IN_THE_TREE.values()], ids=[*CHANGES, *IN_THE_TREE]
)
def test_a_tree_that_changes_after_it_was_copied(
    tree: Ground, change: Callable[[Path], object]
) -> None:
    outcome = carry_out(tree.order(), once(reads_back(b"x"), lambda: change(tree.source)))
    never_published(tree, outcome)


def test_a_copy_that_is_not_what_was_written(tree: Ground) -> None:
    copy = tree.buffer / ".halo-mover-job-7-0" / "tree" / "x"
    outcome = carry_out(tree.order(), once(reads_back(b"x"), lambda: copy.write_bytes(b"?")))
    assert (outcome["state"], outcome["path"]) == ("not-verified", "x")
    assert not tree.destination.exists()
    assert tree.copy()["state"] == "ready"
    assert picture(tree.destination) == picture(tree.source)


@pytest.mark.parametrize("size", [5 * MIB, 20 * MIB], ids=["medium", "large"])
def test_a_larger_copy_that_is_not_what_was_written(ground: Ground, size: int) -> None:
    write(ground.source / "x", os.urandom(size))
    copy = ground.buffer / ".halo-mover-job-7-0" / "tree" / "x"

    def spoil() -> None:
        while True:
            try:
                with copy.open("r+b") as file:
                    while True:
                        file.seek(size // 2)
                        file.write(os.urandom(8))
                        file.flush()
            except FileNotFoundError:
                time.sleep(0.001)

    outcome = carry_out(ground.order(), lambda: threading.Thread(target=spoil, daemon=True).start())
    assert (outcome["state"], outcome["path"]) == ("not-verified", "x")
    assert ground.copy()["state"] == "ready"
    assert picture(ground.destination) == picture(ground.source)


# --- hostile trees ---------------------------------------------------------------------------


def swap(path: Path, secret: Path) -> None:
    """Another user puts a link in the place of something."""
    os.rename(path, path.parent.parent / "aside")
    path.symlink_to(secret)


def has_secret(ground: Ground) -> bool:
    """Does anything below the buffer hold what nobody may copy?"""
    for folder, _, files in os.walk(ground.buffer):
        for name in files:
            path = Path(folder) / name
            if not path.is_symlink() and b"secret" in path.read_bytes():
                return True
    return False


@pytest.mark.parametrize("listed", range(1, 5))
def test_a_folder_that_becomes_a_link(tree: Ground, listed: int) -> None:
    secret = write(tree.home / "other" / "y", b"secret").parent
    act = once(has_listed(listed), lambda: swap(tree.source / "sub", secret))
    outcome = carry_out(tree.order(), act)
    assert outcome["state"] in ("source-changed", "ready")
    assert not has_secret(tree)
    if outcome["state"] == "ready":
        assert os.readlink(tree.destination / "sub") == str(secret)


@pytest.mark.parametrize("listed", range(1, 5))
def test_a_file_that_becomes_a_link(tree: Ground, listed: int) -> None:
    secret = write(tree.home / "other" / "y", b"secret")
    act = once(has_listed(listed), lambda: swap(tree.source / "x", secret))
    outcome = carry_out(tree.order(), act)
    assert outcome["state"] in ("source-changed", "ready")
    assert not has_secret(tree)


def test_a_folder_that_becomes_a_link_again_and_again(ground: Ground) -> None:
    """However the race ends, nothing behind the link is copied."""
    sub = ground.source / "a" / "sub"
    for number in range(50):
        write(sub / f"f{number}", b"open")
        write(ground.home / "other" / f"f{number}", b"secret")
    link = ground.home / "link"
    link.symlink_to(ground.home / "other")
    over = threading.Event()

    def flip() -> None:
        while not over.is_set():
            os.rename(sub, ground.home / "aside")
            os.rename(link, sub)
            os.rename(sub, link)
            os.rename(ground.home / "aside", sub)

    flipper = threading.Thread(target=flip)
    flipper.start()
    try:
        outcomes = [ground.copy(id=f"n{n}", copies=[pair(ground, n)]) for n in range(40)]
    finally:
        over.set()
        flipper.join()
    bad = [o for o in outcomes if o["state"] not in ("source-changed", "ready")]
    assert bad == []
    assert not has_secret(ground)


def pair(ground: Ground, number: int) -> dict[str, str]:
    return {"source": str(ground.source), "destination": str(ground.buffer / str(number))}
