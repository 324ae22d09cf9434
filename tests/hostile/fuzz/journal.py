"""Damaged state files: the manager starts with what it was told, or not at all and says where.

Each case damages a copy of a good journal and opens it as the manager does. Allowed are

- a StateError that names the file (exit status 64), or
- exactly what was written, or
- what was written without the last record or transaction, said in the log (two transactions where
  the very bit that parts them was hit), or
- where the log was cut short: what an earlier transaction had left. Nobody can tell that from a
  log that was never longer; see :mod:`halo.adapters.journal.write_ahead_log`.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from halo.adapters.journal.sqlite import SqliteMedium
from halo.core.errors import StateError
from halo.core.journal import fold
from halo.core.journal.records import Event, Record
from halo.core.journal.remembered import Remembered
from tests.hostile.fuzz.fuzzer import Finding
from tests.hostile.fuzz.mutate import mutated

PAGE = 4096
NEW = "new state file"
DROPPED = "dropped the damaged last record"


@dataclass(frozen=True)
class Template:
    """A good journal: its files as they lay on the disk, and what it holds."""

    name: str
    database: bytes
    log: bytes | None  # None: the manager that wrote it ended in order
    records: Sequence[dict[str, Any]]
    states: Sequence[Sequence[dict[str, Any]]]
    """What stood there after each transaction, the last one's last."""


@dataclass
class Files:
    """What a case damages."""

    database: bytes
    log: bytes | None
    what: str = ""
    is_cut: bool = False


def _records(count: int, chance: random.Random) -> list[dict[str, Any]]:
    """Records whose every one changes what is remembered."""
    made: list[Record] = []
    for number in range(count):
        name = f"g{chance.randrange(40)}"
        event, data = chance.choice(
            [
                (Event.UNMANAGE, {}),
                (Event.MANAGE, {}),
                (Event.STOP, {}),
                (Event.START, {}),
                (Event.MOVE, {"to": f"h{number % 7}"}),
                (Event.ERROR, {"kind": "stop-failed"}),
                (Event.CLEANUP, {}),
            ]
        )
        made.append(Record(1e9 + number, event, name, f"number {number}", data))
    return [record.to_json() for record in made]


class JournalFuzzer:
    """State files, through :class:`halo.adapters.journal.sqlite.SqliteMedium` and the fold."""

    def __init__(self) -> None:
        self._folder = Path()
        self._templates: list[Template] = []

    async def open(self, folder: Path) -> None:
        self._folder = folder
        chance = random.Random("templates")
        for name, count, batch, compacted in (
            ("one page", 10, 3, False),
            ("many pages", 600, 25, False),
            ("compacted", 300, 50, True),
        ):
            self._templates += await _templates(
                folder / name, name, count, batch, compacted, chance
            )

    async def case(self, chance: random.Random) -> None:
        template = chance.choice(self._templates)
        others = [t for t in self._templates if t is not template]
        files = Files(template.database, template.log)
        chance.choice(_DAMAGES)(files, chance, chance.choice(others))
        await check(self._folder / "halo.state", template, files)

    async def close(self) -> None:
        pass


