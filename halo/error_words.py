"""The words of an error of the system or of a library, for people.

Every program shows such errors through this module. asyncio and aiohttp put Python's own form into
theirs, such as `[Errno 111] Connect call failed ('127.0.0.1', 2379)`. An operator needs the words
alone: `connection refused`. The caller says what was tried, where, and what to do.

Nothing is imported here that costs time at a start: an error is looked at only when it is there.
"""

from __future__ import annotations

import errno
import os
import re

LENGTH_LIMIT = 500
"""Characters that are shown. The other end may have chosen the words."""

_OF_NETWORK = {
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.ECONNABORTED: "the connection was ended here",
    errno.EPIPE: "the other end has ended the connection",
    errno.ETIMEDOUT: "no answer in time",
    errno.EHOSTUNREACH: "no route to host",
    errno.EHOSTDOWN: "no route to host",
    errno.ENETUNREACH: "network unreachable",
    errno.ENETDOWN: "network unreachable",
}

_OF_CLASS: dict[type[BaseException], int] = {
    ConnectionRefusedError: errno.ECONNREFUSED,
    ConnectionResetError: errno.ECONNRESET,
    ConnectionAbortedError: errno.ECONNABORTED,
    BrokenPipeError: errno.EPIPE,
    TimeoutError: errno.ETIMEDOUT,
}
"""Errors that Python also raises without a number and without a text."""

_NUMBER = re.compile(r"\[Errno (\d+)\]")
_OF_OPENSSL = re.compile(r"^\[[^\]]*\]\s*|\s*\(_ssl\.c:\d+\)$")


def words_of(error: BaseException) -> str:
    """An error in words, on one line, without its number and without Python's form of an address.

    They may stand behind a colon. They are never empty."""
    text = _words(error) or type(error).__name__
    return "".join(c if c.isprintable() else " " for c in text)[:LENGTH_LIMIT]


def _words(error: BaseException) -> str:
    for name in ("certificate_error", "os_error"):  # aiohttp's errors hold the one that counts
        inner = getattr(error, name, None)
        if isinstance(inner, BaseException) and inner is not error:
            return _words(inner)
    if not isinstance(error, OSError):
        return str(error)
    if verified := getattr(error, "verify_message", None):
        return f"certificate refused: {verified}"
    return _of_library(error) or _of_system(error)


def _of_library(error: OSError) -> str | None:
    """The words of OpenSSL and of the resolver. Their numbers are not those of the system."""
    from socket import gaierror, herror
    from ssl import SSLError

    if isinstance(error, SSLError):
        return _OF_OPENSSL.sub("", error.strerror or str(error))
    if isinstance(error, gaierror | herror):
        return error.strerror or str(error)
    return None


def _of_system(error: OSError) -> str:
    if error.errno:
        return _named(error.errno)
    text = str(error)
    if not text and type(error) in _OF_CLASS:
        return _named(_OF_CLASS[type(error)])
    # If several addresses were tried, asyncio puts all errors into one text.
    numbers = dict.fromkeys(map(int, _NUMBER.findall(text)))
    return ", ".join(map(_named, numbers)) or text


def _named(number: int) -> str:
    return _OF_NETWORK.get(number) or os.strerror(number)
