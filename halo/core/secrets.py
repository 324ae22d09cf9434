"""Which parameters hold secrets, by their names. All code that shows or redacts uses this rule."""

from __future__ import annotations

from functools import lru_cache

_SECRET_WORDS = (
    *("pass", "secret", "token", "pwd", "community", "credential", "private"),
    *("apikey", "api_key", "access_key"),
)


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Does a parameter of this name hold a secret, so that its value is never shown?"""
    lowered = name.lower().replace("-", "_")
    return any(word in lowered for word in _SECRET_WORDS)
