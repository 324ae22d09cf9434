"""The certificate that a program shows now: renewed files are used while the program runs.

New files are used from the next handshake on. A standing connection is not touched: its certificate
was good when it began, and to end it would only make a gap. Files are checked every few seconds.
They are used when they have not changed between two checks, because certificate and key cannot be
replaced in one step. If they cannot be used, this is logged once, and the earlier ones stay in use.
HALO tries again every minute.

Rejected: inotify, which does not work on network file systems. A check at each handshake, which
would have to wait for a disk. A signal, since a forgotten signal is noticed only a year later.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

import structlog

from halo.adapters.slow_files import in_daemon_thread
from halo.adapters.tls.certificates import ders_in, normal_name, read_certificate
from halo.adapters.tls.files import (
    TlsFileError,
    TlsFiles,
    agent_context,
    manager_context,
    own_names,
)
from halo.core.peers.certificates import (
    Certificate,
    OwnCertificates,
    mistake_of_agent,
    mistake_of_manager,
    notices,
    refusal_of_agent,
    refusal_of_ended,
    refusal_of_manager,
)
from halo.error_words import words_of

log = structlog.get_logger()

LOOK_EVERY_S = 2.0
RETRY_S = 60.0
"""How often files that could not be used are read again, even if they have not changed. The cause
may be an SELinux label, a disk, or a lack of descriptors, and none of these shows in a file."""
PATIENCE_S = 30.0
"""If a file system takes longer than this, it is logged. Its answer is still awaited."""

T = TypeVar("T")

Signature: TypeAlias = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class _Loaded:
    """The content of the files at one moment."""

    context: ssl.SSLContext
    own: Certificate
    der: bytes
    ca_ends_at: float


class TlsIdentity:
    """The files of one side that are in use. Create it before the event loop runs: it reads."""

    def __init__(
        self,
        files: TlsFiles,
        make_context: Callable[[TlsFiles], ssl.SSLContext],
        mistake_in: Callable[[Certificate], str | None] = lambda own: None,
    ) -> None:
        """Raises TlsFileError. `mistake_in` says why a certificate may not be this program's."""
        self._files = files
        self._make_context = make_context
        self._mistake_in = mistake_in
        self._signature = _signature(files)
        self._settling: Signature | None = None
        self._failed_at: float | None = None
        self._patience_s = PATIENCE_S
        self._troubles: dict[str, str | None] = {}
        self._loaded = self._load()
        self.known = OwnCertificates()
        """Kept up to date in place, for those who show it."""
        self._note_ends()

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next handshake."""
        return self._loaded.context

    @property
    def own(self) -> Certificate:
        return self._loaded.own

    def is_own(self, der: bytes | None) -> bool:
        """Is this the same certificate that this program shows?"""
        return der == self._loaded.der

    def refusal_of_agent(self, der: bytes, expected: str) -> str | None:
        """Why a manager refuses the certificate of the agent with the name `expected`, or None.
        Raises ValueError if it is not a certificate."""
        return refusal_of_agent(read_certificate(der), self.own, normal_name(expected))

    async def watch(
        self,
        every_s: float = LOOK_EVERY_S,
        retry_s: float = RETRY_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Use renewed files, until cancelled. Nothing else may end this, because a renewal would
        then go unnoticed until the certificates in use have expired."""
        self._patience_s = patience_s
        while True:
            await asyncio.sleep(every_s)
            try:
                await self._look(retry_s)
            except Exception as error:  # such as no free thread
                self._tell(stuck=f"cannot read the files: {words_of(error)}")
            else:
                self._tell(stuck=None)

    async def _look(self, retry_s: float) -> None:
        found = await self._ask(lambda: _signature(self._files), "look at certificates")
        if found != self._settling:
            self._settling = found
            return
        now = asyncio.get_running_loop().time()
        is_due = self._failed_at is not None and now - self._failed_at >= retry_s
        if found == self._signature and not is_due:
            return
        result = await self._ask(self._try_to_load, "load certificates")
        self._signature = found
        self._failed_at = now if isinstance(result, TlsFileError) else None
        self._take_up(result)

    async def _ask(self, work: Callable[[], T], what: str) -> T:
        """Do work that may hang, and log if it does. At most one thread is lost."""
        asked = in_daemon_thread(work, what)
        done, _ = await asyncio.wait([asked], timeout=self._patience_s)
        if not done:
            self._tell(stuck=f"the file system of {self._files.certificate} does not answer")
        return await asked

    def _take_up(self, result: _Loaded | TlsFileError) -> None:
        if isinstance(result, TlsFileError):
            self._tell(stuck=None, refused=str(result))
            return
        self._loaded = result
        self._tell(stuck=None, refused=None)
        self._note_ends()
        log.info(
            "renewed certificates are taken up",
            certificate=str(self._files.certificate),
            names=sorted(result.own.names),
        )

    def _tell(self, **troubles: str | None) -> None:
        """Keep the troubles, and log each new one."""
        new = {why for what, why in troubles.items() if why and why != self._troubles.get(what)}
        self._troubles.update(troubles)
        self.known.trouble = "; ".join(filter(None, self._troubles.values())) or None
        for problem in new:
            log.error(
                "renewed certificates are not taken up; those before stay in use", problem=problem
            )

    def _note_ends(self) -> None:
        self.known.ends = {
            f"the certificate {self._files.certificate}": self._loaded.own.expires_at,
            f"the CA certificate {self._files.ca}": self._loaded.ca_ends_at,
        }
        for notice in notices(self.known, {}, time.time()):
            log.warning("certificate", problem=notice)

    def _try_to_load(self) -> _Loaded | TlsFileError:
        try:
            return self._load()
        except TlsFileError as error:
            return error
        except Exception as error:  # in any case, keep the certificate in use
            return TlsFileError(f"{type(error).__name__}: {words_of(error)}")

    def _load(self) -> _Loaded:
        context = self._make_context(self._files)
        own, der = _read(self._files.certificate)[0]
        # While a CA is replaced, the file holds both, and the newer one counts.
        ca_ends_at = max(ca.expires_at for ca, _ in _read(self._files.ca))
        if mistake := self._mistake_in(own):
            raise TlsFileError(
                f"the certificate {self._files.certificate} cannot be used: {mistake}"
            )
        return _Loaded(context, own, der, ca_ends_at)