async def _templates(
    folder: Path, name: str, count: int, batch: int, compacted: bool, chance: random.Random
) -> list[Template]:
    """The same journal while its manager runs, and after it ended in order."""
    folder.mkdir()
    path, log_path = folder / "halo.state", folder / "halo.state-wal"
    records = _records(count, chance)
    medium = SqliteMedium.open(path)
    states: list[list[dict[str, Any]]] = [[]]
    if compacted:
        await medium.append(records[: count // 2])
        snapshot = _folded(records[: count // 2]).snapshot(1e9).to_json()
        await medium.compact([snapshot])
        states += [records[: count // 2], [snapshot]]
        records = [snapshot, *records[count // 2 :]]
    for first in range(1 if compacted else 0, len(records), batch):
        await medium.append(records[first : first + batch])
        states.append(records[: first + batch])
    running = path.read_bytes(), log_path.read_bytes()
    await medium.close()
    if log_path.exists():
        raise ValueError("a journal that was closed has no log")
    return [
        Template(f"{name}, running", *running, records, states),
        Template(f"{name}, ended", path.read_bytes(), None, records, [records]),
    ]


def _folded(raw: Sequence[dict[str, Any]]) -> Remembered:
    remembered = Remembered()
    fold.apply_all(remembered, map(Record.from_json, raw))
    return remembered


# Damage -----------------------------------------------------------------------------------------

Damage = Callable[[Files, random.Random, Template], None]


def _flip_database(files: Files, chance: random.Random, other: Template) -> None:
    files.database = _flipped(files, files.database, chance, "database")


def _flip_log(files: Files, chance: random.Random, other: Template) -> None:
    if files.log is not None:
        files.log = _flipped(files, files.log, chance, "log")


def _flipped(files: Files, data: bytes, chance: random.Random, where: str) -> bytes:
    """Bits of one place, most often where structures are: the begins of pages."""
    changed = bytearray(data)
    page = chance.randrange(len(data) // PAGE + 1) * PAGE
    at = min(page + chance.choice((chance.randrange(100), chance.randrange(PAGE))), len(data) - 1)
    for _ in range(chance.choice((1, 1, 2, 8))):
        changed[at] ^= 1 << chance.randrange(8)
    files.what += f" byte {at} of the {where}: {data[at]:#x} is {changed[at]:#x};"
    return bytes(changed)


def _zero_page(files: Files, chance: random.Random, other: Template) -> None:
    page = chance.randrange(len(files.database) // PAGE) * PAGE
    files.database = files.database[:page] + bytes(PAGE) + files.database[page + PAGE :]
    files.what += f" page at {page} is zero;"


def _swap_pages(files: Files, chance: random.Random, other: Template) -> None:
    pages = [files.database[at : at + PAGE] for at in range(0, len(files.database), PAGE)]
    first, second = chance.randrange(len(pages)), chance.randrange(len(pages))
    pages[first], pages[second] = pages[second], pages[first]
    files.database = b"".join(pages)
    files.what += f" pages {first} and {second} swapped;"


def _truncate_database(files: Files, chance: random.Random, other: Template) -> None:
    size = chance.randrange(len(files.database) // PAGE + 1) * PAGE
    if chance.random() < 0.3:
        size = chance.randrange(len(files.database))
    files.database = files.database[:size]
    files.what += f" the database ends at {size};"


def _truncate_log(files: Files, chance: random.Random, other: Template) -> None:
    if files.log is not None:
        size = 32 + chance.randrange(len(files.log) // (PAGE + 24) + 1) * (PAGE + 24)
        if chance.random() < 0.3:
            size = chance.randrange(len(files.log))
        files.log = files.log[:size]
        files.is_cut = True
        files.what += f" the log ends at {size};"


def _no_log(files: Files, chance: random.Random, other: Template) -> None:
    if files.log is not None:
        files.log = None
        files.what += " the log is missing;"


def _foreign_log(files: Files, chance: random.Random, other: Template) -> None:
    if other.log is not None:
        files.log = other.log
        files.what += f" the log is that of {other.name};"


def _garbage_log(files: Files, chance: random.Random, other: Template) -> None:
    files.log = chance.randbytes(chance.choice((10, 32, 5000)))
    files.what += " the log is garbage;"


def _anything(files: Files, chance: random.Random, other: Template) -> None:
    files.database = mutated(files.database, chance, [other.database])
    files.what += " the database was changed in several places;"


def _swap_halves(files: Files, chance: random.Random, other: Template) -> None:
    """Without a log of its own, another database would be a good one."""
    if files.log is not None:
        files.database, files.what = other.database, f"{files.what} the database of {other.name};"


_DAMAGES: Sequence[Damage] = (
    _flip_database, _flip_database, _flip_database, _flip_log, _flip_log, _zero_page, _swap_pages,
    _truncate_database, _truncate_log, _no_log, _foreign_log, _garbage_log, _anything, _swap_halves,
)  # fmt: skip


# What it came to --------------------------------------------------------------------------------


async def check(path: Path, template: Template, files: Files) -> None:
    """Open the damaged files as the manager does, and look at what it would remember."""
    for old in path.parent.glob(f"{path.name}*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    path.write_bytes(files.database)
    if files.log is not None:
        Path(f"{path}-wal").write_bytes(files.log)
    where = f"{template.name}:{files.what}"
    try:
        with capture_logs() as logs:
            found = await _opened(path)
            remembered = _folded(found)
    except StateError as error:
        if str(path) not in str(error):
            raise Finding(f"{where} a refusal that names no file: {str(error)[:500]}") from None
        return
    except Exception as error:
        raise Finding(f"{where} {error!r}") from error
    if found == template.records:
        return
    said = [line["event"] for line in logs]
    if DROPPED in said and found in (template.records[:-1], *template.states[-3:]):
        return
    if NEW in said and not files.database and not found:
        return
    if files.is_cut and found in template.states:
        return
    raise Finding(
        f"{where} {len(found)} records are remembered where {len(template.records)} were written,"
        f" of {len(remembered.groups)} groups; the log says {logs}"
    )


async def _opened(path: Path) -> list[dict[str, Any]]:
    medium = SqliteMedium.open(path)
    try:
        return [dict(record) for record in medium.read()]
    finally:
        async with asyncio.timeout(30):
            await medium.close()
