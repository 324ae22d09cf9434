"""The open files of the agent: their limit, and that scripts do not inherit them."""

from __future__ import annotations

import contextlib
import os
import resource

import structlog

log = structlog.get_logger()

WANTED = 4096
"""300 busy resources need three each. Pipes that ended scripts left open, connections of managers
and handshakes are added: about 1,500.

Scripts inherit the limit. It is low enough for scripts that close every possible descriptor."""


def keep_descriptors() -> None:
    """Scripts must not inherit the files that this process was started with, except the standard
    streams. All files that Python opens are closed by `exec`."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(int(name), False)


def raise_descriptor_limit() -> None:
    """Raise the limit. Most systems allow 1,024, too few for a host where all scripts hang."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < WANTED:
        log.warning(
            "few open files are allowed",
            limit=wanted,
            advice=f"allow {WANTED} (LimitNOFILE= of the service); otherwise, if many scripts hang,"
            " the agent cannot accept a manager",
        )
