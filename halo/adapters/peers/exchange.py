"""One HTTP request to another manager, over a connection of its own.

An HTTP/1.0 request gets its answer in one piece that ends with the connection. What matters most
is to know whether the request can have been received: a command must never take effect twice. A
library that keeps connections and repeats requests hides this moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from halo.adapters.peers.identity import PeerIdentity
from halo.adapters.peers.port import GREETING, TURNED_AWAY
from halo.adapters.tls.certificates import normal_name, read_certificate
from halo.adapters.tls.files import TlsFileError
from halo.core.errors import PeerSilent, PeerUnreachable
from halo.core.peers.certificates import perhaps_refused
from halo.error_words import words_of
from halo.ports import PeerAnswer, PeerRequest

CONNECT_DEADLINE_S = 5.0
HEAD_LIMIT_BYTES = 32 * 1024
ANSWER_LIMIT_BYTES = 64 * 1024 * 1024
HELD_LIMIT_BYTES = 128 * 1024 * 1024
"""Most bytes of all answers together that are under way."""

_PIECE_BYTES = 256 * 1024
_SHOWN_CHARACTERS = 500
_OTHER_NAME = (62, 64)
"""OpenSSL's codes for a certificate of another host name, and of another address."""


class PeerCalls:
    """Asks other managers. Implements :class:`halo.ports.ManagerPeers`."""

    def __init__(
        self,
        identity: PeerIdentity,
        *,
        answer_limit: int = ANSWER_LIMIT_BYTES,
        held_limit: int = HELD_LIMIT_BYTES,
    ) -> None:
        self._identity = identity
        self._answer_limit = answer_limit
        self._held_limit = held_limit
        self._held = 0

    async def ask(
        self, url: str, request: PeerRequest, deadline_s: float, sending: Callable[[], None]
    ) -> PeerAnswer:
        """The answer of the manager at `url`. See :class:`halo.ports.ManagerPeers`."""
        host, port = _address_of(url)
        loop = asyncio.get_running_loop()
        ends = loop.time() + deadline_s
        reader, writer = await self._connect(host, port, min(CONNECT_DEADLINE_S, deadline_s))
        try:
            await self._greeted(reader, min(CONNECT_DEADLINE_S, deadline_s))
            with _lost_is_silent(deadline_s):
                async with asyncio.timeout_at(ends):
                    sending()
                    writer.write(_as_bytes(request, host))
                    await writer.drain()
                    return await self._answer(reader)
        finally:
            writer.transport.abort()  # an orderly end would have to be waited for

    async def _connect(
        self, host: str, port: int, deadline_s: float
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ends = asyncio.get_running_loop().time() + deadline_s
        try:
            reader, writer = await _opened(host, port, self._identity.calling_context, ends)
        except TimeoutError:
            raise PeerUnreachable(f"no connection within {deadline_s:g} s") from None
        except ssl.SSLCertVerificationError as error:
            why = await self._why_not_trusted(host, port, error, ends)
            raise PeerUnreachable(f"its certificate is refused: {why}") from None
        except (OSError, ValueError, EOFError) as error:  # ValueError: a name that is no text
            raise PeerUnreachable(words_of(error)) from None
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        if (reason := self._identity.refusal_of(shown)) is not None:
            writer.transport.abort()
            raise PeerUnreachable(f"its certificate is refused: {reason}")
        return reader, writer

    async def _why_not_trusted(
        self, host: str, port: int, error: ssl.SSLCertVerificationError, ends: float
    ) -> str:
        if error.verify_code not in _OTHER_NAME:
            return (
                f"{error.verify_message}; it must be valid, and of the CA in {self._identity.ca}: "
                f"`halo tls peer {_clean(host)} --force`"
            )
        return self._identity.refusal_of_name(await self._names_at(host, port, ends), host)

    async def _names_at(self, host: str, port: int, ends: float) -> frozenset[str] | None:
        """The names in the certificate that is shown there; None if they cannot be read. This looks
        once more, because a failed handshake keeps nothing of it. Nothing is sent."""
        try:
            async with asyncio.timeout_at(ends):
                context = await self._identity.looking_context()
            _, writer = await _opened(host, port, context, ends)
        except (OSError, ValueError, EOFError, TlsFileError):
            return None
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        try:
            return read_certificate(shown or b"").names
        except ValueError:
            return None

    async def _greeted(self, reader: asyncio.StreamReader, deadline_s: float) -> None:
        """Return when the other end has let us in. Raises PeerUnreachable: nothing was sent yet."""
        try:
            async with asyncio.timeout(deadline_s):
                head = await reader.readuntil(b"\r\n\r\n")
        except TimeoutError:
            raise PeerUnreachable(f"it did not let us in within {deadline_s:g} s") from None
        except (asyncio.LimitOverrunError, asyncio.IncompleteReadError, OSError) as error:
            said = f" ({words_of(error)})" if isinstance(error, ssl.SSLError) else ""
            perhaps = perhaps_refused(self._identity.own_names)
            raise PeerUnreachable(f"it ended the connection{said}; {perhaps}") from None
        if head == GREETING:
            return
        told = head.decode("latin-1").partition(f"{TURNED_AWAY}: ")[2].partition("\r\n")[0]
        raise PeerUnreachable(f"it turned us away: {_clean(told)}" if told else "it is no manager")

    async def _answer(self, reader: asyncio.StreamReader) -> PeerAnswer:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise PeerSilent(f"its answer begins with over {HEAD_LIMIT_BYTES} bytes") from None
        status, fields = _head_of(head)
        length = _length_of(fields, self._answer_limit)
        return PeerAnswer(
            status,
            await self._body(reader, length),
            _clean(fields.get("content-type", "")),
            _clean(fields.get("allow", "")),
        )

    async def _body(self, reader: asyncio.StreamReader, length: int) -> bytes:
        """The body of this length. Its bytes count as held until it is handed out."""
        body = bytearray()
        try:
            while len(body) < length:
                if self._held >= self._held_limit:
                    raise PeerSilent("the answers of too many requests are under way")
                piece = await reader.read(min(_PIECE_BYTES, length - len(body)))
                if not piece:
                    raise PeerSilent("its answer is cut off")
                body += piece
                self._held += len(piece)
            return bytes(body)
        finally:
            self._held -= len(body)


async def _opened(
    host: str, port: int, context: ssl.SSLContext, ends: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with TLS. Raises TimeoutError if it does not stand at `ends`."""
    async with asyncio.timeout_at(ends):
        return await asyncio.open_connection(
            host,
            port,
            ssl=context,
            server_hostname=host,
            ssl_handshake_timeout=CONNECT_DEADLINE_S,
            limit=HEAD_LIMIT_BYTES,
        )


@contextlib.contextmanager
def _lost_is_silent(deadline_s: float) -> Iterator[None]:
    """What can go wrong after the first byte was sent, in our errors."""
    try:
        yield
    except TimeoutError:
        raise PeerSilent(f"no answer within {deadline_s:g} s") from None
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise PeerSilent("its answer is cut off") from None
        raise PeerSilent("it ended the connection without an answer") from None
    except (OSError, ValueError) as error:
        raise PeerSilent(words_of(error)) from None


def mistake_in_url(url: str) -> str | None:
    """Why no manager could be asked at this address, or None."""
    try:
        _address_of(url)
    except PeerUnreachable as error:
        return str(error)
    return None


def _address_of(url: str) -> tuple[str, int]:
    """Host and port of https://HOST:PORT. Raises PeerUnreachable."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None or parts.scheme != "https" or parts.path not in ("", "/"):
        raise PeerUnreachable(f"its address {_clean(url)} is not https://HOST:PORT")
    return normal_name(host), port


def _as_bytes(request: PeerRequest, host: str) -> bytes:
    fields = {**request.headers, "Host": host, "Content-Length": str(len(request.body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{request.method} {request.target} HTTP/1.0\r\n{head}\r\n".encode() + request.body


def _head_of(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and header fields of an answer (RFC 9112, sections 4 and 5). Raises PeerSilent."""
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if not first.startswith("HTTP/1.") or len(words) < 2 or not _is_number(words[1], 3):
        raise PeerSilent("its answer is not HTTP")
    fields = (line.partition(":") for line in lines if line)
    status = int(words[1])
    if not 200 <= status <= 599:
        raise PeerSilent(f"its answer has the HTTP status {status}")
    return status, {name.strip().lower(): value.strip() for name, _, value in fields}


def _length_of(fields: dict[str, str], limit: int) -> int:
    """The length of the body. Managers always tell it. Raises PeerSilent."""
    told = fields.get("content-length", "")
    if not _is_number(told, 18) or "transfer-encoding" in fields:
        raise PeerSilent("its answer does not tell its length")
    if int(told) > limit:
        raise PeerSilent(f"its answer is larger than {limit} bytes")
    return int(told)


def _is_number(text: str, digits: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= digits


def _clean(text: str) -> str:
    """Words of another end, cut, on one line and printable."""
    return "".join(c if c.isprintable() else "?" for c in text[:_SHOWN_CHARACTERS])
