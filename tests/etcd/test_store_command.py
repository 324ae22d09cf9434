"""`halo store` with etcd on one side: the journal moves, and a manager goes on from there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from halo.adapters.etcd.location import Store
from halo.adapters.etcd.medium import EtcdMedium
from halo.core.journal.records import Event, Record
from tests.integration.site import DEADLINE_S

RECORDS = [
    Record(1.0, Event.UNMANAGE, "web", "for a test").to_json(),
    *(Record(2.0 + n, Event.STOP, f"pool{n}", "x" * 500).to_json() for n in range(3000)),
]


def halo(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from halo.cli.entry import main; main()", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


async def keep(store: Store) -> None:
    medium = EtcdMedium.open(store)
    await medium.append(RECORDS[:1])
    await medium.append(RECORDS[1:])
    await medium.close()


async def kept(store: Store) -> list[dict[str, object]]:
    medium = EtcdMedium.open(store)
    try:
        return list(medium.read())
    finally:
        await medium.close()


async def test_a_journal_moves_from_etcd_to_a_file_and_back(store: Store, tmp_path: Path) -> None:
    await keep(store)
    path, copy = tmp_path / "halo.state", tmp_path / "copy"
    done = halo("store", "import", str(store), path)
    assert (done.returncode, done.stderr) == (0, "")
    assert halo("store", "export", path, copy).returncode == 0
    back = Store(store.members, store.prefix + "/back")
    done = halo("store", "import", copy, str(back))
    assert done.stdout.startswith(f"3001 records written to {back}.\n")
    assert "`halo store raise-term`" in done.stdout
    assert done.stderr == ""
    assert await kept(back) == RECORDS
    assert "3001 groups (1 unmanaged, 3000 stopped)" in halo("store", "check", str(back)).stdout


async def test_a_journal_is_exported_and_checked_while_a_manager_writes_it(
    store: Store, tmp_path: Path
) -> None:
    medium = EtcdMedium.open(store)
    await medium.append(RECORDS[:5])
    done = halo("store", "export", str(store))
    assert done.returncode == 0, done.stderr
    first, *lines = done.stdout.splitlines()
    assert json.loads(first)["records"] == 5
    assert list(map(json.loads, lines)) == RECORDS[:5]
    assert halo("store", "check", str(store)).returncode == 0
    source = tmp_path / "copy"
    source.write_text(done.stdout)
    refused = halo("store", "import", source, str(store), "--replace")
    assert refused.returncode == 64
    assert "in use by pid" in refused.stderr
    await medium.append(RECORDS[5:6])
    await medium.close()


async def test_what_is_wrong_with_a_store_is_said(store: Store) -> None:
    done = halo("store", "check", str(store))
    assert done.returncode == 64
    assert done.stderr.startswith(f"{store}: there is no journal; check the prefix.")
    for command in (
        ("check", "etcd://127.0.0.1:1/x"),
        ("raise-term", "etcd://127.0.0.1:1/x", "--above", "7", "--reason", "a test"),
    ):
        done = halo("store", *command)
        assert done.returncode == 1
        assert done.stderr.startswith("etcd://127.0.0.1:1/x: the ")
        assert ": 127.0.0.1:1: no connection: connection refused. If these are" in done.stderr
        assert "systemctl status etcd" in done.stderr
        assert done.stdout == ""
    done = halo("store", "check", "etcd://halo:hunter2@127.0.0.1/x")
    assert done.returncode == 64
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("replace", [False, True])
async def test_a_journal_with_records_is_replaced_only_on_request(
    store: Store, tmp_path: Path, replace: bool
) -> None:
    await keep(store)
    copy = tmp_path / "copy"
    other = Store(store.members, store.prefix + "/other")
    medium = EtcdMedium.open(other)
    await medium.append(RECORDS[:2])
    await medium.close()
    halo("store", "export", str(other), copy)
    done = halo("store", "import", copy, str(store), *(["--replace"] if replace else []))
    assert done.returncode == (0 if replace else 1)
    assert await kept(store) == (RECORDS[:2] if replace else RECORDS)
