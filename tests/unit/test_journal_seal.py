"""The state file and its log belong together: where they do not, the start stops and says so."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from halo.adapters.journal import write_ahead_log
from halo.adapters.journal.sqlite import SqliteMedium
from halo.core.errors import RecordError, StateError

FRAME = 4096 + 24


def record(number: int) -> dict[str, Any]:
    return {"number": number, "text": "x" * 1000}


async def left_by_a_killed_manager(folder: Path, count: int = 12) -> Path:
    """A state file and its log as they lie there after a kill; each record is a transaction."""
    folder.mkdir()
    medium = SqliteMedium.open(folder / "original")
    for number in range(count):
        await medium.append([record(number)])
    path = folder / "halo.state"
    shutil.copy(folder / "original", path)
    shutil.copy(folder / "original-wal", f"{path}-wal")
    await medium.close()
    return path


async def found(path: Path) -> list[int]:
    medium = SqliteMedium.open(path)
    try:
        return [dict(each)["number"] for each in medium.read()]
    finally:
        await medium.close()


def change(path: Path, how: Callable[[bytearray], None]) -> None:
    data = bytearray(path.read_bytes())
    how(data)
    path.write_bytes(data)


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    return await left_by_a_killed_manager(tmp_path / "first")


async def test_what_a_killed_manager_left_is_all_there(path: Path) -> None:
    assert await found(path) == list(range(12))
    assert await found(path) == list(range(12)), "and again after an end in order"


async def test_a_missing_log_stops_the_start(path: Path) -> None:
    Path(f"{path}-wal").unlink()
    with pytest.raises(StateError, match=r"log .*halo\.state-wal is missing, cut short or damaged"):
        SqliteMedium.open(path)


@pytest.mark.parametrize("size", [0, 20, 32, FRAME])
async def test_an_emptied_log_stops_the_start(path: Path, size: int) -> None:
    change(Path(f"{path}-wal"), lambda data: data.__delitem__(slice(size, None)))
    with pytest.raises(StateError, match="missing, cut short or damaged"):
        SqliteMedium.open(path)


async def test_a_log_with_a_damaged_head_stops_the_start(path: Path) -> None:
    change(Path(f"{path}-wal"), lambda data: data.__setitem__(17, data[17] ^ 1))
    with pytest.raises(StateError, match="missing, cut short or damaged"):
        SqliteMedium.open(path)


async def test_the_log_of_another_state_file_stops_the_start(path: Path, tmp_path: Path) -> None:
    other = await left_by_a_killed_manager(tmp_path / "second")
    shutil.copy(f"{other}-wal", f"{path}-wal")
    before = Path(f"{path}-wal").read_bytes()
    with pytest.raises(StateError, match="belongs to another state file or another time"):
        SqliteMedium.open(path)
    assert Path(f"{path}-wal").read_bytes() == before, "nothing was lost by the attempt"


async def test_a_foreign_log_beside_a_file_that_was_closed_stops_the_start(
    path: Path, tmp_path: Path
) -> None:
    closed = tmp_path / "first" / "original"
    assert not Path(f"{closed}-wal").exists()
    shutil.copy(f"{await left_by_a_killed_manager(tmp_path / 'second')}-wal", f"{closed}-wal")
    with pytest.raises(StateError, match="belongs to another state file or another time"):
        SqliteMedium.open(closed)


@pytest.mark.parametrize("offset", [5, 9, 100, 3000])
async def test_damage_in_the_middle_of_the_log_stops_the_start(path: Path, offset: int) -> None:
    at = 32 + 4 * FRAME + offset
    change(Path(f"{path}-wal"), lambda data: data.__setitem__(at, data[at] ^ 1))
    with pytest.raises(StateError, match="is damaged at byte"):
        SqliteMedium.open(path)


async def test_a_damaged_last_transaction_is_dropped_with_a_warning(path: Path) -> None:
    change(Path(f"{path}-wal"), lambda data: data.__setitem__(-100, data[-100] ^ 1))
    with capture_logs() as logs:
        assert await found(path) == list(range(11))
    assert "dropped the damaged last record" in [line["event"] for line in logs]


async def test_records_that_are_missing_at_the_end_of_a_closed_file_stop_the_start(
    path: Path,
) -> None:
    await found(path)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM journal WHERE sequence > 9")
    connection.commit()
    connection.close()
    with pytest.raises(StateError, match="record 12 is missing"):
        SqliteMedium.open(path)


async def test_a_state_file_of_before_there_were_seals_is_taken_and_sealed(path: Path) -> None:
    await found(path)
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA user_version=0; DROP TABLE seal;")
    connection.close()
    assert await found(path) == list(range(12))
    with path.open("rb") as file:
        assert any(file.read(100)[60:64])


async def test_a_file_that_cannot_be_closed_in_order_keeps_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    medium = SqliteMedium.open(tmp_path / "halo.state")
    await medium.append([record(0)])
    database = medium._database

    def full() -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(database, "_note_closed", full)
    with capture_logs() as logs:
        await medium.close()
    assert [line["event"] for line in logs] == ["the state file was not closed in order"]
    copy = tmp_path / "copy"
    shutil.copy(tmp_path / "halo.state", copy)
    shutil.copy(tmp_path / "halo.state-wal", f"{copy}-wal")
    assert await found(copy) == [0]


async def test_a_journal_that_could_not_be_sealed_at_first_is_sealed_before_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *, is_open: bool) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(write_ahead_log, "seal_for", full)
        medium = SqliteMedium.open(tmp_path / "halo.state")
        with pytest.raises(RecordError, match="No space left"):
            await medium.append([record(0)])
    await medium.append([record(0)])
    copy = tmp_path / "copy"
    shutil.copy(tmp_path / "halo.state", copy)
    await medium.close()
    with pytest.raises(StateError, match="missing, cut short or damaged"):
        SqliteMedium.open(copy)
