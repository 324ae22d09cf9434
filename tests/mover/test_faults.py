"""A system that answers with errors, or does not have a call: each is told as what it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from tests.mover.faults import failing, require_filters
from tests.mover.ground import Ground, carry_out, picture, write

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _filters() -> None:
    require_filters()


@pytest.fixture
def tree(ground: Ground) -> Iterator[Ground]:
    """Small, medium, large, and attributes."""
    write(ground.source / "sub" / "small", b"1")
    write(ground.source / "medium", os.urandom(3 * MIB))
    write(ground.source / "large", os.urandom(20 * MIB))
    os.setxattr(ground.source / "sub", "user.colour", b"blue")
    yield ground
    if ground.hidden() and not ground.destination.exists():
        assert ground.copy()["state"] == "ready", "a successor cannot go on"
        assert picture(ground.destination) == picture(ground.source)


@pytest.mark.parametrize(
    ("call", "number", "state", "end"),
    [
        ("pwrite", errno.EDQUOT, "quota", "destination"),
        ("pwrite", errno.ENOSPC, "no-space", "destination"),
        ("pwrite", errno.EIO, "io-error", "destination"),
        ("fdatasync", errno.EIO, "io-error", "destination"),
        ("fsync", errno.EIO, "io-error", "destination"),
        ("syncfs", errno.EIO, "io-error", "destination"),
        ("syncfs", errno.ENOSPC, "no-space", "destination"),
        ("sync_file_range", errno.EIO, "io-error", "destination"),
        ("fchown", errno.EPERM, "permission-denied", "destination"),
        ("fsetxattr", errno.EIO, "io-error", "destination"),
        ("renameat2", errno.EROFS, "permission-denied", "destination"),
        ("preadv", errno.EIO, "io-error", "source"),
        ("preadv", errno.ESTALE, "source-changed", "source"),
    ],
)
def test_an_error_is_told_as_what_it_is(
    tree: Ground, call: str, number: int, state: str, end: str
) -> None:
    outcome = carry_out(tree.order(), failing(call, number))
    assert outcome["state"] == state, outcome
    if state != "source-changed":
        assert outcome["errno"] == errno.errorcode[number]
        assert f"the {end} failed at" in outcome["message"]
        assert outcome["message"].partition(";")[0].endswith(os.strerror(number))
    if state in ("quota", "no-space"):
        assert outcome["needed_bytes"] >= 23 * MIB
        assert outcome["free_bytes"] > 0
    assert not tree.destination.exists()


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("openat2", errno.ENOSYS),
        ("openat2", errno.EPERM),  # a filter of a container says this
        ("renameat2", errno.ENOSYS),
        ("renameat2", errno.EINVAL),
        ("sync_file_range", errno.ENOSYS),
    ],
)
def test_a_call_that_is_missing_is_done_without(tree: Ground, call: str, number: int) -> None:
    assert carry_out(tree.order(), failing(call, number))["state"] == "ready"
    assert picture(tree.destination) == picture(tree.source)


def test_attributes_that_cannot_be_stored_are_counted(tree: Ground) -> None:
    outcome = carry_out(tree.order(), failing("fsetxattr", errno.ENOTSUP))
    assert (outcome["state"], outcome["attributes_lost"]) == ("ready", 1)


def test_a_link_is_not_followed_without_openat2_either(tree: Ground) -> None:
    secret = write(tree.home / "secret" / "x", b"secret").parent
    (tree.home / "way").symlink_to(secret)
    pair = {"source": str(tree.home / "way" / "x"), "destination": str(tree.destination)}
    outcome = carry_out(tree.order(copies=[pair]), failing("openat2", errno.ENOSYS))
    assert outcome["state"] == "outside-roots"
