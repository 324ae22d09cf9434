"""`halo store`: the journal as a whole, without the manager: copy it, check it, move it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from halo.adapters.usage import store_files, store_options
from halo.cli.errors import CliError
from halo.core.errors import LeadershipError, RecordError, StateError
from halo.error_words import words_of

if TYPE_CHECKING:
    from halo.adapters.etcd.location import Store
    from halo.adapters.etcd.terms import Raised
    from halo.core.journal.remembered import Remembered
    from halo.ports import JournalMedium, JournalRecord

_SQLITE = b"SQLite format 3\0"
_NAMES = (
    "Name a state file, a file of `halo store export`, or a journal in etcd: "
    "etcd://HOST:PORT,HOST:PORT/PREFIX."
)


@click.group()
def store() -> None:
    """Copy, check and move the journal: the orders and fences that a manager remembers.

    A journal is named by its state file, or by etcd://HOST:PORT,HOST:PORT/PREFIX. A state file can
    only be used while no manager has it open.
    """


@store.command()
@click.argument("source", metavar="JOURNAL")
@click.argument("file", metavar="[FILE]", default="-")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@store_options
def export(source: str, file: str, force: bool) -> None:
    """Write all records of JOURNAL to FILE (default: stdout), as text.

    A journal in etcd can be exported while the manager runs.
    """
    from halo.adapters.journal.export import exported

    records = _records(source)
    _folded(records, source)
    content = exported(records)
    if file == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        return
    _write(Path(file), content, force)
    click.echo(f"{len(records)} records written to {file}.")


@store.command(name="import")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="JOURNAL")
@click.option("--replace", is_flag=True, help="Replace the records of a JOURNAL that has some.")
@store_options
def import_(source: str, target: str, replace: bool) -> None:
    """Write the records of FROM into JOURNAL, which must be empty or new.

    FROM is a file of `halo store export`, a state file, or a journal in etcd. All records are
    written in one step, or none. Stop the manager of JOURNAL before. In etcd, the next leader's
    term will be above all terms in the records.
    """
    records = _records(source)
    highest = _folded(records, source).term
    medium = _opened(target)
    try:
        there = len(list(medium.read()))
        if there and not replace:
            raise CliError(
                f"{target} has {there} records already; nothing was changed. Give an empty "
                "journal, or --replace to forget what is there."
            )
        with _telling_of_writes(source, target):
            asyncio.run(medium.compact(records) if there else medium.append(records))
    finally:
        asyncio.run(medium.close())
    click.echo(f"{len(records)} records written to {target}.")
    from halo.adapters.etcd.location import is_store

    if is_store(target):
        if highest:  # a manager that leads before this does not begin, since its term is too low
            click.echo(_raised(target, highest, f"import of {source}"))
        click.echo(
            "If an agent has served a leader with a higher term than the next leader's, "
            "`halo status` says so. Then stop the managers, and use `halo store raise-term`."
        )


@store.command(name="raise-term")
@click.argument("target", metavar="STORE")
@click.option(
    "--above",
    required=True,
    type=click.IntRange(1),
    metavar="N",
    help="The highest term that was in use.",
)
@click.option("--reason", required=True, help="Why; kept in STORE.")
@store_options
def raise_term(target: str, above: int, reason: str) -> None:
    """Have the next leader of STORE get a term above N. The term never becomes lower.

    An agent refuses a leader whose term is lower than the highest that it has seen. If etcd was
    built anew, its terms begin low again. `halo status` then names the higher term. Stop all
    managers before: nothing is changed while one leads.
    """
    from halo.adapters.etcd.location import is_store
    from halo.adapters.etcd.terms import BASE_LIMIT

    if not is_store(target):
        raise CliError(f"{target} is no store in etcd. Only leaders in etcd have a term.")
    if above > BASE_LIMIT:
        raise CliError(
            f"{above} is too high: no leader in etcd gets a term above {BASE_LIMIT}. If an agent "
            "names it, make the agent forget it: halo_remote --forget-term CLUSTER."
        )
    click.echo(_raised(target, above, reason))


def _raised(target: str, above: int, reason: str) -> str:
    """Raise the base of terms, and return what is to be said. Raises HaloError."""
    from halo.adapters.etcd.location import store_at
    from halo.adapters.etcd.reading import holder_in
    from halo.adapters.etcd.terms import SomebodyLeads

    at = store_at(target, store_files())
    try:
        with _telling_of(
            at,
            "the term was not raised",
            "it is not known whether the term was raised; to raise it again is harmless",
        ):
            return _told(asyncio.run(_raise(at, above, reason)), above)
    except SomebodyLeads as error:
        raise CliError(
            f"{target} is led by {holder_in(error.leader)}. The term was not raised. Stop all "
            "managers first, or wait until the lease of a dead one has ended. Then run `halo "
            f"store raise-term {target} --above {above} --reason TEXT`."
        ) from error


async def _raise(at: Store, above: int, reason: str) -> Raised:
    from halo.adapters.etcd.client import EtcdClient
    from halo.adapters.etcd.terms import raise_base

    client = EtcdClient(at)
    try:
        return await raise_base(client, at, above, reason, at=time.time())
    finally:
        await client.close()


def _told(raised: Raised, above: int) -> str:
    if raised.after == raised.before:
        return (
            f"The base of terms is {raised.before}, so every further term is above {above} "
            "already. Nothing was changed."
        )
    return (
        f"The base of terms was {raised.before} and is {raised.after} now: "
        f"every further term is above {above}."
    )


@store.command()
@click.argument("source", metavar="JOURNAL")
@store_options
def check(source: str) -> None:
    """Read JOURNAL, or a file of `halo store export`, as a manager does, and say what it holds.

    Nothing is changed. The exit status is 64 if it is damaged.
    """
    records = _records(source)
    found = _folded(records, source)
    unmanaged = sum(not group.managed for group in found.groups.values())
    stopped = sum(not group.wanted for group in found.groups.values())
    fenced = sum(host.fenced for host in found.hosts.values())
    inactive = sum(not host.active for host in found.hosts.values())
    click.echo(
        f"{source} holds {len(records)} records: {len(found.hosts)} hosts ({fenced} fenced, "
        f"{inactive} deactivated), {len(found.groups)} groups ({unmanaged} unmanaged, {stopped} "
        "stopped)" + (", frozen." if found.frozen else ".")
    )


def _records(source: str) -> list[JournalRecord]:
    """The records of a journal or of a file. Raises HaloError."""
    from halo.adapters.etcd.location import is_store, store_at

    click.get_current_context().with_resource(_warnings_on_stderr())
    if not source:
        raise CliError(f"The name of the journal is empty. {_NAMES}")
    if is_store(source):
        from halo.adapters.etcd.reading import records_in

        at = store_at(source, store_files())
        with _telling_of(at, "the journal cannot be read"):
            return asyncio.run(records_in(at))
    path = Path(source)
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_SQLITE))
    except OSError as error:
        raise CliError(f"{path} cannot be read: {words_of(error)}. {_NAMES}") from error
    if not beginning:  # a copy onto a full disk leaves such a file
        raise CliError(
            f"{path} is empty, so it is neither a journal nor a copy of one. Use another copy."
        )
    if beginning == _SQLITE:
        return _read_and_close(_opened(source))
    from halo.adapters.journal.export import BEGINNING, records_in_export

    if beginning.startswith(BEGINNING):
        return records_in_export(path)
    from halo.adapters.journal.text_import import import_halo_state

    try:
        return import_halo_state(path)
    except StateError as error:
        raise StateError(
            f"{path} is neither a state file nor a file of `halo store export`, so it was read as "
            f"a text state file of HALO (Rust), and is none: {error}"
        ) from error


def _read_and_close(medium: JournalMedium) -> list[JournalRecord]:
    try:
        return list(medium.read())
    finally:
        asyncio.run(medium.close())


def _opened(target: str) -> JournalMedium:
    """Take the journal's lock. Raises HaloError."""
    from halo.adapters.etcd.location import is_store, store_at

    if is_store(target):
        from halo.adapters.etcd.medium import EtcdMedium

        at = store_at(target, store_files())
        with _telling_of(at, "the journal cannot be opened"):
            return EtcdMedium.open(at)
    from halo.adapters.journal.sqlite import SqliteMedium

    return SqliteMedium.open(Path(target))


