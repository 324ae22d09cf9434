"""Requests that are not HTTP: the log gets one line and then counts. aiohttp would log tracebacks.

Clients cause them. Ten thousand of them must not bury the manager's own messages.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

log = structlog.get_logger(__name__)

SHOWN_CHARACTERS = 120

_OF_CLIENTS = (HttpProcessingError, ConnectionError, web.RequestPayloadError)


class PatientRunner(web.AppRunner):
    """An AppRunner that also takes a CONNECT without a target (its first line ends after the
    blank).

    aiohttp's parser hands it on without a URL, and its own request object then fails, in a task
    that nobody waits for. Here it becomes a request for the root, where there is no route.
    """

    async def setup(self) -> None:
        await super().setup()
        assert self.server is not None
        make = self.server.request_factory

        def make_request(message: Any, *arguments: Any) -> web.BaseRequest:
            if message.url is None:
                message = message._replace(path="/", url=URL("/"))
            if not message.headers.get("Expect", "").isascii():
                message = message._replace(headers=_without_expect(message.headers))
            return make(message, *arguments)

        self.server.request_factory = make_request


def _without_expect(headers: Mapping[str, str]) -> CIMultiDictProxy[str]:
    """Drop the Expect header: aiohttp would quote it in its refusal, but it may not be a text."""
    kept = CIMultiDict(headers)
    kept.popall("Expect")
    return CIMultiDictProxy(kept)


def server_logger() -> logging.Logger:
    """The logger for the HTTP server of one application. It passes on what clients do not cause."""
    logger = logging.Logger("halo.http")
    logger.parent = logging.getLogger()
    logger.addFilter(_Malformed())
    return logger


class _Malformed(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, _OF_CLIENTS):
            return True
        self._count += 1
        if str(self._count).strip("0") == "1":  # the first, the tenth, the hundredth, ...
            said = " ".join(str(error).split()) or type(error).__name__
            log.warning("malformed requests", so_far=self._count, last=said[:SHOWN_CHARACTERS])
        return False
