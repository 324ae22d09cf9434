"""`halo store` between files: copies are whole or refused, and nothing is replaced by mistake."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from halo.adapters.journal.export import exported
from halo.adapters.journal.sqlite import SqliteMedium
from halo.cli.main import cli
from halo.core.journal.records import Event, Record

RECORDS = [
    Record(1.0, Event.UNMANAGE, "web", 'quotes " and ☃').to_json(),
    Record(2.0, Event.STOP, "db").to_json(),
    Record(3.0, Event.DEACTIVATE, "h2").to_json(),
    Record(4.0, Event.CONNECT, "h1").to_json(),
]


def halo(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, ["store", *map(str, arguments)])


async def _keep(path: Path) -> None:
    medium = SqliteMedium.open(path)
    await medium.append(RECORDS)
    await medium.close()


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "halo.state"
    asyncio.run(_keep(path))
    return path


def kept(path: Path) -> list[dict[str, object]]:
    medium = SqliteMedium.open(path)
    try:
        return list(medium.read())
    finally:
        asyncio.run(medium.close())


def test_a_journal_goes_out_and_comes_back(journal: Path, tmp_path: Path) -> None:
    copy, new = tmp_path / "copy", tmp_path / "new.state"
    done = halo("export", journal, copy)
    assert (done.exit_code, done.output) == (0, f"4 records written to {copy}.\n")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    done = halo("import", copy, new)
    assert (done.exit_code, done.output) == (0, f"4 records written to {new}.\n")
    assert kept(new) == RECORDS
    assert kept(journal) == RECORDS


def test_a_state_file_is_taken_without_a_copy_between(journal: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.state"
    assert halo("import", journal, new).exit_code == 0
    assert kept(new) == RECORDS


def test_stdout_holds_the_copy_alone(journal: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    halo("export", journal, copy)
    done = halo("export", journal)
    assert done.exit_code == 0
    assert done.stdout_bytes == copy.read_bytes()


def test_what_a_journal_holds_is_said(journal: Path, tmp_path: Path) -> None:
    said = "4 records: 2 hosts (0 fenced, 1 deactivated), 2 groups (1 unmanaged, 1 stopped).\n"
    assert halo("check", journal).output == f"{journal} holds {said}"
    copy = tmp_path / "copy"
    halo("export", journal, copy)
    assert halo("check", copy).output == f"{copy} holds {said}"


def test_a_state_file_of_halo_in_rust_is_read_and_left(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("2026-04-28T12:54:34.337109\tunmanage\tweb\tby hand\n")
    assert halo("import", old, new).exit_code == 0
    assert [record["event"] for record in kept(new)] == ["unmanage"]
    assert old.read_text().endswith("by hand\n")
    assert "1 unmanaged" in halo("check", old).output


def test_nothing_is_replaced_without_being_told(journal: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.write_text("precious")
    done = halo("export", journal, copy)
    assert done.exit_code == 1
    assert "exists already" in done.output
    assert copy.read_text() == "precious"
    assert halo("export", journal, copy, "--force").exit_code == 0
    done = halo("import", copy, journal)
    assert done.exit_code == 1
    assert "has 4 records already; nothing was changed" in done.output
    assert kept(journal) == RECORDS
    assert halo("import", copy, journal, "--replace").exit_code == 0
    assert kept(journal) == RECORDS


def test_a_copy_that_is_not_whole_is_refused(journal: Path, tmp_path: Path) -> None:
    copy, new = tmp_path / "copy", tmp_path / "new"
    halo("export", journal, copy)
    whole = copy.read_bytes()
    head, _, rest = whole.partition(b"\n")
    for content, words in (
        (whole[:-20], "cut short or damaged"),
        (whole.replace(b"web", b"wab"), "cut short or damaged"),
        (head + b"\n", "cut short or damaged"),
        (whole.replace(b'"records": 4', b'"records": 5'), "other records than its first line"),
        (whole.replace(b'journal": 1', b'journal": 2'), "a later version"),
        (b'{"halo-journal": 1}\n' + rest, "is not a journal"),
        (b'{"halo-journal"', "is not a journal"),
    ):
        copy.write_bytes(content)
        for words_of_command in (("import", copy, new), ("check", copy)):
            done = halo(*words_of_command)
            assert done.exit_code == 64, content
            assert words in done.output
    assert not new.exists()


def test_a_journal_in_use_or_missing_is_named(journal: Path, tmp_path: Path) -> None:
    medium = SqliteMedium.open(journal)
    done = halo("check", journal)
    assert done.exit_code == 64
    assert f"in use by this process (pid {os.getpid()})" in done.output
    asyncio.run(medium.close())
    missing = tmp_path / "missing"
    done = halo("export", missing)
    assert done.exit_code == 1
    assert done.output == (
        f"{missing} cannot be read: No such file or directory. Name a state file, a file of "
        "`halo store export`, or a journal in etcd: etcd://HOST:PORT,HOST:PORT/PREFIX.\n"
    )
    assert not missing.exists()
    assert "The name of the journal is empty. Name a state file" in halo("check", "").output


def test_a_file_of_something_else_is_named_as_what_it_was_taken_for(tmp_path: Path) -> None:
    path, new = tmp_path / "notes", tmp_path / "new"
    path.write_text("some notes\n")
    for command in (("check", path), ("import", path, new)):
        done = halo(*command)
        assert done.exit_code == 64
        assert f"{path} is neither a state file nor a file of `halo store export`" in done.output
        assert f"{path}:1: not a record" in done.output
    assert not new.exists()


def test_a_journal_that_cannot_be_written_is_as_before(tmp_path: Path) -> None:
    """The limit stands for a disk that is full after the first pages."""
    copy, target = tmp_path / "copy", tmp_path / "new.state"
    many = [Record(float(n), Event.STOP, f"g{n}", "x" * 500).to_json() for n in range(2000)]
    copy.write_bytes(exported(many))
    done = subprocess.run(
        [sys.executable, "-c", f"{_LIMITED}main()", "store", "import", str(copy), str(target)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"Nothing of {copy} was imported, and {target} is as before: {target}: could not be" in (
        done.stderr
    )
    assert "run the command again" in done.stderr
    assert kept(target) == []


_LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from halo.cli.entry import main
"""


def test_records_of_a_later_version_are_not_carried_over(tmp_path: Path) -> None:
    async def keep_unknown(path: Path) -> None:
        medium = SqliteMedium.open(path)
        await medium.append([{**RECORDS[0], "event": "of-tomorrow"}])
        await medium.close()

    later, new = tmp_path / "later", tmp_path / "new"
    asyncio.run(keep_unknown(later))
    done = halo("import", later, new)
    assert done.exit_code == 64
    assert f"{later}: the journal holds a record that this version does not" in done.output
    assert not new.exists()


def test_an_empty_file_is_no_journal(tmp_path: Path) -> None:
    """A copy onto a full disk leaves one. It must not count as a journal without any order."""
    empty, target = tmp_path / "empty", tmp_path / "new.state"
    empty.touch()
    for command in (("check", empty), ("export", empty), ("import", empty, target)):
        done = halo(*command)
        assert done.exit_code == 1
        assert f"{empty} is empty, so it is neither a journal nor a copy of one" in done.output
    assert not target.exists()
