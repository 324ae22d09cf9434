"""What an error of the socket, TLS or resolver layer says about the link that it ended."""

from __future__ import annotations

import errno
import socket
import ssl

from halo.core.errors import Loss, LossKind
from halo.error_words import words_of

_KIND_OF_ERRNO = {
    errno.ECONNREFUSED: LossKind.REFUSED,
    errno.ECONNRESET: LossKind.RESET,
    errno.ECONNABORTED: LossKind.RESET,
    errno.EPIPE: LossKind.RESET,
    errno.ETIMEDOUT: LossKind.SILENT,
    errno.EHOSTUNREACH: LossKind.NO_ROUTE_TO_HOST,
    errno.EHOSTDOWN: LossKind.NO_ROUTE_TO_HOST,
    errno.ENETUNREACH: LossKind.NO_ROUTE_TO_NETWORK,
    errno.ENETDOWN: LossKind.NO_ROUTE_TO_NETWORK,
}


def loss_of(error: BaseException | None) -> Loss:
    """What an exception of the socket, TLS or resolver layer says about the link.

    None is an orderly end of the stream. Errors that the network did not cause (descriptors,
    memory, permissions) are LOCAL: they prove nothing about the host.
    """
    if error is None:
        return Loss(LossKind.RESET, "closed by the agent's host")
    if isinstance(error, ssl.SSLError | ssl.CertificateError):
        return Loss(LossKind.TLS, words_of(error))
    if isinstance(error, socket.gaierror):
        return Loss(LossKind.DNS, words_of(error))
    if isinstance(error, OSError):
        kind = _KIND_OF_ERRNO.get(error.errno or 0)
        if kind is None and isinstance(error, ConnectionError):
            kind = LossKind.RESET
        return _lost(kind or LossKind.LOCAL, error)
    if isinstance(error, MemoryError):
        return Loss(LossKind.LOCAL, "out of memory")
    return Loss(LossKind.PROTOCOL, words_of(error))


def _lost(kind: LossKind, error: OSError) -> Loss:
    words = words_of(error)
    return Loss(kind, "" if words == kind.value else words)
