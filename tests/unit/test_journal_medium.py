"""The journal's media: the common contract, and what is special to the SQLite file."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from structlog.testing import capture_logs

from halo.adapters.journal.sqlite import SqliteMedium
from halo.adapters.journal.text_import import import_halo_state
from halo.core.errors import RecordError, StateError
from halo.core.journal.records import Record
from halo.ports import JournalMedium, JournalRecord
from tests.conformance.journal_medium import JournalMediumContract, record
from tests.conformance.journal_process import JournalProcess
from tests.fakes.memory_medium import MemoryDisk, MemoryMedium

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount or to become nobody")


class TestSqliteContract(JournalMediumContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "halo.state"

    def open_medium(self) -> JournalMedium:
        return SqliteMedium.open(self.path)


class TestMemoryContract(JournalMediumContract):
    @pytest.fixture(autouse=True)
    def _place(self) -> None:
        self.disk = MemoryDisk()

    def open_medium(self) -> JournalMedium:
        return MemoryMedium.open(self.disk)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "halo.state"


async def keep(path: Path, count: int) -> None:
    """Write `count` records, numbered from 1, and close."""
    medium = SqliteMedium.open(path)
    await medium.append([record(n) for n in range(1, count + 1)])
    await medium.close()


def change(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement).rowcount != 0
    connection.close()


async def records_at(path: Path) -> list[JournalRecord]:
    medium = SqliteMedium.open(path)
    try:
        return list(medium.read())
    finally:
        await medium.close()


class TestLock:
    @pytest.mark.parametrize("other", ["same", "symlink", "hardlink", "folder"])
    async def test_a_second_manager_is_refused_by_any_name(self, path: Path, other: str) -> None:
        first = JournalProcess(path)
        names = {"same": path, "symlink": path.with_name("s"), "hardlink": path.with_name("h")}
        names["symlink"].symlink_to(path)
        if other == "hardlink":
            names["hardlink"].hardlink_to(path)
        (path.parent / "elsewhere").symlink_to(path.parent)
        names["folder"] = path.parent / "elsewhere" / path.name
        with pytest.raises(StateError, match=rf"in use by pid {first.pid} \(.+\)") as refusal:
            SqliteMedium.open(names[other])
        assert "stop that manager first" in str(refusal.value)
        first.kill()

    async def test_the_lock_ends_with_its_process(self, path: Path) -> None:
        first = JournalProcess(path)
        first.write("append", [record(1)])
        first.kill()
        assert await records_at(path) == [record(1)]

    async def test_a_hard_link_of_an_idle_file_is_refused(self, path: Path) -> None:
        await keep(path, 1)
        link = path.with_name("link")
        link.hardlink_to(path)
        with pytest.raises(StateError, match="hard links"):
            SqliteMedium.open(link)
        link.unlink()
        assert await records_at(path) == [record(1)]

    async def test_another_program_that_holds_the_database_is_named_as_the_cause(
        self, path: Path
    ) -> None:
        await keep(path, 1)
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StateError, match="in use by another program"):
            SqliteMedium.open(path)
        other.close()
        assert await records_at(path) == [record(1)]

    async def test_only_the_owner_can_read_it(self, path: Path) -> None:
        old = os.umask(0)
        try:
            medium = SqliteMedium.open(path)
            await medium.append([record(1)])
            modes = {p.name: p.stat().st_mode & 0o777 for p in path.parent.iterdir()}
            await medium.close()
        finally:
            os.umask(old)
        assert modes == {"halo.state": 0o600, "halo.state-wal": 0o600}


class TestDamage:
    async def test_a_garbled_last_record_is_dropped_with_a_warning(self, path: Path) -> None:
        await keep(path, 3)
        content = path.read_bytes()
        assert content.count(b'"g3"') == 1
        path.write_bytes(content.replace(b'"g3"', b'"\xff\0"'))
        with capture_logs() as logs:
            medium = SqliteMedium.open(path)
            assert list(medium.read()) == [record(1), record(2)]
        assert [(e["log_level"], e["sequence"]) for e in logs] == [("warning", 3)]
        await medium.append([record(4)])
        await medium.close()
        assert await records_at(path) == [record(1), record(2), record(4)]

    async def test_a_garbled_record_in_the_middle_stops_the_start(self, path: Path) -> None:
        await keep(path, 3)
        path.write_bytes(path.read_bytes().replace(b'"g2"', b'"g9"'))
        with pytest.raises(StateError, match=r"halo\.state: .*record 2 .*checksum.*aside"):
            await records_at(path)

    @pytest.mark.parametrize("missing", [1, 2])
    async def test_a_missing_record_stops_the_start(self, path: Path, missing: int) -> None:
        await keep(path, 3)
        change(path, f"DELETE FROM journal WHERE sequence = {missing}")
        with pytest.raises(StateError, match=f"record {missing} is missing"):
            await records_at(path)

    async def test_two_records_exchanged_stop_the_start(self, path: Path) -> None:
        await keep(path, 4)
        change(path, "UPDATE journal SET sequence = -sequence WHERE sequence IN (1, 2)")
        change(path, "UPDATE journal SET sequence = sequence + 3 WHERE sequence < 0")
        with pytest.raises(StateError, match="record 1 does not match its checksum"):
            await records_at(path)

    async def test_a_malformed_database_stops_the_start(self, path: Path) -> None:
        await keep(path, 2000)
        content = bytearray(path.read_bytes())
        content[4096 * 3 : 4096 * 4] = os.urandom(4096)
        path.write_bytes(content)
        with pytest.raises(StateError, match=r"halo\.state: .*damaged"):
            await records_at(path)

    async def test_a_truncated_database_stops_the_start(self, path: Path) -> None:
        await keep(path, 2000)
        os.truncate(path, 4096 * 5 + 17)
        with pytest.raises(StateError, match=r"halo\.state: .*damaged"):
            await records_at(path)

    async def test_random_bytes_stop_the_start_and_stay(self, path: Path) -> None:
        content = b"\0\1\2 not a database"
        path.write_bytes(content)
        with pytest.raises(StateError, match="neither a database of HALO nor"):
            SqliteMedium.open(path)
        assert path.read_bytes() == content

    async def test_a_database_of_another_program_is_left_alone(self, path: Path) -> None:
        sqlite3.connect(path).execute("CREATE TABLE theirs (x)").connection.close()
        content = path.read_bytes()
        with pytest.raises(StateError, match="database of another program"):
            SqliteMedium.open(path)
        assert path.read_bytes() == content

    @pytest.mark.parametrize("what", ["missing", "empty"])
    async def test_a_log_without_its_file_stops_the_start_and_stays(
        self, path: Path, what: str
    ) -> None:
        medium = SqliteMedium.open(path)
        await medium.append([record(1)])
        log_path = Path(f"{path}-wal")
        content = log_path.read_bytes()
        assert content
        await medium.close()
        path.unlink()
        if what == "empty":
            path.touch()
        log_path.write_bytes(content)
        with pytest.raises(StateError, match=r"its log .*-wal is there. Put the state"):
            SqliteMedium.open(path)
        assert log_path.read_bytes() == content
        assert path.exists() == (what == "empty")

    async def test_a_new_file_is_told_in_the_log(self, path: Path) -> None:
        with capture_logs() as logs:
            assert await records_at(path) == []
        assert [line["event"] for line in logs] == ["new state file"]

    async def test_an_empty_file_is_an_empty_journal(self, path: Path) -> None:
        path.touch()
        assert await records_at(path) == []


class TestPlace:
    def test_a_directory_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(StateError, match="is a directory"):
            SqliteMedium.open(tmp_path)

    def test_something_else_than_a_file_is_refused(self, path: Path) -> None:
        os.mkfifo(path)
        with pytest.raises(StateError, match="not a regular file"):
            SqliteMedium.open(path)

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(StateError, match=r"folder does not exist; create .*/missing"):
            SqliteMedium.open(tmp_path / "missing" / "halo.state")

    @AS_ROOT
    @pytest.mark.parametrize("exists", [False, True])
    async def test_a_folder_that_cannot_be_written_is_named(self, exists: bool) -> None:
        with tempfile.TemporaryDirectory() as name:
            path = Path(name) / "halo.state"
            Path(name).chmod(0o755)
            if exists:
                await keep(path, 1)
                path.chmod(0o666)
            result = as_nobody(path)
        assert "StateError" in result
        assert "its folder writable" in result

    async def test_a_file_removed_underneath_fails_appends(self, path: Path) -> None:
        medium = SqliteMedium.open(path)
        await medium.append([record(1)])
        path.rename(path.with_name("aside"))
        with pytest.raises(RecordError, match="removed or replaced"):
            await medium.append([record(2)])
        path.touch()
        with pytest.raises(RecordError, match="removed or replaced"):
            await medium.compact([record(2)])
        await medium.close()

    async def test_a_log_removed_underneath_fails_appends(self, path: Path) -> None:
        medium = SqliteMedium.open(path)
        await medium.append([record(1)])
        await medium.append([record(2)])
        Path(f"{path}-wal").unlink()
        with pytest.raises(RecordError, match=r"-wal: .*removed or replaced"):
            await medium.append([record(3)])
        await medium.close()

    async def test_a_medium_whose_file_was_replaced_does_not_touch_the_new_one(
        self, path: Path
    ) -> None:
        old = SqliteMedium.open(path)
        await old.append([record(1)])
        path.unlink()
        Path(f"{path}-wal").unlink()
        new = JournalProcess(path)
        new.write("append", [record(2)])
        await old.close()
        new.write("append", [record(3)])
        new.kill()
        assert await records_at(path) == [record(2), record(3)]


def as_nobody(path: Path) -> str:
    """Open the state file as a user without rights; returns the error as text."""
    code = (
        "import os, sys, pathlib; from halo.adapters.journal.sqlite import SqliteMedium\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "try: SqliteMedium.open(pathlib.Path(sys.argv[1]))\n"
        "except Exception as error: print(repr(error))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    libc = ctypes.CDLL(None, use_errno=True)
    place = tmp_path / "small"
    place.mkdir()
    if libc.mount(b"tmpfs", str(place).encode(), b"tmpfs", 0, b"size=1m"):
        pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    yield place
    libc.umount2(str(place).encode(), 2)


@AS_ROOT
class TestDiskFull:
    async def test_nothing_is_half_written_and_it_works_again_with_space(
        self, small_disk: Path
    ) -> None:
        path = small_disk / "halo.state"
        medium = SqliteMedium.open(path)
        await medium.append([record(1)])
        fill(small_disk)
        with pytest.raises(RecordError, match="free some space"):
            await medium.append([record(2, text="x" * 100_000), record(3)])
        with pytest.raises(RecordError, match="free some space"):
            await medium.compact([record(4, text="x" * 100_000)])
        assert list(medium.read()) == [record(1)]
        (small_disk / "ballast").unlink()
        await medium.append([record(5)])
        await medium.close()
        assert await records_at(path) == [record(1), record(5)]

    async def test_a_manager_starts_on_a_full_disk(self, small_disk: Path) -> None:
        path = small_disk / "halo.state"
        process = JournalProcess(path)
        process.write("append", [record(1)])
        process.kill()
        fill(small_disk)
        medium = SqliteMedium.open(path)
        assert list(medium.read()) == [record(1)]
        await medium.close()

    def test_a_new_file_on_a_full_disk_is_refused(self, small_disk: Path) -> None:
        fill(small_disk)
        with pytest.raises(StateError, match="free some space"):
            SqliteMedium.open(small_disk / "halo.state")


def fill(place: Path) -> None:
    with (place / "ballast").open("wb", 0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


class TestWorker:
    async def test_the_event_loop_goes_on_while_the_disk_is_slow(self, path: Path) -> None:
        medium = SqliteMedium.open(path)
        gate = threading.Event()
        medium._worker.submit(gate.wait)  # the disk does not answer
        append = asyncio.ensure_future(medium.append([record(1)]))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not append.done()
        gate.set()
        await append
        await medium.close()

    async def test_appends_are_refused_when_too_many_wait(self, path: Path) -> None:
        medium = SqliteMedium.open(path)
        gate = threading.Event()
        medium._worker.submit(gate.wait)
        appends = [asyncio.ensure_future(medium.append([record(n)])) for n in range(1500)]
        await asyncio.sleep(0)
        gate.set()
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        written = [n for n, outcome in enumerate(outcomes) if outcome is None]
        refused = [o for o in outcomes if isinstance(o, RecordError)]
        assert len(written) + len(refused) == 1500
        assert refused
        assert list(medium.read()) == [record(n) for n in written]
        await medium.close()

    async def test_no_thread_is_left(self, path: Path) -> None:
        medium = SqliteMedium.open(path)
        thread = medium._worker._thread
        await medium.close()
        thread.join(10)
        assert not thread.is_alive()

    def test_a_refused_open_leaves_no_thread_and_no_lock(self, path: Path) -> None:
        sqlite3.connect(path).execute("CREATE TABLE theirs (x)").connection.close()
        before = threading.active_count()
        for _ in range(5):
            with pytest.raises(StateError, match="another program"):
                SqliteMedium.open(path)
        deadline = time.monotonic() + 10
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() == before


HALO_TEXT = (
    "2026-04-28T12:54:34.337109000\tfence\tfence_mds01\tManager service initiated.\n"
    "2026-04-28T12:54:33.5\tunmanage\tpool0\twith\ttab\n"
    "2026-04-28T12:55:00.000000001\treset\tfence_mds01\t\n"
    "2026-04-28T12:55:01\tdeactivate\tmds00\n"
    "2026-04-28T12:55:02.000000001\tclear\tevents\t\n"
)


class TestImport:
    def test_records_of_halo(self, path: Path) -> None:
        path.write_text(HALO_TEXT)
        base = time.mktime((2026, 4, 28, 12, 54, 0, 0, 0, -1))
        records = import_halo_state(path)
        assert [r.pop("at") for r in records] == pytest.approx(
            [base + 33.5, base + 34.337109, base + 60, base + 61, base + 62], abs=1e-6
        )
        assert records == [
            {"event": "unmanage", "object": "pool0", "comment": "with\ttab", "data": {}},
            {
                "event": "fence",
                "object": "fence_mds01",
                "comment": "Manager service initiated.",
                "data": {},
            },
            {"event": "reset", "object": "fence_mds01", "comment": "", "data": {}},
            {"event": "deactivate", "object": "mds00", "comment": "", "data": {}},
            {"event": "clear-events", "object": "events", "comment": "", "data": {}},
        ]
        for entry in records:
            Record.from_json({"at": 1.0, **entry})  # the fold knows every one of them

    @pytest.mark.parametrize(
        "line",
        [
            "",
            "2026-04-28T12:54:34.337109",
            "2026-04-28T12:54:34.337109\tfence",
            "2026-04-28T12:54:34.337109\tfence\t",
            "2026-04-28T12:54:34.337109\texplode\tmds00\t",
            "2026-13-28T12:54:34.337109\tfence\tmds00\t",
            "2026-04-28T12:54:34.3371090001\tfence\tmds00\t",
            "2026-04-28T12:54:34.+5\tfence\tmds00\t",
            "2026-04-28T12:54:34.\tfence\tmds00\t",
            "2026-04-28 12:54:34.5\tfence\tmds00\t",
            "2026-04-28T12:54:34.5 fence mds00",
        ],
    )
    def test_a_broken_line_is_named_and_the_file_stays(self, path: Path, line: str) -> None:
        content = f"2026-04-28T12:54:33.0\tfence\tmds00\t\n{line}\n"
        path.write_text(content)
        with pytest.raises(StateError, match=rf"{path}:2: "):
            SqliteMedium.open(path)
        assert path.read_text() == content
        assert [p.name for p in path.parent.iterdir()] == [path.name]

    def test_bytes_that_are_no_text_are_named(self, path: Path) -> None:
        path.write_bytes(b"2026-04-28T12:54:33.0\tfence\tmds\xff\t\n")
        with pytest.raises(StateError, match=rf"{path}:1: "):
            SqliteMedium.open(path)

    async def test_it_is_imported_once_and_kept_aside(self, path: Path) -> None:
        path.write_text(HALO_TEXT)
        expected = import_halo_state(path)
        with capture_logs() as logs:
            medium = SqliteMedium.open(path)
        assert [e["event"] for e in logs] == ["imported a HALO state file"]
        assert list(medium.read()) == expected
        await medium.append([record(5)])
        await medium.close()
        assert await records_at(path) == [*expected, record(5)]
        assert Path(f"{path}.halo-text").read_text() == HALO_TEXT
        assert path.stat().st_mode & 0o777 == 0o600
        assert sorted(p.name for p in path.parent.iterdir()) == [
            path.name,
            f"{path.name}.halo-text",
        ]

    async def test_an_earlier_file_aside_is_not_overwritten(self, path: Path) -> None:
        for text in ("first", "second"):
            Path(f"{path}.halo-text" + (".1" if text == "second" else "")).write_text(text)
        path.write_text(HALO_TEXT)
        assert len(await records_at(path)) == 5
        assert Path(f"{path}.halo-text").read_text() == "first"
        assert Path(f"{path}.halo-text.2").read_text() == HALO_TEXT

    async def test_a_stale_log_of_an_earlier_database_is_not_replayed(self, path: Path) -> None:
        process = JournalProcess(path)
        process.write("append", [record(1)])
        process.kill()
        assert Path(f"{path}-wal").stat().st_size > 0
        path.write_text(HALO_TEXT)
        assert await records_at(path) == import_halo_state(Path(f"{path}.halo-text"))

    async def test_the_file_behind_a_symlink_is_replaced_and_the_link_stays(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "real").mkdir()
        real = tmp_path / "real" / "state"
        real.write_text(HALO_TEXT)
        link = tmp_path / "halo.state"
        link.symlink_to(real)
        assert len(await records_at(link)) == 5
        assert link.is_symlink()
        assert Path(f"{real}.halo-text").read_text() == HALO_TEXT

    async def test_a_crash_at_any_step_loses_nothing(self, tmp_path: Path) -> None:
        """Kill the import before every step that touches a file, then start again."""
        for step in range(100):
            folder = tmp_path / str(step)
            folder.mkdir()
            path = folder / "halo.state"
            path.write_text(HALO_TEXT)
            expected = import_halo_state(path)
            try:
                JournalProcess(path, die_at_step=step).kill()
                died = False
            except (EOFError, ConnectionResetError):
                died = True
            assert await records_at(path) == expected
            kept = Path(f"{path}.halo-text")
            assert kept.read_text() == HALO_TEXT
            assert sorted(p.name for p in folder.iterdir()) == [path.name, kept.name]
            if not died:
                break
        assert 8 < step < 99, "the import was not killed at its steps"


class JournalMachine(RuleBasedStateMachine):
    """Writes, restarts and crashes: nothing acknowledged is lost, nothing invented."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "halo.state"
        self.process: JournalProcess | None = None
        self.possible: list[list[JournalRecord]] = [[]]
        self.number = 0

    def batch(self, size: int) -> list[JournalRecord]:
        self.number += size
        return [
            record(n, filler="x" * (n % 7) * 500) for n in range(self.number - size, self.number)
        ]

    @initialize()
    def start(self) -> None:
        self.open()

    @precondition(lambda self: self.process is None)
    @rule()
    def open(self) -> None:
        self.process = JournalProcess(self.path)
        assert self.process.records in self.possible
        self.possible = [self.process.records]

    @precondition(lambda self: self.process is not None)
    @rule(size=st.integers(1, 30))
    def append(self, size: int) -> None:
        assert self.process is not None
        batch = self.batch(size)
        self.process.write("append", batch)
        self.possible = [self.possible[0] + batch]

    @precondition(lambda self: self.process is not None)
    @rule(size=st.integers(0, 30))
    def compact(self, size: int) -> None:
        assert self.process is not None
        batch = self.batch(size)
        self.process.write("compact", batch)
        self.possible = [batch]

    @precondition(lambda self: self.process is not None)
    @rule()
    def close(self) -> None:
        assert self.process is not None
        self.process.close()
        self.process = None

    @precondition(lambda self: self.process is not None)
    @rule(
        operation=st.sampled_from(["append", "compact"]),
        size=st.integers(1, 200),
        after_us=st.integers(0, 5000),
    )
    def crash_in_the_middle(self, operation: str, size: int, after_us: int) -> None:
        assert self.process is not None
        batch = self.batch(size)
        after = self.possible[0] + batch if operation == "append" else batch
        self.process.begin(operation, batch)
        time.sleep(after_us / 1e6)  # not a wait for anything: the moment of the crash
        acknowledged = self.process.kill()
        self.possible = [after] if acknowledged else [self.possible[0], after]
        self.process = None

    def teardown(self) -> None:
        if self.process is not None:
            self.process.kill()
        self.folder.cleanup()


JournalMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestJournalMachine = JournalMachine.TestCase
