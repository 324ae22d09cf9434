"""The id of a manager among those that share a journal.

It must stay the same after every restart, and no two managers may have the same one. So it is kept
in a file beside the state file. A manager that suddenly has another id was probably started with
the files or the config of another machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from halo.core.errors import AdministratorError
from halo.core.model import NODE_ID_LIMIT, ConfiguredManager
from halo.error_words import words_of

_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{NODE_ID_LIMIT}}}", re.ASCII)
_NUMBER_AT_END = re.compile(r"([0-9]+)$", re.ASCII)


def node_id(given: str | None, configured: Sequence[ConfiguredManager], hostname: str) -> str:
    """The id of this manager: the one given, else the config's, else the number at the end of the
    host's name. Raises AdministratorError."""
    if given is not None:
        return _checked(given, "--node-id")
    short = hostname.partition(".")[0]
    here = [manager.id for manager in configured if _is_here(manager, hostname)]
    if len(here) > 1:
        raise AdministratorError(
            f"the config names several managers on this host ({hostname}): {', '.join(here)}; say "
            "with --node-id which of them this is"
        )
    if here:
        return here[0]
    if (number := _NUMBER_AT_END.search(short)) is not None:
        found = _checked(number[1], f"the number at the end of the host name {hostname}")
        if other := next((manager for manager in configured if manager.id == found), None):
            raise AdministratorError(
                f"the config gives the id {found} to the manager on {other.host}, and names none "
                f"on this host ({hostname}); add it to `managers`, or give its id with --node-id"
            )
        return found
    raise AdministratorError(
        f"a manager with --store needs an id, and the name of this host ({hostname}) ends in no "
        "number; give one with --node-id, or name this host in `managers` of the config"
    )


def _is_here(manager: ConfiguredManager, hostname: str) -> bool:
    """Is it on this host? The domain counts only if both names have one."""
    named, here = manager.host.lower().rstrip("."), hostname.lower().rstrip(".")
    if "." in named and "." in here:
        return named == here
    return named.partition(".")[0] == here.partition(".")[0]


def _checked(text: str, what: str) -> str:
    if _ID.fullmatch(text) is None or text in (".", ".."):
        raise AdministratorError(
            f"{what}: {text[:80]!r} is no id of a manager; expected at most {NODE_ID_LIMIT} "
            "letters, digits, dots, dashes and underscores"
        )
    return text


def remember_id(statefile: Path, own: str) -> None:
    """Keep the id beside the state file, and compare it with the one that was kept.

    Reads and writes a file, so do not call it in the event loop. Raises AdministratorError."""
    path = Path(f"{statefile}.node")
    try:
        kept = _read(path)
        if kept is None:
            _write(path, own)
            return
    except (OSError, ValueError) as error:
        raise AdministratorError(
            f"{path}: the id of this manager cannot be kept there: {words_of(error)}; correct "
            "that, or give another path with --statefile"
        ) from error
    if kept != own:
        raise AdministratorError(
            f"this manager has the id {own} now, but {path} says that it was {kept[:80]!r} before; "
            "give the former id with --node-id, or remove that file if the new one is right"
        )


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(200).decode().strip()
    except FileNotFoundError:
        return None


def _write(path: Path, own: str) -> None:
    """All of it or nothing: after a power cut, half an id would be another one."""
    new = Path(f"{path}.new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, f"{own}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
