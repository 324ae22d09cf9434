"""Every release opens the state files of all releases before it, and remembers the same.

`tests/fixtures/journal/` has a folder for each release that changed what is written: a state file
as a killed manager leaves it (with its log), one of a manager that ended in order, and what was
remembered after the fold.

When you change the format, the events or the data of a record:

1. Keep reading what was written before: the tests below go on to pass with the old folders as they
   are. Never touch an old folder, since a site may hold just such a file.
2. Add a folder: copy `cluster.yaml` into `tests/fixtures/journal/RELEASE/`, extend the story in
   `tests/fixtures/journal/make.py`, and run `python -m tests.fixtures.journal.make RELEASE`.

A field that is new has its default after the fold of an old file. A field that is gone, or has
another name, is translated in :mod:`halo.core.journal.remembered`, and in `as_remembered` here.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from halo.adapters.journal.sqlite import SqliteMedium
from halo.config import load
from halo.core.journal import fold
from halo.core.journal.places import config_change
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from halo.ports import JournalRecord

FROZEN = Path(__file__).parents[1] / "fixtures" / "journal"
RELEASES = sorted(path.parent for path in FROZEN.glob("*/remembered.json"))
ENDS = ("killed", "ended")

of_every_release = pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
at_every_end = pytest.mark.parametrize("end", ENDS)


def copy_of(release: Path, end: str, folder: Path) -> Path:
    """The state file of a release, to be opened and changed."""
    shutil.copytree(release / end, folder / end)
    return folder / end / "halo.state"


async def records_in(path: Path) -> list[JournalRecord]:
    medium = SqliteMedium.open(path)
    records = list(medium.read())
    await medium.close()
    return records


def folded(records: list[JournalRecord]) -> Remembered:
    remembered = Remembered()
    fold.apply_all(remembered, map(Record.from_json, records))
    return remembered


def as_remembered(remembered: Remembered, then: dict[str, Any]) -> dict[str, Any]:
    """What is remembered, in the parts and fields that there were then."""
    now = json.loads(json.dumps(remembered.snapshot(0.0).data))
    for part in ("hosts", "groups", "lifecycles"):
        for name, memory in now[part].items():
            fields = then[part].get(name, memory)
            now[part][name] = {field: memory.get(field) for field in fields}
    return {part: now.get(part) for part in then}


def test_there_is_a_frozen_journal() -> None:
    assert [release.name for release in RELEASES][:1] == ["0.1.0"]


@of_every_release
@at_every_end
async def test_a_later_release_remembers_the_same(release: Path, end: str, tmp_path: Path) -> None:
    then = json.loads((release / "remembered.json").read_text())
    with capture_logs() as logs:
        records = await records_in(copy_of(release, end, tmp_path))
    assert [line for line in logs if line["log_level"] != "info"] == []
    assert as_remembered(folded(records), then) == then


@of_every_release
@at_every_end
async def test_a_later_release_goes_on_with_the_file(
    release: Path, end: str, tmp_path: Path
) -> None:
    path = copy_of(release, end, tmp_path)
    medium = SqliteMedium.open(path)
    before = list(medium.read())
    more = Record(2e9, Event.THAW, "frozen", "a later release").to_json()
    await medium.append([more])
    await medium.close()
    assert await records_in(path) == [*before, more]


@of_every_release
async def test_the_config_beside_it_is_the_one_that_is_remembered(
    release: Path, tmp_path: Path
) -> None:
    remembered = folded(await records_in(copy_of(release, "ended", tmp_path)))
    change = config_change(remembered, load(release / "cluster.yaml")) or {}
    change.pop("services", None)  # what 0.1.0 did not record; from now on it is
    assert not any(change.values())


async def test_every_event_is_in_a_frozen_journal(tmp_path: Path) -> None:
    """One that is new needs a new folder, see above."""
    events = set()
    for release in RELEASES:
        records = await records_in(copy_of(release, "ended", tmp_path / release.name))
        events |= {record["event"] for record in records}
    assert events >= set(Event)