class ManagerGate:
    """The agent's gate with mutual TLS: whom it lets in, and which certificate it shows."""

    def __init__(self, files: TlsFiles, managers: frozenset[str]) -> None:
        """Reads files: create it before the event loop runs. Raises TlsFileError."""
        self._managers = managers
        self.identity = TlsIdentity(
            files, agent_context, lambda own: mistake_of_agent(own, self._managers)
        )

    @property
    def context(self) -> ssl.SSLContext:
        """The context for the next handshake."""
        return self.identity.context

    def refusal_of(self, peer: bytes | None) -> str | None:
        """Why the peer with this certificate, in DER, is not served; None if it is served."""
        try:
            shown = read_certificate(peer or b"")
        except ValueError as error:
            return str(error)
        # TLS checks the expiry only in a full handshake, and a session may be resumed.
        if ended := refusal_of_ended(shown, time.time()):
            return ended
        return refusal_of_manager(shown, self._managers, own_names(self.identity.own))


def manager_identity(files: TlsFiles) -> TlsIdentity:
    """The manager's side. Reads files: call it before the event loop runs. Raises TlsFileError."""
    return TlsIdentity(files, manager_context, mistake_of_manager)


def _signature(files: TlsFiles) -> Signature:
    """A value that changes when one of the files changes."""
    return tuple(_stat(path) for path in (files.certificate, files.key, files.ca))


def _stat(path: Path) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _read(path: Path) -> list[tuple[Certificate, bytes]]:
    try:
        return [(read_certificate(der), der) for der in ders_in(path)]
    except (OSError, ValueError) as error:
        raise TlsFileError(f"cannot use the certificate {path}: {words_of(error)}") from error
