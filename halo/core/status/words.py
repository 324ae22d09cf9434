"""The words of a status, and how several sentences become one text."""

from __future__ import annotations

RUNNING = "Running"
FAILED_OVER = "Running (Failed Over)"
STOPPED = "Stopped"
ERROR = "Error"
UNKNOWN = "Unknown"


def joined(parts: list[str]) -> str:
    """Sentences as one text. A sentence that is part of another one is left out."""
    said = list(dict.fromkeys(filter(None, parts)))
    return "; ".join(
        part for part in said if not any(part in other for other in said if other != part)
    )
