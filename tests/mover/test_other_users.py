"""A mover that does not run as root, and what it may not do."""

from __future__ import annotations

import os

import pytest

from tests.mover.ground import Ground, carry_out, picture, write
from tests.mover.steps import NOBODY, become_nobody, die_at

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")


def test_what_may_not_be_read_is_said(shared: Ground) -> None:
    write(shared.source / "mine", b"1", 0o600)
    os.chown(shared.buffer, NOBODY, NOBODY)
    outcome = carry_out(shared.order(), become_nobody)
    assert (outcome["state"], outcome["errno"]) == ("permission-denied", "EACCES")
    assert outcome["message"] == "the source failed at mine: Permission denied"


def test_where_may_not_be_written_is_said(shared: Ground) -> None:
    write(shared.source / "x", b"1")
    outcome = carry_out(shared.order(), become_nobody)
    assert outcome["state"] == "permission-denied"
    assert os.listdir(shared.buffer) == []


def test_another_user_keeps_what_it_can(shared: Ground) -> None:
    """Read-only folders are no obstacle, and set-user-id would mean another user."""
    write(shared.source / "sub" / "x", b"1", 0o4755)
    (shared.source / "sub").chmod(0o555)
    shared.source.chmod(0o555)
    os.chown(shared.buffer, NOBODY, NOBODY)
    outcome = carry_out(shared.order(), become_nobody)
    assert outcome["state"] == "ready"
    assert (shared.destination.stat().st_mode & 0o7777) == 0o555
    found = (shared.destination / "sub" / "x").stat()
    assert (found.st_uid, found.st_mode & 0o7777) == (NOBODY, 0o755)
    assert found.st_mtime_ns == (shared.source / "sub" / "x").stat().st_mtime_ns


def test_another_user_takes_up_what_is_there(shared: Ground) -> None:
    """Also folders that have their last mode by now."""
    write(shared.source / "sub" / "x", b"1", 0o444)
    (shared.source / "sub").chmod(0o555)
    shared.source.chmod(0o555)
    os.chown(shared.buffer, NOBODY, NOBODY)
    step, ended = 1, False

    def prepare() -> None:
        become_nobody()
        die_at(step)()

    while not ended:
        pair = {"source": str(shared.source), "destination": str(shared.buffer / f"d{step}")}
        order = shared.order(id=f"n{step}", copies=[pair], threads=1)
        ended = bool(carry_out(order, prepare))
        assert carry_out(order, become_nobody)["state"] == "ready", step
        found = picture(shared.buffer / f"d{step}")
        assert found.keys() == picture(shared.source).keys()
        remove = {**order, "action": "remove"}
        assert carry_out(remove, become_nobody)["removed"] == 1
        step += 1
    assert step > 20
