"""Where the store is, and with what a manager proves its right to use it.

Passwords come from a file, from a systemd credential or from the environment, never from the
command line, where every user of the machine can read them. No text about a store holds them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from halo.adapters.store_files import NO_FILES, StoreFiles
from halo.core.errors import AdministratorError
from halo.core.secrets import STORE_PASSWORD
from halo.error_words import words_of

SCHEME = "etcd://"
DEFAULT_PORT = 2379
MEMBERS_LIMIT = 16
PREFIX_LIMIT = 200  # characters
PASSWORD_LIMIT_BYTES = 4096

_CREDENTIALS = {
    "ca": "store-ca",
    "certificate": "store-cert",
    "key": "store-key",
    "password_file": "store-password",
}
"""systemd credentials that are used if they are there, and no flag names another file."""

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_PART = re.compile(r"[A-Za-z0-9._-]+")


class StoreError(AdministratorError):
    """The store's name, its certificates or its credentials must be corrected first."""


@dataclass(frozen=True, slots=True)
class Store:
    """One store: its members as `host:port`, the prefix of its keys, and how to be admitted."""

    members: tuple[str, ...]
    prefix: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{SCHEME}{','.join(self.members)}{self.prefix}"

    @property
    def shows_password(self) -> bool:
        """Does the password cross a network in the clear?"""
        return (
            self.password is not None
            and self.tls is None
            and not all(map(_is_loopback, self.members))
        )

    def key(self, name: str) -> str:
        """The full name of a key."""
        return f"{self.prefix}/{name}"


def _is_loopback(member: str) -> bool:
    host = member.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_store(text: str) -> bool:
    """Does this name a store, and not a file?"""
    return text.startswith(SCHEME)


def store_at(
    text: str,
    files: StoreFiles = NO_FILES,
    environment: MutableMapping[str, str] = os.environ,
) -> Store:
    """The store that `text` names, as `etcd://host:port,host:port/PREFIX`.

    Reads the files. Removes a password from the environment, so that no fence program inherits it.
    Raises StoreError."""
    members, prefix = _parsed(text)
    files = _with_credentials(files, environment)
    password = _password(files, environment.pop(STORE_PASSWORD, None))
    if (files.user is None) != (password is None):
        raise StoreError(
            f"{text}: a user needs a password, and a password a user: give both, --store-user and "
            f"--store-password-file (or the credential store-password, or {STORE_PASSWORD})"
        )
    return Store(members, prefix, files.user, password, _tls(files))


def _parsed(text: str) -> tuple[tuple[str, ...], str]:
    if "@" in text:  # before anything quotes the text
        raise StoreError(
            "--store holds an @: a user and password in it could be read by every user of this "
            "machine; give --store-user and --store-password-file"
        )
    if not is_store(text):
        raise StoreError(f"--store {text!r}: must look like {SCHEME}host:{DEFAULT_PORT}/PREFIX")
    hosts, _, path = text.removeprefix(SCHEME).partition("/")
    members = tuple(_member(text, host) for host in hosts.split(","))
    if len(set(members)) != len(members):
        raise StoreError(f"--store {text!r}: a member is named twice")
    if len(members) > MEMBERS_LIMIT:
        raise StoreError(f"--store {text!r}: more than {MEMBERS_LIMIT} members")
    parts = path.rstrip("/").split("/")
    if not all(map(_PART.fullmatch, parts)) or len(path) > PREFIX_LIMIT:
        raise StoreError(
            f"--store {text!r}: needs a prefix of its own for this cluster after the members, such "
            f"as /halo/NAME, of letters, digits and ._- (at most {PREFIX_LIMIT} characters)"
        )
    return members, "/" + "/".join(parts)


def _member(text: str, host: str) -> str:
    found = _HOST.fullmatch(host)
    if found is None or not 0 < int(found["port"] or DEFAULT_PORT) < 65536:
        raise StoreError(f"--store {text!r}: {host!r} is not a host or host:port")
    return f"{found['host']}:{int(found['port'] or DEFAULT_PORT)}"


def _with_credentials(files: StoreFiles, environment: MutableMapping[str, str]) -> StoreFiles:
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return files
    found = {name: Path(folder) / file for name, file in _CREDENTIALS.items()}
    there = {name: path for name, path in found.items() if path.exists()}
    return StoreFiles(
        ca=files.ca or there.get("ca"),
        certificate=files.certificate or there.get("certificate"),
        key=files.key or there.get("key"),
        user=files.user,
        password_file=files.password_file or there.get("password_file"),
    )


def _password(files: StoreFiles, from_environment: str | None) -> str | None:
    path = files.password_file
    if path is None:
        return from_environment or None
    try:
        with path.open("rb") as file:
            content = file.read(PASSWORD_LIMIT_BYTES + 1)
        password = content.decode().rstrip("\r\n")
    except OSError as error:
        raise StoreError(
            f"the password file {path} cannot be read: {words_of(error)}; make it readable for the "
            "manager's user, or name another one with --store-password-file"
        ) from error
    except UnicodeDecodeError as error:
        raise StoreError(f"the password file {path} is not text") from error
    if not password or len(content) > PASSWORD_LIMIT_BYTES:
        raise StoreError(
            f"the password file {path} must hold the password alone, of 1 to "
            f"{PASSWORD_LIMIT_BYTES} bytes"
        )
    return password


def _tls(files: StoreFiles) -> ssl.SSLContext | None:
    if (files.certificate is None) != (files.key is None):
        raise StoreError("--store-cert and --store-key belong together: give both, or none")
    if files.ca is None:
        if files.certificate is not None:
            raise StoreError(
                "a client certificate for the store needs TLS: give the CA of the store's members "
                "with --store-ca"
            )
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # requires a certificate that fits the name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(files.ca)
    except (ssl.SSLError, OSError) as error:
        raise StoreError(
            f"cannot use the CA certificate {files.ca} of --store-ca: {words_of(error)}; it must "
            "be a PEM file"
        ) from error
    if files.certificate is not None:
        try:
            context.load_cert_chain(files.certificate, files.key, password=_refuse_password)
        except (ssl.SSLError, OSError, StoreError) as error:
            raise StoreError(
                f"cannot use the certificate {files.certificate} with the key {files.key}: "
                f"{words_of(error)}; both must be unencrypted PEM files that belong together"
            ) from error
    return context


def _refuse_password() -> str:
    # OpenSSL would ask on the terminal, where nobody answers a daemon.
    raise StoreError("the key is encrypted")
