"""One request to one member of etcd, over its JSON gateway: bounded in time and size.

All exceptions of aiohttp end here. What a member says is checked before it is believed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp

from halo.adapters.etcd.errors import (
    EtcdError,
    LeaseGone,
    NoAnswer,
    NoGateway,
    NoSpace,
    NotAllowed,
    Refused,
    TooOld,
)
from halo.adapters.etcd.location import Store
from halo.adapters.etcd.resolver import Resolver
from halo.adapters.etcd.values import Json, Malformed, parsed
from halo.error_words import words_of

ANSWER_LIMIT_BYTES = 32 * 1024 * 1024
CONNECT_DEADLINE_S = 1.0
TEXT_LIMIT = 300  # characters of a member's words that are quoted

COMMON_NAME = (
    "the gateway of etcd takes no client certificate that has a common name (CN) while etcd has "
    "users: give one with an empty CN to --store-cert"
)

_APIS = ("/v3", "/v3beta")
"""etcd 3.4 and later; 3.3."""

# gRPC status codes, https://grpc.github.io/grpc/core/md_doc_statuscodes.html
_NOT_FOUND, _DENIED, _EXHAUSTED, _OUT_OF_RANGE, _UNAUTHENTICATED = 5, 7, 8, 11, 16
_NO_OUTCOME = {1, 2, 4, 10, 13, 14}
"""Cancelled, unknown, deadline, aborted, internal, unavailable: it may have been carried out."""

_STALE_TOKEN = ("invalid auth token", "revision of auth store is old", "revision in header is old")
_CREDENTIALS = ("user name is empty", "invalid user ID or password", "user name not found")


class StaleToken(Refused):
    """The token of the user is not valid any more: authenticate again."""


class NoAuthentication(Refused):
    """The members ask nobody for a password."""


class Gateway:
    """Requests to the members of one store. Use it on one event loop, and close it."""

    def __init__(self, store: Store, answer_limit_bytes: int = ANSWER_LIMIT_BYTES) -> None:
        self._limit_bytes = answer_limit_bytes
        self._scheme = "http" if store.tls is None else "https"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=store.tls or True, limit_per_host=8, resolver=Resolver()
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self._apis: dict[str, str] = {}
        self._cluster_id: str | None = None

    async def close(self) -> None:
        """Close all connections. Safe to repeat."""
        await self._session.close()

    async def ask(
        self, member: str, path: str, body: Json, token: str | None, deadline_s: float
    ) -> Json:
        """The answer of one member. Raises EtcdError."""
        data = json.dumps(body).encode()
        known = self._apis.get(member)
        for api in (known,) if known else _APIS:
            url = f"{self._scheme}://{member}{api}/{path}"
            status, text = await self._exchange(url, data, token, deadline_s)
            if status == 404 and not text.lstrip().startswith(b"{"):
                continue  # no such path: another version, or no gateway
            self._apis[member] = api
            return self._checked(status, text)
        raise NoGateway(
            "it has no JSON gateway; start etcd with --enable-grpc-gateway=true, which is not the "
            "default where etcd 3.4 has a config file"
        )

    async def _exchange(
        self, url: str, data: bytes, token: str | None, deadline_s: float
    ) -> tuple[int, bytes]:
        try:
            async with self._post(url, data, token, deadline_s) as response:
                pieces, size = [], 0
                async for piece in response.content.iter_any():
                    pieces.append(piece)
                    size += len(piece)
                    if size > self._limit_bytes:
                        response.close()
                        raise NoAnswer(f"answer over {self._limit_bytes} bytes", unknown=True)
                return response.status, b"".join(pieces)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _failure(error, deadline_s) from error

    def _post(
        self, url: str, data: bytes, token: str | None, deadline_s: float
    ) -> Any:  # aiohttp's context manager of a request
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = token
        connect_s = min(deadline_s, CONNECT_DEADLINE_S)
        timeout = aiohttp.ClientTimeout(total=deadline_s, sock_connect=connect_s)
        return self._session.post(
            url, data=data, headers=headers, timeout=timeout, allow_redirects=False
        )

    def _checked(self, status: int, text: bytes) -> Json:
        try:
            answer = parsed(text)
        except Malformed as error:
            if status == 400 and b"CommonName" in text[:1000]:
                raise NotAllowed(COMMON_NAME) from error
            raise NoAnswer(f"HTTP status {status}, and {error}", unknown=True) from error
        if status != 200 or "error" in answer:
            raise _refusal(answer)
        self._require_same_cluster(answer.get("result", answer))
        return answer

    def _require_same_cluster(self, answer: object) -> None:
        """A record that was written in one cluster would be missing in the other."""
        header = answer.get("header") if isinstance(answer, dict) else None
        found = header.get("cluster_id") if isinstance(header, dict) else None
        if type(found) is not str:
            raise NoAnswer("its answer names no cluster, so it is not etcd", unknown=True)
        self._cluster_id = self._cluster_id or found
        if found != self._cluster_id:
            raise NoAnswer(
                "it belongs to another etcd cluster than the other members of --store; correct the "
                "list of members",
                unknown=True,
            )

    async def lines(
        self, member: str, path: str, body: Json, token: str | None, deadline_s: float
    ) -> AsyncIterator[Json]:
        """The lines of a stream as they come, for at most `deadline_s`. Raises EtcdError.

        Lines are split here: aiohttp's own `readline` fails for a line over 64 KiB."""
        url = f"{self._scheme}://{member}{self._apis.get(member, _APIS[0])}/{path}"
        rest = b""
        try:
            async with self._post(url, json.dumps(body).encode(), token, deadline_s) as response:
                async for piece in response.content.iter_any():
                    *whole, rest = (rest + piece).split(b"\n")
                    for line in whole:
                        yield self._checked(response.status, line)
                    if len(rest) > self._limit_bytes:
                        response.close()
                        raise NoAnswer(f"line over {self._limit_bytes} bytes", unknown=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _failure(error, deadline_s) from error


def _failure(error: Exception, deadline_s: float) -> EtcdError:
    """What an exception of aiohttp means."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return NoAnswer(f"TLS failed: {words_of(error)}", unknown=False)
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
        text = "no connection"
        if isinstance(error, aiohttp.ClientConnectorError):
            text = f"no connection: {words_of(error)}"
        return NoAnswer(text, unknown=False)
    if isinstance(error, aiohttp.ClientResponseError) and error.status // 100 != 5:
        return NoGateway(
            "it does not speak HTTP/1.1; if etcd has --listen-client-http-urls, name that port in "
            "--store; if it wants TLS, give --store-ca"
        )
    if isinstance(error, TimeoutError):
        return NoAnswer(f"no answer within {deadline_s:.1f} s", unknown=True)
    return NoAnswer(f"the connection ended without an answer ({words_of(error)})", unknown=True)


def _refusal(answer: Mapping[str, Any]) -> EtcdError:
    """What an answer with an error means. Streams put the code and the words one level deeper."""
    inner = answer.get("error")
    said = inner if isinstance(inner, dict) else answer
    text = said.get("message") or (inner if isinstance(inner, str) else "")
    text = str(text)[:TEXT_LIMIT] or "an error without words"
    code = said.get("code", said.get("grpc_code"))
    if type(code) is not int or code in _NO_OUTCOME:
        return NoAnswer(text, unknown=True)
    if code == _UNAUTHENTICATED or any(words in text for words in _STALE_TOKEN):
        return StaleToken(text)
    if code == _DENIED or any(words in text for words in _CREDENTIALS):
        return NotAllowed(text)
    if code == _NOT_FOUND and "lease" in text:
        return LeaseGone(text)
    if code == _EXHAUSTED and "space exceeded" in text:
        return NoSpace(text)
    if code == _OUT_OF_RANGE:
        return TooOld(text)
    if "authentication is not enabled" in text:
        return NoAuthentication(text)
    return Refused(text)
