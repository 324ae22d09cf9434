"""Which parameters hold secrets, by their names. One rule for everything that shows or redacts."""

from __future__ import annotations

import re

_SECRET_NAME = re.compile(r"pass|secret|token|pwd|community|credential|private", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Does a parameter of this name hold a secret, so that its value is never shown?"""
    return bool(_SECRET_NAME.search(name))
