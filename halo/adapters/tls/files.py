"""Mutual TLS between manager and agents: where the certificates are, and both sides' contexts.

Both sides present a certificate, and verify the other one against one CA. The manager also checks
that the agent's certificate names the host. The agent checks that the manager's certificate is a
manager's: see :mod:`halo.core.peers.certificates`. :mod:`halo.adapters.tls.identity` handles files
that change while the program runs.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from halo.adapters.tls.certificates import normal_name
from halo.core.errors import AdministratorError
from halo.core.peers.certificates import Certificate
from halo.error_words import words_of

DEFAULT_DIRECTORY = Path("/etc/halo")


class TlsFileError(AdministratorError):
    """A certificate or key that mutual TLS needs is missing, cannot be read, or does not fit."""


class TlsNameError(AdministratorError):
    """A name for mutual TLS is not valid."""


class _Secured(ssl.SSLObject):
    """A connection whose certificate may hold data that the standard library cannot read.

    asyncio reads the peer's names at the end of each handshake. If it raised another error than
    those of TLS, nothing would catch it, and each time the log would get a traceback."""

    def getpeercert(self, binary_form: bool = False) -> Any:
        try:
            return super().getpeercert(binary_form)
        except ValueError as error:
            raise _UnreadableError(ssl.SSL_ERROR_SSL, UNREADABLE) from error


UNREADABLE = "the certificate holds a name that cannot be read"


class _UnreadableError(ssl.SSLError):
    """An error of our own. It has no `reason` and no `library`, unlike OpenSSL's errors."""

    reason = UNREADABLE
    library = "halo"


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files of one side: its own certificate and key, and the CA of the other side's."""

    certificate: Path
    key: Path
    ca: Path
    needed_by: str = "--mtls"
    named_by: str = "HALO_SERVER_CERT/KEY (agent), HALO_CLIENT_CERT/KEY (manager), HALO_CA_CERT"

    @classmethod
    def of_agent(cls, environment: Mapping[str, str] = os.environ) -> TlsFiles:
        """HALO_SERVER_CERT, HALO_SERVER_KEY, HALO_CA_CERT, or their defaults under /etc/halo."""
        return cls._of("SERVER", environment)

    @classmethod
    def of_manager(cls, environment: Mapping[str, str] = os.environ) -> TlsFiles:
        """HALO_CLIENT_CERT, HALO_CLIENT_KEY, HALO_CA_CERT, or their defaults under /etc/halo."""
        return cls._of("CLIENT", environment)

    @classmethod
    def of_peer(cls, environment: Mapping[str, str] = os.environ) -> TlsFiles:
        """Between managers: HALO_PEER_CERT, HALO_PEER_KEY, HALO_PEER_CA, or their defaults under
        /etc/halo. Without HALO_PEER_CA it is HALO_CA_CERT, since most sites have one CA."""

        def path(variable: str, name: str) -> Path:
            return Path(environment.get(variable) or DEFAULT_DIRECTORY / name)

        ca = "HALO_PEER_CA" if environment.get("HALO_PEER_CA") else "HALO_CA_CERT"
        return cls(
            path("HALO_PEER_CERT", "peer.crt"),
            path("HALO_PEER_KEY", "peer.key"),
            path(ca, "ca.crt"),
            needed_by="a connection between managers",
            named_by="HALO_PEER_CERT, HALO_PEER_KEY, HALO_PEER_CA",
        )

    @classmethod
    def _of(cls, side: str, environment: Mapping[str, str]) -> TlsFiles:
        def path(variable: str, name: str) -> Path:
            return Path(environment.get(variable) or DEFAULT_DIRECTORY / name)

        return cls(
            path(f"HALO_{side}_CERT", f"{side.lower()}.crt"),
            path(f"HALO_{side}_KEY", f"{side.lower()}.key"),
            path("HALO_CA_CERT", "ca.crt"),
        )


def expected_name(environment: Mapping[str, str] = os.environ) -> str | None:
    """The name that every agent's certificate must hold, or None for the host's own.

    Raises TlsNameError for a name that no certificate can hold. Each handshake would fail then."""
    given = environment.get("HALO_SERVER_DOMAIN_NAME")
    if not given:
        return None
    name = normal_name(given)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(
            ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name
        )
    except (ValueError, OSError) as error:
        raise TlsNameError(
            f"HALO_SERVER_DOMAIN_NAME={given!r} is not a name for a certificate: "
            f"{words_of(error)}; set it to the name in the agents' certificates, or unset it"
        ) from error
    return name


def manager_names(text: str | None) -> frozenset[str]:
    """The names of HALO_MANAGER_NAME: one, or several separated by commas.

    Raises TlsNameError for a text without a name: roles would not be set, against its purpose."""
    names = frozenset(filter(None, (normal_name(name) for name in (text or "").split(","))))
    if text and not names:
        raise TlsNameError(
            f"HALO_MANAGER_NAME={text!r} holds no name; set it to the name in the manager's "
            "certificate, or unset it"
        )
    return names


def own_names(own: Certificate) -> frozenset[str]:
    """The names of an agent: those of its certificate, and those of its machine."""
    host = normal_name(socket.gethostname())
    return own.names | {host, host.partition(".")[0]}


def agent_context(files: TlsFiles) -> ssl.SSLContext:
    """The agent's side. Reads files: call it before the event loop runs. Raises TlsFileError."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    # A resumed session would skip the check of the manager's certificate, above all of its expiry.
    # A full handshake costs a millisecond. TLS 1.2 still resumes sessions from OpenSSL's memory,
    # which Python cannot switch off: see ManagerGate.refusal_of.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    return context


def manager_context(files: TlsFiles) -> ssl.SSLContext:
    """The manager's side. Reads files: call it before the event loop runs. Raises TlsFileError."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    context.hostname_checks_common_name = False
    return context


def looking_context(files: TlsFiles) -> ssl.SSLContext:
    """Like :func:`manager_context`, but for whatever certificate is there. With it, a refused
    certificate is read for a message. Say nothing over such a connection, and believe nothing."""
    context = manager_context(files)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def speaks_no_tls(error: BaseException) -> bool:
    """Did the other end of a handshake send something that is not TLS?"""
    return isinstance(error, ssl.SSLError) and error.reason in _NO_TLS


# OpenSSL's names for such errors.
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNEXPECTED_MESSAGE", "BAD_RECORD_TYPE")


def _context(side: int, files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.sslobject_class = _Secured
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    for path, what in (
        (files.certificate, "certificate"),
        (files.key, "private key"),
        (files.ca, "CA certificate"),
    ):
        _require_readable(files, path, what)
    try:
        # For an encrypted key, OpenSSL would ask on the terminal, where nobody answers a daemon.
        context.load_cert_chain(files.certificate, files.key, password=_refuse_password)
    except (ssl.SSLError, OSError, TlsFileError) as error:
        raise TlsFileError(
            f"cannot use the certificate {files.certificate} with the private key {files.key}: "
            f"{words_of(error)}; both must be unencrypted PEM files that belong together"
        ) from error
    try:
        context.load_verify_locations(files.ca)
    except (ssl.SSLError, OSError) as error:
        raise TlsFileError(
            f"cannot use the CA certificate {files.ca}: {words_of(error)}; it must be a PEM file"
        ) from error
    return context


def _refuse_password() -> str:
    raise TlsFileError("the key is encrypted")


def _require_readable(files: TlsFiles, path: Path, what: str) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise TlsFileError(
            f"{files.needed_by} needs the {what} {path}: {words_of(error)}; "
            f"put it there or name another file with {files.named_by}"
        ) from error
