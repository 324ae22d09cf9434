"""The HTTP headers of managers among themselves, and who asked for a request that was sent on."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from socket import SO_PEERCRED, SOL_SOCKET

from aiohttp import web

LEADER = "X-Halo-Leader"
"""In every answer: the id of the manager that leads."""
FORWARDED = "X-Halo-Forwarded"
"""In a request that was sent on: the id of the manager that did so. It is never sent on again."""
ASKER = "X-Halo-Asker"
"""In such a request: who asked that manager, as its kernel reports it."""

_ASKER = re.compile(r"uid=(\d{1,10}) pid=(\d{1,10})")
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Asker:
    """Who asked, as a kernel reports it. `via` is the manager that sent the request on."""

    uid: int | None = None
    pid: int | None = None
    via: str | None = None


def is_from_manager(request: web.Request) -> bool:
    """Did it come over the port for managers? Only there clients have certificates."""
    return request.get_extra_info("ssl_object") is not None


def asker_of(request: web.Request) -> Asker:
    """Who asked. The headers count only if another manager sent them: on the Unix socket, anybody
    could write them."""
    if is_from_manager(request):
        via = _ID.fullmatch(request.headers.get(FORWARDED, ""))
        found = _ASKER.fullmatch(request.headers.get(ASKER, ""))
        uid, pid = (int(found[1]), int(found[2])) if found else (None, None)
        return Asker(uid, pid, via[0] if via else "unknown")
    socket = request.get_extra_info("socket")
    if socket is None:
        return Asker()
    try:
        credentials = socket.getsockopt(SOL_SOCKET, SO_PEERCRED, struct.calcsize("3i"))
    except OSError:  # the client has gone already, but its command is carried out
        return Asker()
    pid, uid, _gid = struct.unpack("3i", credentials)
    return Asker(uid, pid)


def asker_header(asker: Asker) -> dict[str, str]:
    """The header with which a request is sent on."""
    if asker.uid is None or asker.pid is None:
        return {}
    return {ASKER: f"uid={asker.uid} pid={asker.pid}"}
