"""The folder of a site's CA. Files are written completely or not at all; keys only for root.

::

    ca.crt, ca.key
    hosts/NAME/      server.crt, server.key, ca.crt    for /etc/halo on that host
    managers/NAME/   client.crt, client.key, ca.crt    for /etc/halo where a manager runs
    peers/NAME/      peer.crt, peer.key, ca.crt        for /etc/halo of that manager's machine
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from halo.adapters.tls.certificates import normal_name
from halo.cli.errors import CliError
from halo.cli.tls.authority import Pair, Role, belong_together
from halo.error_words import words_of

KEY_MODE = 0o600
CERTIFICATE_MODE = 0o644

_FOLDER_OF = {Role.HOST: "hosts", Role.MANAGER: "managers", Role.PEER: "peers"}
_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_](?:[A-Za-z0-9._:-]{0,251}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class Place:
    """The place of one certificate."""

    folder: Path
    role: Role

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def certificate(self) -> Path:
        return self.folder / f"{self.role.value}.crt"

    @property
    def key(self) -> Path:
        return self.folder / f"{self.role.value}.key"

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"


class Store:
    """The folder. Its methods block, and raise CliError with a sentence for the operator."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca_certificate = folder / "ca.crt"
        self.ca_key = folder / "ca.key"

    def load_ca(self) -> Pair:
        if not self.ca_key.exists():
            raise CliError(
                f"There is no CA in {self.folder}: make one with `halo tls init {self.folder}`, or "
                "name the folder of the site's CA with --dir or HALO_TLS_DIR."
            )
        return self._load(self.ca_certificate, self.ca_key)

    def save_ca(self, ca: Pair) -> None:
        self._make(self.folder)
        _write(self.ca_key, ca.key, KEY_MODE)
        _write(self.ca_certificate, ca.certificate, CERTIFICATE_MODE)

    def place(self, role: Role, name: str) -> Place:
        """The place for the certificate of this name. The certificate need not exist."""
        normal = as_stored(name)
        if not _NAME.fullmatch(normal):
            raise CliError(
                f'"{name}" is neither a host name nor an address that a certificate can hold.'
            )
        return Place(self.folder / _FOLDER_OF[role] / normal, role)

    def places(self) -> Iterator[Place]:
        """The places of all existing certificates, hosts first, by name."""
        for role, folder in _FOLDER_OF.items():
            for path in sorted((self.folder / folder).glob(f"*/{role.value}.crt")):
                yield Place(path.parent, role)

    def load(self, place: Place) -> Pair:
        return self._load(place.certificate, place.key)

    def save(self, place: Place, made: Pair, ca: Pair) -> None:
        """Write the files one after the other. Read meanwhile, the pair does not fit together."""
        self._make(place.folder.parent)
        self._make(place.folder)
        _write(place.key, made.key, KEY_MODE)
        _write(place.certificate, made.certificate, CERTIFICATE_MODE)
        self.save_ca_of(place, ca)

    def save_ca_of(self, place: Place, ca: Pair) -> None:
        _write(place.ca, ca.certificate, CERTIFICATE_MODE)

    def _load(self, certificate: Path, key: Path) -> Pair:
        try:
            pair = Pair(certificate.read_bytes(), key.read_bytes())
            fits = belong_together(pair.certificate, pair.key)
        except OSError as error:
            raise CliError(f"Cannot read {error.filename}: {words_of(error)}.") from error
        except ValueError as error:
            raise CliError(f"{certificate} or {key} cannot be used: {error}.") from error
        if not fits:
            raise CliError(f"{key} is not the key of {certificate}.")
        return pair

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(mode=0o700, parents=folder == self.folder, exist_ok=True)
        except OSError as error:
            raise CliError(f"Cannot make the folder {folder}: {words_of(error)}.") from error


def as_stored(name: str) -> str:
    """A name in the form of its folder and its certificate."""
    return normal_name(name)


def _write(path: Path, content: bytes, mode: int) -> None:
    """Replace a file in one step. On return it is on disk. Nobody else can ever read a key."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, KEY_MODE)
        try:
            with os.fdopen(file, "wb") as opened:
                opened.write(content)
                os.fchmod(opened.fileno(), mode)
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise CliError(f"Cannot write {path}: {words_of(error)}.") from error
