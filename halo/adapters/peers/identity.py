"""The certificate that managers show each other, and whose they accept.

Each manager calls and answers with the same certificate. So it has both usages, which no
certificate of a host or of a manager towards agents has, and it holds the name of a manager's
machine.

Rejected: one of the two certificates that a manager has already. That towards agents may not serve,
and that of a host on the same machine must not command the cluster.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from halo.adapters.slow_files import in_daemon_thread
from halo.adapters.tls.certificates import normal_name, read_certificate
from halo.adapters.tls.files import (
    TlsFileError,
    TlsFiles,
    agent_context,
    looking_context,
    manager_context,
)
from halo.adapters.tls.identity import LOOK_EVERY_S, TlsIdentity
from halo.core.peers.certificates import (
    OwnCertificates,
    mistake_of_peer,
    refusal_of_ended,
    refusal_of_name,
    refusal_of_peer,
)


class PeerIdentity:
    """The files of this manager towards other managers. Create it before the event loop runs."""

    def __init__(self, files: TlsFiles, hosts: frozenset[str] = frozenset()) -> None:
        """`hosts` are the names and addresses of the cluster's hosts. Reads files. Raises
        TlsFileError."""
        self._answering = TlsIdentity(files, agent_context, mistake_of_peer)
        self._calling = TlsIdentity(files, manager_context, mistake_of_peer)
        self._files = files
        self._hosts = frozenset(map(normal_name, hosts))
        self.managers: Callable[[], frozenset[str]] = frozenset
        """The names of the managers' machines, as far as they are known now."""

    @property
    def context(self) -> ssl.SSLContext:
        """The context to answer with, for the next handshake."""
        return self._answering.context

    @property
    def calling_context(self) -> ssl.SSLContext:
        """The context to call with, for the next handshake."""
        return self._calling.context

    @property
    def own_names(self) -> frozenset[str]:
        """The names in the certificate that this manager shows."""
        return self._calling.own.names

    @property
    def ca(self) -> Path:
        """The file with the CA of the other managers."""
        return self._files.ca

    async def looking_context(self) -> ssl.SSLContext:
        """A context to read a refused certificate with: see :func:`looking_context`. It is made of
        the files as they are now, which may take time. Raises TlsFileError."""

        def read() -> ssl.SSLContext | TlsFileError:
            try:
                return looking_context(self._files)
            except TlsFileError as error:
                return error

        found = await in_daemon_thread(read, "read certificates")
        if isinstance(found, TlsFileError):
            raise found
        return found

    @property
    def known(self) -> OwnCertificates:
        """When the files expire, and what is wrong with renewed ones."""
        return self._calling.known

    def refusal_of(self, peer: bytes | None) -> str | None:
        """Why the manager with this certificate, in DER, is refused; None if it is accepted."""
        try:
            shown = read_certificate(peer or b"")
        except ValueError as error:
            return str(error)
        # TLS checks the expiry only in a full handshake, and a session may be resumed.
        if ended := refusal_of_ended(shown, time.time()):
            return ended
        managers = _with_short_forms(self.managers())
        return refusal_of_peer(shown, managers, _with_short_forms(self._hosts) - managers)

    def refusal_of_name(self, shown: frozenset[str] | None, asked: str) -> str:
        """Why a certificate with the names `shown` (None: not known) is refused at this name."""
        return refusal_of_name(shown, normal_name(asked), _with_short_forms(self.managers()))

    async def watch(self, every_s: float = LOOK_EVERY_S) -> None:
        """Use renewed files, until cancelled."""
        await asyncio.gather(self._answering.watch(every_s), self._calling.watch(every_s))


def _with_short_forms(names: frozenset[str]) -> frozenset[str]:
    """The names as certificates hold them, and each host name without its domain."""
    normal = frozenset(map(normal_name, names))
    short = {name.partition(".")[0] for name in normal if not _is_address(name)}
    return normal | short


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdigit()
