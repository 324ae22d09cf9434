"""What a mover leaves behind when it dies at any step, and what a successor makes of it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mover.ground import Ground, Outcome, carry_out, picture, start, wait_for, write
from tests.mover.steps import die_at, makes, once, reads_back

MIB = 1 << 20
STEPS_LIMIT = 1000


@pytest.fixture
def fast() -> Iterator[Ground]:
    """A ground in memory where there is one: a flush takes no time there."""
    shm = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=shm if os.access(shm, os.W_OK) else None))
    try:
        yield Ground(folder)
    finally:
        shutil.rmtree(folder)


def small_tree(ground: Ground) -> None:
    """Something of each kind."""
    write(ground.source / "x", b"1")
    write(ground.source / "sub" / "y", b"22", 0o400)
    (ground.source / "sub" / "link").symlink_to("y")
    (ground.source / "empty").mkdir()
    os.link(ground.source / "x", ground.source / "sub" / "hard")
    with (ground.source / "large").open("wb") as file:
        file.truncate(20 * MIB)
        file.seek(18 * MIB)
        file.write(b"data")
    (ground.source / "sub").chmod(0o750)


def copies_to(ground: Ground, number: int) -> Outcome:
    """An order with a destination of its own."""
    pair = {"source": str(ground.source), "destination": str(ground.buffer / f"d{number}")}
    return ground.order(id=f"n{number}", copies=[pair], threads=1)


def is_whole_or_absent(ground: Ground, number: int) -> bool:
    found = ground.buffer / f"d{number}"
    return not os.path.lexists(found) or picture(found) == picture(ground.source)


def every_step(run: Callable[[int], Outcome]) -> int:
    """Run with a death at the first step, the second, and so on, until none comes."""
    for step in range(1, STEPS_LIMIT):
        if run(step):
            return step
    raise AssertionError(f"no end within {STEPS_LIMIT} steps")


def test_death_at_any_step_leaves_nothing_half(fast: Ground) -> None:
    small_tree(fast)

    def run(step: int) -> Outcome:
        order = copies_to(fast, step)
        first = carry_out(order, die_at(step))
        assert is_whole_or_absent(fast, step), step
        assert carry_out(order)["state"] == "ready", step
        assert picture(fast.buffer / f"d{step}") == picture(fast.source), step
        hidden = os.listdir(fast.buffer / f".halo-mover-n{step}-0")
        assert set(hidden) <= {"lock", "log", "progress"}, step
        shutil.rmtree(fast.buffer / f"d{step}")
        return first

    assert every_step(run) > 50


def test_death_at_any_step_of_a_successor(fast: Ground) -> None:
    small_tree(fast)
    steps = every_step(lambda step: carry_out(copies_to(fast, 2000 + step), die_at(step)))
    for first in (steps // 3, steps // 2, 3 * steps // 4):

        def run(step: int, first: int = first) -> Outcome:
            number = STEPS_LIMIT * first + step
            order = copies_to(fast, number)
            assert carry_out(order, die_at(first)) == {}
            second = carry_out(order, die_at(step))
            assert is_whole_or_absent(fast, number), (first, step)
            assert carry_out(order)["state"] == "ready", (first, step)
            assert picture(fast.buffer / f"d{number}") == picture(fast.source), (first, step)
            shutil.rmtree(fast.buffer / f"d{number}")
            return second

        every_step(run)


def test_death_at_any_step_of_a_removal(fast: Ground) -> None:
    small_tree(fast)

    def run(step: int) -> Outcome:
        order = copies_to(fast, step)
        carry_out(order, once(reads_back(b"x"), lambda: os._exit(9)))
        remove = {**order, "action": "remove"}
        first = carry_out(remove, die_at(step))
        assert carry_out(remove)["state"] == "removed"
        assert os.listdir(fast.buffer) == [], step
        return first

    assert every_step(run) > 10


def test_death_of_a_mover_of_one_file_at_any_step(fast: Ground) -> None:
    write(fast.source, b"alone")

    def run(step: int) -> Outcome:
        order = copies_to(fast, step)
        first = carry_out(order, die_at(step))
        found = fast.buffer / f"d{step}"
        assert not found.exists() or found.read_bytes() == b"alone", step
        assert carry_out(order)["state"] == "ready", step
        assert found.read_bytes() == b"alone", step
        assert found.stat().st_nlink == 1, step
        return first

    every_step(run)


# --- what is complete is not copied again ----------------------------------------------------


def test_what_is_complete_is_kept(ground: Ground) -> None:
    small_tree(ground)
    in_the_way = ground.destination
    outcome = carry_out(ground.order(), once(reads_back(b"x"), in_the_way.mkdir))
    assert outcome["state"] == "destination-present"
    tree = ground.buffer / ".halo-mover-job-7-0" / "tree"
    before = {name: (tree / name).stat().st_ino for name in ("x", "large", "sub/y")}
    in_the_way.rmdir()
    outcome = ground.copy()
    assert (outcome["state"], outcome["files"], outcome["files_kept"]) == ("ready", 5, 4)
    assert outcome["bytes_kept"] == 20 * MIB + 3
    after = {name: (ground.destination / name).stat().st_ino for name in before}
    assert after == before
    assert picture(ground.destination) == picture(ground.source)


def test_segments_that_are_complete_are_kept(ground: Ground) -> None:
    ground.source.mkdir()
    large = ground.source / "large"
    with large.open("wb") as file:
        file.truncate(700 * MIB)
        for offset in (0, 300, 699):
            file.seek(offset * MIB)
            file.write(os.urandom(MIB))
    path = ground.source / "large"
    mover = start(ground.order(bandwidth_bytes_s=MIB // 2, threads=1))
    log = ground.buffer / ".halo-mover-job-7-0" / "log"
    wait_for("a segment", lambda: log.exists() and b"\nS " in log.read_bytes())
    mover.kill()
    copy = ground.buffer / ".halo-mover-job-7-0" / "tree" / "large"
    inode = copy.stat().st_ino
    outcome = ground.copy()
    assert outcome["state"] == "ready"
    assert outcome["bytes_kept"] in (256 * MIB, 512 * MIB)
    assert (ground.destination / "large").stat().st_ino == inode
    assert (ground.destination / "large").read_bytes() == path.read_bytes()


def test_a_file_that_changed_since_is_copied_again(ground: Ground) -> None:
    small_tree(ground)
    carry_out(ground.order(), once(reads_back(b"x"), ground.destination.mkdir))
    ground.destination.rmdir()
    write(ground.source / "x", b"3")
    outcome = ground.copy()
    assert (outcome["state"], outcome["files_kept"]) == ("ready", 3)
    assert picture(ground.destination) == picture(ground.source)


def test_a_source_that_became_something_else_since(ground: Ground) -> None:
    """Folders became files, files became folders, and something is gone."""
    small_tree(ground)
    carry_out(ground.order(), once(reads_back(b"x"), ground.destination.mkdir))
    ground.destination.rmdir()
    shutil.rmtree(ground.source)
    write(ground.source / "x" / "within", b"1")
    write(ground.source / "sub", b"2")
    (ground.source / "empty").symlink_to("x")
    assert ground.copy()["state"] == "ready"
    assert picture(ground.destination) == picture(ground.source)


def test_a_copy_that_lost_a_file_gets_it_again(ground: Ground) -> None:
    small_tree(ground)
    carry_out(ground.order(), once(reads_back(b"x"), ground.destination.mkdir))
    ground.destination.rmdir()
    tree = ground.buffer / ".halo-mover-job-7-0" / "tree"
    (tree / "sub" / "y").unlink()
    (tree / "large").unlink()
    write(tree / "stray", b"?")
    assert ground.copy()["state"] == "ready"
    assert picture(ground.destination) == picture(ground.source)


# --- orders that come again ------------------------------------------------------------------


def test_the_same_order_again_is_ready_at_once(ground: Ground) -> None:
    small_tree(ground)
    first = ground.copy()
    inode = ground.destination.stat().st_ino
    shutil.rmtree(ground.source)  # it is not even looked at
    again = ground.copy()
    assert again["state"] == "ready"
    assert (again["files"], again["bytes"]) == (first["files"], first["bytes"])
    assert again["files_kept"] == first["files"]
    assert ground.destination.stat().st_ino == inode


def test_a_copy_that_was_moved_away_is_not_made_again(ground: Ground) -> None:
    write(ground.source, b"1")
    assert ground.copy()["state"] == "ready"
    ground.destination.rename(ground.buffer / "elsewhere")
    assert ground.copy()["state"] == "destination-gone"
    write(ground.destination, b"of somebody else")
    assert ground.copy()["state"] == "destination-gone"
    assert ground.remove()["removed"] == 1
    assert ground.copy()["state"] == "destination-present"


def test_nothing_is_overwritten(ground: Ground) -> None:
    write(ground.source / "x", b"1")
    write(ground.destination / "x", b"of somebody else")
    outcome = ground.copy()
    assert (outcome["state"], outcome["path"]) == ("destination-present", str(ground.destination))
    assert (ground.destination / "x").read_bytes() == b"of somebody else"
    assert ground.hidden() == []


@pytest.mark.parametrize("is_file", [True, False], ids=["file", "folder"])
@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_appears_meanwhile_is_not_overwritten(
    ground: Ground, kind: str, is_file: bool
) -> None:
    makers: dict[str, Callable[[], object]] = {
        "file": lambda: ground.destination.write_bytes(b"theirs"),
        "folder": ground.destination.mkdir,
        "link": lambda: ground.destination.symlink_to("nowhere"),
    }
    make = makers[kind]
    name = "data" if is_file else "x"
    write(ground.source if is_file else ground.source / "x", b"1")
    outcome = carry_out(ground.order(), once(makes(name.encode()), make))
    assert outcome["state"] == "destination-present"
    before = ground.destination.lstat()
    assert ground.copy()["state"] == "destination-present"
    assert os.path.samestat(ground.destination.lstat(), before)
    assert ground.remove()["removed"] == 1
    assert ground.hidden() == []


def test_another_order_of_the_same_id_is_refused(ground: Ground) -> None:
    write(ground.source, b"1")
    write(ground.home / "other", b"2")
    assert ground.copy()["state"] == "ready"
    other = [{"source": str(ground.home / "other"), "destination": str(ground.destination)}]
    assert ground.copy(copies=other)["state"] == "other-order"
    assert ground.copy(copies=other, action="remove")["state"] == "other-order"
    assert ground.destination.read_bytes() == b"1"


def test_removing_leaves_what_is_complete(ground: Ground) -> None:
    write(ground.source / "x", b"1")
    assert ground.copy()["state"] == "ready"
    assert ground.remove() == {"state": "removed", "removed": 1}
    assert os.listdir(ground.buffer) == ["data"]
    assert ground.remove() == {"state": "removed", "removed": 0}


def test_removing_where_nothing_is(ground: Ground) -> None:
    pair = {"source": "/nowhere/x", "destination": str(ground.buffer / "a" / "b")}
    assert ground.copy(copies=[pair], action="remove") == {"state": "removed", "removed": 0}


# --- working folders that are not what they should be ----------------------------------------


def test_a_link_in_the_place_of_the_working_folder(ground: Ground, tmp_path: Path) -> None:
    write(ground.source / "x", b"1")
    write(tmp_path / "theirs" / "log", b"theirs")
    (ground.buffer / ".halo-mover-job-7-0").symlink_to(tmp_path / "theirs")
    for action in ("copy", "remove"):
        assert ground.copy(action=action)["state"] == "io-error"
    assert os.listdir(tmp_path / "theirs") == ["log"]
    assert (tmp_path / "theirs" / "log").read_bytes() == b"theirs"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give folders away")
def test_a_working_folder_of_another_user(ground: Ground) -> None:
    write(ground.source / "x", b"1")
    hidden = ground.buffer / ".halo-mover-job-7-0"
    hidden.mkdir()
    os.chown(hidden, 1234, 1234)
    outcome = ground.copy()
    assert outcome["state"] == "permission-denied"
    assert "belongs to user 1234" in outcome["message"]
    assert os.listdir(hidden) == []


@pytest.mark.parametrize("damage", [b"", b"garbage\n", b"\0" * 5000, b"F 00 00 00 00000000\n"])
def test_a_damaged_end_of_the_log_is_dropped(ground: Ground, damage: bytes) -> None:
    small_tree(ground)
    carry_out(ground.order(), once(reads_back(b"x"), ground.destination.mkdir))
    ground.destination.rmdir()
    log = ground.buffer / ".halo-mover-job-7-0" / "log"
    content = log.read_bytes()
    log.write_bytes(content[: len(content) // 2] + damage)
    outcome = ground.copy()
    assert outcome["state"] == "ready"
    assert picture(ground.destination) == picture(ground.source)


def test_a_log_that_says_nothing_counts_for_nothing(ground: Ground) -> None:
    small_tree(ground)
    carry_out(ground.order(), once(reads_back(b"x"), ground.destination.mkdir))
    ground.destination.rmdir()
    (ground.buffer / ".halo-mover-job-7-0" / "log").write_bytes(b"")
    outcome = ground.copy()
    assert (outcome["state"], outcome["files_kept"]) == ("ready", 0)
    assert picture(ground.destination) == picture(ground.source)
