"""Which parameters and variables hold secrets, by their names.

All code that shows or redacts, or that starts a program, uses these rules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

STORE_PASSWORD = "HALO_STORE_PASSWORD"
"""The environment variable that may hold the password for etcd."""

_SECRET_WORDS = (
    *("pass", "secret", "token", "pwd", "community", "credential", "private"),
    *("apikey", "api_key", "access_key"),
)


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Does a parameter of this name hold a secret, so that its value is never shown?"""
    lowered = name.lower().replace("-", "_")
    return any(word in lowered for word in _SECRET_WORDS)


def for_a_program(environment: Mapping[str, str], but_not: Collection[str] = ()) -> dict[str, str]:
    """The environment for a program that HALO starts: without HALO's own password, which the shell
    of an administrator or a file of systemd may have put there, and without `but_not`."""
    return {
        name: value
        for name, value in environment.items()
        if name != STORE_PASSWORD and name not in but_not
    }
