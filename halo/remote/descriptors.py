"""The open files of the agent: how many it may have, and that scripts get none of them."""

from __future__ import annotations

import contextlib
import os
import resource

import structlog

log = structlog.get_logger()

WANTED = 4096
"""Of 300 busy resources each takes three, and with them come what ended scripts left open, the
connections of managers, and handshakes: about 1,500.

Scripts inherit the limit. It is low enough for those that close every descriptor there could be."""


def keep_descriptors() -> None:
    """Have no script inherit what this process was started with, beyond its standard streams.
    Python opens everything else so that `exec` closes it."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(int(name), False)


def raise_descriptor_limit() -> None:
    """1,024, as most systems give a service, is too few for a host where all scripts hang."""
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