def _folded(records: list[JournalRecord], source: str) -> Remembered:
    """What a manager would remember. Raises StateError for records of another version."""
    from halo.core.journal import fold
    from halo.core.journal.records import Record
    from halo.core.journal.remembered import Remembered

    remembered = Remembered()
    try:
        fold.apply_all(remembered, map(Record.from_json, records))
    except StateError as error:
        raise StateError(f"{source}: {error}") from error
    return remembered


@contextlib.contextmanager
def _telling_of(at: Store, what: str, unknown: str | None = None) -> Iterator[None]:
    """Say of an error of etcd which store it is about, and what to do next. `unknown` stands for
    `what` if the request may have been carried out."""
    from halo.adapters.etcd.errors import EtcdError, NoAnswer

    try:
        yield
    except NoAnswer as error:
        said = unknown if unknown is not None and error.unknown else what
        raise CliError(
            f"{at}: {said}: {error}. If these are the members of your etcd, see on their machines "
            "why they do not answer: `systemctl status etcd`."
        ) from error
    except EtcdError as error:  # it says itself what to correct
        raise CliError(f"{at}: {what}: {error}.") from error


@contextlib.contextmanager
def _telling_of_writes(source: str, target: str) -> Iterator[None]:
    """Say of an error whether the records were written, and what to do next."""
    try:
        yield
    except RecordError as error:
        raise CliError(
            f"Nothing of {source} was imported, and {target} is as before: {error}. Correct that, "
            "and run the command again."
        ) from error
    except LeadershipError as error:
        raise CliError(
            f"It is not known whether {source} was imported into {target}: {error}. See what is "
            f"there: `halo store check {target}`."
        ) from error


def _write(path: Path, content: bytes, force: bool) -> None:
    """Write a whole file that only its owner can read, or none."""
    if path.exists() and not force:
        raise CliError(f"{path} exists already. Give another name, or --force to replace it.")
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            with open(new, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise CliError(f"{path} cannot be written: {words_of(error)}.") from error


@contextlib.contextmanager
def _warnings_on_stderr() -> Iterator[None]:
    """What media log for a manager goes to stderr, as far as it is meant for an administrator."""
    import logging

    import structlog

    def drop_new(_logger: object, _method: str, entry: MutableMapping[str, Any]) -> Any:
        if str(entry["event"]).startswith("new "):  # "nothing is remembered" is not meant here
            raise structlog.DropEvent
        return entry

    before = structlog.get_config()
    structlog.configure(
        processors=[drop_new, structlog.processors.KeyValueRenderer(key_order=["event"])],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.configure(**before)
