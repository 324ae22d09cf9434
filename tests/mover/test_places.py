"""Both ends stay below their roots, and no link is followed on the way."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from halo.remote.mover import kernel
from tests.mover.ground import Ground, write

WAYS: dict[str, Callable[[int, bytes, int], int]] = {
    "openat2": kernel.open_beneath,
    "steps": kernel.open_by_steps,
}


@pytest.fixture(params=WAYS)
def open_in(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[bytes, int], None]:
    """Opens a path below `tmp_path`, which has a folder, a file, and links to both."""
    if request.param == "openat2" and not kernel.has_openat2():
        pytest.skip("this kernel has no openat2")
    write(tmp_path / "root" / "folder" / "file", b"1")
    write(tmp_path / "outside", b"secret")
    for name, text in {"to-folder": "folder", "to-outside": "../outside", "up": ".."}.items():
        (tmp_path / "root" / name).symlink_to(text)
    (tmp_path / "root" / "folder" / "to-file").symlink_to("file")

    def open_it(path: bytes, flags: int) -> None:
        folder = os.open(tmp_path / "root", os.O_RDONLY)
        try:
            os.close(WAYS[request.param](folder, path, flags))
        finally:
            os.close(folder)

    return open_it


@pytest.mark.parametrize("path", [b"folder", b"folder/file"])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_PATH], ids=["read", "path"])
def test_what_is_below_is_opened(
    open_in: Callable[[bytes, int], None], path: bytes, flags: int
) -> None:
    open_in(path, flags)


@pytest.mark.parametrize(
    "path",
    [b"to-folder", b"to-folder/file", b"to-outside", b"up/outside", b"folder/to-file", b"up"],
)
@pytest.mark.parametrize(
    "flags",
    [os.O_RDONLY, os.O_PATH, os.O_RDONLY | os.O_DIRECTORY],
    ids=["read", "path", "folder"],
)
def test_a_link_is_not_followed(
    open_in: Callable[[bytes, int], None], path: bytes, flags: int
) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        open_in(path, flags)


@pytest.mark.parametrize("path", [b"../outside", b"folder/../../outside", b".."])
def test_nothing_above_is_opened(open_in: Callable[[bytes, int], None], path: bytes) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
        open_in(path, os.O_RDONLY)


def test_what_is_missing_is_said(open_in: Callable[[bytes, int], None]) -> None:
    with pytest.raises(FileNotFoundError):
        open_in(b"folder/nothing", os.O_RDONLY)
    with pytest.raises(NotADirectoryError):
        open_in(b"folder/file/below", os.O_RDONLY)


# --- orders ----------------------------------------------------------------------------------


def pair(source: Path, destination: Path) -> dict[str, list[dict[str, str]]]:
    return {"copies": [{"source": str(source), "destination": str(destination)}]}


def test_a_source_outside_of_the_roots(ground: Ground, tmp_path: Path) -> None:
    write(tmp_path / "home2" / "x", b"1")  # only begins like the root
    outcome = ground.copy(**pair(tmp_path / "home2" / "x", ground.destination))
    assert outcome["state"] == "outside-roots"
    assert outcome["path"] == str(tmp_path / "home2" / "x")


def test_a_destination_outside_of_the_roots(ground: Ground, tmp_path: Path) -> None:
    write(ground.source, b"1")
    for place in (tmp_path / "elsewhere", ground.buffer):
        assert ground.copy(**pair(ground.source, place))["state"] == "outside-roots"
    assert sorted(os.listdir(tmp_path)) == ["buffer", "home"]


@pytest.mark.parametrize("name", ["link", "link/x", "within/link/x"])
def test_a_link_in_the_path_of_the_source(ground: Ground, tmp_path: Path, name: str) -> None:
    write(tmp_path / "other" / "x", b"secret")
    (ground.home / "link").symlink_to(tmp_path / "other")
    (ground.home / "within").mkdir()
    (ground.home / "within" / "link").symlink_to("../../other")
    outcome = ground.copy(**pair(ground.home / name, ground.destination))
    assert outcome["state"] == "outside-roots"
    assert "a symbolic link" in outcome["message"]
    assert os.listdir(ground.buffer) == []


def test_a_link_in_the_path_of_the_destination(ground: Ground, tmp_path: Path) -> None:
    write(ground.source, b"1")
    (tmp_path / "other").mkdir()
    (ground.buffer / "link").symlink_to(tmp_path / "other")
    outcome = ground.copy(**pair(ground.source, ground.buffer / "link" / "x"))
    assert outcome["state"] == "outside-roots"
    assert os.listdir(tmp_path / "other") == []


def test_a_link_at_the_destination(ground: Ground, tmp_path: Path) -> None:
    write(ground.source, b"1")
    ground.destination.symlink_to(tmp_path / "other")
    assert ground.copy()["state"] == "destination-present"
    assert not (tmp_path / "other").exists()


def test_a_root_may_lead_over_links(ground: Ground, tmp_path: Path) -> None:
    """It comes from the config. What is below it may be anybody's."""
    write(ground.source, b"1")
    (tmp_path / "bb").symlink_to("buffer")
    roots = {"destination_roots": [str(tmp_path / "bb")]}
    assert ground.copy(**pair(ground.source, tmp_path / "bb" / "x"), **roots)["state"] == "ready"
    assert (ground.buffer / "x").read_bytes() == b"1"


def test_a_missing_source(ground: Ground) -> None:
    for path in (ground.source, ground.home / "a" / "b"):
        outcome = ground.copy(**pair(path, ground.destination))
        assert (outcome["state"], outcome["path"]) == ("source-missing", str(path))
    assert os.listdir(ground.buffer) == []


def test_a_missing_root(ground: Ground) -> None:
    write(ground.source, b"1")
    assert ground.copy(source_roots=["/nowhere", str(ground.home)])["state"] == "ready"
    ground.buffer.rename(ground.home / "away")
    assert ground.copy()["state"] == "destination-missing"


def test_a_missing_folder_of_the_destination(ground: Ground) -> None:
    write(ground.source, b"1")
    outcome = ground.copy(**pair(ground.source, ground.buffer / "a" / "x"))
    assert outcome["state"] == "destination-missing"
    assert os.listdir(ground.buffer) == []


def test_a_destination_within_the_source_by_another_way(ground: Ground, tmp_path: Path) -> None:
    """The paths do not tell, and the walk meets the working folder."""
    write(ground.source / "x", b"1")
    (ground.source / "within").mkdir()
    (tmp_path / "way").symlink_to(ground.source / "within")
    outcome = ground.copy(
        **pair(ground.source, tmp_path / "way" / "x"), destination_roots=[str(tmp_path / "way")]
    )
    assert (outcome["state"], outcome["message"]) == (
        "bad-order",
        "the destination lies within its source",
    )
    assert os.listdir(ground.source / "within") == []
